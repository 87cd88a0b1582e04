"""Some files of a source changed or taken away: an archive on top of an archive."""

from __future__ import annotations

import difflib
import io
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from vibed.apps.errors import VibedError
from vibed.sources.errors import EmptyArchive
from vibed.sources.extraction import iter_files
from vibed.sources.limits import ArchiveLimits
from vibed.sources.pack import Writing
from vibed.sources.reader import read_table

LARGEST = 64 << 20
"""Bytes of the files that change, which are held in memory; who changes more sends everything."""

_NEAREST = 3
_COMPARED = 200
_COMPARED_LENGTH = 100


class NoSuchFile(VibedError):
    """A file that was to be read or taken away is not in the source."""

    code = "NoSuchFile"
    status = 422


def overlay(
    out: BinaryIO,
    base: Path,
    patch: Path | None,
    removed: Iterable[str],
    *,
    strip: str,
    limits: ArchiveLimits,
    check: Callable[[int], None] = lambda size: None,
) -> None:
    """Write `base` to `out` with the files of `patch` in it and without those `removed` (a folder takes all below).

    Paths of both are below `strip`, the folder that wraps the app in `base`. Where nothing differs, `out` becomes what
    `base` is, byte by byte, if vibeD packed that. Raises `NoSuchFile`, `EmptyArchive`, `ArchiveError`.
    """
    table = read_table(base, limits)
    modes = {entry.path: entry.mode for entry in table.entries}
    present = {path.removeprefix(strip) for path in modes if path.startswith(strip)}
    gone = without(present, removed)
    fresh = _contents(patch, limits)
    both = sorted(gone & set(fresh))
    if both:
        raise NoSuchFile(f"{both[0]!r} is both changed and removed", hint="name it once")
    written = 0
    with Writing(out, check) as writing:
        for path, content, mode in _merged(iter_files(base, table, limits=limits), fresh, modes, strip):
            if path.startswith(strip) and path.removeprefix(strip) in gone:
                continue
            writing.add(path, len(content), mode, io.BytesIO(content))
            written += 1
        writing.close()
    if not written:
        raise EmptyArchive("no file would be left", hint="delete the app, if that is meant")


def _merged(
    base: Iterator[tuple[str, bytes]], fresh: dict[str, tuple[bytes, int]], modes: Mapping[str, int], strip: str
) -> Iterator[tuple[str, bytes, int]]:
    changed = {strip + path: file for path, file in fresh.items()}
    added = sorted(path for path in changed if path not in modes)
    for path, content in base:
        while added and added[0] < path:
            yield added[0], *changed[added.pop(0)]
        mode = modes[path] or 0o644
        if path in changed:
            # an old file keeps its permissions, and one that becomes a program may be run
            content, mode = changed[path][0], mode | changed[path][1]
        yield path, content, mode
    for path in added:
        yield path, *changed[path]


def _contents(patch: Path | None, limits: ArchiveLimits) -> dict[str, tuple[bytes, int]]:
    if patch is None:
        return {}
    narrow = replace(limits, expanded=min(limits.expanded, LARGEST))
    table = read_table(patch, narrow)
    modes = {entry.path: entry.mode for entry in table.entries}
    return {path: (content, modes[path] or 0o644) for path, content in iter_files(patch, table, limits=narrow)}


def without(present: set[str], removed: Iterable[str]) -> set[str]:
    """Which of the paths are meant by names of files and folders. Raises `NoSuchFile`."""
    gone: set[str] = set()
    ordered = sorted(present)  # a folder's paths lie side by side: there may be 20,000, and a thousand names
    for name in dict.fromkeys(removed):
        wanted = name.removeprefix("./").rstrip("/")
        found = {wanted} & present
        if wanted:
            # the character after the slash ends the folder
            found.update(ordered[bisect_left(ordered, f"{wanted}/") : bisect_left(ordered, f"{wanted}0")])
        if not found:
            raise no_such_file(name, present)
        gone |= found
    return gone


def no_such_file(name: str, present: Iterable[str]) -> NoSuchFile:
    """With the nearest names as a hint: files of that name elsewhere, or else those that are written alike."""
    paths = sorted(present, key=lambda path: (path.count("/"), path))
    last = name.rstrip("/").rpartition("/")[2]
    near = [path for path in paths if path.rpartition("/")[2] == last][:_NEAREST]
    if not near:
        # comparing two long names takes milliseconds, and there may be 20,000
        short = [path for path in paths if len(path) <= _COMPARED_LENGTH][:_COMPARED]
        near = difflib.get_close_matches(name[:_COMPARED_LENGTH], short, _NEAREST, 0.5)
    return NoSuchFile(
        f"there is no file {name[:200]!r} in this source",
        hint=f"did you mean {', '.join(near)}?" if near else "list the files first",
        details={"nearest": near},
    )
