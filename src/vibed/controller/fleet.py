"""The keepers of all apps: found, woken, waited for.

Each app that has something to do, or a sandbox to watch, has one (`vibed.controller.keeper`), a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from vibed.apps import ids
from vibed.apps.app import Phase
from vibed.apps.errors import NotFound
from vibed.controller.decision import SLOW
from vibed.controller.keeper import Keeper
from vibed.controller.link import Outcome
from vibed.controller.means import Means, destroy
from vibed.sandboxes.driver import Sandbox


class Fleet:
    """See the module's docstring."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._keepers: dict[str, Keeper] = {}
        self._adopted: dict[str, list[Sandbox]] = {}

    async def run(self, ready: asyncio.Event) -> None:
        """Work until cancelled. Sandboxes live on."""
        await self._means.tasks.run(ready)

    def adopt(self, sandboxes: Sequence[Sandbox]) -> None:
        """Take over claimed sandboxes that an earlier controller left; each is given to its app's keeper."""
        for sandbox in sandboxes:
            if sandbox.claimed is None:
                continue
            if ids.PATTERN.fullmatch(sandbox.claimed.app_id):
                self._adopted.setdefault(sandbox.claimed.app_id, []).append(sandbox)
            else:
                self._means.tasks.spawn(destroy(sandbox))  # of a probe that an earlier controller did not finish
        for app_id in list(self._adopted):
            self.wake(app_id)

    def wake(self, app_id: str) -> Keeper:
        """Have the app's keeper look at its spec again. Raises `NotFound` for what cannot be an app.

        Ids come from processes with fewer rights and become parts of paths here.
        """
        if not ids.PATTERN.fullmatch(app_id):
            raise NotFound("that is no app")
        keeper = self._keepers.get(app_id)
        if keeper is None or keeper.gone:
            keeper = self._keepers[app_id] = Keeper(self._means, app_id, self._adopted.pop(app_id, ()))
            self._means.tasks.spawn(self._keep(keeper))
        keeper.wake()
        return keeper

    async def _keep(self, keeper: Keeper) -> None:
        try:
            await keeper.keep()
        finally:
            if self._keepers.get(keeper.app_id) is keeper:
                del self._keepers[keeper.app_id]
            keeper.telling.rouse()

    def move(self, app_id: str, run: int) -> None:
        """Have another run of the same version take over from a run that serves."""
        if (keeper := self._keepers.get(app_id)) is not None:
            keeper.move(run)

    def wake_waiting(self) -> None:
        """Have every keeper look again: a template or a driver has become ready."""
        for app_id in list(self._keepers):
            self.wake(app_id)

    async def settle(self, app_id: str, version: int, timeout_s: float, *, trace: str = "") -> Outcome:
        """Wake the app and return when that version is Ready, Failed, or waits for something slow; or time is up."""
        await self._means.store.catch_up(app_id, version)
        keeper = self.wake(app_id)
        if trace:
            keeper.life.traces[version] = trace
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = keeper.telling.changed
                    outcome = keeper.telling.outcomes.get(version)
                    if outcome is not None and outcome.phase in (Phase.READY, Phase.FAILED):
                        keeper.life.traces.pop(version, None)
                        return outcome
                    if outcome is not None and outcome.reason in SLOW:
                        return outcome
                    if keeper.gone:
                        told = keeper.telling.outcome
                        if told is None or told.reason != "Deleted":
                            break
                        # by now the name may be a new app's, of which that keeper knew nothing
                        if (await self._means.store.get(app_id)).deleted:
                            break
                        keeper = self.wake(app_id)
                        continue
                    await changed.wait()
        outcome = keeper.telling.outcomes.get(version)
        if outcome is not None:
            return outcome
        stored = await self._means.store.version(app_id, version)
        return Outcome(stored.phase, stored.reason, stored.message, stored.timings)

    async def ensure(self, app_id: str, timeout_s: float) -> Outcome:
        """Bring an app up that Caddy could not reach; returns as soon as its name reaches it or it is known not to."""
        app = await self._means.store.get(app_id)
        if app.deleted:
            raise NotFound(f"there is no app {app_id!r}")
        keeper = self.wake(app_id)
        await keeper.suspect()
        with contextlib.ExitStack() as visit, contextlib.suppress(TimeoutError):
            visit.enter_context(keeper.visited())
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = keeper.telling.changed
                    outcome = keeper.telling.outcome
                    if outcome is not None and keeper.telling.seen_generation >= app.generation:
                        if keeper.serves:
                            return replace(outcome, phase=Phase.READY)
                        failed = outcome.phase is Phase.FAILED and not keeper.coming
                        if failed or outcome.reason in SLOW:
                            return outcome
                    if keeper.gone:
                        if (await self._means.store.get(app_id)).deleted:
                            raise NotFound(f"there is no app {app_id!r}")
                        keeper = self.wake(app_id)
                        visit.enter_context(keeper.visited())
                        continue
                    await changed.wait()
        return keeper.telling.outcome or Outcome(Phase.PENDING, "Starting", "")

    def layers_in_use(self) -> Mapping[str, Collection[str]]:
        """The apps of which a run has a layer, or is about to, by the layer's key."""
        found: dict[str, set[str]] = {}
        for keeper in list(self._keepers.values()):
            for layer in keeper.layers:
                found.setdefault(layer, set()).add(keeper.app_id)
        return found

    def in_use(self) -> Counter[str]:
        """How many sandboxes apps hold, by template; sites have no process and are not among them."""
        return Counter(
            run.sandbox.template
            for keeper in self._keepers.values()
            for run in keeper.life.runs.values()
            if run.sandbox is not None and not run.is_site
        )
