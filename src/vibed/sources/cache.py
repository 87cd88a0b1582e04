"""Sources of a store that is elsewhere, as files on this machine: for what needs a path.

Content-addressed and verified: a file is in it only after its SHA-256 was seen to be its name, and one that this
process has not looked at yet (another wrote it, or a loss of power came in between) is looked at before it is handed
out. Processes may share a folder. The longest unused go first, until all of it takes no more than the bound. What was
asked for within `LEASE_S` stays while all of it takes no more than twice that, and what was asked for within `HELD_S`
stays in any case: whoever finds a file gone that he was given longer ago asks again. On one machine it may outgrow
twice the bound by that; in a pod, whose volume has no more (`bounded`), nothing is taken in beyond: who fetches waits
for room, in turn (`promised`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from vibed.sources import room
from vibed.sources.errors import SourceDamaged, StorageFull, storage_error
from vibed.sources.receiving import StagedSource, digest_of, in_thread
from vibed.sources.store import SUFFIX, source_path

LEASE_S = 3600.0
HELD_S = 60.0
LARGEST = 2 << 30
"""Bytes."""
_INLINE = 1 << 20
"""Bytes that are hashed on the event loop."""
_LOOK_EVERY_S = 60.0
_AGAIN_S = 1.0
"""How often who waits first for room looks for it: it comes as files have not been asked for in a while."""
_STUCK_S = 2 * HELD_S
"""How long nobody gets or leaves any until those who wait are told."""

_Seen = tuple[int, int, int]
"""Device, inode and size of the file whose content was verified: nobody writes to a file that is in here."""


class SourceCache:
    """See the module's docstring. `prepare` it before use."""

    def __init__(
        self,
        folder: Path,
        *,
        largest: int = LARGEST,
        bounded: bool = False,
        lease_s: float = LEASE_S,
        held_s: float = HELD_S,
        stuck_s: float = _STUCK_S,
    ) -> None:
        """`largest`: bytes that it takes besides what is leased; with that, twice as much. `bounded`: whether there is
        no room beyond.
        """
        self.bounded = bounded
        self._folder = folder
        self._arriving = folder / "arriving"
        self._largest = largest
        self._lease_s, self._held_s, self._stuck_s = lease_s, held_s, stuck_s
        self._size = 0
        """Bytes, as far as they were seen or taken in by this one."""
        self._coming = 0
        """Bytes that were promised, and are not in it yet."""
        self._line = asyncio.Lock()
        """Whose turn it is to wait for room; first come, first served."""
        self._moved = 0.0
        """When somebody last got room, some of what was promised came, or no more of it does."""
        self._verified: dict[str, _Seen] = {}
        self._looked = -_LOOK_EVERY_S

    def prepare(self) -> None:
        """Make what is missing of the folder. What root makes in it belongs to its owner: the processes of one vibeD
        share it. Raises OSError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._arriving.mkdir(mode=0o700, exist_ok=True)
        _give_to_owner_of(self._folder, self._arriving)
        for left in self._arriving.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > self._lease_s:
                    left.unlink()

    async def find(self, digest: str) -> Path | None:
        """The file of this source, leased from now on; None where it is not here, or was damaged."""
        path = source_path(self._folder, digest)
        try:
            os.utime(path)
            seen = _facts(path)
            if self._verified.get(digest) != seen:
                found = digest_of(path) if seen[2] <= _INLINE else await asyncio.to_thread(digest_of, path)
                if found != digest:
                    path.unlink(missing_ok=True)
                    return None
                self._verified[digest] = seen
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "looking at the cache of sources") from error
        return path

    def take(self, staged: StagedSource) -> None:
        """Have a source that was hashed while it was received, as another name of its file."""
        path = source_path(self._folder, staged.digest)
        with contextlib.suppress(OSError):  # only a cache: it is fetched when it is needed
            # nor before those who wait
            if self._line.locked() or not self._has_room(staged.size):
                return
            os.link(staged.path, path)
            self._verified[staged.digest] = _facts(path)
            self._size += staged.size

    @asynccontextmanager
    async def promised(self, size: int) -> AsyncIterator[None]:
        """Wait in turn until so many bytes more have room, which is theirs while the context lasts: afterwards they are
        here, or do not come. Raises `StorageFull` where nothing has moved for long.
        """
        since = time.monotonic()
        async with self._line:
            while not self._has_room(size):
                if time.monotonic() - max(since, self._moved) >= self._stuck_s:
                    raise StorageFull(
                        "copies of sources that are in use take all the room that there is for them",
                        hint="try again in a minute; the operator decides how much it is (source_cache_mb)",
                    )
                await asyncio.sleep(_AGAIN_S)
            self._coming += size
            self._moved = time.monotonic()
        try:
            yield
        finally:
            self._coming -= size
            self._moved = time.monotonic()

    async def fill(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> Path:
        """Take in what is said to be this source. Raises `SourceDamaged` where it is not, `StorageFull`,
        `StorageFailed`; nothing of it is kept then.
        """
        path, fresh = source_path(self._folder, digest), self._arriving / secrets.token_hex(12)
        hashed, arrived = hashlib.sha256(), 0
        self._shrink(wanted=max(size, self._coming))
        try:
            room.check(self._folder, size)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise storage_error(error, "fetching a source") from error
        try:
            try:
                async for chunk in chunks:
                    arrived += len(chunk)
                    self._moved = time.monotonic()
                    if arrived > size:
                        raise SourceDamaged.of(digest, "it has more bytes than the store said")
                    if len(chunk) <= _INLINE:
                        _take(fd, hashed, chunk)
                    else:
                        await in_thread(_take, fd, hashed, chunk)
                if hashed.hexdigest() != digest:
                    raise SourceDamaged.of(digest, f"what was read ({arrived} of {size} bytes) is not what was stored")
                _give_to_owner_of(self._folder, fd)
            finally:
                os.close(fd)
            fresh.replace(path)
        except OSError as error:
            raise storage_error(error, "fetching a source") from error
        finally:
            fresh.unlink(missing_ok=True)
        self._verified[digest] = _facts(path)
        self._size += arrived
        return path

    def forget(self, digest: str) -> None:
        """Remove a source. Idempotent."""
        self._verified.pop(digest, None)
        source_path(self._folder, digest).unlink(missing_ok=True)

    def _has_room(self, size: int) -> bool:
        self._shrink(wanted=self._coming + size)
        there = self._size + self._coming
        return not self.bounded or not there or there + size <= 2 * self._largest

    def _shrink(self, wanted: int = 0) -> None:
        """Make room for `wanted` bytes: within the bound now and then, and at once where the disk has not as much, or
        leases take too much.
        """
        short = False
        with contextlib.suppress(OSError):
            short = room.free(self._folder) - wanted < room.FLOOR
        full = self._size + wanted > 2 * self._largest
        if not short and not full and time.monotonic() < self._looked + _LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        kept: list[tuple[float, int, Path]] = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(OSError):
                if entry.name.endswith(SUFFIX):
                    facts = entry.stat(follow_symlinks=False)
                    kept.append((facts.st_mtime, facts.st_size, Path(entry.path)))
        left = sum(size for _, size, _ in kept) + wanted
        for used, size, path in sorted(kept):
            unused_s = time.time() - used
            leased = unused_s < self._lease_s and (left <= 2 * self._largest or unused_s < self._held_s)
            if leased or (left <= self._largest and not short):
                break
            self.forget(path.name.removesuffix(SUFFIX))
            left -= size
        self._size = left - wanted


def _take(fd: int, hashed: hashlib._Hash, chunk: bytes) -> None:
    hashed.update(chunk)
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]


def _facts(path: Path) -> _Seen:
    found = path.stat(follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_size


def _give_to_owner_of(folder: Path, what: int | Path) -> None:
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(what, owner.st_uid, owner.st_gid)
