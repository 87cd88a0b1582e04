"""What a caller may look at and take away: another's app does not exist for them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from vibed import records
from vibed.api.controlling import Controller
from vibed.api.housekeeping import Housekeeping
from vibed.api.identity import Caller
from vibed.api.intake import Intake
from vibed.apps.app import App, Event, Phase, Version
from vibed.apps.errors import NotFound, VibedError
from vibed.apps.store import AppStore
from vibed.sources.contents import Contents

_LOOKED_AT = 200
"""Apps among which the one that was meant is looked for."""

log = records.logger("vibed.api")


class VisibleApps:
    """Every method checks that the caller may see the app. Raises `NotFound`."""

    def __init__(self, store: AppStore, intake: Intake, link: Controller, housekeeping: Housekeeping) -> None:
        self._store = store
        self._intake = intake
        self._link = link
        self._housekeeping = housekeeping

    async def get(self, caller: Caller, app_id: str) -> App:
        """Raises `NotFound`, also for another's app and for one that is being deleted."""
        try:
            app = await self._store.get(app_id)
        except NotFound:
            raise await self._not_found(caller, app_id) from None
        if app.deleted or not (caller.admin or app.owner == caller.owner):
            raise await self._not_found(caller, app_id)
        return app

    async def _not_found(self, caller: Caller, app_id: str) -> NotFound:
        """With the nearest names of the caller's own apps, whoever else has which."""
        own, _ = await self._store.list(owner=caller.owner, limit=_LOOKED_AT)
        near = difflib.get_close_matches(app_id, [app.app_id for app in own], 3)
        return NotFound(
            f"there is no app {app_id[:80]!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else "list your apps to see their names",
            details={"nearest": near} if near else None,
        )

    async def list(
        self,
        caller: Caller,
        *,
        owner: str | None,
        phase: Phase | None,
        q: str | None,
        limit: int,
        offset: int,
    ) -> tuple[Sequence[App], int]:
        """The caller's apps; an admin sees everybody's."""
        if not caller.admin:
            if owner is not None and owner != caller.owner:
                return (), 0
            owner = caller.owner
        return await self._store.list(owner=owner, phase=phase, q=q, limit=limit, offset=offset)

    async def storage(self, apps: Sequence[App]) -> Mapping[str, int]:
        """Bytes that each of these apps, which `get` or `list` returned, takes on the disk."""
        return await self._store.storage_of([app.app_id for app in apps]) if apps else {}

    async def versions(
        self, caller: Caller, app_id: str, *, limit: int = 50, offset: int = 0
    ) -> tuple[App, Sequence[Version], int]:
        """The app with its versions, newest first, and how many there are."""
        app = await self.get(caller, app_id)
        return app, *await self._store.versions(app_id, limit=limit, offset=offset)

    async def version(self, caller: Caller, app_id: str, number: int) -> tuple[App, Version]:
        """The app with one of its versions."""
        return await self.get(caller, app_id), await self._store.version(app_id, number)

    async def events(self, app: App, *, after: int, limit: int = 500) -> Sequence[Event]:
        """Of an app that `get` returned."""
        return await self._store.events(app.app_id, after=after, limit=limit)

    async def source(self, caller: Caller, app_id: str, number: int | None) -> tuple[Path, str]:
        """The file and digest of a version's source; None: of the version that should serve."""
        app = await self.get(caller, app_id)
        version = await self._store.version(app_id, app.version if number is None else number)
        return await self._intake.path(version.source_digest), version.source_digest

    async def contents(
        self, caller: Caller, app_id: str, number: int | None, paths: Collection[str] | None
    ) -> tuple[Contents, int]:
        """The files of a version's source, those of `paths` with their content; and the version's number."""
        app = await self.get(caller, app_id)
        version = await self._store.version(app_id, app.version if number is None else number)
        return await self._intake.contents(version.source_digest, version.runtime.strip, paths), version.number

    async def delete(self, caller: Caller, app_id: str) -> None:
        """Ask that an app goes away with all it has."""
        await self.get(caller, app_id)
        app = await self._store.request_delete(app_id)
        log.info("delete_requested", app_id=app_id, owner=app.owner, by=caller.owner)
        try:
            await self._link.wake(app_id)
        except VibedError as error:
            log.info("controller_not_woken", app_id=app_id, code=error.error_code)
        self._housekeeping.soon()
