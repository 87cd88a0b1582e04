"""The source store: where sources live, addressed by their SHA-256.

`SourceStore` is the port; `ServedStore` keeps them as files on this machine and hands out signed URLs, which does for
one machine; `vibed.sources.s3` keeps them where every machine finds them. A source is acknowledged only after `commit`
returned: then it and its name survive a loss of power.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from vibed.sources import room
from vibed.sources.errors import SignatureRefused, SourceMissing, storage_error
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.receiving import Incoming, StagedSource, digest_of, in_thread

_DIGEST = re.compile(r"[0-9a-f]{64}")
SUFFIX = ".tar.gz"


class SourceStore(Protocol):
    """Keeps sources. Every method is safe to call from several tasks at once."""

    @property
    def incoming(self) -> Path:
        """The folder of this machine in which sources arrive."""
        ...

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
        """A local file with the source, which stays for an hour at least. Raises `SourceMissing`; a store that is
        elsewhere also what `vibed.sources.errors` has for it, and `StorageFull` and `StorageFailed` for this machine.
        """
        ...

    async def delete(self, digest: str) -> None:
        """Remove a source that no version names. Idempotent. Where other processes may keep sources at the same time,
        one that was committed lately stays: another process may be about to name it.
        """
        ...

    async def digests(self) -> frozenset[str]:
        """Every source that may be removed if no version names it, acknowledged or not."""
        ...

    async def signed_url(self, digest: str, ttl_s: float) -> str:
        """A URL from which anyone who has it can read this one source for `ttl_s` seconds."""
        ...

    def check_room(self, wanted: int = 0) -> None:
        """Raises `StorageFull` when this machine's disk has less room than a deploy needs that takes `wanted` bytes."""
        ...

    def prepare(self) -> int:
        """Make the folders and remove what an earlier process left half received. Call once, before `receive`, and only
        when no other process receives into them. Returns how many were removed.
        """
        ...


def source_path(root: Path, digest: str) -> Path:
    """Where in `root` the source of this digest is, or would be. Raises `SourceMissing` for what is not a digest."""
    return root / (checked(digest) + SUFFIX)


def checked(digest: str) -> str:
    """The digest. Raises `SourceMissing` for what is none."""
    if not _DIGEST.fullmatch(digest):
        raise SourceMissing("a source is named by the 64 hex digits of its SHA-256")
    return digest


class ServedStore:
    """Sources as files `<sha256>.tar.gz` in one directory, `incoming/` beside them on the same file system.

    `key` signs URLs and must be secret and random (32 bytes); `base_url` is where `/sources/…` is served.
    """

    def __init__(self, root: Path, *, key: bytes, base_url: str = "") -> None:
        if len(key) < 32:
            raise ValueError("the signing key needs at least 32 bytes")
        self._root = root
        self._incoming = Incoming(root / "incoming")
        self._key = key
        self._base_url = base_url.rstrip("/")
        self._directory: int | None = None

    @property
    def incoming(self) -> Path:
        return self._incoming.folder

    def prepare(self) -> int:
        self._root.mkdir(mode=0o750, parents=True, exist_ok=True)
        return self._incoming.prepare()

    async def receive(self, chunks: AsyncIterator[bytes], limits: ArchiveLimits = DEFAULT_LIMITS) -> StagedSource:
        return await self._incoming.receive(chunks, limits)

    async def commit(self, staged: StagedSource, *, known: bool = False) -> str:
        try:
            # On the event loop, for it waits for nothing: work ahead of the version looks for the name already.
            os.link(staged.path, self.path(staged.digest))
            named = True
        except FileExistsError:
            named = False
        except OSError as error:
            raise storage_error(error, "storing the source") from error
        await in_thread(self._commit, staged, known, named)
        return staged.digest

    async def discard(self, staged: StagedSource) -> None:
        staged.path.unlink(missing_ok=True)

    async def open_path(self, digest: str) -> Path:
        path = self.path(digest)
        if not path.exists():
            raise SourceMissing(f"there is no source {digest[:12]}…")
        return path

    def check_room(self, wanted: int = 0) -> None:
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
        names = await asyncio.to_thread(os.listdir, self._root)
        return frozenset(n.removesuffix(SUFFIX) for n in names if _DIGEST.fullmatch(n.removesuffix(SUFFIX)))

    async def signed_url(self, digest: str, ttl_s: float) -> str:
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
                if there and digest_of(final) == staged.digest:
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


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat(follow_symlinks=False).st_size == size
    except OSError:
        return False
