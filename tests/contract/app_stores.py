"""Each AppStore as its contract meets it: a place that any process can open, and what differs by design."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vibed.api.background import in_background
from vibed.apps.sqlite.store import SqliteStore
from vibed.apps.sqlite.writing import EVENTS_KEPT
from vibed.apps.store import AppStore
from vibed.cluster import seen
from vibed.cluster.client import Client
from vibed.cluster.memory import Memory
from vibed.cluster.store import ClusterStore


class Place(Protocol):
    """Where a store keeps what it keeps; goes to other processes."""

    events_kept: int

    def opened(self) -> AbstractAsyncContextManager[AppStore]:
        """A store of this process."""
        ...


@dataclass(frozen=True)
class SqlitePlace:
    """One file."""

    path: Path
    remembers: bool = False
    """Whether they read single apps from it, too."""
    events_kept: int = EVENTS_KEPT

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AppStore]:
        store = await SqliteStore.open(self.path)
        try:
            yield store
        finally:
            await store.close()


@dataclass(frozen=True)
class ClusterPlace:
    """A namespace of a cluster, for apps and keys."""

    kubeconfig: Path
    namespace: str
    cached: bool
    """Whether stores have a memory of all apps."""
    remembers: bool = False
    """Whether they read single apps from it, too."""
    events_kept: int = seen.EVENTS_KEPT

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ClusterStore]:
        client = Client.connect(kubeconfig=self.kubeconfig, namespace=self.namespace)
        memory = Memory(client, self.namespace) if self.cached else None
        store = ClusterStore(
            client,
            namespace=self.namespace,
            own_namespace=self.namespace,
            url=lambda app_id: f"https://{app_id}.apps.test",
            memory=memory,
            remembers=self.remembers,
        )
        try:
            if memory is None:
                yield store
            else:
                async with in_background(memory.run()):
                    await memory.synced()
                    yield store
        finally:
            await store.close()
            await client.close()
