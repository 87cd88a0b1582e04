"""Taking in a source once: streamed to a local file while it is hashed, bounded, and gone if anything goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vibed.sources import room
from vibed.sources.errors import NotGzip, StorageFull, TooLarge, storage_error
from vibed.sources.inflate import size_text
from vibed.sources.limits import ArchiveLimits

T = TypeVar("T")

_BATCH = 1 << 20
_INLINE = 256 << 10
"""Up to here a write to the page cache and the hash take less time than handing them to a thread."""


@dataclass(frozen=True, slots=True)
class StagedSource:
    """A source that was received in full and is not yet part of the store."""

    path: Path
    digest: str
    size: int


class Incoming:
    """A folder where sources arrive, of one process. They take `most` bytes together until they are discarded."""

    def __init__(self, folder: Path, most: int = sys.maxsize) -> None:
        self.folder = folder
        self._most = most

    def check(self, wanted: int = 0) -> None:
        """Raises `StorageFull` where `wanted` bytes more have no room, on the disk or among what arrives, OSError."""
        room.check(self.folder, wanted)
        if self._most == sys.maxsize:
            return
        taken = 0
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                taken += entry.stat(follow_symlinks=False).st_size
        if taken > self._most:
            raise StorageFull(
                f"more than {self._most // 1_000_000:,} MB of sources arrive at the same time",
                hint="try again in a minute",
            )

    def prepare(self) -> int:
        """Make the folder and remove what an earlier process left half received; returns how many were removed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        removed = 0
        for left in self.folder.iterdir():
            left.unlink(missing_ok=True)
            removed += 1
        return removed

    async def receive(self, chunks: AsyncIterator[bytes], limits: ArchiveLimits) -> StagedSource:
        """Raises `TooLarge`, `NotGzip` for no bytes at all, `StorageFull`, `StorageFailed`; when it raises, is
        cancelled, or `chunks` raises, nothing is kept.
        """
        path = self.folder / secrets.token_hex(12)
        try:
            self.check()
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise storage_error(error, "receiving the source") from error
        try:
            try:
                return await self._receive(fd, path, chunks, limits)
            finally:
                os.close(fd)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    async def _receive(self, fd: int, path: Path, chunks: AsyncIterator[bytes], limits: ArchiveLimits) -> StagedSource:
        hashed = hashlib.sha256()
        size = 0
        waiting: list[bytes] = []
        held = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > limits.compressed:
                raise too_large(limits)
            waiting.append(chunk)
            held += len(chunk)
            if held >= _BATCH:
                batch, waiting, held = waiting, [], 0
                await in_thread(_take, fd, hashed, batch)
                self.check()
        if not size:
            raise NotGzip("the source has no bytes", hint="send a gzipped tar archive of the folder")
        if held <= _INLINE:
            _take(fd, hashed, waiting)
        else:
            await in_thread(_take, fd, hashed, waiting)
        return StagedSource(path, hashed.hexdigest(), size)


def too_large(limits: ArchiveLimits) -> TooLarge:
    """For what is larger than sources may be."""
    return TooLarge(
        f"the source is larger than the {size_text(limits.compressed)} that are accepted",
        hint="leave out what the app does not need: dependencies, build caches, media, .git",
    )


def _take(fd: int, hashed: hashlib._Hash, batch: list[bytes]) -> None:
    try:
        for chunk in batch:
            hashed.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
    except OSError as error:
        raise storage_error(error, "receiving the source") from error


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """Run blocking work in a thread and, even when cancelled, return only after it: it uses what is ours."""
    task = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
