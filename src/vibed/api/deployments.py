"""Making versions: the one implementation behind HTTP and MCP.

It writes the spec, has it made durable and meanwhile waits a little for the controller. What was acknowledged is true
whatever becomes of the controller, so nothing but a disk that fails can turn a deploy that was written into an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeVar

from vibed import records
from vibed.api import repeats
from vibed.api.comparing import differences
from vibed.api.controlling import Controller
from vibed.api.errors import InvalidRequest, SourceRequired
from vibed.api.identity import Caller
from vibed.api.intake import Intake
from vibed.api.measures import Measures
from vibed.api.metadata import Metadata
from vibed.api.settling import DeployResult, Settling
from vibed.api.steps import Steps
from vibed.api.visible import VisibleApps
from vibed.apps import ids
from vibed.apps.app import App, Resources, Runtime, Version
from vibed.apps.errors import AlreadyExists, Conflict, NameTaken, NotFound, VibedError
from vibed.apps.standing import of_app
from vibed.apps.storage import Kept, make_room
from vibed.apps.store import AppStore, Deployed, Idempotency, NewVersion
from vibed.config import Config
from vibed.sources.errors import SourceMissing
from vibed.sources.store import StagedSource
from vibed.tracing import Tracer

T = TypeVar("T")

_ANNOUNCED_UNSEEN = 1 << 20
"""Bytes of a site that the controller may unpack before its owner's other apps were looked at."""
_TRIES = 8
"""How often a deploy that raced with another of the same app is tried again."""

log = records.logger("vibed.api")


class Deployments:
    """Every method checks that the caller may: another's app does not exist for them."""

    def __init__(
        self,
        config: Config,
        store: AppStore,
        apps: VisibleApps,
        intake: Intake,
        link: Controller,
        tracer: Tracer,
        measures: Measures,
    ) -> None:
        self._config = config
        self._store = store
        self._apps = apps
        self._settling = Settling(config.deploy_wait_s, store, link, tracer, measures)
        self._link = link
        self._storage_limit = config.owner_storage_mb * 1_000_000
        self._measures = measures
        self._telling: set[asyncio.Task[None]] = set()
        self.intake = intake
        self.tracer = tracer

    async def deploy(
        self,
        caller: Caller,
        metadata: Metadata,
        staged: StagedSource | None,
        steps: Steps,
        *,
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> DeployResult:
        """A new app, or a new version of the caller's app of that name. `staged` is kept or discarded, never left.

        `deadline`: `time.perf_counter()` at which the answer is due.
        """
        notes: list[str] = []
        try:
            if staged is None:
                raise SourceRequired("the 'source' part is missing", hint="send the app's folder as a tar.gz")
            if metadata.name is None:
                raise InvalidRequest(
                    "name is missing", hint="choose a name for the app", details={"field": "name", "errors": []}
                )
            app_id = ids.check(metadata.name, self._config.reserved_names)
            idempotency = repeats.idempotency(idempotency_key, "deploy", app_id, metadata, staged.digest)
            deployed = await self._replayed(caller.owner, idempotency)
            if deployed is None:
                deployed = await self._deploy(
                    caller, caller.owner, app_id, metadata, staged, steps, idempotency, must_exist=False, notes=notes
                )
        except VibedError as error:
            self._measures.refused.labels(error.error_code).inc()
            raise
        finally:
            if staged is not None:
                await self.intake.discard(staged)
        return await self._settling.settled(deployed, steps, deadline, notes)

    async def _deploy(
        self,
        caller: Caller,
        owner: str,
        app_id: str,
        metadata: Metadata,
        staged: StagedSource,
        steps: Steps,
        idempotency: Idempotency | None,
        *,
        must_exist: bool,
        notes: list[str],
        base: str | None = None,
    ) -> Deployed:
        """`base`: the source that `staged` was made from; a version with another one came between then. `notes` gets
        what the caller should know about the difference to the version before.
        """
        before = await self._for_deploy(app_id, owner, metadata.if_exists, must_exist=must_exist)
        _same_base(app_id, before, base)
        known = before is not None and before[1].source_digest == staged.digest
        try:
            with self.intake.holding(staged.digest):
                # Syncing waits for the disk and classifying for the processor; few deploys are refused.
                keeping = asyncio.create_task(self.intake.keep(staged, known=known))
                await asyncio.sleep(0)  # lets it begin
                try:
                    with steps.step("classify"):
                        runtime = await self.intake.decide(staged.path, metadata.override)
                except BaseException:
                    # why it is refused counts, whatever became of the source
                    await asyncio.gather(keeping, return_exceptions=True)
                    raise
                self.intake.check_room(runtime)
                if runtime.unpacked > _ANNOUNCED_UNSEEN:
                    await self._check_storage(app_id, owner, staged, runtime)
                if metadata.if_same == "keep" and _is_same(before, metadata, staged.digest, runtime):
                    await keeping
                    return _kept(before)
                self._announce(app_id, staged.digest, runtime)
                with steps.step("store"):
                    await keeping
                deployed, followed = await self._write(
                    caller,
                    owner,
                    app_id,
                    metadata,
                    staged,
                    runtime,
                    before,
                    steps,
                    idempotency,
                    must_exist=must_exist,
                    base=base,
                )
                if followed is not None:
                    notes += differences(followed, runtime)
                return deployed
        except VibedError:
            # Refused, or somebody was faster with the name: the source that was kept for it may be nobody's.
            with contextlib.suppress(VibedError, OSError):
                await self.intake.drop(staged.digest, self._store)
            raise

    async def _check_storage(self, app_id: str, owner: str, staged: StagedSource, runtime: Runtime) -> None:
        """What the store will refuse must not be unpacked ahead of it. Raises `StorageLimitReached`."""
        new = Kept(app_id, 0, staged.digest, staged.size, runtime.unpacked, True, time.time())
        make_room(await self._store.storage(owner), new, self._storage_limit)

    def _announce(self, app_id: str, digest: str, runtime: Runtime) -> None:
        """Let the controller prepare for a version while it is stored."""

        async def tell() -> None:
            with contextlib.suppress(VibedError):
                await self._link.prepare(app_id, digest, runtime)

        telling = asyncio.create_task(tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _write(
        self,
        caller: Caller,
        owner: str,
        app_id: str,
        metadata: Metadata,
        staged: StagedSource,
        runtime: Runtime,
        before: tuple[App, Version] | None,
        steps: Steps,
        idempotency: Idempotency | None,
        *,
        must_exist: bool,
        base: str | None,
    ) -> tuple[Deployed, Version | None]:
        """The new version, and the one that it follows."""
        for _ in range(_TRIES):
            app, version = before if before is not None else (None, None)
            new = NewVersion(
                app_id=app_id,
                owner=owner,
                created_by=caller.owner,
                source_digest=staged.digest,
                source_size=staged.size,
                runtime=runtime,
                env=metadata.env_after(version.env if version else {}),
                resources=_first(metadata.resources, version.resources if version else Resources()),
                timings=dict(steps.ms),
            )
            try:
                with steps.step("store"):
                    return await self._stored(new, metadata.if_exists, idempotency, app), version
            except NotFound:
                # Gone since it was read: a deploy by name makes a new app, from nothing of the old one.
                pass
            except Conflict as conflict:
                # Another deploy of this app was faster: build on what it left, unless it cannot succeed now.
                if conflict.error_code != Conflict.code:
                    raise
            before = await self._for_deploy(app_id, owner, metadata.if_exists, must_exist=must_exist)
            _same_base(app_id, before, base)
        raise Conflict(f"{app_id!r} is being changed by many deploys at once", hint="try again")

    async def _for_deploy(
        self, app_id: str, owner: str, if_exists: str, *, must_exist: bool
    ) -> tuple[App, Version] | None:
        """The app that a deploy would update, refused early where the store would refuse it."""
        try:
            app = await self._store.get(app_id)
            version = await self._store.version(app_id, app.version)
        except NotFound:
            if must_exist:
                raise
            return None
        if app.owner != owner:
            raise NameTaken(f"the name {app_id!r} is taken", hint="choose another name")
        if app.deleted:
            raise Conflict(f"{app_id!r} is being deleted", hint="try again in a few seconds", code="BeingDeleted")
        if if_exists == "fail":
            raise AlreadyExists(
                f"you already have an app {app_id!r}",
                hint="deploy with if_exists=update to make this its next version, or choose another name",
            )
        return app, version

    async def redeploy(
        self,
        caller: Caller,
        app_id: str,
        metadata: Metadata,
        staged: StagedSource | None,
        steps: Steps,
        *,
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> DeployResult:
        """A new version of an app: with new source or some files of it, other settings, or the same again."""
        notes: list[str] = []
        merged: StagedSource | None = None
        try:
            app = await self._apps.get(caller, app_id)
            digest = staged.digest if staged else ""
            idempotency = repeats.idempotency(idempotency_key, "redeploy", app_id, metadata, digest)
            deployed = await self._replayed(app.owner, idempotency)
            base: str | None = None
            if deployed is None and (metadata.files == "merge" or metadata.remove_files):
                base, merged = await self._merged(app, metadata, staged)
            whole = merged or staged
            if deployed is None and whole is not None:
                named = replace(metadata, name=app_id, if_exists="update")
                deployed = await self._deploy(
                    caller, app.owner, app_id, named, whole, steps, idempotency, must_exist=True, notes=notes, base=base
                )
            elif deployed is None:
                deployed = await self._again(caller, app_id, metadata, steps, idempotency)
        except VibedError as error:
            self._measures.refused.labels(error.error_code).inc()
            raise
        finally:
            for received in (staged, merged):
                if received is not None:
                    await self.intake.discard(received)
        return await self._settling.settled(deployed, steps, deadline, notes)

    async def _merged(self, app: App, metadata: Metadata, patch: StagedSource | None) -> tuple[str, StagedSource]:
        """The wanted version's source with `patch` in it; its digest too."""
        if metadata.files != "merge":
            raise InvalidRequest(
                "remove_files takes files from the source that is there",
                hint='with "files": "merge"; a whole source has just the files that are sent',
                details={"field": "remove_files", "errors": []},
            )
        if patch is None and not metadata.remove_files:
            raise SourceRequired("no file to change was given", hint="send the files that change, or remove_files")
        version = await self._store.version(app.app_id, app.version)
        with self.intake.holding(version.source_digest):
            merged = await self.intake.overlay(
                version.source_digest, version.runtime.strip, patch, metadata.remove_files
            )
        return version.source_digest, merged

    async def _again(
        self,
        caller: Caller,
        app_id: str,
        metadata: Metadata,
        steps: Steps,
        idempotency: Idempotency | None,
        *,
        back_to: int | None = None,
    ) -> Deployed:
        """A new version from the source of the wanted version, or of the earlier one that is named."""
        for _ in range(_TRIES):
            app = await self._apps.get(caller, app_id)
            version = await self._store.version(app_id, app.version if back_to is None else back_to)
            runtime = version.runtime
            with self.intake.holding(version.source_digest):
                if metadata.override:
                    with steps.step("classify"):
                        runtime = await self.intake.decide_again(version.source_digest, metadata.override)
                else:
                    await self.intake.path(version.source_digest)
                if metadata.if_same == "keep" and _is_same((app, version), metadata, version.source_digest, runtime):
                    return _kept((app, version))
                env = metadata.env_after(version.env)
                resources = _first(metadata.resources, version.resources)
                try:
                    return await self._add(
                        caller, app, version, runtime, env, resources, steps, idempotency, rolled_back_from=back_to
                    )
                except Conflict as conflict:
                    if conflict.error_code != Conflict.code:
                        raise
        raise Conflict(f"{app_id!r} is being changed by many deploys at once", hint="try again")

    async def rollback(
        self,
        caller: Caller,
        app_id: str,
        number: int,
        steps: Steps,
        *,
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> DeployResult:
        """A new version that is an earlier one again: its source, runtime, env and resources."""
        app = await self._apps.get(caller, app_id)
        idempotency = repeats.idempotency(idempotency_key, "rollback", app_id, Metadata(), str(number))
        deployed = await self._replayed(app.owner, idempotency)
        if deployed is None:
            try:
                deployed = await self._again(caller, app_id, Metadata(), steps, idempotency, back_to=number)
            except SourceMissing as error:
                raise SourceMissing(
                    f"the source of version {number} of {app_id!r} is not kept any more",
                    hint="deploy it again from where you have it, or roll back to another version",
                    status=409,
                ) from error
        return await self._settling.settled(deployed, steps, deadline)

    async def _add(
        self,
        caller: Caller,
        app: App,
        version: Version,
        runtime: Runtime,
        env: Mapping[str, str],
        resources: Resources,
        steps: Steps,
        idempotency: Idempotency | None,
        *,
        rolled_back_from: int | None,
    ) -> Deployed:
        new = NewVersion(
            app_id=app.app_id,
            owner=app.owner,
            created_by=caller.owner,
            source_digest=version.source_digest,
            source_size=version.source_size,
            runtime=runtime,
            env=env,
            resources=resources,
            rolled_back_from=rolled_back_from,
            timings=dict(steps.ms),
        )
        with steps.step("store"):
            return await self._stored(new, "update", idempotency, app)

    async def _stored(
        self, new: NewVersion, if_exists: Literal["update", "fail"], idempotency: Idempotency | None, before: App | None
    ) -> Deployed:
        """Write a version. The store finishes that even if the caller leaves, so its source is held until then."""

        async def store() -> Deployed:
            with self.intake.holding(new.source_digest):
                deployed = await self._store.deploy(
                    new,
                    if_exists=if_exists,
                    idempotency=idempotency,
                    expected=before,
                    storage_limit=self._storage_limit,
                )
            for digest in deployed.dropped:
                with contextlib.suppress(VibedError, OSError):  # if not now, then when sources are collected
                    await self.intake.drop(digest, self._store)
            return deployed

        self.intake.check_room(new.runtime)
        return await asyncio.shield(store())

    async def _replayed(self, owner: str, idempotency: Idempotency | None) -> Deployed | None:
        return None if idempotency is None else await self._store.replay(owner, idempotency)


def _same_base(app_id: str, before: tuple[App, Version] | None, base: str | None) -> None:
    if base is not None and before is not None and before[1].source_digest != base:
        raise Conflict(
            f"another version of {app_id!r} was deployed meanwhile",
            hint="read its files again, and send what is to change in them",
            code="FilesChanged",
            retryable=False,
        )


def _is_same(before: tuple[App, Version] | None, metadata: Metadata, digest: str, runtime: Runtime) -> bool:
    """Whether the version that serves is what is asked for already."""
    if before is None or not of_app(before[0]).live:
        return False
    version = before[1]
    return (
        version.source_digest == digest
        and version.runtime == runtime
        and metadata.env_after(version.env) == version.env
        and metadata.resources in (None, version.resources)
    )


def _kept(before: tuple[App, Version] | None) -> Deployed:
    assert before is not None
    return Deployed(*before, created=False, replayed=False, changed=False)


def _first(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given
