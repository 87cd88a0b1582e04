"""The files of an archive as the rules see them: without what wraps them, without what file managers leave behind."""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from vibed.classify.errors import BadConfiguration
from vibed.sources.errors import quoted
from vibed.sources.table import ArchiveTable, Kind

_JUNK = ("__MACOSX/", ".git/")
_JUNK_NAMES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_JUNK_MARKS = ("__MACOSX/", ".git/", "._", *sorted(_JUNK_NAMES))
_BESIDE = re.compile(
    r"(readme|license|licence|copying|changelog|notice|authors|contributing|security)(\..*)?|.*\.md"
    r"|\.(git.*|editorconfig|prettier.*|eslint.*|ds_store|dockerignore|vibedignore|nvmrc)",
    re.IGNORECASE,
)
"""What may lie beside a folder that wraps everything."""
_TOOLS = frozenset({".github", ".vscode", ".idea", ".husky", ".devcontainer", ".cursor", ".claude"})
_MOST_WRAPPINGS = 4
_LONGEST_TOML = 32 << 10
"""tomllib takes time in the square of a dotted key's length."""


class Tree:
    """Paths relative to the folder that holds the app. Every listing is sorted: decisions must not depend on
    order."""

    def __init__(self, strip: str, paths: list[str], texts: dict[str, bytes], complete: bool) -> None:
        self.strip = strip
        """The folder that wraps everything, with its slash; empty when there is none."""
        self.paths = frozenset(paths)
        self._ordered = paths
        self.complete = complete
        """Whether the beginnings of all source files are known."""
        self._texts = texts
        self._decoded: dict[str, str] = {}
        self.root, self.tops = _top_level(paths)
        """Names of the files that are not in a folder, and of the folders at the root."""

    @classmethod
    def of(cls, table: ArchiveTable) -> Tree:
        """The tree of an archive, looked at through the folders that wrap it."""
        directory = Kind.DIRECTORY
        paths = [entry[0] for entry in table.entries if entry[1] is not directory]
        names = "\n".join(paths)
        if any(mark in names for mark in _JUNK_MARKS):
            paths = [path for path in paths if not _is_junk(path)]
        # Sorted, so that a folder's paths lie side by side and can be passed over in one step.
        paths.sort()
        strip = ""
        for _ in range(_MOST_WRAPPINGS):
            wrapping = _wrapping(paths, strip, table)
            if not wrapping:
                break
            strip += wrapping
            cut = len(wrapping)
            paths = [path[cut:] for path in _inside(paths, wrapping)]
        texts = dict(table.texts)
        if strip:
            cut = len(strip)
            texts = {path[cut:]: text for path, text in texts.items() if path.startswith(strip)}
        return cls(strip, paths, texts, table.texts_complete)

    def below(self, folder: str) -> Tree:
        """The same archive looked at through one more folder: what lies beside that is no part of the app."""
        inside = f"{folder}/"
        cut = len(inside)
        texts = {path[cut:]: text for path, text in self._texts.items() if path.startswith(inside)}
        return Tree(self.strip + inside, [path[cut:] for path in self.inside(inside)], texts, self.complete)

    def has(self, path: str) -> bool:
        """Whether there is a file at `path`."""
        return path in self.paths

    @cached_property
    def folders(self) -> frozenset[str]:
        """Every folder that holds something, without a slash at its end."""
        found: set[str] = set()
        for path in self.paths:
            parent = path.rpartition("/")[0]
            while parent and parent not in found:
                found.add(parent)
                parent = parent.rpartition("/")[0]
        return frozenset(found)

    @cached_property
    def pages(self) -> list[str]:
        """Every HTML file."""
        return [path for path in self._ordered if path.lower().endswith((".html", ".htm"))]

    @cached_property
    def _pages(self) -> dict[str, str]:
        """Every HTML file by its folder and its name in small letters."""
        found = {}
        for path in reversed(self.pages):
            folder, slash, name = path.rpartition("/")
            found[f"{folder}{slash}{name.lower()}"] = path
        return found

    def page(self, path: str) -> str | None:
        """The HTML file at `path`, however its name is written: some systems make `INDEX.HTML` of it."""
        return path if path in self.paths else self._pages.get(path)

    def inside(self, folder: str) -> list[str]:
        """The paths below a folder (with its slash; empty: all)."""
        return _inside(self._ordered, folder) if folder else self._ordered

    def text(self, path: str) -> str:
        """What was kept of the file's beginning; empty when nothing was."""
        found = self._decoded.get(path)
        if found is None:
            found = self._decoded[path] = decoded(self._texts.get(path, b""))
        return found

    def raw(self, path: str) -> bytes:
        """The same, as bytes."""
        return self._texts.get(path, b"")

    def known(self, *extensions: str) -> list[str]:
        """Paths of the files with such an extension whose beginning is known."""
        return sorted(path for path in self._texts if path.endswith(extensions))

    def first(self, names: Iterable[str]) -> str | None:
        """The first of the names that is a file."""
        return next((name for name in names if name in self.paths), None)

    @cached_property
    def package(self) -> dict[str, Any] | None:
        """package.json, or None when there is none. Raises `BadConfiguration`."""
        return self.json("package.json") if "package.json" in self.paths else None

    def json(self, path: str) -> dict[str, Any]:
        """A JSON object; comments and commas before a closing bracket are forgiven. Raises `BadConfiguration`."""
        text = self.text(path)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            try:
                data = json.loads(_plain_json(text))
            except (ValueError, RecursionError) as error:
                raise BadConfiguration(f"{quoted(path)} is not JSON: {error}", hint="correct the file") from None
        if not isinstance(data, dict):
            raise BadConfiguration(f"{quoted(path)} does not hold a JSON object", hint="correct the file")
        return data

    def toml(self, path: str) -> dict[str, Any]:
        """A TOML file. Raises `BadConfiguration`."""
        if len(self.raw(path)) > _LONGEST_TOML:
            raise BadConfiguration(f"{quoted(path)} is too large", hint=f"at most {_LONGEST_TOML} bytes are read")
        try:
            return tomllib.loads(self.text(path))
        except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
            raise BadConfiguration(f"{quoted(path)} is not TOML: {error}", hint="correct the file") from None


def decoded(raw: bytes) -> str:
    """Text of a source file: UTF-8, or UTF-16 with its mark (PowerShell writes that)."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace").replace("\r\n", "\n")
    return raw.decode("utf-8-sig", "replace").replace("\r\n", "\n")


def _plain_json(text: str) -> str:
    """JSON with comments and trailing commas (wrangler.jsonc, tsconfig style) as JSON, in one pass."""
    out: list[str] = []
    comma = -1
    at = 0
    while at < len(text):
        char = text[at]
        if char == '"':
            end = at + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            out.append(text[at : end + 1])
            at = end + 1
            comma = -1
        elif text.startswith("//", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif text.startswith("/*", at):
            end = text.find("*/", at + 2)
            at = len(text) if end < 0 else end + 2
        else:
            if char in "}]" and comma >= 0:
                out[comma] = ""
            if not char.isspace():
                comma = len(out) if char == "," else -1
            out.append(char)
            at += 1
    return "".join(out)


def strings(value: object) -> dict[str, str]:
    """The entries of a table whose values are strings."""
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


def table(value: object) -> dict[str, Any]:
    """`value` if it is a table, else an empty one."""
    return value if isinstance(value, dict) else {}


def _is_junk(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name in _JUNK_NAMES or name.startswith("._") or path.startswith(_JUNK)


def _wrapping(paths: list[str], strip: str, table: ArchiveTable) -> str:
    """The one folder that everything is in, with its slash; empty when there is none."""
    files, folders = _top_level(paths)
    if not all(_BESIDE.fullmatch(name) for name in files):
        return ""
    left = [name for name in folders if name not in _TOOLS]
    if len(left) != 1:
        return ""
    folder = left[0]
    if folder[0] == "." or _is_package(folder, paths, strip, table):
        return ""
    return folder + "/"


def _top_level(paths: list[str]) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders at the root of sorted paths."""
    files: list[str] = []
    folders: list[str] = []
    at = 0
    while at < len(paths):
        top, slash, _ = paths[at].partition("/")
        if slash:
            folders.append(top)
            # "0" is the character after "/".
            at = bisect_left(paths, top + "0", at)
        else:
            files.append(top)
            at += 1
    return files, sorted(set(folders))


def _inside(paths: list[str], folder: str) -> list[str]:
    """Those of sorted paths that are below a folder, given with its slash."""
    return paths[bisect_left(paths, folder) : bisect_left(paths, folder[:-1] + "0")]


def _is_package(folder: str, paths: list[str], strip: str, table: ArchiveTable) -> bool:
    """Whether Python code in the folder imports it by its name, so that it must keep it."""
    if f"{folder}/__init__.py" in paths:
        return True
    if not folder.isidentifier():
        return False
    inside, name = f"{strip}{folder}/", folder.encode()
    pattern = re.compile(rb"^[ \t]*(?:from|import)[ \t]+%s\b" % name, re.MULTILINE)
    return any(
        path.startswith(inside) and path.endswith(".py") and name in text and pattern.search(text)
        for path, text in table.texts.items()
    )
