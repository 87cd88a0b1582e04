"""From an uploaded archive to a decision: the one place where the API meets `vibed.sources` and `vibed.classify`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from vibed.api.errors import TooManyAtOnce
from vibed.api.metadata import Override
from vibed.apps.app import Runtime
from vibed.apps.store import AppStore
from vibed.sources.contents import Contents, contents
from vibed.sources.errors import ArchiveError, storage_error
from vibed.sources.extraction import unpacked_size
from vibed.sources.inflate import claimed_size
from vibed.sources.limits import ArchiveLimits
from vibed.sources.overlay import overlay
from vibed.sources.reader import read_table
from vibed.sources.receiving import StagedSource, too_large
from vibed.sources.store import SourceStore
from vibed.sources.table import ArchiveTable

Decide = Callable[[ArchiveTable, Override], Runtime]
"""The classifier with the templates it knows; raises a `VibedError` for what cannot run here."""


AT_ONCE = 128 << 10
"""Bytes of an expanded archive up to which it is read on the event loop: that takes less time than a thread takes to be
asked and to answer, while other threads wait for their turn."""


SHOWN = 200_000
"""Bytes of files' content that are shown at once."""
MOST_SHOWN = 2_000
"""Files that are listed at once."""
_CHUNK = 1 << 20


class Intake:
    """Receives, reads, decides and keeps sources; collects those that no version names.

    A source is kept (on disk, synced) before the version that names it is written. So a source without a version can
    only be one whose deploy is on its way, was refused, or died in between: `collect` removes the last two.
    """

    def __init__(
        self, sources: SourceStore, decide: Decide, limits: ArchiveLimits, storage_limit: int = sys.maxsize
    ) -> None:
        """`storage_limit`: bytes that one owner's apps may take."""
        self._sources = sources
        self._decide = decide
        self.limits = limits
        self._held: Counter[str] = Counter()
        self._storage_limit = storage_limit
        self._arriving: Counter[str] = Counter()
        self._watching: list[set[str]] = []

    async def receive(self, chunks: AsyncIterator[bytes], owner: str) -> StagedSource:
        """Stream a source to disk while hashing it. What arrives for one owner at the same time takes no more than
        their apps may. Raises `TooManyAtOnce` as well.
        """
        mine = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal mine
            async for chunk in chunks:
                mine += len(chunk)
                self._arriving[owner] += len(chunk)
                if self._arriving[owner] > self._storage_limit:
                    raise TooManyAtOnce(
                        f"more than {self._storage_limit // 1_000_000:,} MB are being uploaded for {owner!r}",
                        hint="upload one source after the other",
                    )
                yield chunk

        try:
            return await self._sources.receive(counted(), self.limits)
        finally:
            self._arriving[owner] -= mine
            if not self._arriving[owner]:
                del self._arriving[owner]

    async def discard(self, staged: StagedSource) -> None:
        """Forget a source that was received and not kept."""
        await self._sources.discard(staged)

    async def decide(self, path: Path, override: Override) -> Runtime:
        """Read the archive's table and classify it. Raises `ArchiveError` and the classifier's refusals."""
        if claimed_size(path) <= AT_ONCE:
            with contextlib.suppress(ArchiveError):
                # no more than it claims, and if there is more it is refused below, with what is wrong
                return self._read_and_decide(path, override, replace(self.limits, expanded=AT_ONCE))
        return await asyncio.to_thread(self._read_and_decide, path, override, self.limits)

    def _read_and_decide(self, path: Path, override: Override, limits: ArchiveLimits) -> Runtime:
        table = read_table(path, limits)
        runtime = self._decide(table, override)
        folder = runtime.site_folder
        return runtime if folder is None else replace(runtime, unpacked=unpacked_size(table, runtime.strip + folder))

    async def look_at(self, path: Path) -> None:
        """Read the archive's table. Raises `ArchiveError`."""
        await asyncio.to_thread(read_table, path, self.limits)

    def check_room(self, runtime: Runtime) -> None:
        """Raises `StorageFull` where the disk has no room for a version that runs so, `StorageFailed`."""
        self._sources.check_room(runtime.unpacked)

    async def decide_again(self, digest: str, override: Override) -> Runtime:
        """Classify a source that is kept. Raises `SourceMissing` as well."""
        return await self.decide(await self._sources.open_path(digest), override)

    async def path(self, digest: str) -> Path:
        """The file of a source that is kept. Raises `SourceMissing`."""
        return await self._sources.open_path(digest)

    async def keep(self, staged: StagedSource, *, known: bool) -> None:
        """Make a received source durable. It must be held until the version that names it is written."""
        await self._sources.commit(staged, known=known)

    async def overlay(
        self, digest: str, strip: str, patch: StagedSource | None, removed: Sequence[str]
    ) -> StagedSource:
        """Stage the source `digest` with the files of `patch` in it and without those `removed`.

        Raises `SourceMissing`, `NoSuchFile`, `ArchiveError`, `StorageFull`, `StorageFailed`.
        """
        base = await self._sources.open_path(digest)

        looked = 0

        def check(size: int) -> None:
            nonlocal looked
            if size > self.limits.compressed:
                raise too_large(self.limits)
            if size - looked > _CHUNK:
                looked = size
                self._sources.check_room()

        def write() -> BinaryIO:
            # where sources arrive: it counts as one, and a temporary folder may be small
            try:
                with ExitStack() as failed:
                    out = cast(BinaryIO, tempfile.NamedTemporaryFile(dir=self._sources.incoming))  # noqa: SIM115
                    failed.callback(out.close)
                    self._sources.check_room()
                    overlay(
                        out, base, patch.path if patch else None, removed, strip=strip, limits=self.limits, check=check
                    )  # fmt: skip
                    out.seek(0)
                    failed.pop_all()
                    return out
            except OSError as error:  # closing it, too, writes what is left
                raise storage_error(error, "putting the source together") from error

        with await asyncio.to_thread(write) as merged:

            async def chunks() -> AsyncIterator[bytes]:
                while chunk := await asyncio.to_thread(merged.read, _CHUNK):
                    yield chunk

            return await self._sources.receive(chunks(), self.limits)

    async def contents(self, digest: str, strip: str, paths: Collection[str] | None) -> Contents:
        """The files of a source, and what is in some of them. Raises `SourceMissing`, `NoSuchFile`."""
        source = await self._sources.open_path(digest)
        return await asyncio.to_thread(
            contents, source, paths, strip=strip, budget=SHOWN, most=MOST_SHOWN, limits=self.limits
        )

    @contextmanager
    def holding(self, digest: str) -> Iterator[None]:
        """Let nobody remove a source until the version that names it is written."""
        self._held[digest] += 1
        for watched in self._watching:
            watched.add(digest)
        try:
            yield
        finally:
            self._held[digest] -= 1
            if not self._held[digest]:
                del self._held[digest]

    async def drop(self, digest: str, store: AppStore) -> None:
        """Remove the source of a refused deploy, unless a version names it or another deploy holds it."""
        with self._watch() as held:
            if digest not in held and not await store.names_source(digest) and digest not in held:
                await self._sources.delete(digest)

    async def collect(self, store: AppStore) -> int:
        """Remove sources that no version names; returns how many. Only one process may keep sources."""
        removed = 0
        with self._watch() as held:
            # In this order: what is kept after the first is held meanwhile.
            present = await self._sources.digests()
            used = await store.digests_in_use()
            for digest in present - used:
                if digest not in held:
                    await self._sources.delete(digest)
                    removed += 1
        return removed

    @contextmanager
    def _watch(self) -> Iterator[set[str]]:
        """What is held now or at any moment of the block: what the store said in between may be out of date for it."""
        held = set(self._held)
        self._watching.append(held)
        try:
            yield held
        finally:
            self._watching = [other for other in self._watching if other is not held]

    def prepare(self) -> int:
        """Before the first request: make the directories, remove what an earlier process left half received."""
        return self._sources.prepare()
