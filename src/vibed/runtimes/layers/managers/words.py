"""Words of pnpm and yarn about a failure, read (tests/unit/installer_words/ are their real outputs)."""

from __future__ import annotations

import re
from collections.abc import Collection

from vibed.runtimes.layers.compiler_words import HERE, lack, wants_compiler
from vibed.runtimes.layers.trouble import Trouble, not_there

_UNREACHABLE = re.compile(
    r"ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|ENETUNREACH|ERR_SOCKET_TIMEOUT|ESOCKETTIMEDOUT"
    r"|\b(?:Response Code:|ERR_PNPM_FETCH_|failed ['\"]?|Bad response: )\s*(?:429|5\d\d)\b"
    r"|There appears to be trouble with your network"
)
_STALE = re.compile(
    r"ERR_PNPM_(?:OUTDATED_LOCKFILE|LOCKFILE_CONFIG_MISMATCH|LOCKFILE_MISSING_DEPENDENCY|BROKEN_LOCKFILE"
    r"|LOCKFILE_BREAKING_CHANGE|NO_LOCKFILE)|Your lockfile needs to be updated|^yarn\.lock: it would become longer",
    re.MULTILINE,
)
_INTEGRITY = re.compile(
    r"ERR_PNPM_TARBALL_INTEGRITY|Integrity check failed|YN0018|Fetch succeeded for .* with different hash"
)
_ABSENT = (
    re.compile(r"ERR_PNPM_FETCH_404\]?\s+GET \S+?/npm/(\S+?): Not Found"),
    re.compile(r"Couldn't find package \"([^\"]+)\" on the"),
    re.compile(r"YN0035: │ (@?[^@\s]+)@\S+: Package not found"),
    re.compile(r"Request \"?\S+?/npm/(\S+?)\"? returned a 404"),
)
_GONE = re.compile(
    r"/npm/((?:@[^/\s]+(?:/|%2[fF]))?[^/\s]+)/-/[^/\s]+?-(\d[^/\s]*?)\.tgz: (?:Request failed \"404|Not Found)"
)
"""A file that a lock names and no registry has any more: its package and version."""
_NEWEST = re.compile(r'The latest release of \S+ is "([^"\s]+)"')
_NO_VERSION = (
    re.compile(r"ERR_PNPM_NO_MATCHING_VERSION\]?\s+No matching version found for (@?[^@\s]+)@(.+?) while"),
    re.compile(r"ERR_PNPM_NO_MATCHING_VERSION\]?\s+No matching version found for (@?[^@\s]+)@(\S+)"),
    re.compile(r"Couldn't find any versions for \"([^\"]+)\" that matches \"([^\"]+)\""),
    re.compile(r"YN0082: │ (@?[^@\s]+)@(?:npm:)?(.+?): No candidates found"),
)
_SCRIPT = (
    re.compile(
        r"ELIFECYCLE\]?\s+(?:Command failed|\S+).*|^\S*node_modules/((?:@[^/\s]+/)?[^/\s:]+)[^\n]*: Failed$",
        re.MULTILINE,
    ),
    re.compile(r"error \S*node_modules/((?:@[^/\s]+/)?[^/\s:]+): Command failed"),
    re.compile(r"YN0009: │ (@?[^@\s]+)@\S+ couldn't be built successfully"),
)
_MESSAGE = re.compile(r"(?:\[?ERR_PNPM_\w+\]?\s+|^error |YN00(?!00)\d\d: (?:│ )?|\[?ERROR\]?:?\s+)(.+)", re.MULTILINE)
_TOO_LONG = 400


def of_pnpm(said: str, node: str, unknown: Collection[str] = ()) -> Trouble:
    """`node`: its version, such as 24.19.0; `unknown`: what the registry is known not to have."""
    return _explain(said, node, unknown, "pnpm")


def of_yarn(said: str, node: str, unknown: Collection[str] = ()) -> Trouble:
    """As the other."""
    return _explain(said, node, unknown, "yarn")


def _explain(said: str, node: str, unknown: Collection[str], manager: str) -> Trouble:
    lock = {"pnpm": "pnpm-lock.yaml", "yarn": "yarn.lock"}[manager]
    if _STALE.search(said):
        return Trouble(f"{lock} does not fit package.json", f"run {manager} install", stale_lock=True)
    if match := _GONE.search(said):
        name = re.sub("%2[fF]", "/", match[1])
        told = f"the registry does not have {name} {match[2]}, which {lock} names"
        return Trouble(
            told, f"ask for a version that there is, and make {lock} anew: {manager} install", frozenset({name})
        )
    if match := _first(_ABSENT, said):
        name = match[1].replace("%2f", "/").replace("%2F", "/")
        hint = "correct the name, or remove it from package.json"
        names = list(dict.fromkeys([name, *unknown]))
        return Trouble(not_there(names), hint, frozenset(names))
    if match := _first(_NO_VERSION, said):
        newest = _NEWEST.search(said)
        hint = f"ask for one that exists{f': the newest is {newest[1]}' if newest else ''}"
        return Trouble(f"{match[1]} has no version {match[2]}", hint, frozenset({match[1]}))
    if _INTEGRITY.search(said):
        line = next(line for line in said.splitlines() if _INTEGRITY.search(line))
        return Trouble(
            _short(f"a file is not the one that the lock names: {line}"), f"make {lock} anew: {manager} install"
        )
    if match := _UNREACHABLE.search(said):
        line = next(line for line in said.splitlines() if match[0].splitlines()[0] in line)
        return Trouble(
            _short(f"the package registry could not be reached: {line}"), "retrying may help", retryable=True
        )
    if match := _first(_SCRIPT, said):
        return _script(said, match[1] or "", node)
    found = _MESSAGE.search(said)
    last = next((line for line in reversed(said.splitlines()) if line.strip()), f"{manager} said nothing")
    return Trouble(_short(found[1] if found else last))


def _script(said: str, package: str, node: str) -> Trouble:
    """An install script of a package ended with an error."""
    errors = [line for line in said.splitlines() if re.search(r"\bError: |\berror: |ERR! stack Error", line)]
    wanted = lack(said)
    why = wanted.message if wanted is not None else errors[0].strip() if errors else ""
    hint = f"ask for a version of {package or 'it'} that brings a binary for Node {node}, or for another package"
    if wanted is not None and wanted.hopeless:
        hint += f"; packages are compiled with {HERE} alone"
    told = f"the install script of {package or 'a package'} failed"
    return Trouble(
        _short(f"{told}: {why}" if why else told),
        hint,
        frozenset({package} if package else ()),
        compiler=wants_compiler(said),
    )


def _first(patterns: tuple[re.Pattern[str], ...], said: str) -> re.Match[str] | None:
    return next((match for pattern in patterns if (match := pattern.search(said)) is not None), None)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TOO_LONG else f"{text[: _TOO_LONG - 1]}…"
