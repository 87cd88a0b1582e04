"""What the API has of one kind, kept in memory and kept up to date: one list, and then one watch without an end.

A watch ends often, and mostly without an error (client.watch says when). Each time the informer goes on from the last
version that it has heard of, so nothing is missed and nothing is listed anew; only an answer of 410, which says that
the server has forgotten what came after it, leads to another list, whose differences to what is known are then told
like changes: what was deleted meanwhile is told as deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from vibed import records
from vibed.cluster.client import Change, Objects
from vibed.cluster.errors import KubeError, KubeGone
from vibed.cluster.kinds import ALL, Kind, Object

log = records.logger("vibed.cluster.informer")

WATCH_S = 300.0
"""How long one watch is asked to last at least; up to twice as long, so that not all end together."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_SETTLED_S = 5.0
_AT_ONCE = 100
"""Objects of a list that are taken before others on the event loop have their turn: thousands would take a second, in
which no lease is renewed and nobody is answered.
"""


class Lists(Protocol):
    """What an informer needs of a client."""

    @property
    def namespace(self) -> str: ...

    async def objects(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        trim: Callable[[Object], Object] = ...,
    ) -> Objects: ...

    def watch(
        self,
        kind: Kind,
        *,
        since: str,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        lasts_s: float = 300.0,
    ) -> AsyncGenerator[Change, None]: ...


class Informer:
    """The objects of one kind that match, by name; in all namespaces (`kinds.ALL`) by `namespace/name`.

    What it hands out is what it keeps: not to be changed by who gets it.
    """

    def __init__(
        self,
        client: Lists,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        indexes: Mapping[str, Callable[[Object], Iterable[str]]] | None = None,
        on_change: Callable[[Object | None, Object | None], None] = lambda old, new: None,
        trim: Callable[[Object], Object] = lambda item: item,
        watch_s: float = WATCH_S,
    ) -> None:
        """`on_change` hears of each change on the event loop, after the memory has it: (None, new), (old, new),
        (old, None). `indexes` say under which keys an object is found by `by`. `trim` takes from an object what nobody
        here reads, before it is kept: most of the memory of thousands is what nobody reads.
        """
        self.kind = kind
        self.trouble: KubeError | None = None
        """Why there is no watch at this moment; None while there is one."""
        self._client, self._namespace = client, client.namespace if namespace is None else namespace
        self._labels, self._fields = labels, fields
        self._on_change, self._trim = on_change, trim
        self._watch_s = watch_s
        self._objects: dict[str, Object] = {}
        self._indexes = {name: _Index(keys) for name, keys in (indexes or {}).items()}
        self._version = ""
        """The last that was heard of the API's time; empty before the first list."""
        self._listed = False
        """Whether a watch since that version may follow."""
        self._synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled. What fails is tried again, ever less often; `trouble` says what it is.

        What `on_change` or an index raises ends it: the memory of others could not be trusted after it.
        """
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_S
        while True:
            began, since = loop.time(), self._version
            try:
                if not self._listed:
                    await self._list()
                    since = self._version
                await self._follow()
            except KubeGone:
                # An edit of a CRD, or an API server that came back without its past.
                self._listed = False
            except KubeError as error:
                if self.trouble is None:
                    log.warning("watch failed", kind=self.kind.resource, error=error.message)
                self.trouble = error
            # One that lasted, or brought something on (a server ends those that do not keep up), is gone on with at
            # once. One that ends as soon as it begins must not become a storm.
            if loop.time() - began >= _SETTLED_S or self._version != since:
                pause = _FIRST_PAUSE_S
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def synced(self) -> None:
        """Wait until the first list is in memory, and told."""
        await self._synced.wait()

    def get(self, name: str) -> Object | None:
        """The object as it was last heard of."""
        return self._objects.get(name)

    def all(self) -> Iterable[Object]:
        """All objects; as they are now, whatever changes while they are gone through."""
        return list(self._objects.values())

    def by(self, index: str, key: str) -> Sequence[Object]:
        """The objects that the index has under the key."""
        return [self._objects[name] for name in self._indexes[index].names(key)]

    def learn(self, item: Object) -> None:
        """Take the API's answer to a write of one's own into memory, ahead of the watch, so that who writes reads
        what he wrote; told like a change. Older than what is known: nothing happens.
        """
        # A watch that is past it has told it already, or that it was deleted since.
        if self._version and _order(item) > _number(self._version):
            self._take(self._key(item), self._trim(item))

    async def _list(self) -> None:
        found = await self._client.objects(
            self.kind, namespace=self._namespace, labels=self._labels, fields=self._fields, trim=self._trim
        )
        listed_at = _number(found.resource_version)
        # at once: what is learned while the list is taken in pieces may be of before it, and gone since
        self._version = found.resource_version
        now = {self._key(item): item for item in found.items}
        for name, known in list(self._objects.items()):
            # what was learned after the list was made is not in it
            if name not in now and _order(known) <= listed_at:
                self._drop(name)
        for number, (name, item) in enumerate(now.items(), 1):
            self._take(name, item)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self._listed = True
        self._synced.set()

    async def _follow(self) -> None:
        changes = self._client.watch(
            self.kind,
            since=self._version,
            namespace=self._namespace,
            labels=self._labels,
            fields=self._fields,
            lasts_s=self._watch_s * random.uniform(1.0, 2.0),
        )
        async with contextlib.aclosing(changes):
            async for change in changes:
                self.trouble = None
                self._hear(change)

    def _hear(self, change: Change) -> None:
        item = change.object
        if change.type == "DELETED":
            name = self._key(item)
            known = self._objects.get(name)
            if known is not None and _order(known) <= _order(item):
                self._drop(name)
        elif change.type != "BOOKMARK":
            self._take(self._key(item), self._trim(item))
        self._version = change.resource_version

    def _take(self, name: str, item: Object) -> None:
        """Keep an object that is trimmed already."""
        known = self._objects.get(name)
        if known is not None:
            if _order(item) <= _order(known):
                return
            if known["metadata"].get("uid") != item["metadata"].get("uid"):
                # Deleted and made anew while nobody listened: another object.
                self._drop(name)
                known = None
        self._objects[name] = item
        for index in self._indexes.values():
            index.put(name, item)
        self._on_change(known, item)

    def _drop(self, name: str) -> None:
        known = self._objects.pop(name)
        for index in self._indexes.values():
            index.drop(name)
        self._on_change(known, None)

    def _key(self, item: Object) -> str:
        metadata = item["metadata"]
        if self._namespace == ALL and self.kind.namespaced:
            return f"{metadata['namespace']}/{metadata['name']}"
        return str(metadata["name"])


class _Index:
    """Which names stand under a key; in the order in which they came."""

    def __init__(self, keys: Callable[[Object], Iterable[str]]) -> None:
        self._keys_of = keys
        self._names: dict[str, dict[str, None]] = {}
        self._keys: dict[str, tuple[str, ...]] = {}

    def names(self, key: str) -> Iterable[str]:
        return self._names.get(key, ())

    def put(self, name: str, item: Object) -> None:
        keys = tuple(self._keys_of(item))
        if keys == self._keys.get(name):
            return
        self.drop(name)
        if keys:
            self._keys[name] = keys
        for key in keys:
            self._names.setdefault(key, {})[name] = None

    def drop(self, name: str) -> None:
        for key in self._keys.pop(name, ()):
            names = self._names.get(key, {})
            names.pop(name, None)
            if not names:
                self._names.pop(key, None)


def _order(item: Object) -> int:
    return _number(str(item["metadata"]["resourceVersion"]))


def _number(version: str) -> int:
    """Versions of one kind may be compared as numbers: always so with etcd, and promised since Kubernetes 1.35
    (KEP-5504, "Comparable Resource Version").
    """
    return int(version)
