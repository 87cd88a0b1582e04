"""An app as it was elsewhere: one write of its VibedApp with the whole ledger, then ControllerRevisions and outcomes.

The first write is named after what the app is. Who was killed after it, and comes again with the same app, finds it,
completes it, and is told that it is there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence

from vibed.apps.app import App, Phase, Version
from vibed.apps.errors import AlreadyExists
from vibed.apps.restoring import Restored
from vibed.apps.store import NewEvent, NewVersion, VersionOutcome
from vibed.cluster import ledger as ledgers
from vibed.cluster import names, revisions, seen, spec
from vibed.cluster.answers import fits
from vibed.cluster.deploying import Deploying, Placed, check_owner, check_size
from vibed.cluster.errors import KubeExists
from vibed.cluster.kinds import Object
from vibed.cluster.ledger import Ledger, Line
from vibed.cluster.objects import AppObjects, Kept

Record = Callable[[str, Sequence[VersionOutcome]], Awaitable[object]]
"""Writes what became of an app's versions."""


class Restorer:
    """Of one namespace."""

    def __init__(self, apps: AppObjects, deploying: Deploying, record: Record) -> None:
        self._apps = apps
        self._deploying = deploying
        self._record = record

    async def restore(self, app: Restored) -> App:
        """As `vibed.apps.restoring.Restoring.restore` says; raises `AppTooLarge` as well."""
        versions = app.versions[-ledgers.VERSIONS_KEPT :]
        lines = tuple(_line(app, version) for version in versions)
        there = await self._apps.find(app.app_id)
        made = there is None
        if there is None:
            placed = _placed(app, versions[-1], lines)
            check_size(placed)
            for version, line in zip(versions, lines, strict=True):
                named: Object = {**placed.body, "metadata": {"uid": "", **placed.body["metadata"]}}
                fits(placed.body, len(json.dumps(revisions.written(named, version, line))))
            try:
                there = await self._deploying.put(placed.body, new=True)
            except KubeExists:
                there, made = await self._apps.find(app.app_id), False
        if there is None or (ledger := ledgers.read(there)) is None:
            raise AlreadyExists(f"somebody is making or deleting an app {app.app_id!r} at this moment")
        check_owner(there, app.app_id, app.owner)
        kept = Kept(there, ledger)
        if not made and ledger.lines[0].write != lines[0].write:
            raise AlreadyExists(f"there is an app {app.app_id!r} of {app.owner!r} already")
        for version, line in zip(versions, lines, strict=True):
            if ledger.line(line.number) is not None:
                await self._deploying.write_revision(kept, version, line)
        if not made:
            raise AlreadyExists(f"there is an app {app.app_id!r} of {app.owner!r} already")
        became = [
            VersionOutcome(version.number, version.phase, version.reason, version.message, {})
            for version in versions
            if version.phase is not Phase.PENDING
        ]
        if became:
            await self._record(app.app_id, became)
        return await self._apps.view(await self._apps.get(app.app_id))


def _line(app: Restored, version: Version) -> Line:
    said = spec.deployed({}, _new(app, version), version.number)
    mark = json.dumps([app.app_id, app.owner, app.created_at, version.number, version.created_at, spec.rest(said)])
    return Line(
        version.number, hashlib.sha256(mark.encode()).hexdigest()[:16], version.source_digest, version.source_size,
        version.created_at, version.created_by, spec.what(said), spec.rest(said), resources=version.resources,
        unpacked=version.runtime.unpacked, kept=version.source_kept, rolled_back_from=version.rolled_back_from,
        timings=dict(version.timings),
    )  # fmt: skip


def _new(app: Restored, version: Version) -> NewVersion:
    return NewVersion(
        app.app_id, app.owner, version.created_by, version.source_digest, version.source_size, version.runtime,
        version.env, version.resources, version.rolled_back_from, version.timings,
    )  # fmt: skip


def _placed(app: Restored, newest: Version, lines: tuple[Line, ...]) -> Placed:
    bare: Object = {"metadata": {"name": app.app_id}}
    what = f"brought here from another vibeD, with {len(lines)} versions"
    event = seen.next_event(bare, None, NewEvent("Normal", "Restored", what, newest.number), time.time())
    ledger = Ledger(app.created_at, 1, lines, (event,))
    body: Object = {
        "metadata": {
            "name": app.app_id,
            "annotations": {names.LEDGER: ledgers.written(ledger)},
            "labels": {names.SOURCE: names.source(newest.source_digest)},
            "finalizers": [names.TEARDOWN],
        },
        "spec": spec.deployed({}, _new(app, newest), newest.number),
    }
    return Placed(body, ledger, lines[-1])
