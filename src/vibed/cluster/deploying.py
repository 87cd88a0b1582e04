"""Making a version: one write of the VibedApp, which holds for one writer or for none, then its ControllerRevision.

The first write has all of the version: the spec (or, of a spec that was applied by hand, the ledger's annotations), the
version's line and event, its Idempotency-Key. Whoever comes after a writer that was killed between the two writes finds
the version there, and whoever makes the next one writes the missing revision first. Of two writers at once one is told
that the app has changed (409), reads it again and goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakValueDictionary

from vibed import records
from vibed.apps.app import App, Version
from vibed.apps.errors import AlreadyExists, Conflict, IdempotencyMismatch, NameTaken
from vibed.apps.storage import Kept as Taken
from vibed.apps.store import IDEMPOTENCY_KEPT_S, Deployed, Idempotency, NewEvent, NewVersion
from vibed.cluster import ledger as ledgers
from vibed.cluster import names, revisions, seen, spec
from vibed.cluster.answers import fits, no_app
from vibed.cluster.errors import KubeConflict, KubeError, KubeExists, KubeNotFound, KubeUnavailable
from vibed.cluster.kinds import CONTROLLER_REVISION, VIBED_APP, Object
from vibed.cluster.ledger import Ledger, Line
from vibed.cluster.objects import AppObjects, Kept, is_deleted
from vibed.cluster.room import Room, needed_versions

_TRIES = 40
"""How often a write is tried against other writers."""
_LONGEST_PAUSE_S = 0.4
_FORGOTTEN_AT_ONCE = 10
"""Versions: so that not each deploy has one to forget."""

log = records.logger("vibed.cluster")


@dataclass(frozen=True, slots=True)
class Placed:
    """An app as it is to be written, and the version's line in it."""

    body: Object
    ledger: Ledger
    line: Line


class Deploying:
    """Of one namespace; one instance a process."""

    def __init__(self, apps: AppObjects, room: Room) -> None:
        self._apps = apps
        self._room = room
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Writers of this process take turns for an app, and for an owner's storage: they would only refuse each
        other.
        """

    async def replay(self, owner: str, idempotency: Idempotency) -> Deployed | None:
        """What an earlier request of that key became, or None. Raises `IdempotencyMismatch`."""
        key = names.idempotency(owner, idempotency.key)
        found = await self._apps.client.objects(
            CONTROLLER_REVISION, namespace=self._apps.namespace, labels=f"{names.IDEMPOTENCY}={key}"
        )
        for revision in found.items:
            app = await self._apps.find(revisions.app_of(revision))
            ledger = None if app is None else ledgers.read(app)
            if app is None or ledger is None or not revisions.is_of(revision, app):
                continue  # the app is gone, and its revision is about to be
            if (replayed := await self._replayed(Kept(app, ledger), key, idempotency)) is not None:
                return replayed
        return None

    async def deploy(
        self,
        new: NewVersion,
        *,
        if_exists: Literal["update", "fail"],
        idempotency: Idempotency | None,
        expected: App | None,
        storage_limit: int | None,
    ) -> Deployed:
        """See `vibed.apps.store.AppStore.deploy`."""
        if idempotency is not None and (earlier := await self.replay(new.owner, idempotency)) is not None:
            return earlier
        write, key = uuid.uuid4().hex[:16], names.idempotency(new.owner, idempotency.key) if idempotency else ""

        async def before(app: Object | None, ledger: Ledger | None) -> Deployed | None:
            if app is not None and ledger is not None and idempotency is not None:
                replayed = await self._replayed(Kept(app, ledger), key, idempotency)
                if replayed is not None:
                    return replayed
            _check(new, app, ledger, if_exists, expected)
            return None

        def place(app: Object | None, ledger: Ledger | None, now: float, gone: Sequence[str]) -> Placed:
            number = 1 if ledger is None else ledger.newest.number + 1
            said = spec.deployed({} if app is None else app["spec"], new, number)
            line = Line(
                number, write, new.source_digest, new.source_size, now, new.created_by, spec.what(said),
                spec.rest(said), resources=new.resources, unpacked=new.runtime.unpacked,
                rolled_back_from=new.rolled_back_from, timings=dict(new.timings or {}), key=key,
                fingerprint=idempotency.fingerprint if idempotency else "",
            )  # fmt: skip
            what = (
                f"version {number} accepted: {new.runtime.why}"
                if new.rolled_back_from is None
                else f"version {number} accepted: back to version {new.rolled_back_from}"
            )
            return _placed(new.app_id, app, ledger, said, line, what, now, gone, decision=None)

        needs = None
        if storage_limit is not None:
            needs = Taken(new.app_id, 0, new.source_digest, new.source_size, new.runtime.unpacked, True, 0.0)
        return await self._make(new.app_id, new.owner, write, before, place, needs, storage_limit)

    async def make(
        self,
        app_id: str,
        owner: str,
        before: Callable[[Object, Ledger | None], None],
        place: Callable[[Object, Ledger | None, float, str, Sequence[str]], Placed],
        needs: Taken,
        storage_limit: int | None,
    ) -> Deployed:
        """Make a version of an app that is there. `before` may refuse, `place` says what is written."""
        write = uuid.uuid4().hex[:16]

        async def looked_at(app: Object | None, ledger: Ledger | None) -> None:
            if app is None:
                raise no_app(app_id)
            before(app, ledger)

        def placed(app: Object | None, ledger: Ledger | None, now: float, gone: Sequence[str]) -> Placed:
            assert app is not None
            return place(app, ledger, now, write, gone)

        return await self._make(app_id, owner, write, looked_at, placed, needs, storage_limit)

    async def _make(
        self,
        app_id: str,
        owner: str,
        write: str,
        before: Callable[[Object | None, Ledger | None], object],
        place: Callable[[Object | None, Ledger | None, float, Sequence[str]], Placed],
        needs: Taken | None,
        storage_limit: int | None,
    ) -> Deployed:
        async with self._turn(f"app/{app_id}"), self._turn(f"owner/{owner}" if needs else f"app-alone/{app_id}"):
            for attempt in range(_TRIES):
                app = await self._apps.find(app_id)
                ledger = None if app is None else ledgers.read(app)
                if app is not None and ledger is not None and (line := _by_write(ledger, write)) is not None:
                    # what was not answered was carried out
                    return await self._made(Kept(app, ledger), line, [], created=line.number == 1)
                looking = before(app, ledger)
                replayed = await looking if asyncio.iscoroutine(looking) else looking
                if isinstance(replayed, Deployed):
                    return replayed
                now = time.time()
                gone: list[str] = []
                if needs is not None and storage_limit is not None:
                    gone = await self._room.needed(owner, replace(needs, created_at=now), storage_limit)
                if app is not None and ledger is not None:
                    await self._complete(Kept(app, ledger))
                placed = place(app, ledger, now, gone)
                check_size(placed)
                try:
                    done = await self.put(placed.body, new=app is None)
                except (KubeExists, KubeConflict, KubeNotFound) as error:
                    if isinstance(error, KubeNotFound) and app is None:
                        raise  # the namespace, or the CRD
                except KubeUnavailable as error:
                    if not error.uncertain:
                        raise
                else:
                    forgotten = [] if ledger is None else _forgotten(ledger, placed.ledger)
                    await self._drop_versions(app_id, forgotten)
                    dropped = await self._drop_sources(owner, gone, forgotten, app_id, placed.line.number)
                    return await self._made(Kept(done, placed.ledger), placed.line, dropped, created=app is None)
                await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**attempt)))
        raise Conflict(f"{app_id!r} is being changed by many at once", hint="try again")

    async def put(self, body: Object, *, new: bool) -> Object:
        """Write a VibedApp whose size was checked. Raises `KubeExists`, `KubeConflict`."""
        call = self._apps.client.create if new else self._apps.client.replace
        done = await call(VIBED_APP, body, namespace=self._apps.namespace)
        self._apps.wrote(done)
        return done

    async def _made(self, kept: Kept, line: Line, dropped: Sequence[str], *, created: bool) -> Deployed:
        version = await self._apps.version(kept, line.number)
        try:
            await self.write_revision(kept, version, line)
        except KubeError as error:
            # The version is there and stays; the next one is not made before this is written.
            log.warning("a version's revision could not be written yet", app=kept.app_id, error=error.message)
        app = await self._apps.view(kept, version if line == kept.ledger.newest else None)
        return Deployed(app, version, created=created, replayed=False, dropped=dropped)

    async def _complete(self, kept: Kept) -> None:
        """Write the revision of the newest version if its writer did not come to it: soon its spec is another's."""
        line = kept.ledger.newest
        version = spec.version(kept.object, kept.ledger)
        if version is None:
            return
        try:
            there = await self._apps.client.get(
                CONTROLLER_REVISION, names.revision(kept.app_id, line.number), namespace=self._apps.namespace
            )
        except KubeNotFound:
            there = None
        if there is None or not _is_right(there, kept, line):
            await self.write_revision(kept, version, line)

    async def write_revision(self, kept: Kept, version: Version, line: Line) -> None:
        """Have the revision of a version be there. Idempotent."""
        body = revisions.written(kept.object, version, line)
        where = {"namespace": self._apps.namespace}
        for _ in range(_TRIES):
            try:
                await self._apps.client.create(CONTROLLER_REVISION, body, **where)
                return
            except KubeExists:
                pass
            try:
                there = await self._apps.client.get(CONTROLLER_REVISION, body["metadata"]["name"], **where)
            except KubeNotFound:
                continue
            if _is_right(there, kept, line):
                return
            # An earlier app's of that name, whose garbage collection is on its way, or of a version that did not
            # come about.
            await self._apps.client.delete(
                CONTROLLER_REVISION, body["metadata"]["name"], uid=there["metadata"]["uid"], **where
            )

    async def _drop_versions(self, app_id: str, lines: Sequence[Line]) -> None:
        for line in lines:
            try:
                await self._apps.client.delete(
                    CONTROLLER_REVISION, names.revision(app_id, line.number), namespace=self._apps.namespace
                )
            except KubeError as error:
                log.warning("a forgotten version's revision stays", app=app_id, error=error.message)

    async def _drop_sources(
        self, owner: str, gone: Sequence[str], forgotten: Sequence[Line], app_id: str, number: int
    ) -> list[str]:
        """Returns those that are nobody's now."""
        if not gone and not forgotten:
            return []
        if gone:
            await self._room.forget(owner, gone, app_id=app_id, but=number)
        asked = list(dict.fromkeys([*gone, *(line.digest for line in forgotten if line.kept)]))
        named = await self._room.named(asked)
        return [digest for digest in asked if digest not in named]

    async def _replayed(self, kept: Kept, key: str, idempotency: Idempotency) -> Deployed | None:
        now = time.time()
        for line in kept.ledger.lines:
            if line.key != key or line.created_at < now - IDEMPOTENCY_KEPT_S:
                continue
            if line.fingerprint != idempotency.fingerprint:
                raise IdempotencyMismatch(
                    "this Idempotency-Key was used before with a different request",
                    hint="use a new key for a new request; repeat a key only to retry the very same one",
                )
            version = await self._apps.version(kept, line.number)
            return Deployed(await self._apps.view(kept), version, created=line.number == 1, replayed=True)
        return None

    def _turn(self, name: str) -> asyncio.Lock:
        lock = self._turns.get(name)
        if lock is None:
            lock = self._turns[name] = asyncio.Lock()
        return lock


def check_owner(app: Object, app_id: str, owner: str) -> None:
    """Raises `NameTaken` where the app is another's, `Conflict` where it is being deleted."""
    if app["spec"]["owner"] != owner:
        raise NameTaken(f"the name {app_id!r} is taken", hint="choose another name")
    if is_deleted(app):
        raise Conflict(f"{app_id!r} is being deleted", hint="try again in a few seconds", code="BeingDeleted")


def _check(new: NewVersion, app: Object | None, ledger: Ledger | None, if_exists: str, expected: App | None) -> None:
    if expected is not None and (app is None or ledger is None or ledger.created_at != expected.created_at):
        raise no_app(new.app_id)
    if app is None:
        return
    check_owner(app, new.app_id, new.owner)
    if if_exists == "fail":
        raise AlreadyExists(
            f"you already have an app {new.app_id!r}",
            hint="deploy with if_exists=update to make this its next version, or choose another name",
        )
    if expected is not None and ledger is not None and ledger.changes != expected.generation:
        raise Conflict(f"{new.app_id!r} was changed by another deploy", hint="read it again, then retry")


def check_size(placed: Placed) -> None:
    """Raises `AppTooLarge` before anything is written."""
    body = placed.body
    fits(body, len(json.dumps(body)))
    fits(body, sum(map(len, body["metadata"]["annotations"].values())), longest=ledgers.LARGEST)
    named: Object = {**body, "metadata": {"uid": "", **body["metadata"]}}
    version = spec.version(named, placed.ledger)
    if version is not None:
        fits(body, len(json.dumps(revisions.written(named, version, placed.line))))


def placed_by_hand(
    app: Object, ledger: Ledger | None, line: Line, said: str, now: float, gone: Sequence[str], decision: Object
) -> Placed:
    """A version of the spec as it is."""
    return _placed(app["metadata"]["name"], app, ledger, app["spec"], line, said, now, gone, decision=decision)


def _placed(
    app_id: str,
    app: Object | None,
    ledger: Ledger | None,
    said: Object,
    line: Line,
    what: str,
    now: float,
    gone: Sequence[str],
    *,
    decision: Object | None,
) -> Placed:
    before: Object = {"metadata": {"name": app_id}} if app is None else app
    event = seen.next_event(before, ledger, NewEvent("Normal", "Accepted", what, line.number), now)
    if ledger is None:
        created = now if app is None else ledgers.created_at(app)
        after = Ledger(created, 1, (line,), (event,))
    else:
        assert app is not None
        after = ledger.with_line(line, event).without_sources(frozenset(gone), but=line.number)
        after = _bounded(after, Kept(app, after))
    metadata = dict(before["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(names.DECISION, None)
    if decision is not None:
        annotations[names.DECISION] = json.dumps({"version": line.number, "decision": decision}, separators=(",", ":"))
    annotations[names.LEDGER] = ledgers.written(after)
    finalizers = list(metadata.get("finalizers") or ())
    metadata |= {
        "annotations": annotations,
        "labels": {**(metadata.get("labels") or {}), names.SOURCE: names.source(line.digest)},
        "finalizers": finalizers if names.TEARDOWN in finalizers else [*finalizers, names.TEARDOWN],
    }
    return Placed({**before, "metadata": metadata, "spec": said}, after, line)


def _bounded(ledger: Ledger, kept: Kept) -> Ledger:
    """Without the oldest lines, where there are too many."""
    over = len(ledger.lines) - ledgers.VERSIONS_KEPT
    if over < _FORGOTTEN_AT_ONCE:
        return ledger
    needed = needed_versions(kept)
    old = {line.number for line in ledger.lines if line.number not in needed}
    gone = frozenset(sorted(old)[:over])
    return replace(ledger, lines=tuple(line for line in ledger.lines if line.number not in gone))


def _forgotten(before: Ledger, after: Ledger) -> list[Line]:
    there = {line.number for line in after.lines}
    return [line for line in before.lines if line.number not in there]


def _by_write(ledger: Ledger, write: str) -> Line | None:
    return next((line for line in ledger.lines if line.write == write), None)


def _is_right(revision: Object, kept: Kept, line: Line) -> bool:
    return revisions.is_of(revision, kept.object) and revisions.write_of(revision) == line.write
