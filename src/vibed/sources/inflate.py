"""A gzip file as a bounded stream of expanded bytes: exactly one member, complete, checked, nothing after it."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path

from vibed.sources.errors import (
    CompressionRatio,
    CorruptArchive,
    ExpandedTooLarge,
    NotGzip,
    TooLarge,
    TrailingData,
    TruncatedArchive,
)
from vibed.sources.limits import ArchiveLimits

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a source is opened: whoever may write to the folder must neither lead elsewhere nor keep the reader waiting."""

_READ = 256 << 10
_OUT = 1 << 20
_MAGIC = b"\x1f\x8b"


def size_text(size: int) -> str:
    """Bytes for a message, in decimal units."""
    for unit, name in ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}".replace(".0 ", " ")
    return f"{size} bytes"


def claimed_size(path: Path) -> int:
    """How much a gzip file claims to expand to, at its end (RFC 1952, ISIZE; modulo 2**32), or its own size if that is
    more. Only inflating it proves it. Raises OSError.
    """
    fd = os.open(path, READ)
    try:
        size = os.fstat(fd).st_size
        return max(size, int.from_bytes(os.pread(fd, 4, max(0, size - 4)), "little"))
    finally:
        os.close(fd)


class Inflated:
    """Expands an open file from its beginning; memory is bounded by the chunk (1 MiB) plus what one call asks for.

    Raises the subclasses of `ArchiveError` that concern compression. Sizes are checked before more is expanded.
    """

    __slots__ = (
        "_done",
        "_expander",
        "_fd",
        "_input_done",
        "_limits",
        "_most",
        "_started",
        "base",
        "buffer",
        "compressed",
    )

    def __init__(self, fd: int, limits: ArchiveLimits) -> None:
        self._fd = fd
        self._limits = limits
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise NotGzip("the source is not a file", hint="send a gzipped tar archive of the folder")
        self.compressed = facts.st_size
        if self.compressed > limits.compressed:
            raise TooLarge(
                f"the archive has {size_text(self.compressed)}; at most {size_text(limits.compressed)} are accepted",
                hint="leave out what the app does not need: dependencies, build caches, media, .git",
            )
        if not self.compressed:
            raise NotGzip("the source has no bytes", hint="send a gzipped tar archive of the folder")
        by_ratio = max(limits.ratio_free, limits.ratio * self.compressed)
        self._most = min(limits.expanded, by_ratio)
        self._expander = zlib.decompressobj(wbits=31)
        self._input_done = False
        self._done = False
        self._started = False
        self.buffer = b""
        """Expanded bytes that were not dropped yet."""
        self.base = 0
        """Offset of the buffer's first byte in the expanded stream."""

    def fill(self, position: int, needed: int) -> int:
        """Drop what is before `position` in the buffer and expand until `needed` bytes follow it, or the end.

        Returns how many bytes there are. `base` moves to the new beginning of the buffer.
        """
        length = len(self.buffer)
        if position > length:
            raise ValueError("position is behind the buffer")
        kept = self.buffer[position:]
        self.base += position
        if len(kept) < needed:
            chunks = [kept]
            have = len(kept)
            while have < needed and not self._done:
                chunk = self._expand()
                chunks.append(chunk)
                have += len(chunk)
                if self.base + have > self._most:
                    self._refuse_size()
            kept = b"".join(chunks)
        self.buffer = kept
        return len(kept)

    def skip(self, position: int, count: int) -> int:
        """Drop everything up to `count` bytes after `position`; returns how many were missing at the end."""
        position += count
        while position > len(self.buffer):
            position -= len(self.buffer)
            self.base += len(self.buffer)
            self.buffer = b""
            if not self.fill(0, 1):
                return position
        self.fill(position, 0)
        return 0

    def finish(self, position: int) -> int:
        """Check that only zero bytes follow `position` and that the gzip member is complete and the last.

        Returns the length of the expanded stream.
        """
        while True:
            rest = len(self.buffer) - position
            if self.buffer.count(0, position) != rest:
                raise TrailingData(
                    "there is more data after the end of the tar archive",
                    hint="write one archive with one end mark; do not append to it with cat or with tar -A",
                )
            self.base += len(self.buffer)
            self.buffer = b""
            position = 0
            if not self.fill(0, 1):
                return self.base

    def _expand(self) -> bytes:
        expander = self._expander
        while True:
            data = expander.unconsumed_tail
            if not data and not self._input_done:
                data = os.read(self._fd, _READ)
                self._input_done = not data
                if not self._started and data[:2] != _MAGIC[: len(data)]:
                    self._refuse_format(data)
                self._started = True
            try:
                chunk = expander.decompress(data, _OUT)
            except zlib.error as error:
                raise CorruptArchive(
                    f"the gzip data is damaged after {size_text(self.base)} of expanded data",
                    hint="make the archive again and send it as binary",
                    details={"zlib": str(error)[:200]},
                ) from None
            if expander.eof:
                self._check_tail(expander.unused_data)
                self._done = True
                return chunk
            if chunk:
                return chunk
            if self._input_done and not expander.unconsumed_tail:
                raise TruncatedArchive(
                    "the archive ends in the middle of its gzip data",
                    hint="the upload or the program that wrote it was cut off; make it again and send all of it",
                )

    def _check_tail(self, tail: bytes) -> None:
        first = True
        while tail or first:
            rest = tail.lstrip(b"\0")
            if rest:
                again = rest[:2] == _MAGIC
                raise TrailingData(
                    "another gzip member follows the first"
                    if again
                    else "there are bytes after the end of the gzip data",
                    hint="compress the whole tar archive in one go",
                )
            tail = os.read(self._fd, _READ)
            first = False

    def _refuse_format(self, data: bytes) -> None:
        if data[257:262] == b"ustar":
            found = "a tar archive that is not compressed"
        elif data[:2] == b"PK":
            found = "a zip file"
        elif data[:4] == b"\x28\xb5\x2f\xfd":
            found = "compressed with zstd"
        elif data[:3] == b"BZh":
            found = "compressed with bzip2"
        elif data[:6] == b"\xfd7zXZ\0":
            found = "compressed with xz"
        else:
            found = "not gzip"
        raise NotGzip(f"the source is {found}; a gzipped tar archive is needed", hint="tar -czf source.tar.gz -C DIR .")

    def _refuse_size(self) -> None:
        if self._most < self._limits.expanded:
            raise CompressionRatio(
                f"the archive expands to more than {self._limits.ratio} times its size of {size_text(self.compressed)}",
                hint="leave out large files that are almost empty, such as a preallocated database",
            )
        raise ExpandedTooLarge(
            f"the archive expands to more than {size_text(self._limits.expanded)}",
            hint="leave out what the app does not need: dependencies, build caches, media",
        )
