"""Getting ready in the background: what fails by something that may pass is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vibed.apps.app import Resources, Runtime
from vibed.config import Config
from vibed.controller import preparation
from vibed.controller.placement import NotYet, Placements
from vibed.controller.preparation import Preparation
from vibed.runtimes.builder import TemplateBuildFailed
from vibed.runtimes.templates import load_templates
from vibed.sandboxes.driver import Isolation, Limits, Probe
from vibed.supervision.roots import Root


@dataclass
class Machine:
    """A builder, its images, a driver and its pool, of which the first attempts fail as told."""

    builds_fail: list[Exception | None] = field(default_factory=list)
    probes_fail: int = 0
    builds: int = 0
    probes: int = 0
    images: dict[str, int] = field(default_factory=dict)
    """By template: the stage that is built."""
    stages: int = 1
    steps: tuple[str, ...] = ()
    """What the installation of a tool says."""
    installed_when: asyncio.Event | None = None
    woken: int = 0
    name: str = "gvisor"

    async def build(self, name: str) -> None:
        self.builds += 1
        failure = self.builds_fail.pop(0) if self.builds_fail else None
        if failure is not None:
            raise failure
        self.images[name] = self.images.get(name, 0) + 1

    def ready(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(complete=self.images[name] == self.stages) if name in self.images else None

    def packages(self, name: str) -> dict[str, str]:
        return {f"package-{stage}": "1" for stage in range(1, self.images.get(name, 0) + 1)}

    def refresh(self, name: str) -> Root | None:
        limits = Limits(cpus=1, memory_mb=128, pids=64, disk_mb=64)
        return Root(name, "0" * 16, image=Path("/image"), modules=None, limits=limits) if name in self.images else None

    def knows(self, name: str) -> bool:
        return name in self.images

    async def probe(self) -> Probe:
        self.probes += 1
        if self.probes <= self.probes_fail:
            return Probe(False, Isolation.PROCESS, "the app did not listen on a port within 20 s")
        return Probe(True, Isolation.KERNEL, "an app answered")

    async def install(self, name: str, progress: Callable[[str, float | None], None]) -> None:
        for step in self.steps:
            progress(step, None)
        if self.installed_when is not None:
            await self.installed_when.wait()

    def drain_template(self, digest: str) -> None: ...

    def installed(self, name: str) -> bool:
        return True

    def version(self, name: str) -> str:
        return "1"

    def retry(self, driver: str, template: str) -> None: ...

    def resize(self, driver: str, template: str, size: int) -> None: ...

    def wake(self) -> None:
        self.woken += 1


def preparing(
    machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch, *, templates: tuple[str, ...] = ("python-313",)
) -> tuple[Preparation, Placements]:
    monkeypatch.setattr(preparation, "RETRY_S", (0.01, 0.02))
    monkeypatch.setattr(preparation, "NEEDED_AGAIN_S", 0.02)
    config = Config(folder, templates=templates)
    known = load_templates()
    anything = cast(Any, machine)
    placements = Placements(config, known, {"gvisor": anything})
    work = Preparation(
        config=config, tools=anything, templates=known, builder=anything, roots=anything,
        drivers={"gvisor": anything}, placements=placements, pools=anything, memory=folder / "probes.json",
        on_ready=machine.wake,
    )  # fmt: skip
    return work, placements


async def prepared(machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Placements:
    work, placements = preparing(machine, folder, monkeypatch)
    async with asyncio.timeout(10):
        await work.run()
    return placements


async def test_a_template_that_could_not_be_built_is_built_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = TemplateBuildFailed("the registry does not answer", retryable=True)
    machine = Machine(builds_fail=[away, OSError("no route to host")])
    placements = await prepared(machine, tmp_path, monkeypatch)
    assert machine.builds == 3
    assert placements.trouble("python-313") is None and placements.is_ready("python-313")
    assert machine.woken == 3, "whoever waits is told of every turn"


async def test_a_template_on_need_is_prepared_when_an_app_needs_it_and_behind_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(installed_when=asyncio.Event())
    work, placements = preparing(machine, tmp_path, monkeypatch, templates=("python-313", "python-311"))
    needed: list[str] = []
    placements.on_need = needed.append
    runtime = Runtime("general", "python-311", "python", "app.py", "")
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(work.run())
        while "python-313" not in machine.images:
            await asyncio.sleep(0)
        assert placements.is_resting("python-311")
        told = placements.place(runtime, Resources())
        assert isinstance(told, NotYet) and (told.reason, needed) == ("TemplateBuilding", ["python-311"])
        placements.place(runtime, Resources())
        assert needed == ["python-311"], "once is enough"
        tasks.create_task(work.need("python-311"))
        await asyncio.sleep(0.01)
        assert "python-311" not in machine.images, "the others come first"
        machine.installed_when.set()
    assert placements.is_ready("python-311")


async def test_a_template_on_need_that_could_not_be_had_can_be_asked_for_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    work, placements = preparing(machine, tmp_path, monkeypatch, templates=("python-313", "python-312"))
    async with asyncio.timeout(10):
        await work.run()
        machine.builds_fail = [TemplateBuildFailed("its archive is out of reach", retryable=True)]
        needing = asyncio.create_task(work.need("python-312"))
        while (why := placements.trouble("python-312")) is None:
            await asyncio.sleep(0)
        assert why == "its archive is out of reach."
        await needing
    assert placements.is_resting("python-312")


async def test_what_no_retry_would_change_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(builds_fail=[TemplateBuildFailed("the lock and the package differ", retryable=False)])
    placements = await prepared(machine, tmp_path, monkeypatch)
    assert machine.builds == 1
    assert placements.trouble("python-313") == "the lock and the package differ."


async def test_a_driver_that_did_not_work_is_probed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(probes_fail=3)
    placements = await prepared(machine, tmp_path, monkeypatch)
    assert machine.probes == 4
    assert placements.driver_trouble("gvisor") is None and placements.level("gvisor") == "kernel"


async def test_a_driver_that_worked_is_believed_to_have_stopped_only_after_it_was_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a controller finds it that starts anew on a busy machine: apps run, and one probe times out."""
    monkeypatch.setattr(preparation, "CONFIRM_S", (0.01, 0.02))
    await prepared(Machine(images={"python-313": 1}), tmp_path, monkeypatch)

    machine = Machine(images={"python-313": 1}, probes_fail=2)
    work, placements = preparing(machine, tmp_path, monkeypatch)
    seen: list[str | None] = []
    real = machine.probe

    async def probe() -> Probe:
        seen.append(placements.driver_trouble("gvisor"))
        return await real()

    monkeypatch.setattr(machine, "probe", probe)
    await work.run()
    assert seen == [None] * 3, "the lane stayed open"
    assert placements.level("gvisor") == "kernel"

    broken = Machine(images={"python-313": 1}, probes_fail=3)
    work, placements = preparing(broken, tmp_path, monkeypatch)
    monkeypatch.setattr(work, "_try_again", _nothing)
    await work.run()
    assert placements.driver_trouble("gvisor") is not None


async def _nothing(templates: object) -> None:
    return None


async def test_a_further_stage_that_could_not_be_built_is_built_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = TemplateBuildFailed("the registry does not answer", retryable=True)
    machine = Machine(stages=2, builds_fail=[None, away, OSError("no route to host")])
    placements = await prepared(machine, tmp_path, monkeypatch)
    assert machine.builds == 4 and machine.images == {"python-313": 2}
    assert placements.progress("python-313") is None, "nothing is under way any more"


async def test_a_template_whose_image_is_there_tells_what_its_driver_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(steps=("building runsc (one to four minutes, once)",), installed_when=asyncio.Event())
    assert machine.installed_when is not None
    work, placements = preparing(machine, tmp_path, monkeypatch)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(work.run())
        while not machine.images:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert placements.progress("python-313") == ("building runsc (one to four minutes, once)", None)
        machine.installed_when.set()
    assert placements.progress("python-313") is None and placements.is_ready("python-313")


async def test_a_disk_that_is_full_while_a_tool_is_installed_or_a_driver_tried_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(images={"python-313": 1})
    tries = {"install": 0, "probe": 0}

    async def install(name: str, progress: Callable[[str, float | None], None]) -> None:
        tries["install"] += 1
        if tries["install"] == 1:
            raise OSError("No space left on device")

    async def probe() -> Probe:
        tries["probe"] += 1
        if tries["probe"] == 1:
            raise OSError("No space left on device")
        return Probe(True, Isolation.KERNEL, "an app answered")

    monkeypatch.setattr(machine, "install", install)
    monkeypatch.setattr(machine, "probe", probe)
    placements = await prepared(machine, tmp_path, monkeypatch)
    assert tries["probe"] == 2
    assert placements.is_ready("python-313") and placements.level("gvisor") == "kernel"
