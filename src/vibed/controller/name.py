"""To which run an app's name leads: what is published of it, and the connections that Caddy keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vibed import records
from vibed.apps.errors import VibedError
from vibed.controller.decision import Stage
from vibed.controller.names import Names
from vibed.controller.run import LiveRun, Runs
from vibed.sandboxes.driver import Endpoint, HeirUnreachable

log = records.logger("vibed.controller")


class Name:
    """The name of one app whose runs are `runs`. `on_deaf` is told of a run that does not hear that it should let its
    connections go, and would answer on them for a version that is over.
    """

    def __init__(self, names: Names, app_id: str, runs: Runs, *, on_deaf: Callable[[LiveRun], None]) -> None:
        self._names = names
        self._app_id = app_id
        self._runs = runs
        self._on_deaf = on_deaf

    def leading(self) -> LiveRun | None:
        """The run to which the name should lead: the newest that serves, or is just being switched to."""
        return max((r for r in self._runs.values() if r.live and not r.doubted), key=lambda r: r.number, default=None)

    def leads_somewhere(self) -> bool:
        return bool(self._names.published(self._app_id))

    async def switch_to(self, run: LiveRun, endpoint: Endpoint) -> None:
        """Have the name lead to a run that listens; returns when no request that begins after it is served by another.

        What serves until now hands over first, at one instant for all that reaches it, and then Caddy is told: the
        other way round, some of Caddy's connections would mean the new run while others still mean the old one. Raises
        `HeirUnreachable` when the run is gone already; the name then leads where it did.
        """
        run.stage = Stage.SWITCHING
        deaf = await self._live_hand_over(run)
        if self.leading() is not run:
            return  # whoever leads now has the name, and hands over again: what is deaf may still serve until then
        await self._names.publish(self._app_id, run.number, run.version, endpoint)
        for other in deaf:
            self._on_deaf(other)
        await self._drained_hand_over(run)

    async def lead_to_newest(self) -> None:
        """Have the name lead to the newest run that serves, if there is one and it does not.

        While it is being switched to another, that one's start does the rest.
        """
        run = self.leading()
        if run is None or run.stage is Stage.SWITCHING or run.sandbox is None or run.sandbox.endpoint is None:
            return
        if not self._leads_to(run):
            await self._names.publish(self._app_id, run.number, run.version, run.sandbox.endpoint)
        try:
            await run.sandbox.hand_over(None)
        except VibedError as error:
            log.warning("connections could not be kept", app=self._app_id, run=run.number, error=error.message)
        try:
            for other in await self._live_hand_over(run):
                self._on_deaf(other)
        except HeirUnreachable as error:
            # Whoever waits for its end notices it, and lets the name lead to another.
            log.warning("connections could not move", app=self._app_id, run=run.number, error=error.message)
        await self._drained_hand_over(run)

    def _leads_to(self, run: LiveRun) -> bool:
        published = self._names.published(self._app_id)
        return bool(published) and published[0].run == run.number

    async def _live_hand_over(self, heir: LiveRun) -> list[LiveRun]:
        """Let `heir` have what reaches the runs that serve, or were about to, one after the other from the newest on:
        each may have its connections from an older one, so that the last to hear of it changes all at one instant,
        however long it takes to hear. Returns the one to which the name leads still, if it is deaf: it has to go as
        soon as the name leads elsewhere. Raises `HeirUnreachable`.
        """
        others = [run for run in self._runs.values() if run is not heir and run.sandbox is not None and run.live]
        others.sort(key=lambda run: run.number, reverse=True)
        return [run for run in others if not await self._give(run, heir)]

    async def _drained_hand_over(self, heir: LiveRun) -> None:
        """Let `heir` have what those get that are being drained. Until then they pass it to the one before, which
        hands over before: were they the first, who comes by them would see the new run while others see the old one.
        They hear of it at the same time, so that one that stalls does not hold up the rest.
        """
        draining = [run for run in self._runs.values() if run.stage is Stage.DRAINING and run.sandbox is not None]
        for failed in await asyncio.gather(*(self._give(run, heir) for run in draining), return_exceptions=True):
            if isinstance(failed, HeirUnreachable):
                log.warning("connections could not move", app=self._app_id, run=heir.number, error=failed.message)
            elif isinstance(failed, BaseException):
                raise failed

    async def _give(self, run: LiveRun, heir: LiveRun) -> bool:
        assert run.sandbox is not None
        if self.leading() is not heir:
            return True  # the name leads elsewhere by now, and whoever had it do so hands over to that
        try:
            await run.sandbox.hand_over(heir.sandbox)
        except HeirUnreachable:
            if self.leading() is heir:
                raise
        except VibedError as error:
            log.warning("connections could not move", app=self._app_id, run=run.number, error=error.message)
            if self.leading() is not heir:
                return True
            if self._leads_to(run):
                return False
            self._on_deaf(run)
        return True

    async def dead_ends(self) -> list[int]:
        """The runs to which the name leads though nobody answers there; it does not lead there any more."""
        found = []
        for published in self._names.published(self._app_id):
            if not await self._names.answers(published):
                await self._names.retire(self._app_id, published.run)
                found.append(published.run)
        return found
