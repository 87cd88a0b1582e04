"""The loop that brings each app from its spec to what it should be, and keeps it there.

One keeper (a task) an app that has something to do or a sandbox to watch; it reads the spec, asks
`vibed.controller.decision.decide`, performs the actions, writes the status and waits to be woken. Everything slow runs
in tasks of its own, so that a keeper never waits for a sandbox. The app store is the only memory that counts: what is
in a keeper is found again after a kill -9 (`adopt`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from vibed import records
from vibed.apps import ids
from vibed.apps.app import App, Phase, Version
from vibed.apps.errors import Conflict, NotFound, VibedError
from vibed.apps.store import AppStore, NewEvent, VersionOutcome
from vibed.config import Config
from vibed.controller.decision import (
    HEALTHY_AFTER_S,
    Drain,
    Observed,
    Plan,
    Purge,
    RunView,
    Stage,
    Start,
    Stop,
    Trouble,
    Wanted,
    backoff,
    decide,
)
from vibed.controller.link import Outcome
from vibed.controller.metrics import Metrics
from vibed.controller.placement import NotYet, Placement, Placements, Refusal
from vibed.controller.starts import Starts
from vibed.layout import Layout
from vibed.router.markers import Markers
from vibed.sandboxes.diagnosis import plain
from vibed.sandboxes.driver import Exit, HeirUnreachable, Run, RunFailed, Sandbox
from vibed.sandboxes.pool import WarmPools
from vibed.tracing import Step, Tracer

log = records.logger("vibed.controller")

RETIRE_AFTER_S = 1.0
"""How long an old marker stays beside the new one: Caddy lists a directory, then looks (shared note data-path.md)."""
REFUSALS = ("TemplateUnavailable", "DriverUnavailable", "IsolationTooLow")
"""Reasons that lie in this vibeD, not in the version: they are looked at anew each time."""
RUN_LOGS_KEPT = 5
REFILL_AFTER_S = 0.1
QUIET_STATUS_S = 0.25
"""A start that takes less is not written to the store step by step."""


class Sites(Protocol):
    """What the controller needs of the driver `static` besides the Driver port: sites have no process to adopt."""

    def find(self, app_id: str, version: int, *, index: str = ..., spa: bool = ...) -> Sandbox | None: ...
    async def remove_app(self, app_id: str) -> None: ...


@dataclass(eq=False)
class _Run:
    """A run that is not over."""

    number: int
    version: int
    stage: Stage = Stage.STARTING
    entered: list[tuple[str, float]] = field(default_factory=list)
    """Its steps so far, and when they began (Unix seconds)."""
    sandbox: Sandbox | None = None
    begun: float = field(default_factory=time.monotonic)
    serving_since: float = 0.0
    published: bool = False
    """Whether the app's name has led to it; from then on it takes part in handing connections over."""
    doubted: bool = False
    """Whether nobody answers at its socket: it is over, and what is waited for is the account of why."""
    timings: Mapping[str, float] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, step: str) -> None:
        self.entered.append((step, time.time()))

    def view(self) -> RunView:
        step = self.entered[-1][0] if self.entered else ""
        return RunView(self.number, self.version, self.stage, step)

    @property
    def leaving(self) -> bool:
        return self.stage in (Stage.DRAINING, Stage.STOPPING)


@dataclass(eq=False)
class _Keeper:
    """What the controller holds of one app while it has something to do for it."""

    app_id: str
    runs: dict[int, _Run] = field(default_factory=dict)
    troubles: dict[int, Trouble] = field(default_factory=dict)
    last_good: int | None = None
    restarts: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Outcome | None = None
    """Of the app as a whole, as last told."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """Of versions, as last told."""
    traces: dict[int, str] = field(default_factory=dict)
    """What the runs of versions are a part of, where somebody traces it."""
    seen_generation: int = 0
    seen_version: int = 0
    """Up to which it knows what became of versions."""
    informed: bool = False
    """Whether it knows what an earlier keeper or controller left."""
    visitors: int = 0
    """Who are held until the app's name reaches it."""
    gone: bool = False

    def waited_for(self, version: int) -> bool:
        """Whether somebody waits for a run of that version: a visitor, or whoever deployed it."""
        return self.visitors > 0 or self.last_good is None or version > self.last_good

    def tell(self) -> None:
        """Let everyone who waits for a change look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def leading(self) -> _Run | None:
        """The run to which the name should lead: one that serves, or is just being switched to."""
        return max(
            (
                run
                for run in self.runs.values()
                if run.published and not run.doubted and run.stage in (Stage.STARTING, Stage.SERVING)
            ),
            key=lambda run: run.number,
            default=None,
        )

    def serving(self) -> _Run | None:
        """The newest run that serves."""
        return max(
            (run for run in self.runs.values() if run.stage is Stage.SERVING),
            key=lambda run: run.number,
            default=None,
        )


class Reconciler:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        config: Config,
        layout: Layout,
        store: AppStore,
        pools: WarmPools,
        sites: Sites,
        placements: Placements,
        markers: Markers,
        metrics: Metrics,
        tracer: Tracer,
        source_path: Callable[[str], Path],
    ) -> None:
        self._config = config
        self._layout = layout
        self._store = store
        self._pools = pools
        self._sites = sites
        self._placements = placements
        self._markers = markers
        self._metrics = metrics
        self._tracer = tracer
        self._source_path = source_path
        self._keepers: dict[str, _Keeper] = {}
        self._adopted: dict[str, list[Sandbox]] = {}
        at_once = config.start_concurrency or max(4, 2 * len(os.sched_getaffinity(0)))
        self._starts: defaultdict[tuple[str, bool], Starts] = defaultdict(lambda: Starts(at_once))
        """By driver and by whether there is something to build: a worker, which starts in milliseconds, does not wait
        for what takes seconds, and that does not wait for compilers."""
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self, ready: asyncio.Event) -> None:
        """Work until cancelled. Sandboxes live on."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            ready.set()
            await asyncio.Event().wait()

    def adopt(self, sandboxes: Sequence[Sandbox]) -> None:
        """Take over claimed sandboxes that an earlier controller left; each is given to its app's keeper."""
        for sandbox in sandboxes:
            if sandbox.claimed is None:
                continue
            if ids.PATTERN.fullmatch(sandbox.claimed.app_id):
                self._adopted.setdefault(sandbox.claimed.app_id, []).append(sandbox)
            else:
                self._spawn(self._destroy(sandbox))  # of a probe that an earlier controller did not finish
        for app_id in list(self._adopted):
            self.wake(app_id)

    def wake(self, app_id: str) -> _Keeper:
        """Have the app's keeper look at its spec again. Raises `NotFound` for what cannot be an app.

        Ids come from processes with fewer rights and become parts of paths here.
        """
        if not ids.PATTERN.fullmatch(app_id):
            raise NotFound("that is no app")
        keeper = self._keepers.get(app_id)
        if keeper is None or keeper.gone:
            keeper = self._keepers[app_id] = _Keeper(app_id)
            self._spawn(self._keep(keeper))
        keeper.woken.set()
        return keeper

    def wake_waiting(self) -> None:
        """Have every keeper look again: a template or a driver has become ready."""
        for app_id in list(self._keepers):
            self.wake(app_id)

    async def settle(self, app_id: str, version: int, timeout_s: float, *, trace: str = "") -> Outcome:
        """Wake the app and return when that version is Ready, Failed, or waits for something slow; or time is up."""
        keeper = self.wake(app_id)
        if trace:
            keeper.traces[version] = trace
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = keeper.changed
                    outcome = keeper.outcomes.get(version)
                    if outcome is not None and outcome.phase in (Phase.READY, Phase.FAILED):
                        keeper.traces.pop(version, None)
                        return outcome
                    if outcome is not None and outcome.reason == "TemplateBuilding":
                        return outcome
                    if keeper.gone:
                        if keeper.outcome is None or keeper.outcome.reason != "Deleted":
                            break
                        # by now the name may be a new app's, of which that keeper knew nothing
                        if (await self._store.get(app_id)).deleted:
                            break
                        keeper = self.wake(app_id)
                        continue
                    await changed.wait()
        outcome = keeper.outcomes.get(version)
        if outcome is not None:
            return outcome
        stored = await self._store.version(app_id, version)
        return Outcome(stored.phase, stored.reason, stored.message, stored.timings)

    async def ensure(self, app_id: str, timeout_s: float) -> Outcome:
        """Bring an app up that Caddy could not reach; returns as soon as its name reaches it or it is known not to."""
        app = await self._store.get(app_id)
        if app.deleted:
            raise NotFound(f"there is no app {app_id!r}")
        keeper = self.wake(app_id)
        await self._suspect(keeper)
        with contextlib.ExitStack() as visit, contextlib.suppress(TimeoutError):
            visit.enter_context(self._visited(keeper))
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = keeper.changed
                    outcome = keeper.outcome
                    if outcome is not None and keeper.seen_generation >= app.generation:
                        if keeper.serving() is not None and self._markers.published(app_id):
                            return replace(outcome, phase=Phase.READY)
                        if outcome.phase is Phase.FAILED or outcome.reason == "TemplateBuilding":
                            return outcome
                    if keeper.gone:
                        if (await self._store.get(app_id)).deleted:
                            raise NotFound(f"there is no app {app_id!r}")
                        keeper = self.wake(app_id)
                        visit.enter_context(self._visited(keeper))
                        continue
                    await changed.wait()
        return keeper.outcome or Outcome(Phase.PENDING, "Starting", "")

    @contextlib.contextmanager
    def _visited(self, keeper: _Keeper) -> Iterator[None]:
        keeper.visitors += 1
        self._look_at_starts()
        try:
            yield
        finally:
            keeper.visitors -= 1

    def _look_at_starts(self) -> None:
        for starts in self._starts.values():
            starts.look()

    async def _suspect(self, keeper: _Keeper) -> None:
        """Caddy could not dial the app's socket: if there is one and nobody answers there, its run is over; if there is
        none, the name should lead to the run that serves.
        """
        for marker in self._markers.published(keeper.app_id):
            if marker.site:
                continue
            try:
                async with asyncio.timeout(1.0):
                    _, writer = await asyncio.open_unix_connection(str(marker.endpoint.path))
                writer.close()
            except (ConnectionRefusedError, FileNotFoundError):
                self._markers.retire(keeper.app_id, marker.run)
                run = keeper.runs.get(marker.run)
                if run is not None and run.stage is Stage.SERVING and run.sandbox is not None and not run.doubted:
                    run.doubted = True
                    self._spawn(self._lost(keeper, run, run.sandbox))
            except (OSError, TimeoutError):
                continue  # it is there, and busy
        if not self._markers.published(keeper.app_id):
            await self._point_at_newest(keeper)

    def in_use(self) -> Counter[str]:
        """How many sandboxes apps hold, by template; sites have no process and are not among them."""
        return Counter(
            run.sandbox.template
            for keeper in self._keepers.values()
            for run in keeper.runs.values()
            if run.sandbox is not None and run.sandbox.driver != "static"
        )

    # The keeper of one app

    async def _keep(self, keeper: _Keeper) -> None:
        try:
            while not keeper.gone:
                keeper.woken.clear()
                try:
                    plan = await self._turn(keeper)
                except NotFound:
                    self._markers.clear(keeper.app_id)
                    for sandbox in self._adopted.pop(keeper.app_id, []):
                        self._spawn(self._destroy(sandbox))
                    break
                except Conflict:
                    continue
                except Exception:
                    log.exception("looking at an app failed; it is tried again", app=keeper.app_id)
                    await asyncio.sleep(1.0)
                    continue
                if keeper.gone or (self._idle(keeper, plan) and not keeper.woken.is_set()):
                    break
                wait = None if plan.look_again_at is None else max(0.0, plan.look_again_at - time.monotonic())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await keeper.woken.wait()
        finally:
            self._drop(keeper)

    def _drop(self, keeper: _Keeper) -> None:
        keeper.gone = True
        if self._keepers.get(keeper.app_id) is keeper:
            del self._keepers[keeper.app_id]
        keeper.tell()

    def _idle(self, keeper: _Keeper, plan: Plan) -> bool:
        """Whether nothing is to be watched: only a site serves, or nothing at all, and nothing is waited for."""
        return (
            plan.phase in (Phase.READY, Phase.FAILED)
            and plan.look_again_at is None
            and plan.reason != "TemplateBuilding"
            and all(
                run.stage is Stage.SERVING and run.sandbox is not None and run.sandbox.driver == "static"
                for run in keeper.runs.values()
            )
        )

    async def _take_over(self, keeper: _Keeper, app: App) -> None:
        """Fill a new keeper with what an earlier one, or an earlier controller, left."""
        keeper.seen_version = app.version
        published = self._markers.published(keeper.app_id)
        if not (app.version > 1 or app.runs or keeper.app_id in self._adopted or published):
            return
        keeper.restarts = app.status.restarts
        versions = await self._versions_to_last_good(keeper.app_id)
        keeper.last_good = max((v.number for v in versions if v.phase is Phase.READY), default=None)
        for version in versions:
            if version.number < app.version and version.phase not in (Phase.READY, Phase.FAILED):
                keeper.outcomes[version.number] = Outcome(version.phase, version.reason, version.message)
            if version.number == app.version and version.phase is Phase.FAILED and version.reason not in REFUSALS:
                keeper.troubles[version.number] = Trouble(version.reason, version.message)
        for sandbox in self._adopted.pop(keeper.app_id, []):
            assert sandbox.claimed is not None
            run = _Run(sandbox.claimed.number, sandbox.claimed.version, sandbox=sandbox)
            if sandbox.endpoint is None or sandbox.exit is not None or run.number > app.runs:
                # It was half way when its controller died: a new run is cleaner than guessing how far it got. Or it is
                # of an earlier app of this name, whose runs had numbers that this one's have not reached.
                self._markers.forget(keeper.app_id, run.number)
                self._spawn(self._destroy(sandbox))
                continue
            self._serve(keeper, run)
        for marker in published:
            if marker.run in keeper.runs:
                continue
            site = None
            if marker.site:
                with contextlib.suppress(NotFound):
                    runtime = (await self._store.version(keeper.app_id, marker.version)).runtime
                    site = self._sites.find(keeper.app_id, marker.version, index=runtime.index, spa=runtime.spa)
            if site is None or site.endpoint is None:
                self._markers.forget(keeper.app_id, marker.run)
                continue
            self._serve(keeper, _Run(marker.run, marker.version, sandbox=site))
        await self._point_at_newest(keeper)

    async def _versions_to_last_good(self, app_id: str) -> list[Version]:
        """The versions from the newest back to the last one that was ever Ready, in pages; all when none was."""
        found: list[Version] = []
        while True:
            page, total = await self._store.versions(app_id, limit=100, offset=len(found))
            found += page
            if not page or len(found) >= total or any(version.phase is Phase.READY for version in page):
                return found

    async def _point_at_newest(self, keeper: _Keeper) -> None:
        """Have the app's name lead to the newest run that serves, if there is one and it does not.

        While it is being switched to another, that one's start does the rest.
        """
        run = keeper.leading()
        if run is None or run.stage is Stage.STARTING or run.sandbox is None or run.sandbox.endpoint is None:
            return
        published = self._markers.published(keeper.app_id)
        if not published or published[0].run != run.number:
            self._markers.publish(keeper.app_id, run.number, run.version, run.sandbox.endpoint)
        await self._hand_over(keeper, run)

    async def _hand_over(self, keeper: _Keeper, run: _Run) -> None:
        """Let the run that the name leads to now have the connections that Caddy keeps to others."""
        assert run.sandbox is not None
        for other in list(keeper.runs.values()):
            if other.sandbox is None or other.stage not in (Stage.SERVING, Stage.DRAINING):
                continue
            if keeper.leading() is not run:
                return  # the name leads elsewhere by now, and whoever had it do so hands over to that
            try:
                await other.sandbox.hand_over(run.sandbox if other is not run else None)
            except HeirUnreachable as error:
                # Whoever waits for the heir's end notices it, and lets the name lead to this one again.
                log.warning("connections could not move", app=keeper.app_id, run=other.number, error=error.message)
            except VibedError as error:
                if other is run:
                    continue
                # On connections that are left to it, it would answer for a version that is over.
                log.warning("connections could not move", app=keeper.app_id, run=other.number, error=error.message)
                other.stage = Stage.STOPPING
                self._spawn(self._stop(keeper, other, begun=False))

    async def _turn(self, keeper: _Keeper) -> Plan:
        """Look once: read, decide, act, tell."""
        app, version = await self._store.wanted(keeper.app_id)
        if not keeper.informed:
            await self._take_over(keeper, app)
            keeper.informed = True
        for number in range(keeper.seen_version + 1, app.version):
            # a newer one was there before this one was looked at
            keeper.outcomes.setdefault(number, Outcome(Phase.PENDING, "Accepted"))
        keeper.seen_version = app.version
        placement = None if app.deleted else self._placements.place(version.runtime, version.resources)
        plan = decide(
            Wanted(app.version, deleted=app.deleted),
            Observed(
                now=time.monotonic(),
                runs=tuple(run.view() for run in keeper.runs.values()),
                troubles=keeper.troubles,
                last_good=keeper.last_good,
                blocked=(placement.reason, placement.message) if isinstance(placement, NotYet) else None,
                refused=(placement.reason, placement.message) if isinstance(placement, Refusal) else None,
            ),
        )
        for action in plan.actions:
            await self._perform(keeper, app, version, action)
        if not keeper.gone:
            await self._report(keeper, app, version, plan)
        return plan

    async def _perform(self, keeper: _Keeper, app: App, wanted: Version, action: object) -> None:
        match action:
            case Start(version=number):
                await self._begin(
                    keeper, wanted if wanted.number == number else await self._store.version(keeper.app_id, number)
                )
            case Drain(run=number):
                run = keeper.runs[number]
                run.stage = Stage.DRAINING
                self._spawn(self._drain(keeper, run))
            case Stop(run=number):
                run = keeper.runs[number]
                begun = run.stage is Stage.STARTING
                run.stage = Stage.STOPPING
                self._look_at_starts()
                self._spawn(self._stop(keeper, run, begun=begun))
            case Purge():
                await self._purge(keeper, app)

    async def _begin(self, keeper: _Keeper, version: Version) -> None:
        run = _Run(await self._store.next_run(keeper.app_id), version.number)
        keeper.runs[run.number] = run
        self._spawn(self._bring_up(keeper, run, version))

    async def _bring_up(self, keeper: _Keeper, run: _Run, version: Version) -> None:
        """One run from claim to switch. Ends with the run serving, or gone and its trouble noted."""
        began = time.perf_counter()
        try:
            placement = self._placements.place(version.runtime, version.resources)
            if not isinstance(placement, Placement):
                raise RunFailed(placement.message, code=placement.reason)
            if placement.driver == "static":
                run.timings = await self._start(keeper, run, version, placement)
            else:
                busy = contextlib.ExitStack()
                busy.enter_context(self._pools.deploying())
                try:
                    async with self._starts[placement.driver, bool(version.runtime.start.build)].turn(
                        wanted=lambda: keeper.waited_for(run.version), over=lambda: run.leaving
                    ):
                        run.timings = await self._start(keeper, run, version, placement)
                finally:
                    # a moment later: whoever waits is answered before the pool is refilled
                    asyncio.get_running_loop().call_later(REFILL_AFTER_S, busy.close)
            total = (time.perf_counter() - began) * 1000
            self._metrics.deployed(version.runtime.lane, version.runtime.template, run.timings, total)
            self._trace(keeper, run)
            keeper.woken.set()
        except RunFailed as error:
            await self._failed(keeper, run, error.error_code, _sentence(error), app_fault=True)
        except VibedError as error:
            await self._failed(keeper, run, error.error_code, _sentence(error), app_fault=not error.may_retry)
        except Exception as error:
            log.exception("a run failed in the controller", app=keeper.app_id, run=run.number)
            await self._failed(keeper, run, "Internal", f"{type(error).__name__}: {error}", app_fault=False)
        finally:
            run.over.set()

    def _trace(self, keeper: _Keeper, run: _Run) -> None:
        """Make the first run of a traced deploy a part of its trace, before anybody is told how it went."""
        within = keeper.traces.pop(run.version, "")
        if not within:
            return
        ended = time.time()
        times = [at for _, at in run.entered] + [ended]
        trouble = None if run.stage is Stage.SERVING else keeper.troubles.get(run.version)
        self._tracer.record(
            Step("run", times[0], ended),
            within=within,
            steps=[Step(f"run.{name}", at, until) for (name, at), until in zip(run.entered, times[1:], strict=True)],
            error=trouble.message if trouble is not None else "",
            app_id=keeper.app_id,
            version=run.version,
            run=run.number,
            driver=run.sandbox.driver if run.sandbox is not None else "",
            template=run.sandbox.template if run.sandbox is not None else "",
        )

    async def _start(self, keeper: _Keeper, run: _Run, version: Version, placement: Placement) -> Mapping[str, float]:
        def on_stage(stage: str) -> None:
            following = {"claimed": "injecting", "injected": "starting"}.get(stage)
            if following is not None:
                run.enter(following)
            if time.monotonic() - run.begun > QUIET_STATUS_S:
                keeper.woken.set()

        if run.leaving:
            raise RunFailed("it was stopped before it started", code="Stopped")
        run.enter("claiming")
        began = time.perf_counter()
        sandbox = run.sandbox = await self._pools.claim(placement.driver, placement.template)
        if run.leaving:
            raise RunFailed("it was stopped while it started", code="Stopped")
        claimed = time.perf_counter()
        if placement.driver != "static":
            self._markers.make_room(keeper.app_id)
        started = await sandbox.run(
            Run(
                app_id=keeper.app_id,
                version=run.version,
                number=run.number,
                source=self._source_path(version.source_digest),
                runtime=version.runtime
                if self._config.warm_processes
                else replace(version.runtime, start=replace(version.runtime.start, warm=False)),
                env=version.env,
                limits=placement.limits,
                start_timeout_s=self._config.start_timeout_s
                + (self._config.build_timeout_s if version.runtime.start.build else 0.0),
            ),
            socket=self._markers.socket(keeper.app_id, run.number, run.version),
            log_dir=self._layout.run_log(keeper.app_id, run.number),
            on_stage=on_stage,
        )
        listening = time.perf_counter()
        if run.leaving:
            raise RunFailed("it was stopped while it started", code="Stopped")
        run.enter("switching")
        run.published = True
        self._markers.publish(keeper.app_id, run.number, run.version, started.endpoint)
        if len(keeper.runs) > 1:
            await self._hand_over(keeper, run)
            if run.leaving:
                raise RunFailed("it was stopped while it started", code="Stopped")
        switched = time.perf_counter()
        self._serve(keeper, run)
        return {
            **started.timings,
            "claim": (claimed - began) * 1000 + started.timings.get("claim", 0.0),
            "run": (listening - claimed) * 1000,
            "switch": (switched - listening) * 1000,
        }

    def _serve(self, keeper: _Keeper, run: _Run) -> None:
        run.stage, run.published = Stage.SERVING, True
        run.serving_since = time.monotonic()
        keeper.runs[run.number] = run
        assert run.sandbox is not None
        if run.sandbox.driver != "static":
            self._spawn(self._watch(keeper, run, run.sandbox))

    async def _watch(self, keeper: _Keeper, run: _Run, sandbox: Sandbox) -> None:
        """Wait for a serving sandbox to end; if nobody asked for it, that is trouble."""
        await self._crashed(keeper, run, await sandbox.wait())

    async def _lost(self, keeper: _Keeper, run: _Run, sandbox: Sandbox) -> None:
        await self._crashed(keeper, run, await _how_it_ended(sandbox))

    async def _crashed(self, keeper: _Keeper, run: _Run, ended: Exit) -> None:
        if run.stage is not Stage.SERVING:
            return
        self._markers.retire(keeper.app_id, run.number)
        assert run.sandbox is not None
        self._metrics.died(run.sandbox.driver, run.sandbox.template)
        keeper.restarts += 1
        if time.monotonic() - run.serving_since > HEALTHY_AFTER_S:
            keeper.troubles.pop(run.version, None)
        await self._failed(keeper, run, "Crashed", _exit_sentence(ended), app_fault=False)

    async def _failed(self, keeper: _Keeper, run: _Run, reason: str, message: str, *, app_fault: bool) -> None:
        """Note why a run is over and let the keeper decide what follows."""
        if run.leaving:
            return
        run.stage = Stage.STOPPING
        if run.published:
            # one that it has just replaced may not have begun to drain
            self._spawn(self._point_at_newest(keeper))
        before = keeper.troubles.get(run.version)
        count = 1 + (before.count if before is not None else 0)
        retry_at = time.monotonic() + backoff(count)
        keeper.troubles[run.version] = Trouble(reason, message, count, retry_at, app_fault=app_fault)
        self._metrics.failed(reason)
        self._trace(keeper, run)
        log.warning("a run ended", app=keeper.app_id, run=run.number, version=run.version, reason=reason, count=count)
        keeper.woken.set()
        try:
            event = NewEvent("Warning", reason, f"version {run.version}: {message}", run.version)
            await self._store.record(keeper.app_id, None, events=[event])
        except NotFound:
            pass
        except VibedError as error:
            # A full disk, for one. The keeper goes on telling how the app stands; what the run holds has to go now.
            log.error("an event could not be written", app=keeper.app_id, run=run.number, error=error.message)
        finally:
            if run.sandbox is not None:
                await self._destroy(run.sandbox)
            self._over(keeper, run)

    async def _drain(self, keeper: _Keeper, run: _Run) -> None:
        """Let a replaced run finish its requests, then end it."""
        assert run.sandbox is not None
        if run.sandbox.driver == "static":
            await asyncio.sleep(RETIRE_AFTER_S)
            if run.stage is not Stage.DRAINING:
                return  # it was stopped meanwhile; its number may be that of a run of the next app of this name
        self._markers.retire(keeper.app_id, run.number)
        try:
            await run.sandbox.drain(self._config.drain_s)
        except VibedError as error:
            log.warning("a drain did not end cleanly", app=keeper.app_id, run=run.number, error=error.message)
        await self._destroy(run.sandbox)
        self._over(keeper, run)

    async def _stop(self, keeper: _Keeper, run: _Run, *, begun: bool) -> None:
        """End a run now, wherever it is: one that is just starting notices when its sandbox goes."""
        self._markers.retire(keeper.app_id, run.number)
        await self._point_at_newest(keeper)  # the name may have led to this one already
        if run.sandbox is not None:
            await self._destroy(run.sandbox)
        if begun:
            await run.over.wait()
            if run.sandbox is not None:
                await self._destroy(run.sandbox)
        self._over(keeper, run)

    def _over(self, keeper: _Keeper, run: _Run) -> None:
        if keeper.runs.get(run.number) is not run:
            return  # it was drained and stopped; by now its number may be that of a run of the next app of this name
        del keeper.runs[run.number]
        self._markers.forget(keeper.app_id, run.number, last=not keeper.runs)
        keeper.woken.set()
        alive = {self._layout.run_log(keeper.app_id, number) for number in keeper.runs}
        self._spawn(asyncio.to_thread(self._prune_logs, keeper.app_id, alive))

    async def _destroy(self, sandbox: Sandbox) -> None:
        try:
            await sandbox.destroy()
        except VibedError as error:
            log.error("a sandbox could not be removed", sandbox=sandbox.id, error=error.message)

    async def _purge(self, keeper: _Keeper, app: App) -> None:
        app_id = keeper.app_id
        self._markers.clear(app_id)
        await self._sites.remove_app(app_id)
        await asyncio.to_thread(shutil.rmtree, self._layout.logs / app_id, ignore_errors=True)
        # From the moment of the purge on, the name may be a new app's: nothing that is known here is true of that.
        keeper.outcomes.clear()
        await self._store.purge(app_id)
        keeper.gone = True
        keeper.outcome = Outcome(Phase.FAILED, "Deleted", "the app was deleted")
        log.info("an app was deleted", app=app_id, owner=app.owner)

    # Telling

    async def _report(self, keeper: _Keeper, app: App, version: Version, plan: Plan) -> None:
        """Write what is new to the store, then let those who wait know: what was told can be read."""
        run = keeper.serving()
        sandbox = run.sandbox if run is not None else None
        status = replace(
            app.status,
            phase=plan.phase,
            reason=plan.reason,
            message=plan.message,
            serving_version=plan.serving_version,
            observed_generation=app.generation,
            isolation=self._placements.level(sandbox.driver) if sandbox is not None else "",
            driver=sandbox.driver if sandbox is not None else "",
            sandbox=sandbox.id if sandbox is not None else "",
            restarts=keeper.restarts,
        )
        outcomes = self._news_of_versions(keeper, version, plan, run)
        outcome = Outcome(plan.phase, plan.reason, plan.message, {}, plan.serving_version)
        young = time.monotonic() - QUIET_STATUS_S
        if not outcomes and any(r.stage is Stage.STARTING and r.begun > young for r in keeper.runs.values()):
            # Most starts are over before anyone could read this; a slow one is written when it has lasted.
            asyncio.get_running_loop().call_later(QUIET_STATUS_S, keeper.woken.set)
        elif status != app.status or outcomes:
            events = []
            if (status.phase, status.reason, status.serving_version) != (
                app.status.phase,
                app.status.reason,
                app.status.serving_version,
            ):
                kind = "Warning" if status.phase is Phase.FAILED or "failed" in status.message else "Normal"
                events.append(NewEvent(kind, status.reason, status.message, status.serving_version or app.version))
            await self._store.record(keeper.app_id, status, outcomes=outcomes, events=events)
        for new in outcomes:
            keeper.outcomes[new.number] = Outcome(new.phase, new.reason, new.message, new.timings, plan.serving_version)
            if new.phase is Phase.READY:
                keeper.last_good = max(new.number, keeper.last_good or 0)
        keeper.outcome, keeper.seen_generation = outcome, app.generation
        keeper.tell()

    def _news_of_versions(
        self, keeper: _Keeper, version: Version, plan: Plan, serving: _Run | None
    ) -> list[VersionOutcome]:
        """What became of versions since it was last told: of the wanted one, and of any that it overtook."""
        news = []
        for earlier, known in keeper.outcomes.items():
            if earlier >= version.number or known.phase in (Phase.READY, Phase.FAILED):
                continue
            if serving is not None and earlier == plan.serving_version == serving.version:
                # the newer one came between its first request and this
                message = f"version {earlier} is serving"
                news.append(VersionOutcome(earlier, Phase.READY, "Running", message, serving.timings))
            else:
                news.append(
                    VersionOutcome(
                        earlier,
                        Phase.FAILED,
                        "Superseded",
                        "a newer version was deployed before this one was ready",
                        {},
                    )
                )
        number = version.number
        trouble = keeper.troubles.get(number)
        if plan.serving_version == number:
            timings = serving.timings if serving is not None else {}
            new = VersionOutcome(number, Phase.READY, "Running", f"version {number} is serving", timings)
        elif keeper.last_good is not None and keeper.last_good >= number:
            return news
        elif trouble is not None and plan.reason == trouble.reason:
            new = VersionOutcome(number, Phase.FAILED, trouble.reason, trouble.message, {})
        elif plan.reason in REFUSALS:
            new = VersionOutcome(number, Phase.FAILED, plan.reason, plan.message, {})
        else:
            phase = Phase.STARTING if plan.phase is Phase.READY else plan.phase
            if number in keeper.outcomes or plan.reason == "TemplateBuilding":
                new = VersionOutcome(number, phase, plan.reason, plan.message, {})
            else:
                keeper.outcomes[number] = Outcome(phase, plan.reason, plan.message)
                return news
        known_now = keeper.outcomes.get(number)
        if known_now is None or (known_now.phase, known_now.reason) != (new.phase, new.reason):
            if version.phase is not new.phase or version.reason != new.reason or new.phase is not Phase.READY:
                news.append(new)
            else:
                keeper.outcomes[number] = Outcome(new.phase, new.reason, new.message, version.timings, number)
        return news

    def _prune_logs(self, app_id: str, alive: Collection[Path]) -> None:
        runs = sorted(path for path in (self._layout.logs / app_id).glob("[0-9]*") if path.is_dir())
        for old in runs[:-RUN_LOGS_KEPT]:
            if old in alive:
                continue  # it serves, whatever was tried since
            shutil.rmtree(old, ignore_errors=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None, "the reconciler is not running"
        return self._tasks.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """A fault in the handling of one app must not end the others'."""
        try:
            await work
        except Exception:
            log.exception("a task of the controller failed")


async def _how_it_ended(sandbox: Sandbox) -> Exit:
    """What its supervisor says, if that comes soon: the socket goes a moment before the account of why."""
    try:
        async with asyncio.timeout(1.0):
            return await sandbox.wait()
    except TimeoutError:
        return Exit(None, None, False, time.time())


def _sentence(error: VibedError) -> str:
    text = error.message if error.message.endswith((".", "!", "?")) else f"{error.message}."
    return f"{text} {error.hint}." if error.hint else text


def _exit_sentence(ended: Exit) -> str:
    # of one that was killed for memory they say nothing about why
    last = f" Its last words: {plain(ended.tail[-1])}" if ended.tail and not ended.oom else ""
    return f"{ended.describe()}.{last}"
