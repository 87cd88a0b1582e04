"""Lock files of Python's package managers, read for one thing: which version of what.

They are too long for a parser of TOML, and regular: each package is a table that begins with its name and version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vibed.classify.tree import Tree, strings, table

_PACKAGE = re.compile(r"^\[\[packages?\]\][ \t]*$", re.MULTILINE)
_FIELD = re.compile(r'^(name|version)[ \t]*=[ \t]*"([^"\n]{1,200})"', re.MULTILINE)
_ELSEWHERE = re.compile(r"\{?\s*(?:git|path|url|file|directory|editable|virtual)\b")
"""Of a package's `source`: it does not come from a registry."""
_SOURCE = re.compile(
    r"^source[ \t]*=[ \t]*(\{[^\n]{0,500})|^\[package\.source\]\ntype = \"(\w+)\"|^(path|git) = ", re.MULTILINE
)


def pins(tree: Tree, names: Sequence[str]) -> list[str]:
    """`name==version` of what the first of these lock files has; without what it has in several versions."""
    path = tree.first(names)
    if path is None:
        return []
    locked = _pipfile_lock(tree.text(path)) if path.endswith("Pipfile.lock") else _tables(tree.text(path))
    versions: dict[str, set[str]] = {}
    for name, version in locked:
        try:
            versions.setdefault(canonicalize_name(name), set()).add(str(Version(version)))
        except InvalidVersion:
            continue
    return sorted(f"{name}=={found.pop()}" for name, found in versions.items() if len(found) == 1)


def _tables(text: str) -> Iterator[tuple[str, str]]:
    for part in _PACKAGE.split(text)[1:]:
        fields: dict[str, str] = {}
        for match in _FIELD.finditer(part):
            fields.setdefault(match[1], match[2])
        source = _SOURCE.search(part)
        elsewhere = source is not None and _ELSEWHERE.match(source[1] or source[2] or source[3])
        if "name" in fields and "version" in fields and not elsewhere:
            yield fields["name"], fields["version"]


def _pipfile_lock(text: str) -> Iterator[tuple[str, str]]:
    try:
        locked = table(table(json.loads(text)).get("default"))
    except (ValueError, RecursionError):
        return
    for name, entry in locked.items():
        version = strings(entry).get("version", "")
        if version.startswith("=="):
            yield name, version[2:]
