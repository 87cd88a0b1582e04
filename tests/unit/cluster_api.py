"""An API server for one kind of objects, in memory: with a history, watches, and all the ways in which these end.

Only what no real one does at a wish; what a real one does is in tests/cluster.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncGenerator, Callable
from typing import Literal

from vibed.cluster.client import Change, Objects
from vibed.cluster.errors import KubeConflict, KubeExists, KubeGone, KubeNotFound, KubeUnavailable
from vibed.cluster.kinds import ALL, CONFIG_MAP, Kind, Object

End = Literal["cleanly", "broken", "gone"]


class Api:
    """Implements `informer.Lists` and `election.Leases`."""

    namespace = "default"

    def __init__(self) -> None:
        self.version = 1
        self.objects_now: dict[str, Object] = {}
        self.lists = 0
        self.watched_since: list[str] = []
        self.down = False
        """While it is, every call and every watch fails."""
        self.on_the_way_s = 0.0
        """How long the answer to a list takes to arrive."""
        self._uids = itertools.count(1)
        self._history: list[Change] = []
        self._forgotten = 0
        """What happened up to this version is no longer told."""
        self._ends: End | None = None
        self._changed = asyncio.Event()
        """Set when something has happened, and then replaced."""

    # what a client calls

    async def objects(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        trim: Callable[[Object], Object] = lambda item: item,
    ) -> Objects:
        await self._pass()
        self.lists += 1
        found = Objects([trim(copy.deepcopy(item)) for item in self.objects_now.values()], str(self.version))
        await asyncio.sleep(self.on_the_way_s)
        return found

    async def watch(
        self,
        kind: Kind,
        *,
        since: str,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        lasts_s: float = 300.0,
    ) -> AsyncGenerator[Change, None]:
        await self._pass()
        self.watched_since.append(since)
        heard = int(since)
        yield Change("BOOKMARK", {"metadata": {"resourceVersion": since}})
        while True:
            if heard < self._forgotten:
                raise KubeGone("too old resource version")
            for change in [change for change in self._history if int(change.resource_version) > heard]:
                heard = int(change.resource_version)
                yield Change(change.type, copy.deepcopy(change.object))
            if self._ends is None and not self.down and not self._after(heard):
                await self._changed.wait()
            if self.down or self._ends == "broken":
                raise KubeUnavailable("the connection broke")
            if self._ends == "cleanly":
                return
            if self._ends == "gone":
                raise KubeGone("too old resource version")

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object:
        await self._pass()
        if name not in self.objects_now:
            raise KubeNotFound(name)
        return copy.deepcopy(self.objects_now[name])

    async def create(self, kind: Kind, body: Object, *, namespace: str | None = None) -> Object:
        await self._pass()
        name = body["metadata"]["name"]
        if name in self.objects_now:
            raise KubeExists(name)
        return self.write(name, {key: value for key, value in body.items() if key != "metadata"}, body["metadata"])

    async def replace(self, kind: Kind, body: Object, *, namespace: str | None = None, subresource: str = "") -> Object:
        await self._pass()
        metadata = body["metadata"]
        name = metadata["name"]
        if name not in self.objects_now:
            raise KubeNotFound(name)
        if metadata.get("resourceVersion") != self.objects_now[name]["metadata"]["resourceVersion"]:
            raise KubeConflict(name)
        return self.write(name, {key: value for key, value in body.items() if key != "metadata"}, metadata)

    async def _pass(self) -> None:
        await asyncio.sleep(0.001)
        if self.down:
            raise KubeUnavailable("nobody answers")

    # what a test does to it

    def write(self, name: str, facts: Object, metadata: Object | None = None) -> Object:
        """Make or change an object; returns what the API would answer."""
        known = self.objects_now.get(name)
        self.version += 1
        item = {
            **copy.deepcopy(facts),
            "kind": CONFIG_MAP.kind,
            "metadata": {
                **copy.deepcopy(metadata or {}),
                "name": name,
                "namespace": self.namespace,
                "uid": known["metadata"]["uid"] if known else str(next(self._uids)),
                "resourceVersion": str(self.version),
            },
        }
        self.objects_now[name] = item
        self._tell(Change("MODIFIED" if known else "ADDED", item))
        return copy.deepcopy(item)

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        item = self.objects_now.pop(name, None)
        if item is None:
            return
        self.version += 1
        last = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
        self._tell(Change("DELETED", last))

    def bookmark(self) -> None:
        """Tell the watches how late it is, as when objects of others changed."""
        self.version += 1
        self._tell(Change("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}}))

    def forget(self) -> None:
        """Forget what happened until now: watches from before it are gone."""
        self._forgotten = self.version
        self._history = []

    async def end(self, how: End) -> None:
        """End the watches that are open."""
        await self.tell()
        self._ends = how
        await self.tell()
        self._ends = None

    async def fail(self) -> None:
        """Be down from now on."""
        self.down = True
        await self.tell()

    async def tell(self) -> None:
        """Let the watches hear what has happened."""
        self._pulse()
        await asyncio.sleep(0.01)

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        self._pulse()

    def _pulse(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _after(self, version: int) -> bool:
        return bool(self._history) and int(self._history[-1].resource_version) > version


__all__ = ["ALL", "Api"]
