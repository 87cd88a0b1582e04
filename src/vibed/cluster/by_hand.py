"""VibedApps that were applied or edited by hand: found, decided, refused.

The spec is the user's: what is decided of it goes into annotations and a ControllerRevision, so that `kubectl apply` of
the same file changes nothing. A version is made whenever source, runtime, variables, resources, secrets or the way out
have changed; a change of anything else needs none and is only taken note of (`acknowledge`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vibed.apps.app import Resources, Runtime
from vibed.apps.decision import as_json
from vibed.apps.errors import Conflict, NotFound
from vibed.apps.storage import Kept as Taken
from vibed.apps.store import Deployed, NewEvent
from vibed.cluster import ledger as ledgers
from vibed.cluster import seen, spec
from vibed.cluster.answers import fits, no_app
from vibed.cluster.deploying import Deploying, Placed, placed_by_hand
from vibed.cluster.errors import KubeConflict, KubeNotFound
from vibed.cluster.kinds import VIBED_APP, Object
from vibed.cluster.ledger import Ledger, Line
from vibed.cluster.objects import AppObjects, is_deleted

_TRIES = 8

_Change = Callable[[Object, Object, float], bool]
"""Given an app, its status to be changed and the time; whether it is to be written."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """A spec as it was written by hand; empty and None where it says nothing."""

    app_id: str
    owner: str
    generation: int
    """Kubernetes' own: names the spec that was read (`ByHand.decide`)."""
    tarball_ref: str
    git_ref: str
    digest: str
    """SHA-256 that the source must have."""
    size: int
    lane: str
    template: str
    entrypoint: str
    port: int | None
    env: Mapping[str, str]
    resources: Resources
    secret_refs: Mapping[str, str]
    """Name of the variable by the name of the secret."""
    allowed_hosts: tuple[str, ...]
    visibility: str
    ttl: str
    same: tuple[Runtime, str, int] | None
    """Decision, digest and size of the version before, where source and runtime are still what that was made of."""


class ByHand:
    """Of one namespace."""

    def __init__(self, apps: AppObjects, deploying: Deploying) -> None:
        self._apps = apps
        self._deploying = deploying

    async def undecided(self) -> Sequence[Undecided]:
        """Specs that no version was made of, and that were not refused."""
        return [_undecided(app, ledgers.read(app)) for app in await self._apps.undecided()]

    async def decide(
        self, app_id: str, runtime: Runtime, digest: str, size: int, *, generation: int, storage_limit: int | None
    ) -> Deployed:
        """Make the version of a spec that was read as `generation`. Raises `NotFound`, `Conflict` (it was changed
        since, or is being deleted), `StorageLimitReached`, `AppTooLarge`.
        """
        app = await self._apps.find(app_id)
        if app is None:
            raise no_app(app_id)
        owner = app["spec"]["owner"]

        def before(app: Object, ledger: Ledger | None) -> None:
            if is_deleted(app):
                raise Conflict(f"{app_id!r} is being deleted", code="BeingDeleted")
            if app["metadata"]["generation"] != generation:
                raise Conflict(f"the spec of {app_id!r} was changed meanwhile", hint="read it again")

        def place(app: Object, ledger: Ledger | None, now: float, write: str, gone: Sequence[str]) -> Placed:
            said = app["spec"]
            number = 1 if ledger is None else ledger.newest.number + 1
            line = Line(
                number, write, digest, size, now, owner, spec.what(said), spec.rest(said),
                resources=spec.resources(said), unpacked=runtime.unpacked,
            )  # fmt: skip
            what = f"version {number} accepted from a spec that was applied by hand: {runtime.why}"
            return placed_by_hand(app, ledger, line, what, now, gone, as_json(runtime))

        needs = Taken(app_id, 0, digest, size, runtime.unpacked, True, 0.0)
        return await self._deploying.make(app_id, owner, before, place, needs, storage_limit)

    async def refuse(self, app_id: str, reason: str, message: str, *, generation: int) -> None:
        """Say in the status why no version is made of a spec; it is undecided again when it is changed. Raises
        `NotFound`.

        What serves goes on serving.
        """

        def refused(app: Object, said: Object, now: float) -> bool:
            if app["metadata"]["generation"] != generation or is_deleted(app):
                return False
            ledger = ledgers.read(app)
            said |= {"refusedGeneration": generation, "observedGeneration": generation}
            if ledger is None:
                said |= {"phase": "Failed", "reason": reason, "message": message}
            happened = (said.get("events") or [])[1 - seen.EVENTS_KEPT :]
            event = seen.next_event(app, ledger, NewEvent("Warning", reason, message), now)
            said["events"] = [*happened, seen.event_said(event)]
            seen.ready(said, False, reason, message, now)
            return True

        await self._write_status(app_id, refused)

    async def acknowledge(self, app_id: str) -> bool:
        """Say in the status that the spec was looked at, after a change that needs no version: `kubectl wait` waits
        for it. Returns whether there was one. Raises `NotFound`.
        """

        def looked_at(app: Object, said: Object, now: float) -> bool:
            ledger = ledgers.read(app)
            current = app["metadata"]["generation"]
            if (
                ledger is None
                or is_deleted(app)
                or said.get("observedGeneration") == current
                or said.get("observed") != ledger.changes
                or not spec.is_decided(app, ledger)
            ):
                return False
            said["observedGeneration"] = current
            for condition in said.get("conditions") or ():
                condition["observedGeneration"] = current
            return True

        return await self._write_status(app_id, looked_at)

    async def _write_status(self, app_id: str, change: _Change) -> bool:
        for _ in range(_TRIES):
            app = await self._apps.find(app_id)
            if app is None:
                raise no_app(app_id)
            said = json.loads(json.dumps(app.get("status") or {}))
            if not change(app, said, time.time()):
                return False
            body = {**app, "status": said}
            fits(body, len(json.dumps(body)))
            try:
                done = await self._apps.client.replace(
                    VIBED_APP, body, namespace=self._apps.namespace, subresource="status"
                )
            except KubeConflict:
                continue
            except KubeNotFound:
                break
            self._apps.wrote(done)
            return True
        else:
            raise Conflict(f"{app_id!r} is being changed by many at once", hint="try again")
        raise NotFound(f"{app_id!r} was deleted meanwhile")


def _undecided(app: Object, ledger: Ledger | None) -> Undecided:
    said = app["spec"]
    source, runtime = said["source"], said["runtime"]
    same = None
    if ledger is not None and spec.what(said) == ledger.newest.what:
        decision = spec.decision(app, ledger)
        same = None if decision is None else (decision, ledger.newest.digest, ledger.newest.size)
    return Undecided(
        app_id=app["metadata"]["name"], owner=said["owner"], generation=app["metadata"]["generation"],
        tarball_ref=source.get("tarballRef", ""), git_ref=source.get("gitRef", ""), digest=source.get("digest", ""),
        size=source.get("size", 0), lane=runtime["lane"], template=runtime.get("template", ""),
        entrypoint=runtime.get("entrypoint", ""), port=runtime.get("port"), env=spec.env(said),
        resources=spec.resources(said),
        secret_refs={ref["name"]: ref.get("env", ref["name"]) for ref in said.get("secretRefs") or ()},
        allowed_hosts=tuple((said.get("egress") or {}).get("allowedHosts") or ()),
        visibility=said.get("visibility", ""), ttl=said.get("ttl", ""), same=same,
    )  # fmt: skip
