"""uv's own words about a failure, read (uv 0.13; tests/unit/last_words/uv_*.txt are its real outputs)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from vibed.runtimes.layers.compiler_words import HERE, lack, wants_compiler
from vibed.runtimes.layers.trouble import Trouble, not_there
from vibed.sandboxes.diagnosis import slips

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_TOO_LONG = 400
_CONCLUSION = ", we can conclude that your requirements are unsatisfiable."
_NOT_FOUND = re.compile(rf"({_NAME}) was not found in the package registry")
_BUILD = re.compile(rf"Failed to (?:build|download and build) `({_NAME})(?:==([^`]+))?`")
_OTHER_PYTHON = re.compile(r"Python version \([^)]*\) does not satisfy Python(\S+) and (\S+?)==(\S+) depends on Python")
_UNREACHABLE = ("Failed to fetch", "error sending request", "operation timed out", "dns error", "502 ", "503 ", "504 ")
_LAST_WORDS = re.compile(r"(?:^|: )(?:fatal error|ERROR|[Ee]rror|Exception|[A-Za-z.]+(?:Error|Exception)): ?\S")
_INSTEAD = {
    "psycopg2": "psycopg2-binary instead, which is imported by the same name and needs nothing compiled",
    "psycopg-c": "psycopg[binary] instead, which needs nothing compiled",
    "mysqlclient": "PyMySQL instead, which needs nothing compiled (pymysql.install_as_MySQLdb() has it stand in)",
    "python-ldap": "ldap3 instead, which needs nothing compiled",
    "uwsgi": "gunicorn instead, which is there",
}
"""What does the same as a package that wants what no builder has."""


def explain(output: str, python: str, unknown: Iterable[str] = ()) -> Trouble:
    """`python`: the language's version, such as 3.13; `unknown`: what the registry is known not to have."""
    lines = output.splitlines()
    begin = max((n for n, line in enumerate(lines) if line.startswith("error: ")), default=None)
    if begin is None:
        last = next((line.strip() for line in reversed(lines) if line.strip()), "uv said nothing")
        return Trouble(_short(last))
    head, causes, rest = lines[begin].removeprefix("error: "), _causes(lines[begin + 1 :]), lines[begin + 1 :]
    hint = next((line.removeprefix("hint: ") for line in rest if line.startswith("hint: ")), "")
    if head.startswith("Couldn't parse requirement"):
        return _unparsed(causes, rest)
    if head.startswith("No solution found"):
        return _unsolved(" ".join(causes), hint, python, unknown)
    if match := _BUILD.search(head):
        return _unbuilt(match[1], match[2] or "", rest, python, output)
    if head.startswith("Git operation"):
        return Trouble(
            "a requirement comes from a git repository, and only the package registries can be reached",
            "ask for a version that is published, or put the package's folder into the source",
        )
    if any(words in output for words in _UNREACHABLE):
        place = re.search(r"https?://\S+?/([^/\s`]+)/?[\s`]", " ".join([head, *causes]) + " ")
        return Trouble(
            f"the package registry did not give {place[1] if place else 'a package'}: {_short((causes or [head])[-1])}",
            "retrying may help: the registry could not be reached, or did not answer",
            retryable=True,
        )
    return Trouble(_short(": ".join([head, *causes[:2]])), packages=_names(head))


_MARKED = re.compile(r"\s*\^[\^~]*\s*")


def _unparsed(causes: list[str], rest: list[str]) -> Trouble:
    """The line is quoted below the cause, with a mark below it."""
    mark = next((n for n, line in enumerate(rest) if _MARKED.fullmatch(line)), None)
    line = rest[mark - 1].strip() if mark else ""
    why = causes[0].partition(f" {line}")[0] if causes and line else "it cannot be read"
    if "Expected one of" in why:
        why = "a name is followed by a version or nothing"
    return Trouble(f"the line {_quoted(line)} is no requirement: {why}", "correct that line, or remove it")


def _unsolved(cause: str, hint: str, python: str, unknown: Iterable[str]) -> Trouble:
    # uv names the first
    named = [*_NOT_FOUND.findall(cause), *unknown]
    if missing := list(dict.fromkeys(canonicalize_name(name) for name in named)):
        return Trouble(
            not_there(missing),
            slips.corrected(missing, "python", "the name to install is not always the one to import"),
            frozenset(missing),
        )
    why = cause.strip().removeprefix("Because ").removesuffix(_CONCLUSION)
    why = why.replace(", we can conclude that ", ", so ").replace(". And because ", "; and ")
    if match := re.fullmatch(r"there is no version of (\S+?)==(\S+) and you require .*", why):
        return Trouble(
            f"{match[1]} has no version {match[2]}",
            f"ask for one that exists, or write {match[1]} without a version",
            frozenset({canonicalize_name(match[1])}),
        )
    if match := re.fullmatch(r"only (\S+?)([<>=]\S+) is available and you require (\S+)", why):
        return Trouble(
            f"{match[3]} cannot be had: there is only {match[1]}{match[2]}",
            "ask for a version that exists",
            frozenset({canonicalize_name(match[1])}),
        )
    if match := re.match(r"(\S+?)==(\S+) has no wheels with a matching Python", why):
        return Trouble(
            f"{match[1]} {match[2]} has nothing for Python {python}",
            _first(hint, f"ask for a version that supports Python {python}"),
            frozenset({canonicalize_name(match[1])}),
            unmet=True,
        )
    if match := _OTHER_PYTHON.search(why):
        return Trouble(
            f"{match[2]} {match[3]} needs Python {match[1]}, and this is Python {python}",
            f"ask for a version of {match[2]} that supports Python {python}",
            frozenset({canonicalize_name(match[2])}),
            unmet=True,
            fits=_minors(match[1]),
        )
    return Trouble(
        f"versions do not fit each other: {_short(why)}",
        _first(hint, "change the versions so that they fit each other"),
        _names(why),
    )


def _minors(specifier: str) -> frozenset[int] | None:
    """Of Python 3, those that are allowed; None where it cannot be read."""
    try:
        allowed = SpecifierSet(specifier)
    except InvalidSpecifier:
        return None
    return frozenset(minor for minor in range(31) if any(allowed.contains(f"3.{minor}.{n}") for n in (0, 99)))


def _unbuilt(name: str, version: str, rest: list[str], python: str, output: str) -> Trouble:
    said = [line.strip() for line in rest]
    words = [line for line in said if _LAST_WORDS.search(line)]
    named = [line.removeprefix("`") for line in said if "is using the `[project]` table" in line]
    wanted = lack(output)
    why = wanted.message if wanted else (words or named or ["its build says no more"])[-1]
    message = f"{name} {version}".strip() + f" could not be built: {_short(why)}"
    compiler = wants_compiler(output)
    hint = f"ask for another version of {name}"
    if instead := _INSTEAD.get(canonicalize_name(name)):
        hint = f"ask for {instead}"
    elif wanted is not None or compiler:
        hint = f"ask for a version of {name} that has a wheel for Python {python}, or for another package"
        if wanted is not None and wanted.hopeless:
            hint += f"; packages are compiled with {HERE} alone"
    # an old one may have been built already for an older Python
    return Trouble(message, hint, frozenset({canonicalize_name(name)}), compiler=compiler, unmet=True)


def _causes(lines: list[str]) -> list[str]:
    """Those that follow an error, each in one line."""
    found: list[str] = []
    for line in lines:
        if match := re.match(r"\s{2,}cause: (.*)", line):
            found.append(match[1].strip())
        elif found and re.match(r"\s{9}\S", line) and not line.strip().startswith(("[std", "|", "^")):
            found[-1] += f" {line.strip()}"
        else:
            break
    return found


def _names(text: str) -> frozenset[str]:
    """Everything in it that a version follows, or that is quoted as a package."""
    pinned = re.findall(rf"\b({_NAME})\s*(?:\[[^\]]*\])?\s*(?:[=<>!~]=?=?\s*\d)", text)
    plain = re.findall(rf"\b(?:of|require|requires|depends on|and|Because|because)\s+({_NAME})\b", text)
    words = {"you", "all", "only", "the", "there", "versions", "one", "your", "Python", "python"}
    return frozenset(canonicalize_name(name) for name in {*pinned, *plain} - words)


def _quoted(line: str) -> str:
    return f'"{_short(line, 120)}"' if line else "of the list"


def _short(text: str, most: int = _TOO_LONG) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _first(*choices: str) -> str:
    return next((choice for choice in choices if choice), "")
