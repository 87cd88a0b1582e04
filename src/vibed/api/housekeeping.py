"""What the API does beside answering: sources that no version names are removed, the store's reserve is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vibed import records
from vibed.api.intake import Intake
from vibed.api.sse import Stopping
from vibed.apps.errors import VibedError
from vibed.apps.store import AppStore

EVERY_S = 600.0
AFTER_DELETING_S = (1.0, 5.0, 30.0)
"""Until the controller has torn an app down and purged it; somebody may be waiting for the room."""

log = records.logger("vibed.serve")


class Housekeeping:
    """Works while `run` does; only one process may do so."""

    def __init__(self, intake: Intake, store: AppStore) -> None:
        self._intake = intake
        self._store = store
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """Something was deleted: look again shortly."""
        self._soon.set()

    async def run(
        self, stopping: Stopping, keep_reserve: Callable[[], Awaitable[bool]], *, after_deleting: bool = True
    ) -> None:
        """At the start, now and then, and soon after something was deleted, unless `after_deleting` is off.
        `keep_reserve`: see `vibed.apps.sqlite.reserve`.
        """
        waits: tuple[float, ...] = ()
        while True:
            await self._once(keep_reserve)
            wait, *rest = waits or (EVERY_S,)
            if await self._woken(stopping, wait, by_deleting=after_deleting):
                waits = AFTER_DELETING_S
            else:
                waits = tuple(rest)
            if stopping.is_set:
                return

    async def _woken(self, stopping: Stopping, seconds: float, *, by_deleting: bool) -> bool:
        """Wait until it is time, or `soon` was called, which is what is returned."""
        if not by_deleting:
            await stopping.wait(seconds)
            return False
        ends = [asyncio.ensure_future(stopping.wait(seconds)), asyncio.ensure_future(self._soon.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        woken = self._soon.is_set()
        self._soon.clear()
        return woken

    async def _once(self, keep_reserve: Callable[[], Awaitable[bool]]) -> None:
        try:
            removed = await self._intake.collect(self._store)
            if removed:
                log.info("sources_collected", count=removed)
            if not await keep_reserve():
                log.warning("no_room_for_the_reserve")
        except (VibedError, OSError) as error:
            log.warning("sources_not_collected", error=str(error))
