"""To which run an app's name leads: the marker that Caddy finds, and the connections that Caddy keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vibed import records
from vibed.apps.errors import VibedError
from vibed.controller.decision import Stage
from vibed.controller.run import LiveRun, Runs
from vibed.router.markers import Markers
from vibed.sandboxes.driver import Endpoint, HeirUnreachable

log = records.logger("vibed.controller")


class Name:
    """The name of one app whose runs are `runs`. `on_deaf` is told of a run that does not hear that it should let its
    connections go, and would answer on them for a version that is over.
    """

    def __init__(self, markers: Markers, app_id: str, runs: Runs, *, on_deaf: Callable[[LiveRun], None]) -> None:
        self._markers = markers
        self._app_id = app_id
        self._runs = runs
        self._on_deaf = on_deaf

    def leading(self) -> LiveRun | None:
        """The run to which the name should lead: one that serves, or is just being switched to."""
        return max(
            (
                run
                for run in self._runs.values()
                if run.published and not run.doubted and run.stage in (Stage.STARTING, Stage.SERVING)
            ),
            key=lambda run: run.number,
            default=None,
        )

    def leads_somewhere(self) -> bool:
        return bool(self._markers.published(self._app_id))

    async def switch_to(self, run: LiveRun, endpoint: Endpoint) -> None:
        """Have the name lead to a run; returns when no request that begins after it is served by another."""
        run.published = True
        self._markers.publish(self._app_id, run.number, run.version, endpoint)
        if len(self._runs) > 1:
            await self._hand_over(run)

    async def lead_to_newest(self) -> None:
        """Have the name lead to the newest run that serves, if there is one and it does not.

        While it is being switched to another, that one's start does the rest.
        """
        run = self.leading()
        if run is None or run.stage is Stage.STARTING or run.sandbox is None or run.sandbox.endpoint is None:
            return
        published = self._markers.published(self._app_id)
        if not published or published[0].run != run.number:
            self._markers.publish(self._app_id, run.number, run.version, run.sandbox.endpoint)
        await self._hand_over(run)

    async def _hand_over(self, run: LiveRun) -> None:
        """Let the run that the name leads to now have the connections that Caddy keeps to others."""
        assert run.sandbox is not None
        for other in list(self._runs.values()):
            if other.sandbox is None or other.stage not in (Stage.SERVING, Stage.DRAINING):
                continue
            if self.leading() is not run:
                return  # the name leads elsewhere by now, and whoever had it do so hands over to that
            try:
                await other.sandbox.hand_over(run.sandbox if other is not run else None)
            except HeirUnreachable as error:
                # Whoever waits for the heir's end notices it, and lets the name lead to this one again.
                log.warning("connections could not move", app=self._app_id, run=other.number, error=error.message)
            except VibedError as error:
                if other is run:
                    continue
                log.warning("connections could not move", app=self._app_id, run=other.number, error=error.message)
                self._on_deaf(other)

    async def dead_ends(self) -> list[int]:
        """The runs to which the name leads though nobody answers there; it does not lead there any more."""
        found = []
        for marker in self._markers.published(self._app_id):
            if marker.site:
                continue
            try:
                async with asyncio.timeout(1.0):
                    _, writer = await asyncio.open_unix_connection(str(marker.endpoint.path))
                writer.close()
            except (ConnectionRefusedError, FileNotFoundError):
                self._markers.retire(self._app_id, marker.run)
                found.append(marker.run)
            except (OSError, TimeoutError):
                continue  # it is there, and busy
        return found
