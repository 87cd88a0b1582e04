"""npm's own words about a failure, read (npm 12; tests/unit/last_words/npm_*.txt are its real outputs)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vibed.runtimes.layers.compiler_words import HERE, lack, wants_compiler
from vibed.runtimes.layers.trouble import Trouble, not_there
from vibed.sandboxes.diagnosis import slips

_UNREACHABLE = (
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ENETUNREACH",
    "ERR_SOCKET_TIMEOUT",
    "FETCH_ERROR",
    "E500",
    "E502",
    "E503",
    "E504",
)
_TOO_LONG = 400


def explain(output: str, node: str, unknown: Iterable[str] = ()) -> Trouble:
    """`node`: its version, such as 24.19.0; `unknown`: what the registry is known not to have."""
    lines = [line.removeprefix("npm error").strip() for line in output.splitlines() if line.startswith("npm error")]
    code = next((line.removeprefix("code ") for line in lines if line.startswith("code ")), "")
    # "404  The requested …": what begins with the code's own word is its explanation
    said = [re.sub(r"^(?:404|notarget|ERESOLVE|JSON\.parse|code \S+)\s*", "", line) for line in lines]
    said = [line for line in said if line and not line.startswith(("A complete log", "For a full report", "/"))]
    if code == "E404":
        return _no_file(said) or _not_there(said, unknown)
    if code == "ETARGET":
        name = re.search(r"No matching version found for (.+)@([^@\s]+?)\.?$", "\n".join(said), re.MULTILINE)
        if name:
            return Trouble(
                f"{name[1]} has no version {name[2]}",
                "ask for one that exists",
                frozenset({name[1]}),
            )
    if code == "ERESOLVE":
        wanted = next((line for line in said if line.startswith("peer ")), "")
        found = next((line.removeprefix("Found: ") for line in said if line.startswith("Found: ")), "")
        why = f"{wanted} wants it, and {found} is there" if wanted and found else "peer dependencies do not fit"
        return Trouble(_short(f"versions do not fit each other: {why}"), "change one of them", peers=True)
    if code == "EUSAGE" and any("in sync" in line for line in said):
        why = next((line for line in said if line.startswith(("Invalid:", "Missing:"))), "")
        return Trouble(
            _short(f"package-lock.json does not fit package.json: {why}"), "run npm install", stale_lock=True
        )
    if code in ("EALLOWGIT", "128", "ENOENT") and "git" in output:
        what = next((match[1] for line in said if (match := re.search(r'fetch "([^"]+)"', line))), "")
        return Trouble(
            f"{what or 'a package'} comes from a git repository, and only the package registries can be reached",
            "ask for a version that is published",
            frozenset(_packages(what)),
        )
    if code == "EINTEGRITY":
        return Trouble(
            _short(f"a file is not the one that the lock names: {said[0] if said else ''}"),
            "make package-lock.json anew: npm install",
        )
    if code == "EJSONPARSE":
        why = next((line for line in said if "JSON" in line), "it is no JSON")
        return Trouble(_short(f"package.json cannot be read: {why}"), "correct the file")
    if code in _UNREACHABLE or (not code and any(word in output for word in _UNREACHABLE)):
        return Trouble(
            f"the package registry could not be reached: {_short(next((x for x in said if 'failed' in x), code))}",
            "retrying may help",
            retryable=True,
        )
    if code == "EBADENGINE":
        wanted = next((line for line in said if line.startswith("Required:")), "")
        package = re.search(r"compatible with (?:your version of node/npm: )?(\S+?)@", "\n".join(said))
        return Trouble(
            _short(f"{package[1] if package else 'a package'} is not for Node {node}: {wanted}"),
            "ask for a version that is",
            unmet=True,
        )
    if any(line.startswith("command failed") for line in said):
        return _script(output, lines, node)
    return Trouble(_short(said[0] if said else _last(output)), packages=frozenset(_packages("\n".join(said))))


def _no_file(said: list[str]) -> Trouble | None:
    """The version that a lock names, where the registry has the package without it."""
    file = re.search(r"GET \S+?/((?:@[^/\s]+(?:/|%2f))?[^/\s]+)/-/[^/\s]*?-(\d[^/\s]*)\.tgz", "\n".join(said))
    if file is None:
        return None
    name = file[1].replace("%2f", "/")
    return Trouble(
        f"the package registry does not have {name} {file[2]}, which package-lock.json names",
        f"ask for another version: npm install {name}@latest writes it into both files",
        frozenset({name}),
    )


def _not_there(said: list[str], unknown: Iterable[str]) -> Trouble:
    name = re.search(r"'(@?[^'@]+)@[^']*'", "\n".join(said))
    named = name[1] if name else ""
    if not named and (match := re.search(r"GET \S+/(\S+)", "\n".join(said))):
        named = match[1].replace("%2f", "/")
    names = list(dict.fromkeys([named, *unknown] if named else unknown))
    return Trouble(
        not_there(names) if names else _short(said[0] if said else "not found"),
        slips.corrected(names or [named], "node", "it stands in package.json"),
        frozenset(names),
    )


def _script(output: str, lines: list[str], node: str) -> Trouble:
    """An install script of a package ended with an error."""
    place = next((line.removeprefix("path ") for line in lines if line.startswith("path ")), "")
    package = place.rpartition("node_modules/")[2]
    command = next((line.removeprefix("command ") for line in lines if line.startswith("command sh -c")), "")
    command = command.removeprefix("sh -c ")
    why = next(
        (line.removeprefix("gyp ERR! stack ") for line in output.splitlines() if "gyp ERR! stack Error" in line), ""
    )
    if not why:
        errors = [line for line in output.splitlines() if re.search(r"\bError: |\berror: |ERR!", line)]
        why = next((line for line in errors if not line.startswith("npm error")), "")
    wanted = lack(output)
    if wanted is not None:
        why = wanted.message
    hint = f"ask for a version of {package} that brings a binary for Node {node}, or for another package"
    if wanted is not None and wanted.hopeless:
        hint += f"; packages are compiled with {HERE} alone"
    told = f"the install script of {package or 'a package'} failed ({command})" if command else f"{package} failed"
    return Trouble(
        _short(f"{told}: {why.strip()}" if why else told),
        hint,
        frozenset({package} if package else ()),
        compiler=wants_compiler(output),
        unmet="gyp" in output,
    )


def _packages(text: str) -> list[str]:
    return re.findall(r"(@?[a-z0-9][\w.-]*(?:/[\w.-]+)?)@[\^~<>=\d*]", text)


def _last(output: str) -> str:
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "npm said nothing")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TOO_LONG else f"{text[: _TOO_LONG - 1]}…"
