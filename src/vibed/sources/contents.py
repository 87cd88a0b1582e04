"""Reading files of a source for somebody who wants to see them: bounded, and what is cut is told."""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vibed.sources.extraction import iter_files
from vibed.sources.limits import ArchiveLimits
from vibed.sources.overlay import no_such_file
from vibed.sources.reader import read_table
from vibed.sources.table import Kind


@dataclass(frozen=True, slots=True)
class File:
    """One file: its content is there if it was asked for and there was room."""

    path: str
    size: int
    text: str | None = None
    base64: str | None = None
    """Of a file that is not text."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Files of a source, by path."""

    files: tuple[File, ...]
    total: int
    """How many the source has, or below the folders that were asked for."""
    left_out: tuple[str, ...] = ()
    """Whose content was asked for and had no room."""


def contents(
    source: Path, paths: Collection[str] | None, *, strip: str, budget: int, most: int, limits: ArchiveLimits
) -> Contents:
    """The list of files; with `paths` (files, or folders for all below), those with their content.

    `budget`: bytes of content in all; `most`: files that are listed. Paths are below `strip`. Blocking. Raises
    `NoSuchFile`, `ArchiveError`.
    """
    table = read_table(source, limits)
    sizes = {
        entry.path.removeprefix(strip): entry.size
        for entry in table.entries
        if entry.kind is not Kind.DIRECTORY and entry.path.startswith(strip)
    }
    if paths is None:
        listed = [File(path, size) for path, size in sorted(sizes.items())]
        return Contents(tuple(listed[:most]), len(listed))
    wanted = _wanted(sizes, paths)
    chosen: set[str] = set()
    left = budget
    for path in sorted(wanted, key=lambda path: (sizes[path], path)):
        if sizes[path] <= left and len(chosen) < most:
            chosen.add(path)
            left -= sizes[path]
    everything = iter_files(source, table, strip=strip, limits=limits)
    files = [_file(path, content) for path, content in everything if path in chosen]
    return Contents(tuple(sorted(files, key=lambda file: file.path)), len(wanted), tuple(sorted(set(wanted) - chosen)))


def _wanted(sizes: Collection[str], paths: Collection[str]) -> list[str]:
    wanted: dict[str, None] = {}
    for name in paths:
        plain = name.removeprefix("./").rstrip("/")
        found = [path for path in sizes if plain in ("", ".", path) or path.startswith(f"{plain}/")]
        if not found:
            raise no_such_file(name, sizes)
        wanted.update(dict.fromkeys(found))
    return list(wanted)


def _file(path: str, content: bytes) -> File:
    try:
        text = content.decode()
        if "\0" not in text:
            return File(path, len(content), text=text)
    except UnicodeDecodeError:
        pass
    return File(path, len(content), base64=base64.b64encode(content).decode())
