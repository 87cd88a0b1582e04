"""One new version on its way into the store, beside others of the same app: kept, decided, written.

A source is durable before the version that names it is written; who was faster with the same app is built upon, never
overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TypeVar

from vibed.api.comparing import differences
from vibed.api.controlling import Controller
from vibed.api.identity import Caller
from vibed.api.intake import Intake
from vibed.api.metadata import Metadata
from vibed.api.steps import Steps
from vibed.api.visible import VisibleApps
from vibed.apps.app import App, Resources, Runtime, Version
from vibed.apps.errors import AlreadyExists, Conflict, NameTaken, NotFound, VibedError
from vibed.apps.standing import of_app
from vibed.apps.storage import Kept, make_room
from vibed.apps.store import AppStore, Deployed, Idempotency, NewVersion
from vibed.sources.receiving import StagedSource

T = TypeVar("T")

_ANNOUNCED_UNSEEN = 1 << 20
"""Bytes of a site that the controller may unpack before its owner's other apps were looked at."""
_TRIES = 8
"""How often a deploy that raced with another of the same app is tried again."""

Before = tuple[App, Version] | None
"""The app that is there, with the version that it should serve."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asked for."""

    caller: Caller
    owner: str
    app_id: str
    metadata: Metadata
    steps: Steps
    idempotency: Idempotency | None
    must_exist: bool = False
    base: str | None = None
    """The source that the new one was made from: a version with another one must not have come between."""
    notes: list[str] = field(default_factory=list)
    """Gets what the caller should know about the difference to the version before."""


class Making:
    """Of versions from a source that was received, and from one that is kept."""

    def __init__(
        self, store: AppStore, apps: VisibleApps, intake: Intake, link: Controller, *, storage_limit: int
    ) -> None:
        """`storage_limit`: bytes that an owner's sources and sites may take."""
        self._store = store
        self._apps = apps
        self._intake = intake
        self._link = link
        self._storage_limit = storage_limit
        self._telling: set[asyncio.Task[None]] = set()

    async def received(self, asked: Asked, staged: StagedSource) -> Deployed:
        """A version with a source that was just received."""
        before = await self._before(asked)
        known = before is not None and before[1].source_digest == staged.digest
        try:
            with self._intake.holding(staged.digest):
                # Syncing waits for the disk and classifying for the processor; few deploys are refused.
                keeping = asyncio.create_task(self._intake.keep(staged, known=known))
                await asyncio.sleep(0)  # lets it begin
                try:
                    with asked.steps.step("classify"):
                        runtime = await self._intake.decide(staged.path, asked.metadata.override)
                except BaseException:
                    # why it is refused counts, whatever became of the source
                    await asyncio.gather(keeping, return_exceptions=True)
                    raise
                if same := _same(before, asked.metadata, staged.digest, runtime):
                    await keeping
                    return same
                self._intake.check_room(runtime)
                if runtime.unpacked > _ANNOUNCED_UNSEEN:
                    await self._check_storage(asked, staged, runtime)
                self._announce(asked.app_id, staged.digest, runtime)
                with asked.steps.step("store"):
                    await keeping
                return await self._write(asked, staged, runtime, before)
        except VibedError:
            # Refused, or somebody was faster with the name: the source that was kept for it may be nobody's.
            with contextlib.suppress(VibedError, OSError):
                await self._intake.drop(staged.digest, self._store)
            raise

    async def kept(self, asked: Asked, *, back_to: int | None = None) -> Deployed:
        """A version with the source of the wanted version, or of the earlier one that is named."""
        metadata = asked.metadata
        for _ in range(_TRIES):
            app = await self._apps.get(asked.caller, asked.app_id)
            version = await self._store.version(asked.app_id, app.version if back_to is None else back_to)
            runtime = version.runtime
            with self._intake.holding(version.source_digest):
                if metadata.override:
                    with asked.steps.step("classify"):
                        runtime = await self._intake.decide_again(version.source_digest, metadata.override)
                else:
                    await self._intake.path(version.source_digest)
                if back_to is None and (same := _same((app, version), metadata, version.source_digest, runtime)):
                    return same
                new = _new(asked, version.source_digest, version.source_size, runtime, version, back_to=back_to)
                try:
                    return await self._stored(asked, new, app)
                except Conflict as conflict:
                    if conflict.error_code != Conflict.code:
                        raise
        raise _too_many(asked.app_id)

    async def _write(self, asked: Asked, staged: StagedSource, runtime: Runtime, before: Before) -> Deployed:
        for _ in range(_TRIES):
            app, version = before if before is not None else (None, None)
            new = _new(asked, staged.digest, staged.size, runtime, version)
            try:
                deployed = await self._stored(asked, new, app)
                if version is not None:
                    asked.notes.extend(differences(version, runtime))
                return deployed
            except NotFound:
                # Gone since it was read: a deploy by name makes a new app, from nothing of the old one.
                pass
            except Conflict as conflict:
                # Another deploy of this app was faster: build on what it left, unless it cannot succeed now.
                if conflict.error_code != Conflict.code:
                    raise
            before = await self._before(asked)
        raise _too_many(asked.app_id)

    async def _before(self, asked: Asked) -> Before:
        """The app that a deploy would update, refused early where the store would refuse it."""
        app_id = asked.app_id
        try:
            app = await self._store.get(app_id)
            version = await self._store.version(app_id, app.version)
        except NotFound:
            if asked.must_exist:
                raise
            return None
        if app.owner != asked.owner:
            raise NameTaken(f"the name {app_id!r} is taken", hint="choose another name")
        if app.deleted:
            raise Conflict(f"{app_id!r} is being deleted", hint="try again in a few seconds", code="BeingDeleted")
        if asked.metadata.if_exists == "fail":
            raise AlreadyExists(
                f"you already have an app {app_id!r}",
                hint="deploy with if_exists=update to make this its next version, or choose another name",
            )
        if asked.base is not None and version.source_digest != asked.base:
            raise Conflict(
                f"another version of {app_id!r} was deployed meanwhile",
                hint="read its files again, and send what is to change in them",
                code="FilesChanged",
                retryable=False,
            )
        return app, version

    async def _check_storage(self, asked: Asked, staged: StagedSource, runtime: Runtime) -> None:
        """What the store will refuse must not be unpacked ahead of it. Raises `StorageLimitReached`."""
        new = Kept(asked.app_id, 0, staged.digest, staged.size, runtime.unpacked, True, time.time())
        make_room(await self._store.storage(asked.owner), new, self._storage_limit)

    def _announce(self, app_id: str, digest: str, runtime: Runtime) -> None:
        """Let the controller prepare for a version while it is stored."""
        if runtime.build is not None:
            return  # what is run of it is not there yet

        async def tell() -> None:
            with contextlib.suppress(VibedError):
                await self._link.prepare(app_id, digest, runtime)

        telling = asyncio.create_task(tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _stored(self, asked: Asked, new: NewVersion, before: App | None) -> Deployed:
        """Write a version. The store finishes that even if the caller leaves, so its source is held until then."""

        async def store() -> Deployed:
            with self._intake.holding(new.source_digest):
                deployed = await self._store.deploy(
                    new,
                    if_exists=asked.metadata.if_exists,
                    idempotency=asked.idempotency,
                    expected=before,
                    storage_limit=self._storage_limit,
                )
            for digest in deployed.dropped:
                with contextlib.suppress(VibedError, OSError):  # if not now, then when sources are collected
                    await self._intake.drop(digest, self._store)
            return deployed

        self._intake.check_room(new.runtime)
        with asked.steps.step("store"):
            return await asyncio.shield(store())


def _new(
    asked: Asked, digest: str, size: int, runtime: Runtime, version: Version | None, *, back_to: int | None = None
) -> NewVersion:
    """On top of `version`."""
    return NewVersion(
        app_id=asked.app_id,
        owner=asked.owner,
        created_by=asked.caller.owner,
        source_digest=digest,
        source_size=size,
        runtime=runtime,
        env=asked.metadata.env_after(version.env if version else {}),
        resources=_first(asked.metadata.resources, version.resources if version else Resources()),
        rolled_back_from=back_to,
        timings=dict(asked.steps.ms),
    )


def _same(before: Before, metadata: Metadata, digest: str, runtime: Runtime) -> Deployed | None:
    """The version that serves, if it is what is asked for already and another would be of no use."""
    if metadata.if_same != "keep" or before is None or not of_app(before[0]).live:
        return None
    version = before[1]
    same = (
        version.source_digest == digest
        and version.runtime == runtime
        and metadata.env_after(version.env) == version.env
        and metadata.resources in (None, version.resources)
    )
    return Deployed(*before, created=False, replayed=False, changed=False) if same else None


def _too_many(app_id: str) -> Conflict:
    return Conflict(f"{app_id!r} is being changed by many deploys at once", hint="try again")


def _first(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given
