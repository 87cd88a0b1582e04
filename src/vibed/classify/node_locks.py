"""Lock files of Node's package managers, read as far as it takes to tell what they pin."""

from __future__ import annotations

import re
from collections.abc import Iterator

MANAGERS = {
    "pnpm-lock.yaml": "pnpm", "yarn.lock": "yarn", "package-lock.json": "npm", "npm-shrinkwrap.json": "npm",
    "bun.lock": "bun",
}  # fmt: skip
"""Lock files, and whose they are; of several in one place the first counts."""

_PNPM_PACKAGE = re.compile(r"  '?((?:@[^/@\s]+/)?[^/@\s']+)@(\d[^\s:'()]*)'?:")
_PNPM_DIRECT = re.compile(r"      '?((?:@[^/@\s]+/)?[^/@\s':]+)'?:$")
_PNPM_VERSION = re.compile(r"        version: '?(\d[\w.+-]*)")
_NPM_RESOLUTION = re.compile(r'  resolution: "((?:@[^/@"]+/)?[^/@"]+)@npm:([^":]+)')
_BUN = re.compile(r'^\s{1,8}"([^"\s]{1,300})": \["((?:@[^/@"]{1,200}/)?[^/@"]{1,200})@(\d[^"]{0,100})"', re.MULTILINE)


def is_berry(text: str) -> bool:
    """Whether a yarn.lock is of yarn 2 or later."""
    return "\n__metadata:" in text or text.startswith("__metadata:")


def pinned(path: str, text: str) -> list[tuple[str, str]]:
    """Name and version of every package that a lock takes from a registry. Not for npm's, which is JSON."""
    match path.rpartition("/")[2]:
        case "pnpm-lock.yaml":
            return [(match[1], match[2]) for line in _section(text, "packages") if (match := _PNPM_PACKAGE.match(line))]
        case "yarn.lock" if is_berry(text):
            return [(match[1], match[2]) for line in text.splitlines() if (match := _NPM_RESOLUTION.match(line))]
        case "yarn.lock":
            return [(_name(specs[0]), version) for specs, version in _entries(text)]
        case "bun.lock":
            return [(match[2], match[3]) for match in _BUN.finditer(text)]
    return []


def locked(path: str, text: str, name: str, spec: str) -> str | None:
    """The version that a lock has of what package.json asks for as `name` in the range `spec`."""
    match path.rpartition("/")[2]:
        case "pnpm-lock.yaml":
            return _of_importer(text, name)
        case "yarn.lock":
            asked = {f"{name}@{spec}", f"{name}@npm:{spec}"}
            return next((version for specs, version in _entries(text) if asked & set(specs)), None)
        case "bun.lock":
            return next((match[3] for match in _BUN.finditer(text) if match[1] == name), None)
    # it is too long to be parsed for one version
    entry = re.search(
        rf'"node_modules/{re.escape(name)}":\s{{0,9}}\{{\s{{0,200}}"version":\s{{0,9}}"([^"\n]{{1,100}})"', text
    )
    return entry[1] if entry is not None else None


def _entries(text: str) -> Iterator[tuple[list[str], str]]:
    """What a yarn.lock says: the specifications that lead to an entry, and its version."""
    specs: list[str] = []
    for line in text.splitlines():
        if line and line[0] not in " #" and line.endswith(":"):
            specs = [spec.strip().strip('"') for spec in line[:-1].strip('"').split(",")]
        elif specs and line.startswith("  version"):
            yield specs, line.removeprefix("  version").strip(': "')
            specs = []


def _of_importer(text: str, name: str) -> str | None:
    """Of pnpm's lock: the version of a dependency of the project itself, which is the first of its importers."""
    found = ""
    for line in _section(text, "importers"):
        if (direct := _PNPM_DIRECT.match(line)) is not None:
            found = direct[1]
        elif found == name and (version := _PNPM_VERSION.match(line)) is not None:
            return version[1]
    return None


def _section(text: str, name: str) -> Iterator[str]:
    """The lines below a key of the first level."""
    inside = False
    for line in text.splitlines():
        if line and line[0] not in " #":
            inside = line.rstrip() == f"{name}:"
        elif inside:
            yield line


def _name(spec: str) -> str:
    """`@a/b@^1` ▸ `@a/b`."""
    return spec[:1] + spec[1:].partition("@")[0]
