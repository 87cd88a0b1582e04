"""Writing an archive's files, once its table was read and found safe.

The content is found by the offsets of the table, so names are never parsed a second time. No link is ever made: a
link of the archive becomes a copy of the file it ends at."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Container, Iterator
from pathlib import Path

from vibed.sources import room
from vibed.sources.errors import CorruptArchive, LinkOutside, TruncatedArchive, quoted, storage_error
from vibed.sources.inflate import READ, Inflated
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.table import ArchiveTable, Entry, Kind

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_CHECKED_EVERY = 8 << 20
"""Bytes between two looks at the room that is left."""


def extract(
    path: Path,
    table: ArchiveTable,
    dest: Path,
    *,
    strip: str = "",
    file_mode: int | None = None,
    dir_mode: int = 0o755,
    owner: tuple[int, int] | None = None,
    without: Container[str] = frozenset(),
    limits: ArchiveLimits = DEFAULT_LIMITS,
) -> int:
    """Write the archive at `path` below `dest`, which must not exist and whose parent must be trusted.

    Members outside `strip` (a folder, with its slash) are left out, the others lose it; so are the files that `without`
    names by what is left. `file_mode` None keeps the
    archive's permission bits. `owner` is (uid, gid). Returns the number of files. When anything fails, `dest` is
    removed again. Raises `ArchiveError`, `StorageFull`, `StorageFailed`; `FileExistsError` when `dest` exists."""
    _check_strip(strip)
    dest.mkdir(0o700)
    try:
        root = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            room.check(root, unpacked_size(table, strip))
            writing = _Writing(root, dir_mode, owner)
            count = writing.all(path, table, strip, file_mode, without, limits)
        finally:
            os.close(root)
    except OSError as error:
        shutil.rmtree(dest, ignore_errors=True)
        raise storage_error(error, "unpacking the source") from error
    except BaseException:
        shutil.rmtree(dest, ignore_errors=True)
        raise
    return count


def iter_files(
    path: Path, table: ArchiveTable, *, strip: str = "", limits: ArchiveLimits = DEFAULT_LIMITS
) -> Iterator[tuple[str, bytes]]:
    """The files below `strip` with their content, links as copies, in the archive's order and links last.

    Memory holds one file at a time, and those that links end at.
    """
    _check_strip(strip)
    targets = {entry.target for entry in table.entries if entry.kind is Kind.LINK and entry.path.startswith(strip)}
    contents: dict[str, bytes] = {}
    with _Contents(path, table, limits) as stream:
        for entry in table.entries:
            inside = entry.path.startswith(strip)
            if entry.kind is not Kind.FILE or not (inside or entry.path in targets):
                continue
            content = b"".join(stream.pieces(entry))
            if entry.path in targets:
                contents[entry.path] = content
            if inside:
                yield entry.path[len(strip) :], content
        stream.finish()
    for entry in table.entries:
        if entry.kind is Kind.LINK and entry.path.startswith(strip):
            yield entry.path[len(strip) :], contents[entry.target]


def _check_strip(strip: str) -> None:
    """What is left of a path must begin with a name: never with a slash."""
    if strip and not strip.endswith("/"):
        raise ValueError(f"strip has to be a folder, with its slash: {strip!r}")


class _Contents:
    """Forward-only access to the contents of an archive's files."""

    def __init__(self, path: Path, table: ArchiveTable, limits: ArchiveLimits) -> None:
        self._fd = os.open(path, READ)
        try:
            self._stream = Inflated(self._fd, limits)
            if self._stream.compressed != table.compressed:
                raise CorruptArchive("the archive changed after its table was read")
        except BaseException:
            os.close(self._fd)
            raise
        self._position = 0

    def __enter__(self) -> _Contents:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def pieces(self, entry: Entry) -> Iterator[bytes | memoryview]:
        """The content of a file that lies behind the one asked for before."""
        stream = self._stream
        ahead = entry.offset - stream.base - self._position
        if self._position + ahead > len(stream.buffer):
            if stream.skip(self._position, ahead):
                raise TruncatedArchive(f"the archive ends before {quoted(entry.path)}")
            self._position = 0
        else:
            self._position += ahead
        left = entry.size
        while left:
            have = len(stream.buffer) - self._position
            if not have:
                have = stream.fill(self._position, min(left, _PIECE))
                self._position = 0
                if not have:
                    raise TruncatedArchive(f"the archive ends in the middle of {quoted(entry.path)}")
            take = min(left, have)
            piece = memoryview(stream.buffer)[self._position : self._position + take]
            self._position += take
            left -= take
            yield piece

    def finish(self) -> None:
        """Read to the end, so that the checksum of the whole is verified."""
        while self._stream.fill(len(self._stream.buffer), 1):
            pass


class _Writing:
    """Files and directories below one directory that nobody else writes to."""

    def __init__(self, root: int, dir_mode: int, owner: tuple[int, int] | None) -> None:
        self._root = root
        self._owner = owner
        # what is made in a folder with this bit has the folder's group from the beginning (inode(7))
        self._dir_mode = dir_mode | (stat.S_ISGID if owner else 0)
        self._made = {""}
        self._unchecked = 0

    def all(
        self,
        path: Path,
        table: ArchiveTable,
        strip: str,
        file_mode: int | None,
        without: Container[str],
        limits: ArchiveLimits,
    ) -> int:
        if self._owner:
            os.fchown(self._root, *self._owner)
        os.fchmod(self._root, self._dir_mode)
        count = 0
        links = []
        with _Contents(path, table, limits) as stream:
            for entry in table.entries:
                if not entry.path.startswith(strip):
                    continue
                name = entry.path[len(strip) :]
                if entry.kind is Kind.DIRECTORY:
                    if name:
                        self._directory(name)
                elif name in without:
                    continue
                elif entry.kind is Kind.LINK:
                    links.append((name, entry))
                else:
                    self._file(name, stream.pieces(entry), self._mode(entry, file_mode))
                    count += 1
            stream.finish()
        for name, entry in links:
            if not entry.target.startswith(strip):
                raise LinkOutside(f"the link {quoted(entry.path)} points out of the folder {quoted(strip)}")
            self._copy(name, entry.target[len(strip) :], self._mode(entry, file_mode))
            count += 1
        return count

    @staticmethod
    def _mode(entry: Entry, file_mode: int | None) -> int:
        return file_mode if file_mode is not None else entry.mode | 0o400

    def _directory(self, name: str) -> None:
        if name in self._made:
            return
        parent = name.rpartition("/")[0]
        if parent not in self._made:
            self._directory(parent)
        # Whole paths below the root's descriptor are safe: this tree has no link, and nobody else writes to it.
        os.mkdir(name, 0o700, dir_fd=self._root)
        if self._owner:
            os.chown(name, *self._owner, dir_fd=self._root, follow_symlinks=False)
        os.chmod(name, self._dir_mode, dir_fd=self._root)
        self._made.add(name)

    def _file(self, name: str, pieces: Iterator[bytes | memoryview], mode: int) -> None:
        parent = name.rpartition("/")[0]
        if parent not in self._made:
            self._directory(parent)
        fd = os.open(name, _CREATE, mode, dir_fd=self._root)
        try:
            for piece in pieces:
                written = os.write(fd, piece)
                while written < len(piece):
                    written += os.write(fd, piece[written:])
                self._unchecked += written
                if self._unchecked > _CHECKED_EVERY:
                    self._unchecked = 0
                    room.check(fd)  # others write too
            made = os.fstat(fd)
            if self._owner and (made.st_uid, made.st_gid) != self._owner:
                os.fchown(fd, *self._owner)
            if stat.S_IMODE(made.st_mode) != mode:
                os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def _copy(self, name: str, source: str, mode: int) -> None:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
        try:
            self._file(name, iter(lambda: os.read(fd, _PIECE), b""), mode)
        finally:
            os.close(fd)


def unpacked_size(table: ArchiveTable, strip: str = "") -> int:
    """Bytes that what `extract` would write takes on the disk."""
    return sum(room.on_disk(entry.size or 1) for entry in table.entries if entry.path.startswith(strip))


def unpacked_tree(table: ArchiveTable, strip: str = "", without: Container[str] = frozenset()) -> tuple[int, int]:
    """Bytes that what `extract` would write takes on the disk, with the folders that are not entries, and how many
    files and folders that is.
    """
    size = 0
    folders, files = {""}, 0
    for entry in table.entries:
        name = entry.path[len(strip) :]
        if not entry.path.startswith(strip) or (entry.kind is not Kind.DIRECTORY and name in without):
            continue
        if entry.kind is Kind.DIRECTORY:
            folder = name
        else:
            size += room.on_disk(entry.size)
            files += 1
            folder = name.rpartition("/")[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return size + len(folders) * room.BLOCK, files + len(folders)


def file_paths(table: ArchiveTable, strip: str = "") -> Collection[str]:
    """The paths that `extract` would write files at."""
    return [e.path[len(strip) :] for e in table.entries if e.kind is not Kind.DIRECTORY and e.path.startswith(strip)]
