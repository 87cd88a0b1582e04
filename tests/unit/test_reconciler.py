"""The controller's loop with sandboxes whose behaviour is scripted: races that real ones show once a month."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from vibed.apps.app import App, Crash, Phase, Resources, Runtime, Start, Status, Version
from vibed.apps.errors import NotFound, StoreUnavailable, VibedError
from vibed.apps.sqlite.store import SqliteStore
from vibed.apps.store import NewVersion, VersionOutcome
from vibed.config import Config
from vibed.controller import decision, telling, trouble
from vibed.controller import life as module
from vibed.controller.fleet import Fleet
from vibed.controller.inheritance import sound
from vibed.controller.link import Outcome
from vibed.controller.means import Means
from vibed.controller.memory import Memory
from vibed.controller.metrics import Metrics
from vibed.controller.placement import Placements
from vibed.controller.starts import Starts
from vibed.layout import Layout, Uids
from vibed.router.marked import MarkedNames
from vibed.router.markers import Markers
from vibed.runtimes.templates import load_templates
from vibed.sandboxes.driver import (
    BootFailed,
    Builder,
    Claimed,
    Endpoint,
    Exit,
    HeirUnreachable,
    Isolation,
    Probe,
    Run,
    RunFailed,
    Sandbox,
    SandboxLost,
    Started,
    State,
)
from vibed.sandboxes.pool import WarmPools
from vibed.sources.store import ServedStore
from vibed.tracing import OpenTelemetry

PYTHON = Runtime("general", "python-313", "python", "app.py", "because.", start=Start(("python3", "app.py")))

SOURCE = "ab" * 32


class Scripted:
    """A sandbox that does what the test says."""

    driver = "gvisor"
    template = "python-313"
    template_digest = "d"
    isolation: Isolation | None = None

    def __init__(self, driver: ScriptedDriver) -> None:
        self._driver = driver
        self.id = f"s{next(driver.numbers):011d}"
        self.state = State.WARM
        self.claimed: Claimed | None = None
        self.endpoint: Endpoint | None = None
        self.exit: Exit | None = None
        self._gone = asyncio.Event()
        self.drained = False
        self.heir: Sandbox | None = None

    async def run(self, run: Run, *, socket: Path, log_dir: Path, on_stage: Callable[[str], None]) -> Started:
        assert self.claimed is None, "claimed twice"
        self.claimed = Claimed(run.app_id, run.version, run.number, run.app_key)
        on_stage("claimed")
        outcome = self._driver.script(run)
        waiting = asyncio.ensure_future(outcome)
        ending = asyncio.ensure_future(self._gone.wait())
        await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not waiting.done():
            waiting.cancel()
            raise SandboxLost("it ended under the call")
        waiting.result()
        self.state = State.RUNNING
        self.endpoint = Endpoint(socket)
        return Started(self.endpoint, 8080, {"inject": 1.0})

    async def hand_over(self, heir: Sandbox | None) -> None:
        if self._driver.hand_over_fails is not None:
            raise self._driver.hand_over_fails
        self.heir = heir

    async def drain(self, deadline_s: float) -> None:
        self.drained = True
        self.end()

    async def destroy(self, grace_s: float = 2.0) -> None:
        self.end()

    async def wait(self) -> Exit:
        await self._gone.wait()
        assert self.exit is not None
        return self.exit

    def end(self, code: int | None = None) -> None:
        if self.exit is None:
            self.exit = Exit(code, None if code is not None else "SIGKILL", False, time.time(), ("last words",))
            self.state = State.EXITED
            self._gone.set()


async def _at_once(run: Run) -> None:
    return


@dataclass
class ScriptedDriver:
    name: str = "gvisor"
    isolation: Isolation = Isolation.KERNEL
    script: Callable[[Run], asyncio.Future[None]] = _at_once  # type: ignore[assignment]
    made: list[Scripted] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    boot_fails: int = 0
    hand_over_fails: VibedError | None = None
    booting: asyncio.Event | None = None

    async def probe(self) -> Probe:
        return Probe(True, self.isolation, "scripted")

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox:
        if self.booting is not None:
            await self.booting.wait()
        if self.boot_fails:
            self.boot_fails -= 1
            raise BootFailed("no sandbox today")
        sandbox = Scripted(self)
        self.made.append(sandbox)
        return sandbox

    async def adopt(self) -> Sequence[Sandbox]:
        return []

    async def close(self) -> None:
        return

    @property
    def alive(self) -> list[Scripted]:
        return [sandbox for sandbox in self.made if sandbox.exit is None]


class NoSites:
    def find(self, app_id: str, version: int, *, index: str = "", spa: bool = False) -> Sandbox | None:
        return None

    async def remove_app(self, app_id: str) -> None:
        return


@dataclass
class World:
    store: SqliteStore
    driver: ScriptedDriver
    markers: Markers
    placements: Placements
    means: Means
    fleet: Fleet
    layout: Layout
    traced: InMemorySpanExporter

    async def deploy(self, name: str = "todo", runtime: Runtime = PYTHON, **more: object) -> int:
        new = NewVersion(name, "ann", "ann", SOURCE, 10, runtime, {}, Resources(), **more)  # type: ignore[arg-type]
        return (await self.store.deploy(new)).version.number

    async def settle(self, version: int, name: str = "todo", timeout_s: float = 5.0) -> Outcome:
        return await self.fleet.settle(name, version, timeout_s)

    async def app(self, name: str = "todo") -> App:
        return await self.store.get(name)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)

    def serving(self, name: str = "todo") -> list[int]:
        return [marker.version for marker in self.markers.published(name)]


def proving(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long a new version has to last before the one before is let go."""
    for one in (decision, trouble):
        monkeypatch.setattr(one, "PROVING_S", seconds)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "RETIRE_AFTER_S", 0.01)
    proving(monkeypatch, 0.0)
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(0, rootless=True))
    for folder in (layout.database.parent, layout.apps, layout.ingress, layout.logs):
        folder.mkdir(parents=True)
    config = Config(layout.home)
    store = await SqliteStore.open(layout.database)
    driver = ScriptedDriver()
    drivers = {"gvisor": driver}
    placements = Placements(config, load_templates(), drivers)
    placements.probed("gvisor", await driver.probe())
    placements.built("python-313")
    markers = Markers(layout.apps, layout.ingress)
    traced = InMemorySpanExporter()
    sources = ServedStore(layout.sources, key=bytes(32))
    sources.prepare()
    sources.path(SOURCE).touch()
    async with WarmPools(drivers, {}) as pools:
        means = Means(
            config=config,
            layout=layout,
            store=store,
            pools=pools,
            sites=NoSites(),
            placements=placements,
            names=MarkedNames(markers),
            metrics=Metrics(),
            tracer=OpenTelemetry(traced, at_once=True),
            sources=sources,
        )
        fleet = Fleet(means)
        ready = asyncio.Event()
        running = asyncio.ensure_future(fleet.run(ready))
        await ready.wait()
        yield World(store, driver, markers, placements, means, fleet, layout, traced)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    await store.close()


async def test_what_settle_tells_can_be_read_from_the_store_at_once(world: World) -> None:
    outcome = await world.settle(await world.deploy())
    assert (outcome.phase, outcome.serving_version) == (Phase.READY, 1)
    app = await world.app()
    assert (app.status.phase, app.status.serving_version, app.status.isolation) == (Phase.READY, 1, "kernel")
    assert app.settled
    assert (await world.store.version("todo", 1)).phase is Phase.READY
    assert world.serving() == [1]


async def test_the_isolation_that_is_told_is_what_the_sandbox_itself_has_measured(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "isolation", Isolation.VM)
    await world.settle(await world.deploy())
    assert (await world.app()).status.isolation == "vm"


async def test_a_redeploy_drains_the_old_sandbox_and_leaves_one(world: World) -> None:
    await world.settle(await world.deploy())
    outcome = await world.settle(await world.deploy())
    assert (outcome.phase, outcome.serving_version) == (Phase.READY, 2)
    await world.until(lambda: len(world.driver.alive) == 1)
    assert world.driver.made[0].drained
    assert world.serving() == [2]


async def test_connections_to_the_old_sandbox_move_before_the_new_one_is_ready(world: World) -> None:
    await world.settle(await world.deploy())
    await world.settle(await world.deploy())
    old, new = world.driver.made[0], world.driver.made[-1]
    assert new.claimed is not None and new.claimed.version == 2
    assert old.heir is new


async def test_an_old_sandbox_that_keeps_its_connections_is_ended_rather_than_believed(world: World) -> None:
    await world.settle(await world.deploy())
    world.driver.hand_over_fails = SandboxLost("it does not answer")
    outcome = await world.settle(await world.deploy())
    assert (outcome.phase, outcome.serving_version) == (Phase.READY, 2)
    await world.until(lambda: world.driver.made[0].exit is not None)
    assert not world.driver.made[0].drained
    assert world.serving() == [2]
    assert (await world.app()).status.restarts == 0


async def test_an_older_sandbox_that_ends_while_the_name_moves_on_does_not_lead_it_back(world: World) -> None:
    await world.settle(await world.deploy())
    first = world.driver.made[0]

    async def drain(deadline_s: float) -> None:
        await asyncio.Event().wait()

    first.drain = drain  # type: ignore[method-assign]
    await world.settle(await world.deploy())
    second = world.driver.made[1]

    async def has_ended(heir: Sandbox | None) -> None:
        raise SandboxLost("it has ended")

    async def takes_a_moment(heir: Sandbox | None) -> None:
        first.end()
        await asyncio.sleep(0.02)

    first.hand_over, second.hand_over = has_ended, takes_a_moment  # type: ignore[method-assign]
    outcome = await world.settle(await world.deploy())
    assert (outcome.phase, outcome.serving_version) == (Phase.READY, 3)
    assert world.serving() == [3]
    await world.until(lambda: len(world.driver.alive) == 1)
    assert world.serving() == [3]


async def test_a_name_that_leads_nowhere_is_mended_by_its_next_visitor(world: World) -> None:
    await world.settle(await world.deploy())
    world.markers.clear("todo")
    assert (await world.fleet.ensure("todo", 5.0)).phase is Phase.READY
    assert world.serving() == [1] and len(world.driver.made) == 1


async def test_when_the_new_sandbox_dies_at_once_the_name_leads_to_the_old_one_again(world: World) -> None:
    await world.settle(await world.deploy())
    old = world.driver.made[0]
    world.driver.hand_over_fails = HeirUnreachable("it has ended")

    def script(run: Run) -> asyncio.Future[None]:
        async def work() -> None:
            if run.version == 2:
                world.driver.made[-1].end()

        return asyncio.ensure_future(work())

    world.driver.script = script
    await world.settle(await world.deploy(), timeout_s=0.5)
    assert old.exit is None
    assert world.serving() == [1]


SECOND = replace(PYTHON, entrypoint="gunicorn app:app", start=Start(("gunicorn", "app:app")))
TWO_WAYS = replace(PYTHON, otherwise=SECOND)


def ends(**by: RunFailed) -> Callable[[Run], asyncio.Future[None]]:
    """A script in which a start by a program (`python3`, `gunicorn`) fails so, and any other serves."""

    def script(run: Run) -> asyncio.Future[None]:
        async def work() -> None:
            failed = by.get(run.runtime.start.argv[0])
            if failed is not None:
                raise failed

        return asyncio.ensure_future(work())

    return script


def ended(message: str, tail: Sequence[str] = (), *, hint: str = "", code: str = "StartFailed") -> RunFailed:
    return RunFailed(message, exit=Exit(1, None, False, time.time(), tuple(tail)), hint=hint, code=code)


async def test_a_version_that_ends_before_it_serves_is_started_once_in_the_other_way_there_is(world: World) -> None:
    world.driver.script = ends(python3=ended("the app ended at once"))
    world.layout.run_log("todo", 1).mkdir(parents=True)
    outcome = await world.settle(await world.deploy(runtime=TWO_WAYS))
    assert outcome.phase is Phase.READY
    status = (await world.app()).status
    assert status.message == (
        "version 1 is serving; it was started by ‘gunicorn app:app’, since by ‘app.py’ the app ended at once"
    )
    assert len(world.driver.made) == 2 and len(world.driver.alive) == 1
    assert status.restarts == 0
    log = world.layout.run_log("todo", 1) / "log.jsonl"
    assert json.loads(log.read_text())["text"] == "it ended before it served: it is started by ‘gunicorn app:app’ now"


async def test_when_no_way_to_start_works_the_message_has_both(world: World) -> None:
    first = ended("the app ended at once", hint="keep it running")
    second = ended("the app did not start: no module named app", hint="name it")
    world.driver.script = ends(python3=first, gunicorn=second)
    outcome = await world.settle(await world.deploy(runtime=TWO_WAYS))
    assert outcome.phase is Phase.FAILED
    message = (await world.app()).status.message
    assert "by ‘app.py’ the app ended at once; by ‘gunicorn app:app’, which was tried next, the app did not" in message
    assert "Keep it running; or name it." in message
    assert len(world.driver.made) == 2


async def test_what_fails_in_the_same_way_twice_is_told_once(world: World) -> None:
    words = ("Traceback (most recent call last):", '  File "/app/app.py", line 2, in <module>', "ValueError: no colour")
    one, other = ended("it exited with status 1: ValueError", words), ended("with status 3: ValueError", words)
    world.driver.script = ends(python3=one, gunicorn=other)
    await world.settle(await world.deploy(runtime=TWO_WAYS))
    assert (await world.app()).status.message.startswith("version 1 failed: it exited with status 1: ValueError.")


@pytest.mark.parametrize("code", ["StartTimeout", "BuildFailed", "DiskFull"])
async def test_what_another_start_would_not_mend_is_not_tried_again(world: World, code: str) -> None:
    world.driver.script = ends(python3=ended("it took too long", code=code))
    outcome = await world.settle(await world.deploy(runtime=TWO_WAYS))
    assert (outcome.phase, len(world.driver.made)) == (Phase.FAILED, 1)


async def test_a_newer_deploy_overtakes_one_that_starts_and_its_waiter_is_told(world: World) -> None:
    def script(run: Run) -> asyncio.Future[None]:
        async def work() -> None:
            if run.version == 1:
                await asyncio.sleep(60)

        return asyncio.ensure_future(work())

    world.driver.script = script
    waiter = asyncio.ensure_future(world.settle(await world.deploy()))
    await world.until(lambda: bool(world.driver.made and world.driver.made[0].claimed))
    second = await world.settle(await world.deploy())
    first = await waiter
    assert (first.phase, first.reason) == (Phase.FAILED, "Superseded")
    assert second.phase is Phase.READY
    await world.until(lambda: len(world.driver.alive) == 1)


class Held:
    """Runs that come up when they are let."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._world = world
        self.let = asyncio.Event()
        self.written: list[Status] = []
        world.driver.script = self._until_let  # type: ignore[assignment]
        record = world.store.record

        async def recorded(app_id: str, status: Status | None, **more: Any) -> Status | None:
            if status is not None:
                self.written.append(status)
            return await record(app_id, status, **more)

        monkeypatch.setattr(world.store, "record", recorded)

    async def _until_let(self, run: Run) -> None:
        await self.let.wait()

    async def look(self) -> None:
        """Have the keeper look again, and tell."""
        keeper = self._world.fleet.wake("todo")
        await keeper.telling.changed.wait()


async def test_a_start_that_is_looked_at_again_on_its_way_is_written_once_it_serves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.means.quiet_s = 3600.0
    held = Held(world, monkeypatch)
    waiter = asyncio.ensure_future(world.settle(await world.deploy()))
    await world.until(lambda: bool(world.driver.made and world.driver.made[0].claimed))
    for _ in range(3):
        await held.look()
    assert held.written == []
    assert world.fleet.wake("todo").telling.outcomes[1].reason == "Starting", "who waits hears of it"
    held.let.set()
    assert (await waiter).phase is Phase.READY
    assert [status.phase for status in held.written] == [Phase.READY]


async def test_a_slow_start_is_written_when_it_has_lasted_and_rarely_after_that(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PATIENCE", 1e6)
    world.means.quiet_s = 0.01
    held = Held(world, monkeypatch)
    world.driver.booting = asyncio.Event()
    waiter = asyncio.ensure_future(world.settle(await world.deploy()))
    await world.until(lambda: len(held.written) == 1)
    assert held.written[0].phase is Phase.CLAIMING
    world.driver.booting.set()
    await world.until(lambda: bool(world.driver.made and world.driver.made[0].claimed))
    await held.look()
    assert len(held.written) == 1
    held.let.set()
    assert (await waiter).phase is Phase.READY
    assert [status.phase for status in held.written] == [Phase.CLAIMING, Phase.READY]


async def test_a_slow_update_is_written_later_since_an_older_version_serves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PATIENCE", 1e6)
    await world.settle(await world.deploy())
    world.means.quiet_s = 0.0001
    held = Held(world, monkeypatch)
    waiter = asyncio.ensure_future(world.settle(await world.deploy()))
    await world.until(lambda: bool(len(world.driver.made) > 1 and world.driver.made[1].claimed))
    await held.look()
    assert held.written == []
    held.let.set()
    assert (await waiter).serving_version == 2
    assert [status.serving_version for status in held.written] == [2]


async def test_that_what_served_has_gone_is_written_however_lately_something_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PATIENCE", 1.0)
    await world.settle(await world.deploy())
    world.means.quiet_s = 0.01
    held = Held(world, monkeypatch)
    waiter = asyncio.ensure_future(world.settle(await world.deploy()))
    await world.until(lambda: bool(held.written))
    monkeypatch.setattr(telling, "PATIENCE", 1e6)
    world.driver.made[0].end(1)
    await world.until(lambda: held.written[-1].serving_version is None)
    held.let.set()
    assert (await waiter).serving_version == 2


async def test_while_a_route_is_written_nothing_else_is_written_to_the_same_status(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.means.quiet_s = 3600.0
    held = Held(world, monkeypatch)
    held.let.set()
    publish, begun, let = world.means.names.publish, asyncio.Event(), asyncio.Event()

    async def slowly(*route: Any) -> None:
        begun.set()
        await let.wait()
        await publish(*route)

    monkeypatch.setattr(world.means.names, "publish", slowly)
    waiter = asyncio.ensure_future(world.settle(await world.deploy()))
    await begun.wait()
    world.means.quiet_s = 0.0001
    await held.look()
    assert held.written == []
    let.set()
    assert (await waiter).phase is Phase.READY
    assert [status.phase for status in held.written] == [Phase.READY]


async def test_an_app_deleted_while_its_sandbox_boots_leaves_nothing(world: World) -> None:
    world.driver.booting = asyncio.Event()
    waiter = asyncio.ensure_future(world.settle(await world.deploy(), timeout_s=2))
    await asyncio.sleep(0.05)
    await world.store.request_delete("todo")
    world.fleet.wake("todo")
    world.driver.booting.set()
    await world.until(lambda: not world.driver.alive)
    async with asyncio.timeout(5):
        while True:
            try:
                await world.app()
            except NotFound:
                break
            await asyncio.sleep(0.01)
    with contextlib.suppress(NotFound):
        await waiter
    assert not (world.layout.apps / "todo").exists()


TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"


async def test_the_first_run_of_a_traced_deploy_is_recorded_and_none_of_later(world: World) -> None:
    await world.fleet.settle("todo", await world.deploy(), 5.0, trace=TRACE)
    spans = {span.name: span for span in world.traced.get_finished_spans()}
    assert set(spans) == {"run", "run.claiming", "run.injecting", "run.switching"}
    assert f"{spans['run'].context.trace_id:032x}" == "ab" * 16
    world.driver.alive[0].end()
    await world.until(lambda: len(world.driver.made) == 2 and world.serving() == [1])
    await world.fleet.settle("todo", 1, 5.0)
    assert len(world.traced.get_finished_spans()) == len(spans)


async def test_a_run_that_fails_is_recorded_with_its_reason_however_long_its_sandbox_takes_to_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(run: Run) -> None:
        raise RunFailed("it exited with status 1", code="StartFailed")

    async def slowly(self: Scripted, grace_s: float = 2.0) -> None:
        await asyncio.sleep(0.1)
        self.end()

    world.driver.script = script
    monkeypatch.setattr(Scripted, "destroy", slowly)
    outcome = await world.fleet.settle("todo", await world.deploy(), 5.0, trace=TRACE)
    assert outcome.phase is Phase.FAILED
    (run,) = [span for span in world.traced.get_finished_spans() if span.name == "run"]
    assert (run.status.is_ok, run.status.description) == (False, "it exited with status 1.")


async def test_a_version_that_fails_leaves_the_last_good_one_serving_and_both_say_so(world: World) -> None:
    await world.settle(await world.deploy())

    def script(run: Run) -> asyncio.Future[None]:
        async def work() -> None:
            raise RunFailed("it exited with status 1", code="StartFailed")

        return asyncio.ensure_future(work())

    world.driver.script = script
    outcome = await world.settle(await world.deploy())
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, "StartFailed")
    app = await world.app()
    assert (app.status.phase, app.status.reason, app.status.serving_version) == (Phase.READY, "StartFailed", 1)
    assert "version 1 still serves" in app.status.message.lower()
    assert (await world.store.version("todo", 2)).reason == "StartFailed"
    assert world.serving() == [1]


async def test_a_sandbox_that_dies_is_replaced_and_counted(world: World) -> None:
    await world.settle(await world.deploy())
    world.driver.made[0].end()
    await world.until(lambda: len(world.driver.made) == 2 and world.serving() == [1])
    async with asyncio.timeout(5):
        while (await world.app()).status.restarts != 1 or (await world.app()).status.reason != "Running":
            await asyncio.sleep(0.01)
    reasons = [event.reason for event in await world.store.events("todo")]
    assert "Crashed" in reasons


def lowered(world: World, memory_mb: int) -> None:
    """Sandboxes have no more than that, whatever an app asks for."""
    world.placements._fixed = True
    world.placements._templates = {
        name: replace(known, resources=replace(known.resources, memory_mb=memory_mb))
        for name, known in world.placements._templates.items()
    }


async def large(world: World) -> int:
    new = NewVersion("todo", "ann", "ann", SOURCE, 10, PYTHON, {}, Resources(memory_mb=512))
    return (await world.store.deploy(new)).version.number


async def test_what_is_lowered_refuses_new_versions_and_an_app_that_was_served_comes_back_with_less(
    world: World,
) -> None:
    await world.settle(await large(world))
    lowered(world, 256)
    world.driver.made[0].end(1)
    await world.until(lambda: len(world.driver.made) == 2 and world.serving() == [1])
    async with asyncio.timeout(5):
        while "less than it asks for" not in (status := (await world.app()).status).message:
            await asyncio.sleep(0.01)
    assert status.phase is Phase.READY
    assert "256 MB" in status.message and "512 MB" in status.message

    refused = await world.settle(await large(world))
    assert (refused.phase, refused.reason) == (Phase.FAILED, "ResourcesTooLarge")
    assert world.serving() == [1]


async def test_the_last_crash_is_in_the_status_and_outlives_the_controller(world: World) -> None:
    await world.settle(await world.deploy())
    first = world.driver.made[0]
    first.exit = Exit(1, None, False, 1764000000.0, ("Traceback (most recent call last):", "KeyError: 'TOKEN'"))
    first._gone.set()
    await world.until(lambda: len(world.driver.made) == 2 and world.serving() == [1])
    async with asyncio.timeout(5):
        while (crash := (await world.app()).status.last_crash) is None:
            await asyncio.sleep(0.01)
    assert (crash.at, crash.version, crash.oom, crash.error) == (1764000000.0, 1, False, "KeyError: 'TOKEN'")
    assert crash.message == "it exited with status 1: KeyError: 'TOKEN'."
    world.fleet._keepers.clear()
    world.fleet.adopt(world.driver.alive)
    await world.settle(await world.deploy())
    status = (await world.app()).status
    assert (status.restarts, status.last_crash) == (1, crash)


async def test_what_is_killed_for_memory_is_told_so_and_its_last_lines_are_not_blamed(world: World) -> None:
    await world.settle(await world.deploy())
    first = world.driver.made[0]
    first.exit = Exit(None, "SIGKILL", True, 1764000000.0, ("ValueError: of some request",))
    first._gone.set()
    async with asyncio.timeout(5):
        while (crash := (await world.app()).status.last_crash) is None:
            await asyncio.sleep(0.01)
    assert (crash.oom, crash.error) == (True, "")
    assert crash.message.startswith("it used more memory than its limit and was killed.")
    assert "more memory (`resources`)" in crash.message


async def test_a_first_sandbox_that_cannot_be_booted_is_tried_again(world: World) -> None:
    world.driver.boot_fails = 1
    outcome = await world.settle(await world.deploy(), timeout_s=8)
    assert outcome.phase is Phase.READY


async def test_a_template_that_becomes_ready_wakes_the_apps_that_wait_for_it(world: World) -> None:
    world.placements._ready.clear()
    world.placements.building("python-313", "installing packages")
    outcome = await world.settle(await world.deploy())
    assert (outcome.phase, outcome.reason) == (Phase.PENDING, "TemplateBuilding")
    assert "installing packages" in outcome.message
    world.placements.built("python-313")
    world.fleet.wake_waiting()
    await world.until(lambda: world.serving() == [1])


async def test_an_app_waits_for_the_image_that_has_its_packages(world: World) -> None:
    world.placements.built("python-313", ["flask"])
    world.placements.building("python-313", "installing 29 Python packages")
    outcome = await world.settle(await world.deploy(runtime=replace(PYTHON, packages=("flask", "numpy", "pandas"))))
    assert (outcome.phase, outcome.reason) == (Phase.PENDING, "TemplateBuilding")
    assert "numpy, pandas will be in the next image" in outcome.message
    assert "installing 29 Python packages" in outcome.message
    await world.settle(await world.deploy("other", runtime=replace(PYTHON, packages=("flask",))), "other")
    assert world.serving("other") == [1], "one that needs nothing of that does not wait"
    world.placements.built("python-313", ["flask", "numpy", "pandas"])
    world.fleet.wake_waiting()
    await world.until(lambda: world.serving() == [1])


async def test_a_package_that_the_template_no_longer_has_keeps_no_app_waiting(world: World) -> None:
    world.placements.built("python-313", ["flask"])
    outcome = await world.settle(await world.deploy(runtime=replace(PYTHON, packages=("flask", "of-last-year"))))
    assert outcome.phase is Phase.READY


async def test_visitors_of_a_dead_socket_bring_the_app_back_even_if_nobody_noticed(world: World) -> None:
    await world.settle(await world.deploy())
    marker = world.markers.published("todo")[0]
    outcome = await world.fleet.ensure("todo", 5.0)
    assert outcome.phase is Phase.READY
    assert world.markers.published("todo")[0].run > marker.run


async def test_many_waiters_of_one_missing_app_start_one_sandbox(world: World) -> None:
    await world.settle(await world.deploy())
    world.markers.clear("todo")
    world.driver.made[0].end()
    outcomes = await asyncio.gather(*(world.fleet.ensure("todo", 5.0) for _ in range(20)))
    assert {outcome.phase for outcome in outcomes} == {Phase.READY}
    assert len(world.driver.made) == 2


async def test_ensure_of_an_unknown_or_deleted_app_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        await world.fleet.ensure("nobody", 1.0)
    await world.settle(await world.deploy())
    await world.store.request_delete("todo")
    with pytest.raises(NotFound):
        await world.fleet.ensure("todo", 1.0)


async def test_a_controller_that_starts_anew_takes_its_sandboxes_over(world: World) -> None:
    await world.settle(await world.deploy())
    world.fleet._keepers.clear()
    world.fleet.adopt(world.driver.alive)
    await world.until(lambda: "todo" in world.fleet._keepers and world.serving() == [1])
    await asyncio.sleep(0.05)
    assert len(world.driver.made) == 1
    assert (await world.app()).status.phase is Phase.READY


async def test_one_that_does_not_answer_its_new_controller_is_gone_on_with_where_the_name_leads_to_it(
    world: World,
) -> None:
    await world.settle(await world.deploy())
    (silent,) = world.driver.alive
    silent.state = State.STARTING  # it is not known whether it serves
    world.fleet._keepers.clear()
    world.fleet.adopt([silent])
    await world.until(lambda: "todo" in world.fleet._keepers and world.serving() == [1])
    await world.settle(await world.deploy())  # it has looked at what there is
    assert silent.drained, "it served until another did"


async def test_one_that_does_not_answer_and_that_no_name_leads_to_is_replaced(world: World) -> None:
    await world.deploy()
    await world.store.next_run("todo")
    silent = await orphan(world, "todo", 1)
    silent.state = State.STARTING
    world.fleet.adopt([silent])
    await world.until(lambda: silent.exit is not None and world.serving() == [1])
    (new,) = world.driver.alive
    assert new.claimed is not None and new.claimed.number == 2


async def test_what_was_installed_for_a_sandbox_that_is_taken_over_is_in_use(world: World) -> None:
    await world.settle(await world.deploy())
    (sandbox,) = world.driver.alive
    assert sandbox.claimed is not None
    sandbox.claimed = replace(sandbox.claimed, layer="ab" * 32)
    world.fleet._keepers.clear()
    world.fleet.adopt(world.driver.alive)
    in_use = {"ab" * 32: {"todo"}}
    assert world.fleet.layers_in_use() == in_use
    await world.until(lambda: world.serving() == [1])
    assert world.fleet.layers_in_use() == in_use


async def test_a_disk_that_refuses_the_marker_at_first_makes_no_second_run_of_a_sandbox_that_is_taken_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.deploy()
    await world.store.next_run("todo")
    left = await orphan(world, "todo", 1)
    publish, full = world.markers.publish, True

    def refused(*arguments: Any) -> Any:
        nonlocal full
        if full:
            full = False
            raise OSError(errno.ENOSPC, "No space left on device")
        return publish(*arguments)

    monkeypatch.setattr(world.markers, "publish", refused)
    world.fleet.adopt([left])
    await world.until(lambda: world.serving() == [1])
    crash(left, "boom")
    await world.until(lambda: world.serving() == [1] and len(world.driver.made) == 2)
    async with asyncio.timeout(5):
        while not (status := (await world.app()).status).restarts or status.phase is not Phase.READY:
            await asyncio.sleep(0.01)
    assert status.restarts == 1, "one run ended"


def test_a_version_that_went_live_just_now_is_not_proven_however_long_it_took_to_build() -> None:
    now = 1_000_000.0
    made = Version("todo", 1, "ab" * 32, 1, PYTHON, {}, Resources(), now - 3600, "ann", phase=Phase.READY)
    built = replace(made, number=2, created_at=now - 300)
    live = Status(Phase.READY, "Running", serving_version=2, updated_at=now - 5)
    assert sound(live, [built, made], now) == {1}
    assert sound(replace(live, updated_at=now - 61), [built, made], now) == {1, 2}
    assert sound(live, [replace(built, phase=Phase.FAILED), made], now) == {1}
    again = replace(live, last_crash=Crash(now - 6, 2, "it ended"))
    assert sound(again, [built, made], now) == {1, 2}, "it was brought back just now, and had served before"


async def test_twenty_apps_at_once_all_become_ready(world: World) -> None:
    names = [f"app-{number}" for number in range(20)]
    versions = await asyncio.gather(*(world.deploy(name) for name in names))
    outcomes = await asyncio.gather(
        *(world.settle(version, name) for name, version in zip(names, versions, strict=True))
    )
    assert {outcome.phase for outcome in outcomes} == {Phase.READY}


# What must not happen, seen by reviewers


async def test_what_cannot_be_an_app_is_never_made_a_path(world: World, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in (str(victim), "../../victim", "_probe", ""):
        with pytest.raises(NotFound):
            world.fleet.wake(name)
        with pytest.raises(NotFound):
            await world.fleet.settle(name, 1, 1.0)
    await asyncio.sleep(0.05)
    assert victim.is_dir()


async def test_a_failure_that_cannot_be_written_down_leaves_no_sandbox_and_the_app_can_be_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.settle(await world.deploy())
    real, full = world.store.record, True

    async def record(*arguments: Any, **more: Any) -> None:
        if full:
            raise StoreUnavailable("the disk is full")
        await real(*arguments, **more)

    async def fails(run: Run) -> None:
        raise SandboxLost("the supervisor said no")

    monkeypatch.setattr(world.store, "record", record)
    world.driver.script = fails  # type: ignore[assignment]
    await world.settle(await world.deploy(), timeout_s=0.5)
    # the one that serves: whatever was tried besides is gone
    await world.until(lambda: len(world.driver.made) > 1 and len(world.driver.alive) == 1)
    full = False
    await world.store.request_delete("todo")
    world.fleet.wake("todo")
    await world.until(lambda: not world.driver.alive)
    with pytest.raises(NotFound):
        async with asyncio.timeout(5):
            while await world.store.get("todo"):
                await asyncio.sleep(0.01)


async def orphan(world: World, app_id: str, number: int) -> Scripted:
    """A sandbox that an earlier controller left, of an app that is not there any more."""
    sandbox = Scripted(world.driver)
    sandbox.claimed, sandbox.state = Claimed(app_id, 1, number), State.RUNNING
    sandbox.endpoint = Endpoint(world.markers.socket(app_id, number, 1))
    world.driver.made.append(sandbox)
    return sandbox


async def test_a_sandbox_without_an_app_is_ended(world: World) -> None:
    left, probe = await orphan(world, "todo", 7), await orphan(world, "_probe", 1)
    world.fleet.adopt([left, probe])
    await world.until(lambda: left.exit is not None and probe.exit is not None)
    await world.settle(await world.deploy())
    assert [sandbox.claimed and sandbox.claimed.number for sandbox in world.driver.alive] == [1]


async def test_a_sandbox_of_an_earlier_app_of_that_name_never_serves_the_new_one(world: World) -> None:
    left = await orphan(world, "todo", 7)
    version = await world.deploy()
    world.fleet.adopt([left])
    await world.settle(version)
    await world.until(lambda: left.exit is not None)
    assert [sandbox.claimed and sandbox.claimed.number for sandbox in world.driver.alive] == [1]


async def test_nor_does_one_whose_run_has_the_number_of_one_of_the_new_apps(world: World) -> None:
    """Its sandbox could not be ended when the old app was deleted, and was found again by a later controller."""
    left = await orphan(world, "todo", 1)
    left.claimed = Claimed("todo", 1, 1, "1764000000.5")
    version = await world.deploy()
    await world.store.next_run("todo")
    world.fleet.adopt([left])
    await world.settle(version)
    await world.until(lambda: left.exit is not None)
    (new,) = world.driver.alive
    assert new.claimed is not None
    assert new.claimed.number == 2
    assert new.claimed.app_key == repr((await world.app()).created_at)


async def test_a_site_serves_on_however_many_later_versions_failed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Scripted(world.driver)
    site.endpoint = Endpoint(tmp_path, site=True)
    monkeypatch.setattr(world.means.sites, "find", lambda app_id, version, **_: site if version == 1 else None)
    await world.deploy()
    await world.store.record("todo", None, outcomes=[VersionOutcome(1, Phase.READY, "Running", "", {})])
    for _ in range(101):
        version = await world.deploy()
        failed = VersionOutcome(version, Phase.FAILED, "StartFailed", "boom", {})
        await world.store.record("todo", None, outcomes=[failed])
    await world.store.next_run("todo")
    world.markers.publish("todo", 1, 1, site.endpoint)
    await world.settle(version)
    await asyncio.sleep(0.05)
    assert world.serving() == [1]


async def test_a_version_that_was_overtaken_before_anyone_looked_is_told_so(world: World) -> None:
    first, second = await world.deploy(), await world.deploy()
    outcomes = await asyncio.gather(world.settle(first), world.settle(second))
    assert (outcomes[0].phase, outcomes[0].reason) == (Phase.FAILED, "Superseded")
    assert outcomes[1].phase is Phase.READY
    assert (await world.store.version("todo", first)).reason == "Superseded"
    third, fourth = await world.deploy(), await world.deploy()
    outcomes = await asyncio.gather(world.settle(third), world.settle(fourth))
    assert [outcome.phase for outcome in outcomes] == [Phase.FAILED, Phase.READY]


async def test_a_version_that_is_overtaken_while_connections_move_hands_over_and_is_drained(world: World) -> None:
    """The old one's supervisor stalls while two deploys follow each other."""
    await world.settle(await world.deploy())
    moving, gate = asyncio.Event(), asyncio.Event()
    first = world.driver.made[0]

    async def stalls(heir: Sandbox | None) -> None:
        if heir is not None:
            moving.set()
            await gate.wait()
            first.heir = heir

    first.hand_over = stalls  # type: ignore[method-assign]
    second = await world.deploy()
    world.fleet.wake("todo")
    await moving.wait()
    third = await world.deploy()
    world.fleet.wake("todo")
    await world.until(lambda: len(world.driver.made) == 3 and world.driver.made[2].endpoint is not None)
    assert world.serving() == [1], "nobody has seen another"
    assert world.driver.made[1].exit is None
    gate.set()
    outcome = await world.settle(third)
    assert outcome.phase is Phase.READY and world.serving() == [third]
    assert world.driver.made[1].heir is world.driver.made[2]
    await world.until(lambda: len(world.driver.alive) == 1)
    assert world.driver.made[1].drained
    assert (await world.app()).status.restarts == 0, "nothing crashed"
    assert (await world.store.version("todo", second)).phase is Phase.READY


async def test_an_old_one_that_does_not_hear_serves_until_the_newest_has_the_name(world: World) -> None:
    """Two deploys follow each other while the old one's supervisor stalls, and then does not answer."""
    await world.settle(await world.deploy())
    first = world.driver.made[0]
    stalled: dict[str, asyncio.Event] = {}

    async def stalls(heir: Sandbox | None) -> None:
        if heir is not None:
            await stalled.setdefault(heir.id, asyncio.Event()).wait()
            raise SandboxLost("it does not answer")

    first.hand_over = stalls  # type: ignore[method-assign]
    for number in (1, 2):
        await world.deploy()
        world.fleet.wake("todo")
        await world.until(lambda n=number: len(stalled) == n)  # type: ignore[misc]
    second, third = world.driver.made[1:]
    stalled[second.id].set()
    await asyncio.sleep(0.1)
    assert first.exit is None and world.serving() == [1], "whoever asks meanwhile is answered"
    stalled[third.id].set()
    assert (await world.settle(3)).phase is Phase.READY and world.serving() == [3]
    await world.until(lambda: world.driver.alive == [third])


async def test_what_serves_hands_over_before_the_name_leads_to_another(world: World) -> None:
    await world.settle(await world.deploy())
    led_to: list[list[int]] = []

    async def hand_over(heir: Sandbox | None) -> None:
        led_to.append(world.serving())

    world.driver.made[0].hand_over = hand_over  # type: ignore[method-assign]
    await world.settle(await world.deploy())
    assert led_to == [[1]] and world.serving() == [2]


async def test_nobody_comes_to_the_new_version_before_the_one_that_serves_has_handed_over(world: World) -> None:
    """One that is drained passes on what it gets to the one that serves, which stalls."""
    drained = asyncio.Event()
    told: list[str] = []
    stalls = asyncio.Event()

    def keeping(name: str, until: asyncio.Event | None = None) -> Callable[[Sandbox | None], Awaitable[None]]:
        async def hand_over(heir: Sandbox | None) -> None:
            if until is not None and heir is not None:
                await until.wait()
            told.append(name)

        return hand_over

    async def drain(deadline_s: float) -> None:
        await drained.wait()

    await world.settle(await world.deploy())
    world.driver.made[0].drain = drain  # type: ignore[method-assign]
    await world.settle(await world.deploy())
    first, second = world.driver.made
    first.hand_over = keeping("drained")  # type: ignore[method-assign]
    second.hand_over = keeping("serving", stalls)  # type: ignore[method-assign]
    third = await world.deploy()
    world.fleet.wake("todo")
    await world.until(lambda: len(world.driver.made) == 3 and world.driver.made[2].endpoint is not None)
    fourth = await world.deploy()
    world.fleet.wake("todo")
    await world.until(lambda: len(world.driver.made) == 4 and world.driver.made[3].endpoint is not None)
    await asyncio.sleep(0.02)
    assert told == [] and world.serving() == [2]
    assert world.driver.made[2].heir is world.driver.made[3], "what nobody has come to hands over before"
    stalls.set()
    assert (await world.settle(third)).phase is Phase.READY
    assert (await world.settle(fourth)).phase is Phase.READY
    assert told[:2] == ["serving", "serving"] and set(told[2:]) == {"drained"}
    assert world.serving() == [4]
    drained.set()


async def test_one_that_is_gone_before_anybody_is_sent_to_it_never_serves_and_fails_with_its_own_words(
    world: World,
) -> None:
    await world.settle(await world.deploy())
    old = world.driver.made[0]
    seen: list[int] = []

    async def hand_over(heir: Sandbox | None) -> None:
        seen.extend(world.serving())
        if heir is not None:
            heir.end(1)  # type: ignore[attr-defined]
            raise HeirUnreachable("it has ended")

    old.hand_over = hand_over  # type: ignore[method-assign]
    outcome = await world.settle(await world.deploy())
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, "StartFailed")
    assert "it listened, and at once it exited with status 1; its last words: last words" in outcome.message
    assert set(seen) == {1} and world.serving() == [1] and old.exit is None
    assert (await world.app()).status.serving_version == 1


async def test_a_visitor_of_an_app_that_is_deleted_meanwhile_is_told_so_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.deploy()
    real = world.store.get

    async def get(app_id: str) -> App:
        app = await real(app_id)
        monkeypatch.setattr(world.store, "get", real)
        await world.store.request_delete(app_id)
        await world.store.purge(app_id)
        return app

    monkeypatch.setattr(world.store, "get", get)
    async with asyncio.timeout(1.0):
        with pytest.raises(NotFound):
            await world.fleet.ensure("todo", 5.0)


# What happens between one await and the next


def slowly(sandbox: Scripted, seconds: float) -> None:
    async def destroy(grace_s: float = 2.0) -> None:
        await asyncio.sleep(seconds)
        sandbox.end()

    sandbox.destroy = destroy  # type: ignore[method-assign]


def binds(world: World, run: Run) -> None:
    """As agent/supervise/listen.go: the folder has to be there."""
    path = world.markers.socket(run.app_id, run.number, run.version)
    if not path.parent.is_dir():
        raise RunFailed("the ingress socket cannot be opened: no such file or directory", code="StartFailed")
    path.touch()


async def test_a_first_version_that_is_overtaken_does_not_take_the_room_for_sockets_with_it(world: World) -> None:
    async def script(run: Run) -> None:
        if run.version == 1:
            await asyncio.Event().wait()
        await asyncio.sleep(0.2)  # until the app listens
        binds(world, run)

    world.driver.script = script  # type: ignore[assignment]
    await world.deploy()
    world.fleet.wake("todo")
    await world.until(lambda: bool(world.driver.made and world.driver.made[0].claimed))
    slowly(world.driver.made[0], 0.05)
    outcome = await world.settle(await world.deploy())
    assert outcome.phase is Phase.READY, outcome


async def test_a_corrected_version_starts_while_the_failed_one_is_removed(world: World) -> None:
    async def script(run: Run) -> None:
        if run.version == 1:
            slowly(world.driver.made[-1], 0.1)
            raise RunFailed("it exited with status 1", code="StartFailed")
        await asyncio.sleep(0.2)  # until the app listens
        binds(world, run)

    world.driver.script = script  # type: ignore[assignment]
    assert (await world.settle(await world.deploy())).phase is Phase.FAILED
    outcome = await world.settle(await world.deploy())
    assert outcome.phase is Phase.READY, outcome
    await world.until(lambda: len(world.driver.alive) == 1)
    await asyncio.sleep(0.1)
    await world.store.request_delete("todo")
    world.fleet.wake("todo")
    await world.until(lambda: not (world.layout.ingress / "todo").exists())


async def test_a_second_visitor_of_a_dead_socket_is_held_too(world: World) -> None:
    await world.settle(await world.deploy())
    run = world.markers.published("todo")[0].run
    first = asyncio.ensure_future(world.fleet.ensure("todo", 5.0))
    await asyncio.sleep(0.1)
    second = await world.fleet.ensure("todo", 5.0)
    assert second.phase is Phase.READY
    assert [marker.run for marker in world.markers.published("todo")] != [run], "it is sent to the dead one again"
    await first


async def test_a_version_that_serves_when_a_newer_is_deployed_is_no_failure(world: World) -> None:
    await world.settle(await world.deploy())

    twice: list[int] = []

    async def script(run: Run) -> None:
        if run.version == 2 and not twice:
            twice.append(run.number)
            await world.deploy()  # stored; its word is on the way
        if run.version == 3:
            raise RunFailed("it exited with status 1", code="StartFailed")

    world.driver.script = script  # type: ignore[assignment]
    second = await world.deploy()
    outcome = await world.settle(second)
    third = await world.settle(3)
    assert third.phase is Phase.FAILED
    assert world.serving() == [2]
    assert outcome.phase is Phase.READY, outcome
    assert (await world.store.version("todo", 2)).phase is Phase.READY
    world.driver.alive[-1].end()
    await world.until(lambda: len(world.driver.made) >= 4)
    await asyncio.sleep(0.2)
    assert world.serving() == [2]


async def test_a_deploy_in_the_moment_of_a_purge(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.settle(await world.deploy())
    real = world.store.purge
    again: list[asyncio.Future[Any]] = []

    async def purge(app_id: str) -> Any:
        result = await real(app_id)
        if not again:
            # the thread has committed; the loop is busy, and another process deploys and asks how it went
            again.append(asyncio.ensure_future(world.settle(await world.deploy(), timeout_s=3.0)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return result

    monkeypatch.setattr(world.store, "purge", purge)
    await world.store.request_delete("todo")
    world.fleet.wake("todo")
    await world.until(lambda: bool(again))
    outcome = await again[0]
    await asyncio.sleep(0.3)
    assert (outcome.phase, world.serving()) == (Phase.READY, [1])
    assert len(world.driver.alive) == 1


async def test_late_end_of_a_drain_does_not_touch_the_next_app_of_the_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETIRE_AFTER_S", 0.5)
    await world.settle(await world.deploy())
    world.driver.made[0].driver = "static"  # its drain begins with a pause
    await world.settle(await world.deploy())
    await asyncio.sleep(0.05)
    await world.store.request_delete("todo")
    world.fleet.wake("todo")
    async with asyncio.timeout(5):
        while "todo" in world.fleet._keepers:
            await asyncio.sleep(0.01)
    outcome = await world.settle(await world.deploy())
    assert outcome.phase is Phase.READY and world.serving() == [1]
    await asyncio.sleep(0.7)
    assert world.serving() == [1]


async def test_a_slow_handing_over_does_not_undo_a_newer_one(world: World) -> None:
    """v1 drains; v2 serves; v3 is overtaken by v4 while connections are being led back to v2."""
    await world.settle(await world.deploy())
    one = world.driver.made[0]
    hold = asyncio.Event()

    async def never(deadline_s: float) -> None:
        await asyncio.Event().wait()

    one.drain = never  # type: ignore[method-assign]
    await world.settle(await world.deploy())
    two = world.driver.made[1]
    two.drain = never  # type: ignore[method-assign]
    told: list[Any] = []

    async def one_over(heir: Sandbox | None) -> None:
        if heir is two:
            await hold.wait()

    async def two_over(heir: Sandbox | None) -> None:
        told.append(heir)

    one.hand_over, two.hand_over = one_over, two_over  # type: ignore[method-assign]

    async def script(run: Run) -> None:
        if run.version == 3:
            await asyncio.Event().wait()

    world.driver.script = script  # type: ignore[assignment]
    await world.deploy()
    world.fleet.wake("todo")
    await world.until(lambda: len(world.driver.made) == 3 and world.driver.made[2].claimed is not None)
    outcome = await world.settle(await world.deploy())
    assert outcome.phase is Phase.READY and world.serving() == [4]
    hold.set()
    await asyncio.sleep(0.1)
    assert told and told[-1] is not None, told


async def test_the_log_of_what_serves_is_kept(world: World) -> None:
    await world.settle(await world.deploy())
    log = world.layout.run_log("todo", 1)
    log.mkdir(parents=True)

    async def script(run: Run) -> None:
        world.layout.run_log("todo", run.number).mkdir(parents=True, exist_ok=True)
        raise RunFailed("no", code="StartFailed")

    world.driver.script = script  # type: ignore[assignment]
    for _ in range(6):
        await world.settle(await world.deploy())
    await asyncio.sleep(0.2)
    assert world.serving() == [1]
    assert log.is_dir()


async def test_a_visitors_app_comes_back_before_those_that_nobody_waits_for(world: World) -> None:
    world.means.starts["gvisor", False] = Starts(2)
    names = [f"app-{number}" for number in range(6)]
    for name in names:
        await world.settle(await world.deploy(name), name)
    gate = asyncio.Event()

    async def script(run: Run) -> None:
        if run.app_id != "app-5":
            await gate.wait()

    world.driver.script = script  # type: ignore[assignment]
    for sandbox in world.driver.alive:
        sandbox.end()
    await world.until(lambda: not any(world.serving(name) for name in names))
    assert (await world.fleet.ensure("app-5", 5.0)).phase is Phase.READY
    assert len(world.driver.alive) == 2, "one of the others was under way, and no more of them"
    gate.set()
    await world.until(lambda: all(world.serving(name) for name in names))


async def test_what_takes_long_to_build_keeps_nothing_else_from_starting(world: World) -> None:
    gate = asyncio.Event()

    async def script(run: Run) -> None:
        if run.runtime.start.build:
            await gate.wait()

    world.driver.script = script  # type: ignore[assignment]
    compiled = replace(PYTHON, start=replace(PYTHON.start, build=(("go", "build"),)))
    for number in range(20):
        await world.deploy(f"compiled-{number}", compiled)
        world.fleet.wake(f"compiled-{number}")
    await world.until(lambda: len(world.driver.made) >= 4)
    assert (await world.settle(await world.deploy())).phase is Phase.READY
    assert len(world.driver.made) < 20
    gate.set()
    await world.until(lambda: all(world.serving(f"compiled-{number}") for number in range(20)))


async def test_a_run_that_was_overtaken_in_the_queue_takes_no_sandbox(world: World) -> None:
    world.means.starts["gvisor", False] = Starts(1)
    gate = asyncio.Event()

    async def script(run: Run) -> None:
        if run.app_id == "other":
            await gate.wait()

    world.driver.script = script  # type: ignore[assignment]
    await world.deploy("other")
    world.fleet.wake("other")
    await world.until(lambda: len(world.driver.made) == 1)
    for _ in range(5):
        await world.deploy()
        world.fleet.wake("todo")
        await asyncio.sleep(0.02)
    gate.set()
    assert (await world.settle(5)).phase is Phase.READY
    assert len(world.driver.made) == 2


# A version that does not last


def crash(sandbox: Scripted, *lines: str) -> None:
    sandbox.exit = Exit(1, None, False, time.time(), lines)
    sandbox.state = State.EXITED
    sandbox._gone.set()


async def told(world: World, reason: str, name: str = "todo") -> App:
    async with asyncio.timeout(5):
        while (app := await world.app(name)).status.reason != reason:
            await asyncio.sleep(0.01)
    return app


async def test_a_version_that_dies_right_after_the_switch_gives_way_and_nobody_waits_for_the_old_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proving(monkeypatch, 10.0)
    await world.settle(await world.deploy())
    second = await world.settle(await world.deploy())
    assert second.phase is Phase.READY and world.serving() == [2]
    old, new = world.driver.made
    assert not old.drained
    crash(new, "Traceback (most recent call last):", "KeyError: 'API_TOKEN'")
    app = await told(world, "Crashed")
    assert (app.status.phase, app.status.serving_version) == (Phase.READY, 1)
    assert "KeyError: 'API_TOKEN'" in app.status.message and "Version 1 still serves." in app.status.message
    assert world.serving() == [1] and len(world.driver.made) == 2, "the old one was still there"
    version = await world.store.version("todo", 2)
    assert (version.phase, version.reason) == (Phase.FAILED, "Crashed")
    assert (await world.settle(2)).phase is Phase.FAILED
    assert (await world.settle(await world.deploy())).phase is Phase.READY


async def test_it_gives_way_though_the_old_one_is_gone_and_stays_so_after_a_restart(world: World) -> None:
    await world.settle(await world.deploy())
    await world.settle(await world.deploy())
    await world.until(lambda: len(world.driver.alive) == 1)
    crash(world.driver.alive[0], "one")
    await world.until(lambda: world.serving() == [2] and len(world.driver.made) == 3)
    crash(world.driver.alive[0], "two")
    await world.until(lambda: world.serving() == [1] and len(world.driver.made) == 4)
    app = await told(world, "Crashed")
    assert app.status.serving_version == 1
    world.fleet._keepers.clear()
    world.fleet.adopt(world.driver.alive)
    await asyncio.sleep(0.1)
    assert world.serving() == [1] and len(world.driver.made) == 4


async def test_a_version_whose_sandbox_was_lost_is_started_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    proving(monkeypatch, 10.0)
    await world.settle(await world.deploy())
    await world.settle(await world.deploy())
    lost = world.driver.made[1]
    lost.exit, lost.state = Exit(None, None, False, time.time()), State.EXITED
    lost._gone.set()
    await world.until(lambda: len(world.driver.made) == 3 and world.serving() == [2])
    assert (await world.store.version("todo", 2)).phase is Phase.READY


async def test_an_only_version_that_loops_is_a_crash_loop_all_the_time(world: World) -> None:
    await world.settle(await world.deploy())
    for number in range(1, 4):
        await world.until(lambda n=number: len(world.driver.made) == n and world.serving() == [1])  # type: ignore[misc]
        crash(world.driver.alive[0], "boom")
    await told(world, "CrashLoop")
    phases = set()
    await world.until(lambda: len(world.driver.made) == 4 and world.serving() == [1])
    for _ in range(30):
        status = (await world.app()).status
        phases.add((status.phase, status.reason))
        await asyncio.sleep(0.01)
    assert phases == {(Phase.FAILED, "CrashLoop")}
    assert (await world.app()).status.serving_version == 1
    assert world.fleet.wake("todo").serves, "visitors reach it all the same"


async def test_a_first_version_that_never_lasts_is_failed_in_words_and_gone_on_with_by_a_later_controller(
    world: World,
) -> None:
    for number in range(1, 4):
        if number == 1:
            await world.deploy()
            world.fleet.wake("todo")
        await world.until(lambda n=number: len(world.driver.made) == n and world.serving() == [1])  # type: ignore[misc]
        crash(world.driver.alive[0], "boom")
    await told(world, "CrashLoop")
    await world.store.record("todo", None, outcomes=[VersionOutcome(1, Phase.FAILED, "CrashLoop", "boom", {})])
    keeper = world.fleet._keepers.pop("todo")
    keeper.gone = True
    world.fleet.wake("todo")
    await world.until(lambda: world.serving() == [1])
    async with asyncio.timeout(5):
        while (await world.store.version("todo", 1)).phase is not Phase.READY:
            await asyncio.sleep(0.01)


# Nobody starves nobody


async def test_one_owners_hanging_apps_delay_no_other_owner_and_their_own_next_is_told_why_it_waits(
    world: World,
) -> None:
    async def script(run: Run) -> None:
        if run.app_id.startswith("hangs"):
            await asyncio.Event().wait()

    world.means.starts["gvisor", False] = Starts(4)
    world.driver.script = script  # type: ignore[assignment]
    for number in range(12):
        name = f"hangs-{number:02}"
        await world.deploy(name)
        world.fleet.wake(name)
    await world.until(lambda: len(world.driver.made) == 4)
    new = NewVersion("theirs", "bob", "bob", SOURCE, 10, PYTHON, {}, Resources())
    await world.store.deploy(new)
    assert (await world.settle(1, "theirs")).phase is Phase.READY
    app = await told(world, "WaitingForTurn", "hangs-11")
    assert app.status.phase is Phase.PENDING
    assert "4 of your apps are starting (hangs-00, hangs-01, hangs-02 and 1 more)" in app.status.message
    outcome = await world.settle(1, "hangs-11", timeout_s=0.1)
    assert (outcome.phase, outcome.reason) == (Phase.PENDING, "WaitingForTurn")


async def test_an_app_that_hangs_keeps_no_pool_from_being_filled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACE_S", 0.05)

    async def hangs(run: Run) -> None:
        await asyncio.Event().wait()

    world.driver.script = hangs  # type: ignore[assignment]
    await world.deploy()
    world.fleet.wake("todo")
    await world.until(lambda: bool(world.driver.made and world.driver.made[0].claimed))
    world.means.pools.resize("gvisor", "python-313", 2)
    await world.until(lambda: world.means.pools.figures()["gvisor", "python-313"].ready == 2)
    assert world.driver.made[0].exit is None and world.serving() == []


@pytest.fixture
def left(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how much memory the machine has left, in MB; whoever waits for it looks again soon."""
    monkeypatch.setattr(decision, "BLOCKED_S", 0.05)
    meminfo = tmp_path / "meminfo"
    world.means.memory = Memory(meminfo)

    def say(mb: int) -> None:
        meminfo.write_text(f"MemTotal:       2048000 kB\nMemFree: 1 kB\nMemAvailable:   {mb << 10} kB\n")

    return say


async def test_no_app_is_started_when_memory_runs_out_and_it_says_so_and_starts_by_itself(
    world: World, left: Callable[[int], None]
) -> None:
    left(1000)
    await world.settle(await world.deploy())
    left(90)
    outcome = await world.settle(await world.deploy())
    assert (outcome.phase, outcome.reason, outcome.serving_version) == (Phase.STARTING, "MemoryShort", 1)
    assert "90 MB of memory left and keeps 128 MB free" in outcome.message
    outcome = await world.settle(await world.deploy("other"), "other")
    assert (outcome.phase, outcome.reason) == (Phase.PENDING, "MemoryShort")
    assert len(world.driver.made) == 1
    left(200)
    await world.until(lambda: world.serving() == [2] and world.serving("other") == [1])


async def test_no_older_version_is_brought_back_either_while_memory_is_short(
    world: World, left: Callable[[int], None]
) -> None:
    left(1000)
    await world.settle(await world.deploy())
    await world.settle(await world.deploy())
    await world.until(lambda: len(world.driver.alive) == 1)
    crash(world.driver.alive[0], "one")
    await world.until(lambda: world.serving() == [2] and len(world.driver.made) == 3)
    left(90)
    crash(world.driver.alive[0], "two")
    app = await told(world, "Crashed")
    assert app.status.phase is Phase.FAILED and "Version 1 is to be brought back, but" in app.status.message
    assert len(world.driver.made) == 3
    left(200)
    await world.until(lambda: world.serving() == [1])


def test_where_the_kernel_does_not_say_what_is_available_nothing_is_short(tmp_path: Path) -> None:
    for text in ("", "MemTotal: 1 kB\n", "MemAvailable: lots\nMemTotal: 1\n"):
        (tmp_path / "meminfo").write_text(text)
        assert Memory(tmp_path / "meminfo").shortage() is None
    assert Memory(tmp_path / "nothing").shortage() is None
