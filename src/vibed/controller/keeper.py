"""The keeper of one app: it reads the spec, decides, acts, tells, and waits to be woken.

It exists while its app has something to do or a sandbox to watch. The app store is the only memory that counts: what
is in a keeper is found again after a kill -9 (`vibed.controller.inheritance`).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from vibed import records
from vibed.apps.app import App, Phase, Version
from vibed.apps.errors import Conflict, NotFound
from vibed.controller.decision import Action, Drain, Observed, Plan, Purge, Stage, Start, Stop, Wanted, decide
from vibed.controller.inheritance import is_of_another, take_over
from vibed.controller.life import Life
from vibed.controller.means import Means, destroy
from vibed.controller.placement import NotYet, Placement, Refusal
from vibed.controller.run import newest_serving
from vibed.controller.telling import Telling
from vibed.sandboxes.driver import Sandbox

log = records.logger("vibed.controller")


CONFLICT_PAUSE_S = 0.02
"""Two who write the same status must not do so without an end."""


class Keeper:
    """See the module's docstring. `adopted`: sandboxes of the app that an earlier controller left."""

    def __init__(self, means: Means, app_id: str, adopted: Sequence[Sandbox] = ()) -> None:
        self.app_id = app_id
        self._means = means
        self._adopted = adopted
        self._woken = asyncio.Event()
        self._informed = False
        """Whether it knows what an earlier keeper or controller left."""
        self._visitors = 0
        """Who are held until the app's name reaches it."""
        self.gone = False
        self.life = Life(means, app_id, wake=self.wake, waited_for=self._waited_for)
        self.telling = Telling(means, app_id, self.life, wake=self.wake)

    def wake(self) -> None:
        """Have it look again."""
        self._woken.set()

    def move(self, number: int) -> None:
        """Another run of the same version is to take over from that one."""
        run = self.life.runs.get(number)
        if run is not None and run.stage is Stage.SERVING and not run.moving:
            run.moving = True
            self.wake()

    @contextlib.contextmanager
    def visited(self) -> Iterator[None]:
        """Somebody waits for the app meanwhile."""
        self._visitors += 1
        self._means.look_at_starts()
        try:
            yield
        finally:
            self._visitors -= 1

    @property
    def serves(self) -> bool:
        """Whether a run serves, and the name leads to one."""
        return newest_serving(self.life.runs) is not None and self.life.name.leads_somewhere()

    @property
    def layers(self) -> Collection[str]:
        """The keys of the layers that its sandboxes have, or are about to."""
        claims = [sandbox.claimed for sandbox in self._adopted]
        left = [claim.layer for claim in claims if claim is not None and claim.layer]
        return {*left, *(run.layer for run in self.life.runs.values() if run.layer)}

    @property
    def coming(self) -> bool:
        """Whether a run is on its way to serve."""
        return any(run.coming for run in self.life.runs.values())

    def _waited_for(self, version: int) -> bool:
        """Whether somebody waits for a run of that version: a visitor, or whoever deployed it."""
        return self._visitors > 0 or version > max(self.telling.good, default=0)

    async def suspect(self) -> None:
        """Caddy could not dial the app's socket: if there is one and nobody answers there, its run is over; if there is
        none, the name should lead to the run that serves.
        """
        for number in await self.life.name.dead_ends():
            run = self.life.runs.get(number)
            if run is not None:
                self.life.doubt(run)
        if not self.life.name.leads_somewhere():
            await self.life.name.lead_to_newest()

    async def keep(self) -> None:
        """Work until nothing is to be watched, or the app is gone."""
        try:
            while not self.gone:
                self._woken.clear()
                try:
                    plan = await self._turn()
                except NotFound:
                    await self._means.names.clear(self.app_id)
                    for sandbox in self._adopted:
                        self._means.tasks.spawn(destroy(sandbox))
                    break
                except Conflict:
                    await asyncio.sleep(CONFLICT_PAUSE_S)
                    continue
                except Exception:
                    log.exception("looking at an app failed; it is tried again", app=self.app_id)
                    await asyncio.sleep(1.0)
                    continue
                if self.gone or (self._idle(plan) and not self._woken.is_set()):
                    break
                wait = None if plan.look_again_at is None else max(0.0, plan.look_again_at - time.monotonic())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._woken.wait()
        finally:
            self.gone = True

    async def _turn(self) -> Plan:
        app, version = await self._means.store.wanted(self.app_id)
        if not self._informed:
            if any(is_of_another(sandbox, app) for sandbox in self._adopted):
                # rather than what is remembered: what an earlier controller wrote last may not be known here yet
                await self._means.store.catch_up(self.app_id)
                app, version = await self._means.store.wanted(self.app_id)
            await take_over(self._means, app, self._adopted, self.life, self.telling)
            self._informed, self._adopted = True, ()
        wanted, seen = Wanted(app.version, deleted=app.deleted), self._look(app, version)
        plan = decide(wanted, seen)
        for action in plan.actions:
            if isinstance(action, Start) and action.version != version.number:
                older = await self._means.store.version(self.app_id, action.version)
                if (short := self._shortage(older)) is not None:
                    plan = decide(wanted, replace(seen, short=short))
        for action in plan.actions:
            await self._act(app, version, action)
        if not self.gone:
            await self.telling.tell(app, version, plan)
        return plan

    def _look(self, app: App, version: Version) -> Observed:
        self.telling.heard_of(app.version)
        placement = None if app.deleted else self._means.placements.place(version.runtime, version.resources)
        blocked = (placement.reason, placement.message) if isinstance(placement, NotYet) else None
        if self._would_start(version) and (shortage := self._shortage(version)) is not None:
            blocked = ("MemoryShort", shortage)
        return Observed(
            now=time.monotonic(),
            runs=tuple(run.view() for run in self.life.runs.values()),
            troubles=self.life.troubles,
            good=frozenset(self.telling.good),
            sound=app.version in self.life.sound,
            blocked=blocked,
            refused=self._refused(version, placement),
        )

    def _refused(self, version: Version, placement: Placement | Refusal | NotYet | None) -> tuple[str, str] | None:
        """(reason, message) why a version can never start here."""
        if isinstance(placement, Refusal):
            return placement.reason, placement.message
        if isinstance(placement, Placement) and placement.beyond and not self._served_before(version):
            return "ResourcesTooLarge", placement.beyond
        return None

    def _served_before(self, version: Version) -> bool:
        """Whether it was acknowledged: what is lowered afterwards keeps no app from coming back."""
        known = version.number in self.telling.good or version.number in self.life.lived
        return known or version.phase is Phase.READY or version.reason == "CrashLoop"

    def _shortage(self, version: Version) -> str | None:
        """Why no run of a version can be begun for want of memory."""
        placement = self._means.placements.place(version.runtime, version.resources)
        needs_memory = isinstance(placement, Placement) and placement.driver != "static"
        return self._means.memory.shortage() if needs_memory else None

    def _would_start(self, version: Version) -> bool:
        """Whether a run of that version may have to be begun."""
        return not any(run.version == version.number and not run.leaving for run in self.life.runs.values())

    async def _act(self, app: App, wanted: Version, action: Action) -> None:
        match action:
            case Start(version=number):
                other = wanted.number != number
                version = await self._means.store.version(self.app_id, number) if other else wanted
                await self.life.begin(version, app, served_before=self._served_before(version))
            case Drain(run=number):
                self.life.drain(number)
            case Stop(run=number):
                self.life.stop(number)
            case Purge():
                await self._purge(app)

    async def _purge(self, app: App) -> None:
        await self._means.names.clear(self.app_id)
        await self._means.sites.remove_app(self.app_id)
        await asyncio.to_thread(shutil.rmtree, self._means.layout.logs / self.app_id, ignore_errors=True)
        # From the moment of the purge on, the name may be a new app's: nothing that is known here is true of that.
        self.telling.outcomes.clear()
        await self._means.store.purge(self.app_id)
        self.gone = True
        self.telling.deleted()
        log.info("an app was deleted", app=self.app_id, owner=app.owner)

    def _idle(self, plan: Plan) -> bool:
        """Whether nothing is to be watched: only a site serves, or nothing at all, and nothing is waited for."""
        return (
            plan.phase in (Phase.READY, Phase.FAILED)
            and plan.look_again_at is None
            and all(run.stage is Stage.SERVING and run.is_site for run in self.life.runs.values())
        )
