"""Who gets a layer when this machine, not the app, is what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vibed.apps.app import Install
from vibed.controller.starts import Starts
from vibed.runtimes.layers.asker import Asker
from vibed.runtimes.layers.imaging import Taken
from vibed.runtimes.layers.keys import Base
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.provider import Layers
from vibed.runtimes.layers.steps import Done, Order, StepFailed
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.layers.workbench import Workbench
from vibed.runtimes.tool import ToolError
from vibed.runtimes.turn import Turn
from vibed.sandboxes.driver import RunFailed


@dataclass
class Steps:
    """Answers as builder sandboxes would, and can be told to fail or to hang."""

    failure: Exception | None = None
    hang: asyncio.Event | None = None
    done: list[str] = field(default_factory=list)

    async def perform(self, order: Order, place: Path, log_dir: Path, bench: Workbench | None = None) -> Done:
        self.done.append(str(order.request["step"]))
        if self.failure is not None:
            raise self.failure
        if self.hang is not None:
            await self.hang.wait()
        if order.request["step"] == "resolve":
            return Done({"resolution": "humanize==4.17.0 --hash=sha256:aa\n"})
        return await self.compose((), place)

    async def compose(self, take: tuple[Taken, ...], place: Path) -> Done:
        image = place / "layer.erofs"
        image.write_bytes(b"image")
        return Done({"installed": True}, image)


@dataclass
class Failing(Steps):
    """Resolves, and fails to install humanize."""

    install: StepFailed = field(default_factory=lambda: StepFailed("failed"))
    requests: list[Mapping[str, Any]] = field(default_factory=list)

    async def perform(self, order: Order, place: Path, log_dir: Path, bench: Workbench | None = None) -> Done:
        self.requests.append(order.request)
        if any("humanize" in pin for pin in order.request.get("pins", ())):
            raise self.install
        if order.request["step"] == "resolve" and not order.request["wanted"]:
            return Done({"resolution": ""})
        return await super().perform(order, place, log_dir, bench)


def layers(home: Path, steps: Steps, have: Mapping[str, str] | None = None, turn: Turn | None = None) -> Layers:
    base = Base("python-313", "python", have or {}, {"python3.13": "3.13.5"})
    made = Layers(LayerStore(home), steps, base=lambda template: base, version=lambda name: "1", turn=turn)
    made.prepare()
    return made


async def provide(made: Layers, wanted: str = "humanize", *, owner: str = "ann", **more: Any) -> Layer:
    asker = Asker("python-313", Path("none.tar.gz"), "d", "", owner, "an-app")
    told: dict[str, Any] = {
        "log_dir": Path("log"),
        "on_step": lambda step: None,
        "wanted": lambda: True,
    }
    return await made.provide(Install("python", "uv", wanted=(wanted,)), asker, **{**told, **more})


async def test_a_layer_is_found_again_without_a_step(tmp_path: Path) -> None:
    steps = Steps()
    first = await provide(layers(tmp_path, steps))
    assert await provide(layers(tmp_path, steps)) == first
    assert steps.done == ["resolve", "install"]


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), ToolError("uv", "could not be downloaded", "check the network")]
)
async def test_what_is_this_machines_fault_is_worth_a_retry(tmp_path: Path, failure: Exception) -> None:
    steps = Steps(failure)
    with pytest.raises(RunFailed) as failed:
        await provide(layers(tmp_path, steps))
    assert failed.value.error_code == "DependencyBuildFailed"
    assert failed.value.may_retry
    steps.failure = None
    assert (await provide(layers(tmp_path, steps))).packages == {"humanize": "4.17.0"}


async def test_nothing_is_installed_on_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps()
    made = layers(tmp_path, steps)
    monkeypatch.setattr(LayerStore, "free", lambda self: 100 << 20)
    with pytest.raises(RunFailed, match="the disk has 100 MB left") as failed:
        await provide(made)
    assert failed.value.may_retry
    assert steps.done == []


async def test_a_build_ends_with_the_last_who_waits_and_not_before(tmp_path: Path) -> None:
    steps = Steps(hang=asyncio.Event())
    made = layers(tmp_path, steps)
    first, second = (asyncio.create_task(provide(made)) for _ in range(2))
    while not steps.done:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert made.building()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert not made.building()
    assert list((tmp_path / "layers").glob(".making-*")) == []
    steps.hang = None
    assert (await provide(made)).packages


async def test_who_has_nothing_in_the_making_does_not_wait_for_all_that_another_asks_for(tmp_path: Path) -> None:
    steps = Steps(hang=asyncio.Event())
    made = layers(tmp_path, steps, turn=Starts(1, hold_s=None).turn)
    of_ann = [asyncio.create_task(provide(made, f"package-{n}")) for n in range(5)]
    while not steps.done:
        await asyncio.sleep(0)
    of_bob = asyncio.create_task(provide(made, "another", owner="bob"))
    while len(steps.done) < 2:
        await asyncio.sleep(0)
    assert sorted(made.building().values()) == ["resolving"] * 2 + ["waiting for its turn"] * 4
    for task in (*of_ann, of_bob):
        task.cancel()
    await asyncio.gather(*of_ann, of_bob, return_exceptions=True)


async def test_who_asks_while_it_is_made_hears_what_it_is_at(tmp_path: Path) -> None:
    steps = Steps(hang=asyncio.Event())
    made = layers(tmp_path, steps)
    heard: list[str] = []
    first = asyncio.create_task(provide(made))
    while not steps.done:
        await asyncio.sleep(0)
    second = asyncio.create_task(provide(made, on_step=heard.append))
    while not heard:
        await asyncio.sleep(0)
    assert steps.hang is not None
    steps.hang.set()
    assert await first == await second
    assert heard == ["resolving", "installing 1 package", "keeping the layer"]


async def test_a_layer_that_an_app_has_does_not_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = layers(tmp_path, Steps())
    layer = await provide(made)
    made.in_use = lambda: {layer.key}
    monkeypatch.setattr("vibed.runtimes.keeping.JUST_USED_S", -1.0)
    monkeypatch.setattr(LayerStore, "share", lambda self, most: 0)
    await made.tidy()
    assert [one.key for one in made.listing()] == [layer.key]
    made.in_use = frozenset
    await made.tidy()
    assert made.listing() == []


@dataclass
class WithoutCompilers(Steps):
    """Steps whose installation fails, as a given program's words say, unless it has compilers; `late`: even then."""

    words: str = ""
    late: str = ""
    compilers: list[bool] = field(default_factory=list)

    async def perform(self, order: Order, place: Path, log_dir: Path, bench: Workbench | None = None) -> Done:
        self.compilers.append(order.compilers)
        if order.request["step"] == "install" and (said := self.late if order.compilers else self.words):
            raise StepFailed("the installer failed", said=said)
        return await super().perform(order, place, log_dir, bench)


UNBUILT = "error: Failed to build `humanize==4.17.0`\n  cause: The build backend returned an error\n\n         {}\n"


async def test_an_installation_that_fails_for_want_of_a_compiler_is_tried_once_more_with_one(tmp_path: Path) -> None:
    steps = WithoutCompilers(words=UNBUILT.format("error: command 'gcc' failed: No such file or directory"))
    heard: list[str] = []
    assert (await provide(layers(tmp_path, steps), on_step=heard.append)).packages
    assert steps.compilers == [False, False, True, True]
    assert any("has to be compiled" in step for step in heard)


async def test_what_fails_with_compilers_too_is_told_and_not_tried_again(tmp_path: Path) -> None:
    steps = WithoutCompilers(
        words=UNBUILT.format("error: command 'gcc' failed: No such file or directory"),
        late=UNBUILT.format("odd.c:1:10: fatal error: sql.h: No such file or directory"),
    )
    with pytest.raises(RunFailed, match=r"could not be built: the header sql.h is missing \(of unixODBC\)"):
        await provide(layers(tmp_path, steps))
    assert steps.compilers == [False, False, True, True]


async def test_what_no_compiler_would_help_is_not_tried_with_one(tmp_path: Path) -> None:
    steps = WithoutCompilers(words=UNBUILT.format("error: can't find Rust compiler"))
    with pytest.raises(RunFailed, match="it is built with Rust, which is not there"):
        await provide(layers(tmp_path, steps))
    assert steps.compilers == [False, False]


LACKS = {"unbuilt": True, "wheels": {"humanize": {"version": "4.17.0", "fits": [8, 11], "made": ["5.0"]}}}


def without_wheel() -> StepFailed:
    failure = StepFailed("the installer failed", said="error: No solution found when resolving dependencies")
    failure.answer = LACKS
    return failure


async def test_what_another_python_has_ready_made_is_not_built_where_another_may_be_tried(tmp_path: Path) -> None:
    steps = Failing(install=without_wheel())
    with pytest.raises(RunFailed) as failed:
        await provide(layers(tmp_path, steps), "humanize==4.17.0", compiles=False)
    assert "humanize 4.17.0 has no wheel for Python 3.13, but for 3.8, 3.11" in failed.value.message
    assert "raise `humanize==4.17.0` to 5.0 or later" in (failed.value.hint or "")
    assert (failed.value.unmet, failed.value.fits) == (True, {8, 11})
    assert [request.get("builds") for request in steps.requests if request["step"] == "install"] == [False]


async def test_what_can_be_done_without_is_left_out_before_another_python_is_thought_of(tmp_path: Path) -> None:
    steps = Failing(install=without_wheel())
    asker = Asker("python-313", Path("none.tar.gz"), "d", "", "ann", "an-app")
    install = Install("python", "uv", wanted=("humanize==4.17.0",), optional=("humanize",))
    told: dict[str, Any] = {"log_dir": Path("log"), "on_step": lambda step: None, "wanted": lambda: True}
    layer = await layers(tmp_path, steps).provide(install, asker, **told, compiles=False)
    assert "left out: humanize (humanize 4.17.0 has no wheel for Python 3.13" in layer.notes[0]


@dataclass
class Wanting(Steps):
    """A package of the list wants humanize; 6.0 is the newest, 5.0 the first one that has a wheel, and 4.17.0 cannot be
    had. `not_nearest`: and it may not be 5.0.
    """

    not_nearest: bool = False
    installed: list[Sequence[str]] = field(default_factory=list)

    async def perform(self, order: Order, place: Path, log_dir: Path, bench: Workbench | None = None) -> Done:
        if order.request["step"] == "resolve":
            listed, nearest = (
                "humanize==4.17.0" in order.request["wanted"],
                "humanize==5.0" in order.request["constraints"],
            )
            if nearest and self.not_nearest:
                raise StepFailed("failed", said="error: No solution found when resolving dependencies")
            version = "4.17.0" if listed else "5.0" if nearest else "6.0"
            return Done({"resolution": f"shop==1.0\nhumanize=={version}\n"})
        self.installed.append(order.request["pins"])
        if any("humanize==4.17.0" in pin for pin in order.request["pins"]):
            raise without_wheel()
        return await super().perform(order, place, log_dir, bench)


@pytest.mark.parametrize(("not_nearest", "version"), [(False, "5.0"), (True, "6.0")])
async def test_what_another_package_wants_is_there_in_the_nearest_version_that_can_be_had(
    tmp_path: Path, not_nearest: bool, version: str
) -> None:
    steps = Wanting(not_nearest=not_nearest)
    asker = Asker("python-313", Path("none.tar.gz"), "d", "", "ann", "an-app")
    install = Install("python", "uv", wanted=("shop==1.0", "humanize==4.17.0"), optional=("humanize",))
    told: dict[str, Any] = {"log_dir": Path("log"), "on_step": lambda step: None, "wanted": lambda: True}
    layer = await layers(tmp_path, steps).provide(install, asker, **told, compiles=False)
    assert f"humanize=={version}" in steps.installed[-1]
    assert not any("left out" in note for note in layer.notes)


async def test_what_no_other_template_has_is_built_and_its_failure_names_the_line_and_what_has_a_wheel(
    tmp_path: Path,
) -> None:
    failure = without_wheel()
    failure.said = "error: Failed to build `humanize==4.17.0`"
    steps = Failing(install=failure)
    with pytest.raises(RunFailed) as failed:
        await provide(layers(tmp_path, steps), "humanize==4.17.0")
    assert "humanize 4.17.0 could not be built" in failed.value.message
    assert "raise `humanize==4.17.0` to 5.0 or later, which has one" in (failed.value.hint or "")
    assert [request.get("builds") for request in steps.requests if request["step"] == "install"] == [False, True]


@dataclass
class Resolving(Steps):
    """Has pandas as it is wanted, and the newest NumPy that the constraints allow."""

    requests: list[Mapping[str, Any]] = field(default_factory=list)

    async def perform(self, order: Order, place: Path, log_dir: Path, bench: Workbench | None = None) -> Done:
        self.requests.append(order.request)
        if order.request["step"] != "resolve":
            return await super().perform(order, place, log_dir, bench)
        wanted, bound = order.request["wanted"], "numpy<2" in order.request["constraints"]
        if bound and any(line.startswith("numpy>=2") for line in wanted):
            raise StepFailed("failed", said="error: No solution found when resolving dependencies")
        numpy = "1.26.4" if bound else "2.5.3"
        return Done({"resolution": "".join(f"{pin}\n" for pin in (*wanted[:1], f"numpy=={numpy}"))})


@pytest.mark.parametrize(
    ("wanted", "numpy"),
    [
        (("pandas==2.0.3",), "1.26.4"),
        (("opencv-python==4.9.0.80",), "1.26.4"),
        (("pandas==2.2.3",), "2.5.3"),
        (("pandas==2.0.3", "numpy>=2"), "2.5.3"),
        (("humanize==4.17.0",), "2.5.3"),
    ],
)
async def test_what_was_compiled_for_numpy_1_gets_numpy_1_unless_the_list_says_otherwise(
    tmp_path: Path, wanted: tuple[str, ...], numpy: str
) -> None:
    asker = Asker("python-313", Path("none.tar.gz"), "d", "", "ann", "an-app")
    told: dict[str, Any] = {"log_dir": Path("log"), "on_step": lambda step: None, "wanted": lambda: True}
    layer = await layers(tmp_path, Resolving()).provide(Install("python", "uv", wanted=wanted), asker, **told)
    assert layer.packages["numpy"] == numpy


async def test_what_wants_numpy_2_and_does_not_say_so_is_had_in_a_release_that_goes_with_1(tmp_path: Path) -> None:
    """streamlit 1.29 wants NumPy 1, and any pyarrow."""

    class Streamlit(Steps):
        async def perform(self, order: Order, place: Path, log_dir: Path, bench: Workbench | None = None) -> Done:
            if order.request["step"] != "resolve":
                return await super().perform(order, place, log_dir, bench)
            pyarrow = "25.0.0" if "pyarrow<26" in order.request["constraints"] else "26.0.1"
            return Done({"resolution": f"streamlit==1.29.0\nnumpy==1.26.4\npyarrow=={pyarrow}\n"})

    asker = Asker("python-313", Path("none.tar.gz"), "d", "", "ann", "an-app")
    told: dict[str, Any] = {"log_dir": Path("log"), "on_step": lambda step: None, "wanted": lambda: True}
    install = Install("python", "uv", wanted=("streamlit==1.29.0",))
    layer = await layers(tmp_path, Streamlit()).provide(install, asker, **told)
    assert layer.packages["pyarrow"] == "25.0.0"
