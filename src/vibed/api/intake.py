"""From an uploaded archive to a decision: the one place where the API meets `vibed.sources` and `vibed.classify`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vibed.api.metadata import Override
from vibed.apps.app import Runtime
from vibed.apps.store import AppStore
from vibed.sources.limits import ArchiveLimits
from vibed.sources.reader import read_table
from vibed.sources.store import ServedStore, StagedSource
from vibed.sources.table import ArchiveTable

Decide = Callable[[ArchiveTable, Override], Runtime]
"""The classifier with the templates it knows; raises a `VibedError` for what cannot run here."""


class Intake:
    """Receives, reads, decides and keeps sources; collects those that no version names.

    A source is kept (on disk, synced) before the version that names it is written. So a source without a version can
    only be one whose deploy is on its way, was refused, or died in between: `collect` removes the last two.
    """

    def __init__(self, sources: ServedStore, decide: Decide, limits: ArchiveLimits) -> None:
        self._sources = sources
        self._decide = decide
        self.limits = limits
        self._in_flight: Counter[str] = Counter()
        self._kept_since: set[str] | None = None

    async def receive(self, chunks: AsyncIterator[bytes]) -> StagedSource:
        """Stream a source to disk while hashing it."""
        return await self._sources.receive(chunks, self.limits)

    async def discard(self, staged: StagedSource) -> None:
        """Forget a source that was received and not kept."""
        await self._sources.discard(staged)

    async def decide(self, path: Path, override: Override) -> Runtime:
        """Read the archive's table and classify it. Raises `ArchiveError` and the classifier's refusals."""
        return await asyncio.to_thread(self._read_and_decide, path, override)

    def _read_and_decide(self, path: Path, override: Override) -> Runtime:
        return self._decide(read_table(path, self.limits), override)

    async def decide_again(self, digest: str, override: Override) -> Runtime:
        """Classify a source that is kept. Raises `SourceMissing` as well."""
        return await self.decide(await self._sources.open_path(digest), override)

    async def path(self, digest: str) -> Path:
        """The file of a source that is kept. Raises `SourceMissing`."""
        return await self._sources.open_path(digest)

    async def keep(self, staged: StagedSource, *, known: bool) -> None:
        """Make a received source durable."""
        if self._kept_since is not None:
            self._kept_since.add(staged.digest)
        await self._sources.commit(staged, known=known)

    @contextmanager
    def holding(self, digest: str) -> Iterator[None]:
        """Keep `collect` away from a source until the version that names it is written."""
        self._in_flight[digest] += 1
        try:
            yield
        finally:
            self._in_flight[digest] -= 1
            if not self._in_flight[digest]:
                del self._in_flight[digest]

    async def collect(self, store: AppStore) -> int:
        """Remove sources that no version names; returns how many. Only one process may keep sources."""
        if self._kept_since is not None:
            return 0
        self._kept_since = set()
        removed = 0
        try:
            # In this order: what is kept later is not in `present`, or is in `_kept_since`.
            present = await self._sources.digests()
            used = await store.digests_in_use()
            for digest in present - used:
                if digest not in self._in_flight and digest not in self._kept_since:
                    await self._sources.delete(digest)
                    removed += 1
        finally:
            self._kept_since = None
        return removed

    def prepare(self) -> int:
        """Before the first request: make the directories, remove what an earlier process left half received."""
        return self._sources.prepare()
