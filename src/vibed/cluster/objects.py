"""The VibedApps of a namespace and their ControllerRevisions, as the store reads them.

One app is read from the API server, which answers with what was last written by anybody; `recall` reads it from this
process' memory where that is good enough (`vibed.cluster.store`). All apps are read from memory where there is one: it
lags behind by moments, but never behind what this process wrote or read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vibed.apps.app import App, Runtime, Version
from vibed.apps.errors import NotFound
from vibed.cluster import ledger as ledgers
from vibed.cluster import names, revisions, seen, spec
from vibed.cluster.answers import no_app
from vibed.cluster.client import Client
from vibed.cluster.errors import KubeNotFound
from vibed.cluster.kinds import CONTROLLER_REVISION, VIBED_APP, Object
from vibed.cluster.ledger import Ledger
from vibed.cluster.memory import Memory, is_undecided, is_unsettled

_AT_ONCE = 8
"""Objects that are read one by one at the same time."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An app that has a version."""

    object: Object
    ledger: Ledger

    @property
    def app_id(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def deleted(self) -> bool:
        return is_deleted(self.object)

    @property
    def generation(self) -> int:
        """As vibeD counts: each change that became a version, and the deletion."""
        return self.ledger.changes + self.deleted


def is_deleted(app: Object) -> bool:
    return "deletionTimestamp" in app["metadata"]


class AppObjects:
    """See the module's docstring. `remembers`: whether `recall` trusts the memory."""

    def __init__(self, client: Client, namespace: str, memory: Memory | None, *, remembers: bool = False) -> None:
        self.client = client
        self.namespace = namespace
        self._memory = memory
        self._remembers = remembers
        self.begun: dict[tuple[str, float], int] = {}
        """Runs of an app (by name and creation) that were begun and may not be in its status yet."""

    async def find(self, app_id: str) -> Object | None:
        """The app as it is now."""
        try:
            return await self.client.get(VIBED_APP, app_id, namespace=self.namespace)
        except KubeNotFound:
            return None

    async def get(self, app_id: str) -> Kept:
        """The app as it is now. Raises `NotFound`, also for one that was applied by hand and is not decided yet."""
        app = await self.find(app_id)
        ledger = None if app is None else ledgers.read(app)
        if app is None or ledger is None:
            raise no_app(app_id)
        if self._remembers:
            self.wrote(app)
        return Kept(app, ledger)

    async def recall(self, app_id: str) -> Kept:
        """The app as this process last heard of it, or else as it is now. Raises `NotFound`."""
        if self._remembers and self._memory is not None and (app := self._memory.get(app_id)) is not None:
            ledger = ledgers.read(app)
            if ledger is not None:
                return Kept(app, ledger)
        return await self.get(app_id)

    async def catch_up(self, app_id: str, version: int | None) -> None:
        """Have `recall` know of that version, if there is one, or else of what is there now. Raises `NotFound`."""
        if version is None or (await self.recall(app_id)).ledger.newest.number < version:
            await self.get(app_id)

    async def owned(self, owner: str, *, exact: bool = True) -> list[Kept]:
        """All apps of an owner as they are now, those left out that are being deleted; from memory, where it need not
        be exact.
        """
        if not exact and self._memory is not None:
            return decided(self._memory.some(lambda facts: facts.owner == owner and not facts.deleted))
        found = await self.client.objects(
            VIBED_APP, namespace=self.namespace, fields=f"spec.owner={names.field_value(owner)}"
        )
        return [kept for kept in decided(found.items) if not kept.deleted]

    async def all(self) -> Sequence[Object]:
        """All apps, decided or not."""
        if self._memory is None:
            return (await self.client.objects(VIBED_APP, namespace=self.namespace)).items
        return list(self._memory.all())

    async def ledgers(self) -> list[Ledger]:
        """Those of all apps that have a version, as they are now, whatever a memory has."""
        found = await self.client.objects(VIBED_APP, namespace=self.namespace, trim=_only_ledger)
        return [kept.ledger for kept in decided(found.items)]

    async def by_last_deploy(self) -> list[Object]:
        """All apps that have a version and are not being deleted, the last that was deployed first."""
        if self._memory is not None:
            return self._memory.by_last_deploy()
        there = [kept for kept in decided(await self.all()) if not kept.deleted]
        there.sort(key=lambda kept: (-kept.ledger.newest.created_at, kept.app_id))
        return [kept.object for kept in there]

    async def unsettled(self) -> list[Kept]:
        """Those of which a controller has something to do."""
        if self._memory is not None:
            return decided(self._memory.some(lambda facts: facts.unsettled))
        return [kept for kept in decided(await self.all()) if is_unsettled(kept.object, kept.ledger)]

    async def undecided(self) -> list[Object]:
        """Those of which a version has to be made."""
        if self._memory is not None:
            return self._memory.some(lambda facts: facts.undecided)
        return [app for app in await self.all() if is_undecided(app, ledgers.read(app))]

    async def some(self, app_ids: Sequence[str]) -> list[Kept]:
        """Those of the apps that exist, as all of them are read."""
        if self._memory is not None:
            known = map(self._memory.get, app_ids)
            return decided(app for app in known if app is not None)
        return decided(app for app in await self._each(app_ids) if app is not None)

    def wrote(self, app: Object) -> None:
        """This process wrote it: its memory has it at once."""
        if self._memory is not None:
            self._memory.learn(app)

    def removed(self, kept: Kept) -> None:
        """This process let it go. Its memory may have it for a moment longer, as one that is being deleted."""
        self.begun.pop((kept.app_id, kept.ledger.created_at), None)

    async def _each(self, app_ids: Sequence[str]) -> list[Object | None]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(app_id: str) -> Object | None:
            async with turns:
                return await self.find(app_id)

        return list(await asyncio.gather(*map(one, app_ids)))

    # what they stand for

    async def newest(self, kept: Kept) -> Version:
        """The version that should serve, with what became of it. Raises `NotFound` where nothing says any more what it
        was.
        """
        found = spec.version(kept.object, kept.ledger)
        if found is None:  # the spec was changed by hand since, and is not decided yet
            found = await self._revision(kept, kept.ledger.newest.number)
        return seen.with_outcome(found, kept.object, kept.ledger)

    async def version(self, kept: Kept, number: int) -> Version:
        """Raises `NotFound`."""
        if number == kept.ledger.newest.number:
            return await self.newest(kept)
        if kept.ledger.line(number) is None:
            raise NotFound(f"{kept.app_id!r} has no version {number}")
        return seen.with_outcome(await self._revision(kept, number), kept.object, kept.ledger)

    async def view(self, kept: Kept, version: Version | None = None) -> App:
        """The app; `version`: its newest, where it is at hand."""
        runtime: Runtime | None = spec.decision(kept.object, kept.ledger)
        env = spec.env(kept.object["spec"])
        if version is None and runtime is None:
            version = await self.newest(kept)
        if version is not None:
            runtime, env = version.runtime, dict(version.env)
        assert runtime is not None
        app, ledger = kept.object, kept.ledger
        begun = self.begun.get((kept.app_id, ledger.created_at), 0)
        return App(
            app_id=kept.app_id, owner=app["spec"]["owner"], generation=kept.generation, version=ledger.newest.number,
            created_at=ledger.created_at, last_deployed_at=ledger.newest.created_at, deleted=kept.deleted,
            status=seen.read(app, ledger), runtime=runtime, runs=max(begun, seen.runs(app)),
            result=seen.result(app, ledger.newest), env_names=tuple(sorted(env)),
        )  # fmt: skip

    async def revisions(self, app_id: str) -> Sequence[Object]:
        """All ControllerRevisions that say they are of an app of that name."""
        labels = f"{names.APP}={app_id}"
        return (await self.client.objects(CONTROLLER_REVISION, namespace=self.namespace, labels=labels)).items

    async def _revision(self, kept: Kept, number: int) -> Version:
        name = names.revision(kept.app_id, number)
        try:
            found = await self.client.get(CONTROLLER_REVISION, name, namespace=self.namespace)
        except KubeNotFound:
            found = None
        if found is None or not revisions.is_of(found, kept.object):
            raise NotFound(f"what version {number} of {kept.app_id!r} was is not kept", hint="deploy the app again")
        return revisions.read(found)


def _only_ledger(app: Object) -> Object:
    """Of thousands no more is there at the same time than is read."""
    metadata = app["metadata"]
    notes = metadata.get("annotations") or {}
    return {"metadata": {"name": metadata["name"], "annotations": {names.LEDGER: notes.get(names.LEDGER)}}}


def decided(apps: Iterable[Object]) -> list[Kept]:
    """Those that have a version."""
    return [Kept(app, ledger) for app in apps if (ledger := ledgers.read(app)) is not None]
