"""What is told of an app: its status, what became of its versions, and what is worth an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from vibed.apps.app import App, Phase, Version
from vibed.apps.store import NewEvent, VersionOutcome
from vibed.controller.decision import SLOW, Plan, Stage
from vibed.controller.life import Life
from vibed.controller.link import Outcome
from vibed.controller.means import Means
from vibed.controller.run import LiveRun, newest_serving
from vibed.sandboxes.driver import Sandbox

REFUSALS = ("TemplateUnavailable", "DriverUnavailable", "IsolationTooLow", "ResourcesTooLarge")
"""Reasons that lie in this vibeD, not in the version: they are looked at anew each time."""
TRIED_AGAIN = (*REFUSALS, "CrashLoop")
"""Reasons with which a version is Failed and is gone on with all the same."""


GOOD_KEPT = 8
"""How many good versions are remembered: the one to go back to, and what may be found bad before it."""
PATIENCE = 5
"""How many times longer a start lasts until it is written of where an older version serves meanwhile, and until it is
written of again.
"""


class Telling:
    """Of one app: what was last told, and to whom else it has to be. `wake` has the keeper tell again."""

    def __init__(self, means: Means, app_id: str, life: Life, *, wake: Callable[[], None]) -> None:
        self._means = means
        self._app_id = app_id
        self._life = life
        self._wake = wake
        self.outcome: Outcome | None = None
        """Of the app as a whole, as last told."""
        self.outcomes: dict[int, Outcome] = {}
        """Of versions, as last told."""
        self.good: set[int] = set()
        """Versions that were told to be Ready and did not turn out bad since; the newest few."""
        self.seen_generation = 0
        """Of the spec that `outcome` is about."""
        self._seen_version = 0
        """Up to which it knows what became of versions."""
        self._unwritten: dict[int, VersionOutcome] = {}
        """What became of versions and is in `outcomes`, but not in the store yet."""
        self._written_at = float("-inf")
        """When a start was last told of (`time.monotonic`)."""
        self._later: asyncio.TimerHandle | None = None
        """Has the keeper tell again what it keeps to itself now."""
        self.changed = asyncio.Event()
        """Set, and replaced by another, when there is something new to look at."""

    def begin_at(self, version: int) -> None:
        """What became of versions before this one is known."""
        self._seen_version = version

    def heard_of(self, newest: int) -> None:
        """Versions up to this one exist."""
        for number in range(self._seen_version + 1, newest):
            # a newer one was there before this one was looked at
            self.outcomes.setdefault(number, Outcome(Phase.PENDING, "Accepted"))
        self._seen_version = newest

    def deleted(self) -> None:
        """The app is gone, and whoever waits is to be told so."""
        self.outcome = Outcome(Phase.FAILED, "Deleted", "the app was deleted")

    def _isolation(self, app: App, sandbox: Sandbox | None) -> str:
        if sandbox is None:
            return ""
        # until a controller that is new has measured anything, it holds what the one before it has
        return self._means.placements.level_of(sandbox) or app.status.isolation

    def rouse(self) -> None:
        """Let everyone who waits for a change look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def tell(self, app: App, version: Version, plan: Plan) -> None:
        """Write what is new to the store, then let those who wait know: what was told can be read."""
        run = newest_serving(self._life.runs)
        sandbox = run.sandbox if run is not None else None
        status = replace(
            app.status,
            phase=plan.phase,
            reason=plan.reason,
            message=plan.message,
            serving_version=plan.serving_version,
            observed_generation=app.generation,
            isolation=self._isolation(app, sandbox),
            driver=sandbox.driver if sandbox is not None else "",
            sandbox=sandbox.id if sandbox is not None else "",
            restarts=self._life.restarts,
            last_crash=self._life.last_crash,
            route=self._means.names.route(self._app_id),
        )
        outcomes = self._news_of_versions(version, plan, run)
        outcome = Outcome(plan.phase, plan.reason, plan.message, {}, plan.serving_version)
        unwritten = self._unwritten | {new.number: new for new in outcomes}
        if (wait_s := self._quiet_for(app, plan, list(unwritten.values()))) > 0:
            # Most starts are over before anyone could read this; a slow one is written when it has lasted. Who waits
            # for it hears of it all the same.
            self._unwritten = unwritten
            self._tell_in(wait_s)
        elif status != app.status or unwritten:
            events = []
            if (status.phase, status.reason, status.serving_version) != (
                app.status.phase,
                app.status.reason,
                app.status.serving_version,
            ):
                kind = "Warning" if status.phase is Phase.FAILED or "failed" in status.message else "Normal"
                events.append(NewEvent(kind, status.reason, status.message, status.serving_version or app.version))
            await self._means.store.record(self._app_id, status, outcomes=list(unwritten.values()), events=events)
            self._unwritten = {}
            self._written_at = time.monotonic()
        for new in outcomes:
            self.outcomes[new.number] = Outcome(new.phase, new.reason, new.message, new.timings, plan.serving_version)
            if new.phase is Phase.READY:
                self.good = {*sorted(self.good)[1 - GOOD_KEPT :], new.number}
            else:
                self.good.discard(new.number)
        self.outcome, self.seen_generation = outcome, app.generation
        self.rouse()

    def _quiet_for(self, app: App, plan: Plan, news: Sequence[VersionOutcome]) -> float:
        """How many seconds longer nothing is written of the starts that are on their way."""
        coming = [run for run in self._life.runs.values() if run.coming]
        if not coming or any(new.phase in (Phase.READY, Phase.FAILED) or new.reason in SLOW for new in news):
            return 0.0
        if any(run.stage is Stage.SWITCHING for run in coming):
            return self._means.quiet_s  # over in a moment, and its route is just being written to the same status
        begun = max(run.begun for run in coming)
        since, quiet_s = max(begun, self._written_at), self._means.quiet_s
        if app.status.serving_version is not None and plan.serving_version is None:
            since = begun  # what served has gone: who reads that it serves reads something untrue
        elif plan.reason != app.status.reason and any(run.building or run.waits_for is not None for run in coming):
            since = begun  # that lasts, and its owner should know what it waits for
        elif since > begun or plan.serving_version is not None:
            quiet_s *= PATIENCE
        return since + quiet_s - time.monotonic()

    def _tell_in(self, wait_s: float) -> None:
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _overtaken(self, number: int) -> VersionOutcome | None:
        """What became of a version that is not wanted any more; None while that is not certain."""
        if (timings := self._life.lived.get(number)) is not None:
            # the newer one came between its first request and this
            return VersionOutcome(number, Phase.READY, "Running", f"version {number} is serving", timings)
        if any(run.version == number and run.stage is Stage.SWITCHING for run in self._life.runs.values()):
            return None
        if (trouble := self._life.troubles.get(number)) is not None:
            return VersionOutcome(number, Phase.FAILED, trouble.reason, trouble.message, {})
        message = "a newer version was deployed before this one was ready"
        return VersionOutcome(number, Phase.FAILED, "Superseded", message, {})

    def _news_of_versions(self, version: Version, plan: Plan, serving: LiveRun | None) -> list[VersionOutcome]:
        """What became of versions since it was last told: of the wanted one, and of any that it overtook."""
        news = [
            became
            for earlier, known in self.outcomes.items()
            if earlier < version.number and known.phase not in (Phase.READY, Phase.FAILED)
            if (became := self._overtaken(earlier)) is not None
        ]
        number = version.number
        trouble = self._life.troubles.get(number)
        if plan.serving_version == number and plan.phase is Phase.READY:
            timings = serving.timings if serving is not None else {}
            told = serving.view().told if serving is not None else f"version {number} is serving"
            new = VersionOutcome(number, Phase.READY, "Running", told, timings)
        elif trouble is not None and plan.reason == trouble.reason:
            new = VersionOutcome(number, Phase.FAILED, trouble.reason, trouble.message, {})
        elif number in self.good:
            return news
        elif plan.reason in REFUSALS:
            new = VersionOutcome(number, Phase.FAILED, plan.reason, plan.message, {})
        else:
            phase = Phase.STARTING if plan.phase is Phase.READY else plan.phase
            if number in self.outcomes or plan.reason in SLOW:
                new = VersionOutcome(number, phase, plan.reason, plan.message, {})
            else:
                self.outcomes[number] = Outcome(phase, plan.reason, plan.message)
                return news
        known_now = self.outcomes.get(number)
        if known_now is None or (known_now.phase, known_now.reason) != (new.phase, new.reason):
            if version.phase is not new.phase or version.reason != new.reason or new.phase is not Phase.READY:
                news.append(new)
            else:
                self.outcomes[number] = Outcome(new.phase, new.reason, new.message, version.timings, number)
        return news
