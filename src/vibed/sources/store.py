"""The source store: where sources live, addressed by their SHA-256.

`SourceStore` is the port; `ServedStore` keeps them as files and hands out signed URLs. A source is acknowledged
only after `commit` returned: then it and its name survive a loss of power."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vibed.sources import room
from vibed.sources.errors import NotGzip, SignatureRefused, SourceMissing, TooLarge, storage_error
from vibed.sources.inflate import size_text
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ".tar.gz"
_BATCH = 1 << 20
_INLINE = 256 << 10
"""Up to here a write to the page cache and the hash take less time than handing them to a thread."""


@dataclass(frozen=True, slots=True)
class StagedSource:
    """A source that was received in full and is not yet part of the store."""

    path: Path
    digest: str
    size: int


class SourceStore(Protocol):
    """Keeps sources. Every method is safe to call from several tasks at once."""

    async def receive(self, chunks: AsyncIterator[bytes], limits: ArchiveLimits = DEFAULT_LIMITS) -> StagedSource:
        """Take in an upload once, hashing it. Raises `TooLarge`, `NotGzip`, `StorageFull`, `StorageFailed`;
        when it raises (or is cancelled, or `chunks` raises) nothing is kept."""
        ...

    async def commit(self, staged: StagedSource, *, known: bool = False) -> str:
        """Make a received source durable under its digest, which is returned. The same source twice is one source, and
        the received one can be read until it is discarded.
        `known`: the caller has a durable record that this digest was committed before."""
        ...

    async def discard(self, staged: StagedSource) -> None:
        """Forget a received source; what was committed stays. Idempotent."""
        ...

    async def open_path(self, digest: str) -> Path:
        """A local file with the source. Raises `SourceMissing`."""
        ...

    async def delete(self, digest: str) -> None:
        """Remove a source. Idempotent."""
        ...

    def signed_url(self, digest: str, ttl_s: float) -> str:
        """A URL from which anyone who has it can read this one source for `ttl_s` seconds."""
        ...


def source_path(root: Path, digest: str) -> Path:
    """Where in `root` the source of this digest is, or would be. Raises `SourceMissing` for what is not a digest."""
    if not _DIGEST.fullmatch(digest):
        raise SourceMissing("a source is named by the 64 hex digits of its SHA-256")
    return root / (digest + _SUFFIX)


class ServedStore:
    """Sources as files `<sha256>.tar.gz` in one directory, `incoming/` beside them on the same file system.

    `key` signs URLs and must be secret and random (32 bytes); `base_url` is where `/sources/…` is served.
    """

    def __init__(self, root: Path, *, key: bytes, base_url: str = "") -> None:
        if len(key) < 32:
            raise ValueError("the signing key needs at least 32 bytes")
        self._root = root
        self._incoming = root / "incoming"
        self._key = key
        self._base_url = base_url.rstrip("/")
        self._directory: int | None = None

    def prepare(self) -> int:
        """Make the directories and remove what an earlier process left half received. Call once, before use, and only
        when no other process receives into this directory. Returns how many were removed."""
        self._root.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        removed = 0
        for left in self._incoming.iterdir():
            left.unlink(missing_ok=True)
            removed += 1
        return removed

    async def receive(self, chunks: AsyncIterator[bytes], limits: ArchiveLimits = DEFAULT_LIMITS) -> StagedSource:
        path = self._incoming / secrets.token_hex(12)
        try:
            room.check(self._incoming)
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
                raise TooLarge(
                    f"the source is larger than the {size_text(limits.compressed)} that are accepted",
                    hint="leave out what the app does not need: dependencies, build caches, media, .git",
                )
            waiting.append(chunk)
            held += len(chunk)
            if held >= _BATCH:
                batch, waiting, held = waiting, [], 0
                await _in_thread(_take, fd, hashed, batch)
                room.check(fd)
        if not size:
            raise NotGzip("the source has no bytes", hint="send a gzipped tar archive of the folder")
        if held <= _INLINE:
            _take(fd, hashed, waiting)
        else:
            await _in_thread(_take, fd, hashed, waiting)
        return StagedSource(path, hashed.hexdigest(), size)

    async def commit(self, staged: StagedSource, *, known: bool = False) -> str:
        try:
            # On the event loop, for it waits for nothing: work ahead of the version looks for the name already.
            os.link(staged.path, self.path(staged.digest))
            named = True
        except FileExistsError:
            named = False
        except OSError as error:
            raise storage_error(error, "storing the source") from error
        await _in_thread(self._commit, staged, known, named)
        return staged.digest

    async def discard(self, staged: StagedSource) -> None:
        staged.path.unlink(missing_ok=True)

    async def open_path(self, digest: str) -> Path:
        path = self.path(digest)
        if not path.exists():
            raise SourceMissing(f"there is no source {digest[:12]}…")
        return path

    def check_room(self, wanted: int = 0) -> None:
        """Raises `StorageFull` when the disk has less room than a deploy needs that takes `wanted` bytes."""
        try:
            room.check(self._root, wanted)
        except OSError as error:
            raise storage_error(error, "looking at the disk") from error

    def path(self, digest: str) -> Path:
        """As `source_path`."""
        return source_path(self._root, digest)

    async def delete(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)

    async def digests(self) -> frozenset[str]:
        """Every digest in the store, acknowledged or not (for collecting garbage)."""
        names = await asyncio.to_thread(os.listdir, self._root)
        return frozenset(n.removesuffix(_SUFFIX) for n in names if _DIGEST.fullmatch(n.removesuffix(_SUFFIX)))

    def signed_url(self, digest: str, ttl_s: float) -> str:
        expires = int(time.time() + ttl_s)
        self.path(digest)
        return f"{self._base_url}/sources/{digest}?expires={expires}&signature={self._signature(digest, expires)}"

    def verify(self, digest: str, expires: str, signature: str) -> Path:
        """The file that a signed URL names. Raises `SignatureRefused`, `SourceMissing`."""
        if not expires.isascii() or not expires.isdigit() or len(expires) > 12 or not signature.isascii():
            raise SignatureRefused("the signature of this URL is not valid")
        if not hmac.compare_digest(self._signature(digest, int(expires)), signature):
            raise SignatureRefused("the signature of this URL is not valid")
        if int(expires) < time.time():
            raise SignatureRefused("this URL has expired", hint="ask for a new one")
        path = self.path(digest)
        if not path.exists():
            raise SourceMissing(f"there is no source {digest[:12]}…")
        return path

    def _signature(self, digest: str, expires: int) -> str:
        return hmac.new(self._key, f"vibed source\n{digest}\n{expires}".encode(), hashlib.sha256).hexdigest()

    def _commit(self, staged: StagedSource, known: bool, named: bool) -> None:
        final = self.path(staged.digest)
        try:
            if not named:
                there = _has_size(final, staged.size)
                if known and there:
                    return
                # A name that is there proves nothing: it may have come back from a crash without its content.
                if there and _digest_of(final) == staged.digest:
                    self._sync(final)
                    return
                _replace(staged.path, final)
            # Naming it before syncing lets one commit of the file system's journal carry both content and name.
            try:
                self._sync(final)
            except OSError:
                # After a failed sync the kernel may drop the pages and still call them clean.
                with contextlib.suppress(OSError):
                    final.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise storage_error(error, "storing the source") from error

    def _sync(self, final: Path) -> None:
        """The content and the name."""
        if self._directory is None:
            self._directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fd = os.open(final, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
            os.fsync(self._directory)
        finally:
            os.close(fd)


def _replace(existing: Path, name: Path) -> None:
    """Give a file a second name, in the place of the file that has it."""
    second = existing.with_name(f"{existing.name}.named")
    os.link(existing, second)
    second.replace(name)


def _take(fd: int, hashed: hashlib._Hash, batch: list[bytes]) -> None:
    try:
        for chunk in batch:
            hashed.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
    except OSError as error:
        raise storage_error(error, "receiving the source") from error


async def _in_thread(work: Callable[..., None], *args: object) -> None:
    """Run blocking work in a thread and, even when cancelled, return only after it: it uses our descriptor."""
    task = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat(follow_symlinks=False).st_size == size
    except OSError:
        return False
