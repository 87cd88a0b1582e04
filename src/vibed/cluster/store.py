"""The AppStore on Kubernetes: apps are VibedApps, versions ControllerRevisions, API keys Secrets; no process has state.

What is written here has been acknowledged by etcd, which syncs before it answers, so that `sync` has nothing to do.

Who reads what. From the API server, so that what anybody wrote is seen: one app and its versions (`get`, `wanted`,
`version`, `versions`, `events`), an owner's apps (`list` with an owner, `storage`), Idempotency-Keys, keys, and
whatever decides that a source may go (`names_source`, `digests_in_use`, `purge`). From this process' memory, where it
has one: all apps (`list` without an owner, `unsettled`, `undecided`), what the apps of a page take (`storage_of`), and
what an owner's apps take where a deploy is held against the storage limit; it has what this process wrote at once, and
what *others* wrote after the moments that a watch takes. A store without a memory reads all from the server.

One that `remembers` reads single apps from memory too. It is the controller's: it is told of each change, and looks
again then, so that what is old for a moment does no harm; a status is bound to the version of the app that was read,
and is read anew from the server where that has become another; and who tells it of a version that it does not remember
has it read (`catch_up`). Thousands of apps are then taken over without one request for each.

Writes: a deploy is the VibedApp and its ControllerRevision; a record is the status, with its events and outcomes; a
run's number is not written by itself: it comes with the next record, and one of which nothing was ever recorded may be
given again after the controller was killed. No two runs are the same one for that: a run's claim has its number in its
name, and the API server lets one of a name be created.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from vibed.apps.app import App, Event, Key, Phase, Runtime, Status, Version
from vibed.apps.domains import Domain
from vibed.apps.errors import Conflict, NotFound
from vibed.apps.restoring import KeptKey, Restored
from vibed.apps.standing import of_app
from vibed.apps.storage import Kept as Taken
from vibed.apps.storage import by_app
from vibed.apps.store import Deployed, Idempotency, NewEvent, NewVersion, VersionOutcome, VersionResult
from vibed.cluster import names, revisions, seen, spec
from vibed.cluster.answers import as_the_port_says, fits, no_app
from vibed.cluster.api_keys import ApiKeys
from vibed.cluster.by_hand import ByHand, Undecided
from vibed.cluster.client import Client
from vibed.cluster.deploying import Deploying
from vibed.cluster.domains import Domains
from vibed.cluster.errors import KubeConflict, KubeNotFound
from vibed.cluster.kinds import CONTROLLER_REVISION, LEASE, VIBED_APP
from vibed.cluster.memory import Memory
from vibed.cluster.objects import AppObjects, Kept, decided
from vibed.cluster.restoring import Restorer
from vibed.cluster.room import Room, taken

T = TypeVar("T")

_TRIES = 20
_LONGEST_PAUSE_S = 0.3
_PROOF = "vibed-store"
"""The Lease that `prove` renews."""


class ClusterStore:
    """See `vibed.apps.store.AppStore` and the module's docstring; one instance a process.

    `namespace` has the apps, `own_namespace` the keys. `memory`: of all VibedApps of `namespace`, which somebody else
    runs; `remembers`: see there. `url`: where an app of that id is reached. The client is closed by who made it.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        own_namespace: str,
        url: Callable[[str], str],
        memory: Memory | None = None,
        remembers: bool = False,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._own_namespace = own_namespace
        self._url = url
        self._apps = AppObjects(client, namespace, memory, remembers=remembers)
        self._room = Room(self._apps)
        self._deploying = Deploying(self._apps, self._room)
        self._by_hand = ByHand(self._apps, self._deploying)
        self._keys = ApiKeys(client, own_namespace)
        self._domains = Domains(client, self._apps, own_namespace)
        self._writing: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def deploy(
        self,
        new: NewVersion,
        *,
        if_exists: Literal["update", "fail"] = "update",
        idempotency: Idempotency | None = None,
        expected: App | None = None,
        storage_limit: int | None = None,
    ) -> Deployed:
        """See the port; raises `AppTooLarge` as well. The storage limit is exact within this process; of several at the
        same moment each may pass it by one version.
        """
        return await self._finish(
            self._deploying.deploy(
                new, if_exists=if_exists, idempotency=idempotency, expected=expected, storage_limit=storage_limit
            )
        )

    async def sync(self) -> None:
        return

    async def replay(self, owner: str, idempotency: Idempotency) -> Deployed | None:
        with as_the_port_says():
            return await self._deploying.replay(owner, idempotency)

    async def get(self, app_id: str) -> App:
        with as_the_port_says():
            return await self._apps.view(await self._apps.recall(app_id))

    async def catch_up(self, app_id: str, version: int | None = None) -> None:
        with as_the_port_says():
            await self._apps.catch_up(app_id, version)

    async def wanted(self, app_id: str) -> tuple[App, Version]:
        with as_the_port_says():
            kept = await self._apps.recall(app_id)
            version = await self._apps.newest(kept)
            return await self._apps.view(kept, version), version

    async def list(
        self,
        *,
        owner: str | None = None,
        phase: Phase | None = None,
        q: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[App], int]:
        with as_the_port_says():
            if owner is not None:
                own = await self._apps.owned(owner)
                own.sort(key=lambda kept: (-kept.ledger.newest.created_at, kept.app_id))
                there = [kept.object for kept in own]
            else:
                there = await self._apps.by_last_deploy()
            if q:
                there = [app for app in there if q.lower() in app["metadata"]["name"]]
            if phase is None:
                page = [await self._apps.view(kept) for kept in decided(there[offset : offset + limit])]
                return page, len(there)
            apps = [app for kept in decided(there) if of_app(app := await self._apps.view(kept)).phase is phase]
            return apps[offset : offset + limit], len(apps)

    async def unsettled(self) -> Sequence[App]:
        with as_the_port_says():
            found = [await self._apps.view(kept) for kept in await self._apps.unsettled()]
            return sorted(found, key=lambda app: app.last_deployed_at)

    async def version(self, app_id: str, number: int) -> Version:
        with as_the_port_says():
            return await self._apps.version(await self._apps.recall(app_id), number)

    async def results(self, app_id: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[VersionResult], int]:
        with as_the_port_says():
            try:
                kept = await self._apps.recall(app_id)
            except NotFound:
                return [], 0
            lines = kept.ledger.lines[::-1]
            return [seen.result_of(kept.object, line) for line in lines[offset : offset + limit]], len(lines)

    async def versions(self, app_id: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[Version], int]:
        """The newest `vibed.cluster.ledger.VERSIONS_KEPT` and a few more are there."""
        with as_the_port_says():
            try:
                kept = await self._apps.get(app_id)
            except NotFound:
                return [], 0
            lines = kept.ledger.lines[::-1]
            page = lines[offset : offset + limit]
            there = {
                revision["revision"]: revisions.read(revision)
                for revision in (await self._apps.revisions(app_id) if page else ())
                if revisions.is_of(revision, kept.object)
            }
            newest = spec.version(kept.object, kept.ledger)
            if newest is not None:
                there[newest.number] = newest
            found = [there[line.number] for line in page if line.number in there]
            return [seen.with_outcome(version, kept.object, kept.ledger) for version in found], len(lines)

    async def record(
        self,
        app_id: str,
        status: Status | None,
        *,
        outcomes: Sequence[VersionOutcome] = (),
        events: Sequence[NewEvent] = (),
    ) -> Status | None:
        return await self._finish(self._record(app_id, status, outcomes, events))

    async def next_run(self, app_id: str) -> int:
        """See the module's docstring for what holds of a number across controllers."""
        with as_the_port_says():
            kept = await self._apps.recall(app_id)
        mark = (app_id, kept.ledger.created_at)
        number = max(seen.runs(kept.object), self._apps.begun.get(mark, 0)) + 1
        self._apps.begun[mark] = number
        return number

    async def request_delete(self, app_id: str) -> App:
        with as_the_port_says():
            kept = await self._apps.get(app_id)
            if not kept.deleted:
                uid = kept.object["metadata"]["uid"]
                await self._client.delete(VIBED_APP, app_id, namespace=self._namespace, uid=uid)
                await self._domains.release(kept)
                found = await self._apps.find(app_id)
                if found is None or found["metadata"]["uid"] != uid:
                    # Nothing held it: somebody took its finalizer away, or it was purged already.
                    self._apps.removed(kept)
                    gone = {
                        **kept.object["metadata"],
                        "deletionTimestamp": kept.object["metadata"]["creationTimestamp"],
                    }
                    return await self._apps.view(Kept({**kept.object, "metadata": gone}, kept.ledger))
                self._apps.wrote(found)
                kept = Kept(found, kept.ledger)
            return await self._apps.view(kept)

    async def purge(self, app_id: str) -> Sequence[str]:
        return await self._finish(self._purge(app_id))

    async def storage(self, owner: str) -> Sequence[Taken]:
        with as_the_port_says():
            return [one for kept in await self._apps.owned(owner) for one in taken(kept)]

    async def storage_of(self, app_ids: Sequence[str]) -> Mapping[str, int]:
        with as_the_port_says():
            return by_app(one for kept in await self._apps.some(app_ids) for one in taken(kept))

    async def prove(self) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        with as_the_port_says():
            await self._client.apply(
                LEASE,
                {"metadata": {"name": _PROOF}, "spec": {"renewTime": now}},
                namespace=self._own_namespace,
                manager="vibed-store",
            )

    async def names_source(self, digest: str) -> bool:
        with as_the_port_says():
            return bool(await self._room.named([digest]))

    async def digests_in_use(self) -> frozenset[str]:
        with as_the_port_says():
            return frozenset(line.digest for ledger in await self._apps.ledgers() for line in ledger.lines if line.kept)

    async def events(self, app_id: str, *, after: int = 0, limit: int = 500) -> Sequence[Event]:
        with as_the_port_says():
            try:
                kept = await self._apps.get(app_id)
            except NotFound:
                return []
            return [event for event in seen.events(kept.object, kept.ledger) if event.seq > after][:limit]

    async def add_domain(self, app_id: str, name: str, *, by: str) -> Domain:
        return await self._finish(self._domains.add(app_id, name, by))

    async def verify_domain(self, app_id: str, name: str, token: str) -> Domain:
        return await self._finish(self._domains.verify(app_id, name, token))

    async def remove_domain(self, app_id: str, name: str) -> None:
        await self._finish(self._domains.remove(app_id, name))

    async def domains(self, app_id: str) -> Sequence[Domain]:
        with as_the_port_says():
            return await self._domains.of_app(app_id)

    async def domain(self, name: str) -> Domain | None:
        with as_the_port_says():
            return await self._domains.find(name)

    async def verified_domains(self) -> Mapping[str, str]:
        with as_the_port_says():
            return await self._domains.all_verified()

    async def restore(self, app: Restored) -> App:
        """See `vibed.apps.restoring`; the newest `vibed.cluster.ledger.VERSIONS_KEPT` versions come."""

        async def record(app_id: str, outcomes: Sequence[VersionOutcome]) -> None:
            await self._record(app_id, None, outcomes, ())

        return await self._finish(Restorer(self._apps, self._deploying, record).restore(app))

    async def kept_keys(self) -> Sequence[KeptKey]:
        with as_the_port_says():
            return await self._keys.kept()

    async def restore_key(self, kept: KeptKey) -> bool:
        with as_the_port_says():
            return await self._keys.restore(kept)

    async def create_key(self, owner: str, *, admin: bool, label: str, secret_sha256: str) -> Key:
        with as_the_port_says():
            return await self._keys.create(owner, admin=admin, label=label, secret_sha256=secret_sha256)

    async def find_key(self, secret_sha256: str) -> Key | None:
        with as_the_port_says():
            return await self._keys.find(secret_sha256)

    async def keys(self) -> Sequence[Key]:
        with as_the_port_says():
            return await self._keys.all()

    async def keys_used(self, used: Mapping[str, float]) -> None:
        """Written every ten minutes at most; this process knows more of what it was told."""
        with as_the_port_says():
            await self._keys.used(used)

    async def revoke_key(self, key_id: str) -> None:
        with as_the_port_says():
            await self._keys.revoke(key_id)

    # what was applied by hand

    async def undecided(self) -> Sequence[Undecided]:
        """Specs that were applied or edited by hand and of which no version was made yet."""
        with as_the_port_says():
            return await self._by_hand.undecided()

    async def decide(
        self,
        app_id: str,
        runtime: Runtime,
        digest: str,
        size: int,
        *,
        generation: int,
        storage_limit: int | None = None,
    ) -> Deployed:
        """Make the version of such a spec (`vibed.cluster.by_hand`), which was read as `generation`.

        Raises `NotFound`, `Conflict`, `StorageLimitReached`, `AppTooLarge`, `StoreUnavailable`.
        """
        return await self._finish(
            self._by_hand.decide(app_id, runtime, digest, size, generation=generation, storage_limit=storage_limit)
        )

    async def refuse(self, app_id: str, reason: str, message: str, *, generation: int) -> None:
        """Say why no version is made of it. Raises `NotFound`, `StoreUnavailable`."""
        with as_the_port_says():
            await self._by_hand.refuse(app_id, reason, message, generation=generation)

    async def acknowledge(self, app_id: str) -> bool:
        """Take note of a change of the spec that needs no version; returns whether there was one. Raises `NotFound`."""
        with as_the_port_says():
            return await self._by_hand.acknowledge(app_id)

    # writing

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """A write that has begun is finished even if its caller leaves: half of one is worse."""

        async def finished() -> T:
            with as_the_port_says():
                return await work

        task = asyncio.create_task(finished())
        self._writing.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited may be gone; asyncio would log the error as lost

    async def _record(
        self, app_id: str, status: Status | None, outcomes: Sequence[VersionOutcome], events: Sequence[NewEvent]
    ) -> Status | None:
        for attempt in range(_TRIES):
            kept = await (self._apps.get(app_id) if attempt else self._apps.recall(app_id))
            view = await self._apps.view(kept)
            if status is not None and status.revision != view.status.revision:
                raise Conflict(f"the status of {app_id!r} was changed by another writer")
            said = seen.written(
                kept.object, kept.ledger, view, status,
                outcomes=outcomes, new_events=events, begun=view.runs, now=time.time(), url=self._url,
            )  # fmt: skip
            body = {**kept.object, "status": said}
            fits(body, len(json.dumps(body)))
            try:
                done = await self._client.replace(VIBED_APP, body, namespace=self._namespace, subresource="status")
            except KubeNotFound as error:
                raise no_app(app_id) from error
            except KubeConflict:
                await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**attempt)))
                continue
            self._apps.wrote(done)
            return None if status is None else seen.read(done, kept.ledger)
        raise Conflict(f"{app_id!r} is being changed by many at once", hint="try again")

    async def _purge(self, app_id: str) -> Sequence[str]:
        for attempt in range(_TRIES):
            app = await self._apps.find(app_id)
            there = decided([] if app is None else [app])
            if not there or not there[0].deleted:
                return []
            kept = there[0]
            digests = {line.digest for line in kept.ledger.lines}
            for revision in await self._apps.revisions(app_id):
                metadata = revision["metadata"]
                digests.add(revisions.digest_of(revision))
                await self._client.delete(
                    CONTROLLER_REVISION, metadata["name"], namespace=self._namespace, uid=metadata["uid"]
                )
            metadata = kept.object["metadata"]
            left = [one for one in metadata.get("finalizers") or () if one != names.TEARDOWN]
            body = {**kept.object, "metadata": {**metadata, "finalizers": left}}
            try:
                await self._client.replace(VIBED_APP, body, namespace=self._namespace)
            except KubeNotFound:
                pass
            except KubeConflict:
                await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**attempt)))
                continue
            self._apps.removed(kept)
            named = await self._room.named(digests)
            return sorted(digests - named)
        raise Conflict(f"{app_id!r} is being changed by many at once", hint="try again")
