"""What git tracks in a folder, read from the index of its repository: `.gitignore` says nothing about such files.

The format is git's own `index-format` documentation, versions 2 to 4. Whatever cannot be read as such tracks nothing:
then `.gitignore` alone decides."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_LARGEST = 64 << 20
_HEADER = struct.Struct(">4sII")
_STAT = struct.Struct(">24xI12x")
"""Of what an entry begins with only the mode matters."""
_FLAGS = struct.Struct(">H")
_EXTENDED = 0x4000
_KINDS = frozenset({0o100, 0o120})
"""Files and links; what else there may be are submodules and folders of a sparse checkout."""
_HIGHEST = 30
"""So many folders above are looked at for the repository."""


def tracked(root: Path) -> frozenset[str]:
    """The paths below `root` that git tracks, links and files, relative to it; none where it is in no repository."""
    try:
        folder, repository = _repository(root)
        with (repository / "index").open("rb") as file:
            if os.fstat(file.fileno()).st_size > _LARGEST:
                return frozenset()
            data = file.read()
        above = root.relative_to(folder).as_posix()
        prefix = "" if above == "." else f"{above}/"
        hash_size = 32 if "objectformat = sha256" in _settings(repository) else 20
        return frozenset(path.removeprefix(prefix) for path in _paths(data, hash_size) if path.startswith(prefix))
    except (OSError, ValueError, struct.error, IndexError):
        return frozenset()


def _repository(root: Path) -> tuple[Path, Path]:
    """The folder that the repository is of, and where git keeps it. Raises `ValueError`."""
    for folder in (root, *root.parents[:_HIGHEST]):
        inside = folder / ".git"
        if inside.is_dir():
            return folder, inside
        if inside.is_file():  # a worktree or a submodule
            name, _, told = inside.read_text()[:4096].partition(":")
            if name == "gitdir":
                return folder, folder / told.strip()
    raise ValueError("no repository")


def _settings(repository: Path) -> str:
    """The repository's settings, a worktree's those of the repository it belongs to."""
    common = repository / "commondir"
    home = repository / common.read_text().strip() if common.is_file() else repository
    return (home / "config").read_text("utf-8", "replace").lower()


def _paths(data: bytes, hash_size: int) -> Iterator[str]:
    signature, version, count = _HEADER.unpack_from(data)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise ValueError("no index that is known")
    at = _HEADER.size
    name = b""
    for _ in range(count):
        start = at
        (mode,) = _STAT.unpack_from(data, at)
        at += _STAT.size + hash_size
        (flags,) = _FLAGS.unpack_from(data, at)
        at += 4 if flags & _EXTENDED else 2
        if version == 4:
            cut, at = _number(data, at)
            name = name[: len(name) - cut]
        else:
            name = b""
        end = data.index(b"\0", at)
        name += data[at:end]
        at = end + 1 if version == 4 else start + (end - start) // 8 * 8 + 8
        if mode >> 9 in _KINDS:
            yield os.fsdecode(name)


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number as git writes offsets, and where it ends."""
    value = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        value = (value + 1) << 7 | data[at] & 0x7F
    return value, at + 1
