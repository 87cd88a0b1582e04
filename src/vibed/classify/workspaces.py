"""The packages of a project that lie in folders of it: npm's, yarn's, bun's and pnpm's workspaces.

They ask for each other by their names; a manager links them, so that they are found, and run, where they lie.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vibed.classify.errors import BadConfiguration
from vibed.classify.tree import Tree, strings
from vibed.classify.yaml_lines import scalars

_MOST = 300
_MOST_PATTERNS = 60
_DEEPEST = 8
_CODE = ("js", "mjs", "cjs", "ts", "mts", "cts", "tsx", "jsx", "json")
KINDS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")
_PATH = re.compile(r"^(?:file:|link:|portal:)?(\.{1,2}/.*|\.{1,2})$|^(?:file|link|portal):(?!/)([^:]*)$")


@dataclass(frozen=True, eq=False)
class Member:
    """One package of a project."""

    folder: str
    manifest: Mapping[str, Any]
    kinds: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.manifest.get("name") or "")

    @property
    def scripts(self) -> Mapping[str, str]:
        return strings(self.manifest.get("scripts"))

    @property
    def wanted(self) -> Mapping[str, str]:
        """Name -> spec of what it asks for, also for development alone."""
        return {name: spec for kind in KINDS[::-1] for name, spec in self.kinds.get(kind, {}).items()}

    @property
    def entries(self) -> list[str]:
        """The files that others get who import it, from its folder on."""
        found: list[str] = []
        for key in ("exports", "module", "main"):
            _collect(self.manifest.get(key), found)
        return [posixpath.normpath(path) for path in found if path.rpartition(".")[2] in _CODE and "*" not in path]

    @property
    def build(self) -> str:
        """The script that makes them; empty: none does."""
        return next((name for name in ("build", "prepare", "prepack", "prepublishOnly") if name in self.scripts), "")


class Workspaces:
    """Those of one tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @cached_property
    def members(self) -> Mapping[str, Member]:
        """By folder, in order; those of the root's patterns."""
        patterns = self._patterns()[:_MOST_PATTERNS]
        wanted = [_parts(text) for text in patterns if not text.startswith("!")]
        unwanted = [_parts(text) for text in patterns if text.startswith("!")]
        found: dict[str, Member] = {}
        for path in sorted(self._tree.paths) if wanted else ():
            folder, _, name = path.rpartition("/")
            if name != "package.json" or not folder or "node_modules" in folder.split("/") or len(found) >= _MOST:
                continue
            parts = folder.split("/")
            if len(parts) > _DEEPEST or any(_fits(one, parts) for one in unwanted):
                continue
            if any(_fits(one, parts) for one in wanted):
                found[folder] = self._member(folder)
        return found

    @cached_property
    def by_name(self) -> Mapping[str, Member]:
        return {member.name: member for member in self.members.values() if member.name}

    def of(self, path: str) -> Member | None:
        """The one in whose folder a file lies."""
        folder = posixpath.dirname(path)
        while folder and folder not in self.members:
            folder = posixpath.dirname(folder)
        return self.members.get(folder)

    def at(self, folder: str) -> Member:
        """The package of any folder: of the root, for one."""
        return self.members.get(folder) or self._member(folder)

    def needed(self, start: Member) -> list[Member]:
        """Those that it needs, directly or not, each behind those that it needs itself; without itself."""
        found: dict[str, Member] = {}
        open_: set[str] = {start.folder}

        def visit(member: Member) -> None:
            for name, spec in member.wanted.items():
                other = self.target(member.folder, name, spec)
                if other is None or other.folder in open_:
                    continue
                open_.add(other.folder)
                visit(other)
                found[other.folder] = other

        visit(start)
        return list(found.values())

    def target(self, folder: str, name: str, spec: str) -> Member | None:
        """The package of the project that is meant by a spec in the package.json of `folder`; None where it is one of
        a registry.
        """
        if match := _PATH.match(spec):
            at = posixpath.normpath(posixpath.join(folder, match[1] or match[2]))
            if at in self.members:
                return self.members[at]
            return self._member(at) if f"{at}/package.json" in self._tree.paths else None
        if spec.startswith(("npm:", "git", "http")):
            return None
        return self.by_name.get(name)

    def unbuilt(self, member: Member) -> bool:
        """Whether a build of its own makes what others get of it, and that is not there."""
        entries = [posixpath.join(member.folder, path) for path in member.entries]
        return bool(member.build and entries) and not all(map(self._tree.has, entries))

    def _patterns(self) -> list[str]:
        found = (self._tree.package or {}).get("workspaces")
        if isinstance(found, dict):
            found = found.get("packages")
        listed = [text for text in found if isinstance(text, str)] if isinstance(found, list) else []
        ours = scalars(self._tree.text("pnpm-workspace.yaml"))
        return listed + [value for path, value in ours if path[:1] == ("packages",)]

    def _member(self, folder: str) -> Member:
        path = posixpath.join(folder, "package.json")
        try:
            manifest = self._tree.json(path) if self._tree.has(path) else {}
        except BadConfiguration:
            manifest = {}
        return Member(folder, manifest, {kind: strings(manifest.get(kind)) for kind in KINDS})


def _collect(value: object, found: list[str], depth: int = 0) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, dict) and depth < 4:
        for key, inner in list(value.items())[:40]:
            if key != "types":
                _collect(inner, found, depth + 1)


def _fits(pattern: Sequence[str], folder: Sequence[str]) -> bool:
    """Whether a pattern of folders, part by part, means a folder; `**` is one part or several."""
    if not pattern or not folder:
        return not pattern and not folder
    if pattern[0] == "**":
        return any(_fits(pattern[1:], folder[at:]) for at in range(1, len(folder) + 1))
    return _glob(pattern[0], folder[0]) and _fits(pattern[1:], folder[1:])


def _glob(pattern: str, text: str) -> bool:
    """As in a shell, with `*` alone: each piece is looked for once, from left to right."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    last = rest.pop()
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in rest:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _parts(pattern: str) -> list[str]:
    clean = posixpath.normpath(pattern[:200].removeprefix("!").removeprefix("./").strip("/") or ".")
    return clean.split("/")[:_DEEPEST]
