"""How a run waits for what its version needs installed, with layers that a test makes as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import test_reconciler as kit
from test_reconciler import SOURCE, World

from vibed.apps.app import Build, Elsewhere, Install, Phase, Resources
from vibed.apps.standing import of_app
from vibed.apps.store import NewVersion
from vibed.controller.fleet import Fleet
from vibed.controller.installing import LayerFacts
from vibed.controller.layering import most_beside
from vibed.runtimes.layers.asker import Asker
from vibed.sandboxes.driver import Builder, Mount, Run, RunFailed

world = kit.world
NEEDS = Install("python", "uv", wanted=("flask", "humanize"))
PYTHON = replace(kit.PYTHON, install=NEEDS)


@dataclass(frozen=True)
class MadeLayer:
    key: str
    notes: tuple[str, ...] = ()
    mount: Mount = Mount(Path("/images/x.erofs"), "/layers/python")
    env: Mapping[str, str] = field(
        default_factory=lambda: {"PYTHONUSERBASE": "/layers/python", "PATH": "/layers/bin:/bin"}
    )
    packages: Mapping[str, str] = field(default_factory=lambda: {"humanize": "4.13.0"})
    links: Mapping[str, str] = field(default_factory=lambda: {"node_modules": "/layers/node/node_modules"})


@dataclass
class MadeLayers:
    """Makes a layer when `go_on` is set."""

    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    made: dict[Install, MadeLayer] = field(default_factory=dict)
    begun: int = 0
    given_up: int = 0
    fails: list[Exception] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    compiled: list[bool] = field(default_factory=list)
    aside: dict[tuple[str, Install], RunFailed] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)
    """Templates whose images are made anew."""

    def ready(self, template: str) -> bool:
        return template not in self.without

    def find(self, install: Install, asker: Asker) -> MadeLayer | None:
        if (failed := self.aside.get((asker.template, install))) is not None:
            raise RunFailed(failed.message, code="DependencyBuildFailed", unmet=True, fits=failed.fits)
        return self.made.get(install)

    async def provide(
        self,
        install: Install,
        asker: Asker,
        *,
        log_dir: Path,
        on_step: Callable[[str], None],
        wanted: Callable[[], bool],
        compiles: bool = True,
    ) -> MadeLayer:
        self.begun += 1
        self.compiled.append(compiles)
        on_step("2 of 3, downloading")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.fails:
            raise self.fails.pop(0)
        return self.made.setdefault(install, MadeLayer(f"key{len(self.made)}", self.notes))

    def set_aside(self, install: Install, asker: Asker, failed: RunFailed) -> None:
        self.aside[asker.template, install] = failed

    def listing(self) -> Sequence[LayerFacts]:
        return ()

    def pin(self, key: str, *, pinned: bool) -> bool:
        return False

    def remove(self, key: str) -> None:
        pass


def with_layers(world: World) -> tuple[MadeLayers, list[Run]]:
    layers, runs = MadeLayers(), []

    async def script(run: Run) -> None:
        runs.append(run)

    world.means.layers = layers
    world.driver.script = script  # type: ignore[assignment]
    return layers, runs


async def until(world: World, version: int, phase: Phase) -> None:
    async with asyncio.timeout(10):
        while (await world.settle(version)).phase is not phase:
            await asyncio.sleep(0.05)


async def building(world: World, name: str = "todo") -> None:
    async with asyncio.timeout(10):
        while (await world.app(name)).status.reason != "BuildingDependencies":
            await asyncio.sleep(0.01)


async def test_an_app_waits_for_its_layer_says_so_and_becomes_ready_by_itself(world: World) -> None:
    layers, runs = with_layers(world)
    version = await world.deploy(runtime=PYTHON)
    outcome = await world.settle(version, timeout_s=0.6)
    assert (outcome.phase, outcome.reason) == (Phase.PENDING, "BuildingDependencies")
    standing = of_app(await world.app())
    assert (standing.phase, standing.reason, standing.final) == (Phase.PENDING, "BuildingDependencies", False)
    assert "2 of 3, downloading" in standing.message and not world.driver.made
    layers.go_on.set()
    assert (await world.settle(version)).phase is Phase.READY
    (run,) = runs
    assert (run.mounts, dict(run.links)) == ((MadeLayer("").mount,), dict(MadeLayer("").links))
    assert run.env["PYTHONUSERBASE"] == "/layers/python"


async def test_one_whose_layer_is_there_starts_at_once(world: World) -> None:
    layers, runs = with_layers(world)
    layers.made[NEEDS] = MadeLayer("there")
    assert (await world.settle(await world.deploy(runtime=PYTHON))).phase is Phase.READY
    assert (layers.begun, len(runs)) == (0, 1)
    assert not any(event.reason == "BuildingDependencies" for event in await world.store.events("todo"))


async def test_what_its_owner_says_of_a_variable_counts(world: World) -> None:
    layers, runs = with_layers(world)
    layers.made[NEEDS] = MadeLayer("there")
    new = kit.NewVersion("todo", "ann", "ann", "ab" * 32, 10, PYTHON, {"PATH": "/mine"}, kit.Resources())
    await world.settle((await world.store.deploy(new)).version.number)
    assert runs[0].env["PATH"] == "/mine"


async def test_the_version_before_serves_while_the_next_ones_layer_is_made(world: World) -> None:
    layers, _ = with_layers(world)
    await world.settle(await world.deploy())
    second = await world.deploy(runtime=PYTHON)
    await world.settle(second, timeout_s=0.6)
    app = await world.app()
    assert (app.status.phase, app.status.reason, app.status.serving_version) == (Phase.READY, "BuildingDependencies", 1)
    assert of_app(app).phase is Phase.PENDING
    pending, _ = await world.store.list(phase=Phase.PENDING)
    assert ([other.app_id for other in pending], world.serving()) == (["todo"], [1])
    layers.go_on.set()
    assert (await world.settle(second)).serving_version == 2


async def test_a_layer_that_cannot_be_made_is_the_versions_failure_in_the_installers_words(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    layers.fails.append(
        RunFailed("humanize==99: no such version", code="DependencyBuildFailed", hint="4.13 is the newest")
    )
    outcome = await world.settle(await world.deploy(runtime=PYTHON))
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, "DependencyBuildFailed")
    assert "humanize==99: no such version" in outcome.message and "4.13 is the newest" in outcome.message
    assert layers.begun == 1


async def test_a_registry_that_cannot_be_reached_is_asked_again_by_itself(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    away = RunFailed("the registry does not answer", code="DependencyBuildFailed", retryable=True)
    layers.fails += [away, away]
    assert (await world.settle(await world.deploy(runtime=PYTHON))).phase is Phase.READY
    assert layers.begun == 3


async def test_a_full_disk_is_no_fault_of_the_apps(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    layers.fails.append(OSError(28, "No space left on device"))
    assert (await world.settle(await world.deploy(runtime=PYTHON))).phase is Phase.READY
    failed = [event.message for event in await world.store.events("todo") if event.reason == "DependencyBuildFailed"]
    assert len(failed) == 1 and "No space left on device" in failed[0]


async def test_a_newer_version_ends_the_wait_of_the_one_before(world: World) -> None:
    layers, _ = with_layers(world)
    first = asyncio.ensure_future(world.settle(await world.deploy(runtime=PYTHON)))
    await building(world)
    assert (await world.settle(await world.deploy())).phase is Phase.READY
    assert (await first).reason == "Superseded"
    assert layers.given_up == 1


async def test_an_app_that_is_deleted_meanwhile_is_gone_at_once(world: World) -> None:
    layers, _ = with_layers(world)
    await world.deploy(runtime=PYTHON)
    world.fleet.wake("todo")
    await building(world)
    await world.store.request_delete("todo")
    keeper = world.fleet.wake("todo")
    await world.until(lambda: keeper.gone)
    assert (layers.given_up, world.driver.made) == (1, [])


async def test_a_controller_that_starts_anew_goes_on_with_it(world: World) -> None:
    layers, _ = with_layers(world)
    version = await world.deploy(runtime=PYTHON)
    await world.settle(version, timeout_s=0.6)
    assert [app.app_id for app in await world.store.unsettled()] == ["todo"]
    again = Fleet(world.means)  # as the next one, which knows nothing
    layers.go_on.set()
    assert (await again.settle("todo", version, 5.0)).phase is Phase.READY


async def test_nobody_elses_start_waits_for_a_layer(world: World) -> None:
    layers, _ = with_layers(world)
    for number in range(12):
        await world.deploy(f"slow{number}", runtime=PYTHON)
        world.fleet.wake(f"slow{number}")
    await building(world, "slow11")
    assert (await world.settle(await world.deploy("quick"), "quick")).phase is Phase.READY
    layers.go_on.set()


async def test_what_was_left_out_is_told_once(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    layers.notes = ("left out: lxml (no wheel)",)
    await world.settle(await world.deploy(runtime=PYTHON))
    world.driver.alive[0].end()
    await world.until(lambda: len(world.driver.made) == 2 and world.serving() == [1])
    told = [event for event in await world.store.events("todo") if event.reason == "Dependencies"]
    assert [event.message for event in told] == ["version 1: left out: lxml (no wheel)"]


async def test_a_vibed_that_can_make_none_says_so(world: World) -> None:
    outcome = await world.settle(await world.deploy(runtime=PYTHON))
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, "DependenciesMissing")


# What another version of the language has

OLDER = replace(NEEDS, wanted=("humanize", "gunicorn"))
BESIDE = replace(PYTHON, elsewhere=(Elsewhere("python-312", OLDER), Elsewhere("python-311", OLDER)))
UNMET = RunFailed("numpy 1.26.0 has nothing for Python 3.13", code="DependencyBuildFailed", unmet=True)


async def test_what_the_template_cannot_have_is_installed_on_another_that_is_prepared_for_it(world: World) -> None:
    layers, runs = with_layers(world)
    layers.go_on.set()
    layers.fails.append(UNMET)
    needed: list[str] = []
    world.placements.on_need = needed.append
    world.placements.rests("python-311")
    world.placements.broken("python-312", "its archive is out of reach")
    version = await world.deploy(runtime=BESIDE)
    outcome = await world.settle(version, timeout_s=0.6)
    assert (outcome.phase, outcome.reason, needed) == (Phase.PENDING, "TemplateBuilding", ["python-311"])
    assert "the template python-311 to be prepared" in (await world.app()).status.message
    world.placements.built("python-311")
    async with asyncio.timeout(10):
        while (await world.settle(version)).phase is not Phase.READY:
            await asyncio.sleep(0.05)
    status = (await world.app()).status
    assert "it runs on python-311, since on python-313 numpy 1.26.0 has nothing for Python 3.13" in status.message
    assert [run.runtime.template for run in runs] == ["python-311"]
    assert layers.made.keys() == {OLDER}
    # when it starts again, what is known is not found out again
    assert layers.aside == {("python-313", NEEDS): UNMET}


async def test_an_app_that_was_served_on_another_template_comes_back_there_though_it_has_less_now(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    layers.fails.append(UNMET)
    world.placements.broken("python-312", "its archive is out of reach")
    world.placements.built("python-311")
    new = NewVersion("todo", "ann", "ann", SOURCE, 10, BESIDE, {}, Resources(memory_mb=512))
    version = (await world.store.deploy(new)).version.number
    assert (await world.settle(version)).phase is Phase.READY
    kit.lowered(world, 256)
    world.driver.alive[0].end(1)
    await world.until(lambda: len(world.driver.made) == 2 and world.serving() == [1])
    async with asyncio.timeout(5):
        while "less than it asks for" not in (message := (await world.app()).status.message):
            await asyncio.sleep(0.01)
    assert "it runs on python-311" in message


async def test_a_template_that_cannot_be_had_gives_way_to_the_nearest(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    world.placements.broken("python-312", "its archive is out of reach")
    elsewhere = (Elsewhere("python-313", NEEDS),)
    version = await world.deploy(runtime=replace(PYTHON, template="python-312", install=OLDER, elsewhere=elsewhere))
    assert (await world.settle(version)).phase is Phase.READY
    message = (await world.app()).status.message
    assert "it runs on python-313, since python-312 cannot be had: its archive is out of reach" in message
    assert layers.made.keys() == {NEEDS}


async def test_what_is_to_be_installed_on_a_template_that_is_made_anew_waits_for_it(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    layers.without.add("python-313")
    world.means.placements.building("python-313", "unpacking")
    version = await world.deploy(runtime=PYTHON)
    outcome = await world.settle(version, timeout_s=0.6)
    assert (outcome.phase, outcome.reason) == (Phase.PENDING, "TemplateBuilding")
    assert "unpacking" in outcome.message
    assert layers.begun == 0
    layers.without.clear()
    world.means.placements.built("python-313")
    await until(world, version, Phase.READY)


async def test_what_is_built_waits_for_the_template_that_builds_it(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    world.means.placements.rests("node-24")
    asked: list[str] = []
    world.means.placements.on_need = asked.append
    build = Build("Vite", "npm run build", "node-24")
    version = await world.deploy(runtime=replace(PYTHON, build=build))
    outcome = await world.settle(version, timeout_s=0.6)
    assert (outcome.reason, asked, layers.begun) == ("TemplateBuilding", ["node-24"], 0)
    world.means.placements.broken("node-24", "no such image")
    # what it is built on cannot be had: who builds says so
    await until(world, version, Phase.FAILED)


async def test_what_no_version_of_the_language_has_is_told_of_the_first(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    layers.fails += [UNMET, RunFailed("it could not be built", code="DependencyBuildFailed", unmet=True), UNMET]
    world.placements.broken("python-312", "its archive is out of reach")
    world.placements.built("python-311")
    outcome = await world.settle(await world.deploy(runtime=BESIDE))
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, "DependencyBuildFailed")
    assert UNMET.message in outcome.message and not layers.aside
    assert layers.compiled == [False, False, True], "only what no other one has is compiled"


async def test_packages_of_node_are_compiled_before_another_version_is_tried(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    layers.fails += [UNMET, UNMET]
    world.placements.broken("python-312", "its archive is out of reach")
    world.placements.built("python-311")
    needs = Install("node", "npm", wanted=("bcrypt",))
    elsewhere = tuple(replace(way, install=needs) for way in BESIDE.elsewhere)
    version = await world.deploy(runtime=replace(BESIDE, install=needs, elsewhere=elsewhere))
    assert (await world.settle(version)).phase is Phase.FAILED
    assert layers.compiled == [True, True], "each is tried once"


async def test_what_fails_for_another_reason_is_tried_nowhere_else(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    layers.fails.append(RunFailed("there is no package humanise", code="DependencyBuildFailed"))
    assert (await world.settle(await world.deploy(runtime=BESIDE))).phase is Phase.FAILED
    assert layers.begun == 1


# What a package that was installed has not, of an older version of the language

CGI = RunFailed("the app has django 4.0, and that needs cgi", hint="raise `django==4.0` to 4.2", fits=range(13))


def failing_on(world: World, *templates: str) -> list[str]:
    """Where runs were begun; on these templates they fail for want of another version of the language."""
    begun: list[str] = []

    async def script(run: Run) -> None:
        begun.append(run.runtime.template)
        if run.runtime.template in templates:
            raise CGI

    world.driver.script = script  # type: ignore[assignment]
    return begun


async def test_a_run_that_misses_an_older_version_of_the_language_is_moved_to_it_once(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    begun = failing_on(world, "python-313")
    for template in ("python-314", "python-312", "python-311"):
        world.placements.built(template)
    elsewhere = (Elsewhere("python-314", OLDER), *BESIDE.elsewhere)
    version = await world.deploy(runtime=replace(BESIDE, elsewhere=elsewhere))
    assert (await world.settle(version)).phase is Phase.READY
    assert begun == ["python-313", "python-312"], "what is newer would not have it either"
    message = (await world.app()).status.message
    assert "it runs on python-312, since on python-313 the app has django 4.0, and that needs cgi" in message
    # when it starts again, it is not tried on the first one again
    world.driver.alive[-1].end()
    await world.until(lambda: len(begun) == 3 and world.serving() == [1])
    assert begun[2] == "python-312"


async def test_where_no_older_version_can_be_had_the_words_say_what_to_change(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    begun = failing_on(world, "python-313")
    for template in ("python-312", "python-311"):
        world.placements.broken(template, "its archive is out of reach")
    outcome = await world.settle(await world.deploy(runtime=BESIDE))
    assert (outcome.phase, begun) == (Phase.FAILED, ["python-313"])
    assert "Raise `django==4.0` to 4.2" in outcome.message and not layers.aside


async def test_one_that_fails_on_the_older_version_too_says_both(world: World) -> None:
    layers, _ = with_layers(world)
    layers.go_on.set()
    failing_on(world, "python-313", "python-312")
    world.placements.built("python-312")
    outcome = await world.settle(await world.deploy(runtime=BESIDE))
    assert outcome.phase is Phase.FAILED
    assert "on python-313 the app has django 4.0" in outcome.message
    assert "on python-312, which was tried next, the app has django 4.0" in outcome.message
    assert not layers.aside


@pytest.mark.parametrize(
    ("processors_half", "memory_mb", "most"),
    [(1, 4_000, 2), (1, 8_000, 2), (1, 16_500, 3), (1, 64_000, 3), (4, 64_000, 11)],
)
def test_as_many_builders_go_on_as_memory_has_room_for_and_at_least_one_beside_the_first(
    processors_half: int, memory_mb: int, most: int
) -> None:
    assert most_beside(processors_half, Builder(), memory_mb) == most
