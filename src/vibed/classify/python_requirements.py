"""The lists of requirements that Python apps have, in whatever form: what is asked for, line by line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vibed.classify.errors import BadRequirements
from vibed.classify.tree import Tree, strings, table
from vibed.sources.errors import quoted

_INCLUDE = re.compile(r"(?:-r|--requirement)[ =]?\s*(\S+)")
_ADDRESS = re.compile(r"^(?:git\+|hg\+|svn\+|https?://|file:|ssh:|\.{1,2}/|/|[\w.-]+\.(?:whl|tar\.gz|zip)$)")
_REQUIREMENTS = ("requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt")
_MOST_FILES = 10
_LONGEST_LINE = 2000


@dataclass(frozen=True)
class Wanted:
    name: str
    shown: str
    specifier: SpecifierSet


def declared(tree: Tree, python: str) -> tuple[list[Wanted], list[str]]:
    environment = {
        "python_version": python, "python_full_version": f"{python}.0", "implementation_version": f"{python}.0",
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64",
        "platform_python_implementation": "CPython", "implementation_name": "cpython", "platform_release": "",
        "platform_version": "", "extra": "",
    }  # fmt: skip
    wanted: list[Wanted] = []
    addresses: list[str] = []
    for where, full in _lines(tree):
        line = full[:_LONGEST_LINE]
        text = line.split(" #")[0].split(" --")[0].strip().rstrip("\\").strip()
        if _ADDRESS.match(text):
            addresses.append(text[:100])
            continue
        try:
            parsed = Requirement(text)
            applies = parsed.marker is None or parsed.marker.evaluate(environment)
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
            reason = str(error).splitlines()[0][:120]
            raise BadRequirements(
                f"{where} is not a requirement: {quoted(line)} ({reason})",
                hint="write one package a line, for example flask>=3, and nothing else but # comments",
                details={"line": line[:200]},
            ) from None
        if not applies:
            continue
        name = canonicalize_name(parsed.name)
        if parsed.url and parsed.url.startswith("file:///"):
            # where it lay on the machine whose packages were listed (pip freeze, in an environment of conda)
            wanted.append(Wanted(name, name, SpecifierSet()))
        elif parsed.url:
            addresses.append(f"{parsed.name} @ {parsed.url}"[:100])
        else:
            wanted.append(Wanted(name, f"{name}{parsed.specifier}", parsed.specifier))
    return wanted, addresses


def _lines(tree: Tree) -> list[tuple[str, str]]:
    """Requirement lines of whichever list the app has, each with where it stands."""
    listed = tree.first(_REQUIREMENTS)
    if listed:
        return _requirement_lines(tree, listed)
    if tree.has("pyproject.toml"):
        data = tree.toml("pyproject.toml")
        project = table(data.get("project")).get("dependencies")
        if isinstance(project, list):
            return [("pyproject.toml: an entry of dependencies", text) for text in project if isinstance(text, str)]
        poetry = table(table(table(data.get("tool")).get("poetry")).get("dependencies"))
        if poetry:
            return _tables("pyproject.toml: a dependency of Poetry", poetry)
    if tree.has("Pipfile"):
        return _tables("Pipfile: a package", table(tree.toml("Pipfile").get("packages")))
    other = next((name for name in tree.root if name.startswith("requirements") and name.endswith(".txt")), None)
    return _requirement_lines(tree, other) if other else []


def _requirement_lines(tree: Tree, first: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    waiting = [first]
    seen: set[str] = set()
    while waiting and len(seen) < _MOST_FILES:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        text = tree.text(path).replace("\\\n", " ")
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip()[:_LONGEST_LINE]
            if not stripped or stripped[0] == "#":
                continue
            if stripped[0] == "-":
                include = _INCLUDE.match(stripped)
                if include:
                    folder = path.rpartition("/")[0]
                    waiting.append(f"{folder}/{include[1]}" if folder else include[1].removeprefix("./"))
                continue
            found.append((f"line {number} of {path}", stripped))
    return found


def _tables(where: str, entries: Mapping[str, object]) -> list[tuple[str, str]]:
    found = []
    for name, value in entries.items():
        if name.lower() == "python":
            continue
        if isinstance(value, dict):
            if strings(value).keys() & {"git", "path", "url", "file"} or value.get("optional") is True:
                if value.get("optional") is not True:
                    address = strings(value)
                    found.append((where, address.get("git") or address.get("url") or f"./{name}"))
                continue
            value = value.get("version", "*")
        text = value.strip() if isinstance(value, str) else "*"
        found.append((where, name + poetry_version(text)))
    return found


def poetry_version(text: str) -> str:
    """Poetry's and Pipfile's version syntax as PEP 440: `^1.2`, `~1.2`, `1.2`, `*`."""
    if text in ("", "*"):
        return ""
    if text[0] in "^~" and text[:2] != "~=":
        number = text[1:].strip()
        parts = number.split(".")
        if text[0] == "^":
            digits = [_digits(p) for p in parts]
            at = next((i for i, d in enumerate(digits) if d), len(digits) - 1)
            upper = [*digits[:at], digits[at] + 1]
        else:
            upper = [_digits(p) for p in parts[:2]]
            upper[-1] += 1
        return f">={number},<{'.'.join(map(str, upper))}"
    return f"=={text}" if text[0].isdigit() else text


def _digits(part: str) -> int:
    return int(part) if re.fullmatch(r"[0-9]{1,9}", part) else 0
