"""The Python files of a tree and how they hang together: what one imports of another, and what is an app in the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from vibed.classify.python_file import Source, read_source
from vibed.classify.python_frameworks import known
from vibed.classify.python_objects import Borrowed, Made, is_named_as_maker, likeliest
from vibed.classify.tree import Tree

BOTS = frozenset({"telegram", "telebot", "aiogram", "discord", "slack_bolt", "tweepy", "pyrogram", "telethon"})
COMMANDS = frozenset(
    {"argparse", "click", "typer", "fire", "optparse", "getopt", "tkinter", "pygame", "PyQt5", "PyQt6"}
)

_DEEPEST = 4
_MOST_MODULES = 60
_MOST_IMPORTS = 100
"""Of one file: hostile sources import each other a million times over, real ones do not."""


class Sources:
    """All Python files of a tree, looked at when they are asked for."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._read: dict[str, Source] = {}
        self._made: dict[str, Mapping[str, Made]] = {}
        self._neighbours: dict[str, tuple[str, ...]] = {}
        self._reached: dict[str, list[Source]] = {}

    def __getitem__(self, path: str) -> Source:
        if path not in self._read:
            self._read[path] = read_source(self.tree, path)
        return self._read[path]

    def objects(self, path: str) -> tuple[str, ...]:
        """Names of web application objects that a file has, its own or another file's; a dictionary that is called
        `app` is none."""
        return likeliest(self.made(path))

    def made(self, path: str) -> Mapping[str, Made]:
        """Those objects, with what each is."""
        if path not in self._made:
            self._made[path] = self._objects(path, 0)
        return self._made[path]

    def _objects(self, path: str, depth: int) -> dict[str, Made]:
        found = self[path].applications
        made = dict(found.made)
        if made or depth > _DEEPEST:
            return made
        for one in found.borrowed[:_MOST_IMPORTS]:
            if (it := self._borrowed(path, one, depth)) is not None:
                made[one.here] = it
        return made

    def _borrowed(self, path: str, one: Borrowed, depth: int) -> Made | None:
        """What that of another file is, if it is an application."""
        files = [file for file in self.local(one.module, path) if file != path]
        if not files:
            # of a package that is not in the archive
            usual = is_named_as_maker(one.there) if one.called else one.there in ("app", "application", "server")
            return Made() if usual and not known(one.module) and not is_standard(one.module) else None
        for file in files:
            there = self[file].applications.answers if one.called else self._objects(file, depth + 1)
            if one.there in there:
                return there[one.there]
        return Made() if one.called and is_named_as_maker(one.there) else None

    def reached(self, path: str) -> list[Source]:
        """The file and the files of the app that it imports, directly or not."""
        if path not in self._reached:
            seen = {path: None}
            for at in (waiting := [path]):
                fresh = [local for local in self._imported(at) if local not in seen]
                room = _MOST_MODULES - len(seen)
                seen.update(dict.fromkeys(fresh[:room]))
                waiting += fresh[:room]
            self._reached[path] = [self[at] for at in seen]
        return self._reached[path]

    def _imported(self, path: str) -> tuple[str, ...]:
        """The files of the app that one file imports itself."""
        if path not in self._neighbours:
            names = sorted(self[path].imports)[:_MOST_IMPORTS]
            self._neighbours[path] = tuple(dict.fromkeys(local for name in names for local in self.local(name, path)))
        return self._neighbours[path]

    def local(self, name: str, importer: str) -> list[str]:
        """The files of the app that `name` stands for in `importer`, packages' `__init__.py` included."""
        folder = importer.rpartition("/")[0]
        dots = len(name) - len(name.lstrip("."))
        parts = name.lstrip(".").split(".")
        if dots:
            base = folder.split("/") if folder else []
            base = base[: len(base) - (dots - 1)] if dots - 1 <= len(base) else []
            roots = ["/".join([*base, ""]) if base else ""]
        else:
            roots = list(dict.fromkeys([f"{folder}/" if folder else "", "", "src/", *_above(folder)]))
        for root in roots:
            found = []
            for count in range(1, len(parts) + 1):
                stem = root + "/".join(parts[:count])
                found += [path for path in (f"{stem}.py", f"{stem}/__init__.py") if path in self.tree.paths]
            if found:
                return found
        return []

    def function_serves(self, path: str, name: str) -> bool:
        """Whether a function of a file, its own or another file's, starts a server; one that is not seen may."""
        files = [source for source in self.reached(path) if name in source.functions]
        return not files or any(name in source.serving for source in files)

    def import_root(self, path: str) -> str | None:
        """The folder that has to be on the import path (`""`: the root), so that most of what the file and the files
        that it reaches import of the app is found; None when it does not matter."""
        folder = path.rpartition("/")[0]
        roots = ["", *_above(folder), *([f"{folder}/"] if folder else [])]
        in_package = path.endswith(("/__main__.py", "/__init__.py")) or any(
            name.startswith(".") for name in self[path].imports
        )
        if in_package:
            roots = roots[:-1] or roots
        if outermost := self.outermost_root(path):
            # where its package lies in none of them, a server still imports it by that name
            roots = [root for root in roots if len(root) > len(outermost)] or roots
        names = {name for source in self.reached(path) for name in source.imports if not name.startswith(".")}
        found = {root: sum(self._is_in(root, name) for name in names) for root in roots}
        best = max(roots, key=found.__getitem__)
        return best.rstrip("/") if in_package or found[best] else None

    def outermost_root(self, path: str) -> str:
        """The outermost folder from which a file has a dotted name: the innermost above it whose own name is no word of
        Python's (`web-app`), which no package has; `""` where there is none."""
        parts = path.split("/")[:-1]
        last = max((at for at, part in enumerate(parts, 1) if not part.isidentifier()), default=0)
        return "/".join(parts[:last])

    def _is_in(self, root: str, name: str) -> bool:
        stem = root + "/".join(name.split(".")[:2])
        top = root + name.partition(".")[0]
        paths = self.tree.paths
        return bool(
            {f"{top}.py", f"{top}/__init__.py", f"{stem}.py", f"{stem}/__init__.py"} & paths
            or ("." in name and stem in self.tree.folders)
        )

    def frameworks(self, path: str) -> frozenset[str]:
        """The web frameworks that the file, or what it imports of the app, uses."""
        return frozenset(found for source in self.reached(path) for found in _frameworks(source))

    def own_frameworks(self, path: str) -> frozenset[str]:
        """Those that the file itself imports."""
        return frozenset(_frameworks(self[path]))

    def is_local(self, name: str, importer: str) -> bool:
        """Whether the first part of a dotted name is a file or folder of the app."""
        top = name.split(".")[0]
        folder = importer.rpartition("/")[0]
        for root in {"", "src/", f"{folder}/" if folder else "", *_above(folder)}:
            if f"{root}{top}.py" in self.tree.paths or f"{root}{top}" in self.tree.folders:
                return True
        return False


def _above(folder: str) -> list[str]:
    """The folders that a folder lies in, with their slashes, the outermost first."""
    parts = folder.split("/")
    return ["/".join(parts[:count]) + "/" for count in range(1, len(parts))]


def _frameworks(source: Source) -> set[str]:
    found = {row.module for name in source.imports if (row := known(name))}
    if "falcon.asgi" in found:
        found.discard("falcon")
    found |= {made.interface for made in source.applications.made.values() if not made.module and made.interface}
    if source.raw:
        found.add("socket")
    return found


def is_standard(name: str) -> bool:
    """Whether a module is part of Python."""
    return name.split(".")[0] in sys.stdlib_module_names or name == "__future__"
