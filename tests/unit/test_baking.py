# ruff: noqa: E501 (tables of inputs)
"""Layers that are made before an app asks for them: of which lists, for whom, and how long they stay."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
import test_installing as installing
import test_reconciler as kit
from api_harness import Running, running
from classify_trees import TEMPLATES, table_of
from test_reconciler import World

from vibed.apps.app import Install
from vibed.apps.errors import NotFound
from vibed.classify.bakeable import installs
from vibed.classify.errors import BadOverride, BadRequirements
from vibed.controller.baking import Bakes, LayerInUse, LayersNotMade
from vibed.runtimes.layers.store import LayerStore
from vibed.sandboxes.driver import RunFailed
from vibed.sources.pack import pack_files

world = kit.world
FLASK = {"requirements.txt": "flask\nhumanize==4.9.0\n"}
EXPRESS = {"package.json": json.dumps({"dependencies": {"left-pad": "^1"}, "devDependencies": {"vite": "^5"}})}


def wanted(
    files: dict[str, Any], template: str | None = None, *, development: bool = False
) -> list[tuple[str, Install]]:
    return installs(table_of(files), TEMPLATES, template, development=development)[1]


def test_each_list_is_for_the_usual_template_of_its_language_or_for_the_one_that_is_named() -> None:
    python, node = wanted({**FLASK, **EXPRESS, "package-lock.json": "{}"})
    assert (python[0], python[1].wanted, python[1].private) == ("python-313", ("flask", "humanize==4.9.0"), False)
    assert (node[0], node[1].files, node[1].development) == ("node-24", ("package.json", "package-lock.json"), False)
    assert [name for name, _ in wanted({**FLASK, **EXPRESS}, "node-24")] == ["node-24"]
    assert wanted(EXPRESS, development=True)[0][1].development


def test_an_app_that_asks_for_the_same_is_given_the_same_whatever_it_imports() -> None:
    ((_, install),) = wanted(FLASK)
    assert install.optional == ()


@pytest.mark.parametrize(
    ("files", "template", "error"),
    [
        ({"README.md": "x"}, None, BadRequirements),
        ({"requirements.txt": "flask\n"}, None, BadRequirements),
        ({"requirements.txt": "./lib\n"}, None, BadRequirements),
        ({"package.json": json.dumps({"dependencies": {"a": "file:./a"}})}, None, BadRequirements),
        ({"package.json": json.dumps({"dependencies": {"a": "1"}, "scripts": {"postinstall": "x"}})}, None, BadRequirements),
        (FLASK, "workerd", BadOverride),
        (FLASK, "nothing", BadOverride),
    ],
)  # fmt: skip
def test_what_nobody_else_could_have_is_refused(
    files: dict[str, Any], template: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        wanted(files, template)


@pytest.fixture
async def api(tmp_path: Path) -> Any:
    async with running(tmp_path / "home", tmp_path / "run") as made:
        yield made


async def test_admins_have_layers_made_and_nobody_else(api: Running) -> None:
    files = {"source": ("source.tar.gz", pack_files(FLASK), "application/gzip")}
    made = await api.client.post("/v1/layers", files=files, data={"metadata": '{"template": "python-313"}'})
    assert (made.status_code, made.json()["items"][0]["state"]) == (202, "building")
    bake_id = made.json()["items"][0]["bake_id"]
    assert (await api.client.get(f"/v1/layers/bakes/{bake_id}")).json()["key"] == "ab" * 32
    headers = await api.key("alice")
    for method, path in (
        ("POST", "/v1/layers"), ("GET", "/v1/layers/bakes/b1"), ("POST", "/v1/layers/k/pin"), ("DELETE", "/v1/layers/k"),
    ):  # fmt: skip
        assert (await api.client.request(method, path, headers=headers)).status_code == 403
    assert (await api.client.post("/v1/layers/k/unpin")).status_code == 204
    assert (await api.client.delete("/v1/layers/k")).status_code == 204
    nothing = {"source": ("source.tar.gz", pack_files({"README.md": "x"}), "application/gzip")}
    refused = await api.client.post("/v1/layers", files=nothing)
    assert (refused.status_code, refused.json()["code"]) == (422, "BadRequirements")
    assert (await api.client.post("/v1/layers", files=files, data={"metadata": '{"x": 1}'})).status_code == 422


async def until(bakes: Bakes, bake_id: str, state: str) -> str:
    async with asyncio.timeout(10):
        while (figures := bakes.figures(bake_id)).state != state:
            await asyncio.sleep(0.01)
    return figures.message


async def test_one_is_made_out_of_band_says_how_it_stands_and_stays(world: World, tmp_path: Path) -> None:
    layers, _ = installing.with_layers(world)
    pins: list[tuple[str, bool]] = []

    def pin(key: str, *, pinned: bool) -> bool:
        pins.append((key, pinned))
        return True

    layers.pin = pin  # type: ignore[method-assign]
    source = tmp_path / "ab.tar.gz"
    source.write_bytes(b"x")
    bakes = Bakes(world.means)
    begun = await bakes.begin(installing.NEEDS, "python-313", source, strip="", owner="root")
    source.unlink()
    assert begun.state == "building"
    layers.go_on.set()
    await until(bakes, begun.bake_id, "ready")
    assert pins == [(bakes.figures(begun.bake_id).key, True)]
    layers.fails.append(RunFailed("there is no such package", code="DependencyBuildFailed", hint="correct it"))
    layers.made.clear()
    source.write_bytes(b"x")
    second = await bakes.begin(installing.NEEDS, "python-313", source, strip="", owner="root")
    assert await until(bakes, second.bake_id, "failed") == "there is no such package. Correct it"
    with pytest.raises(NotFound):
        bakes.figures("nothing")
    with pytest.raises(LayerInUse):
        await bakes.remove("k", {"k": {"todo"}})
    world.means.layers = None
    with pytest.raises(LayersNotMade):
        await bakes.begin(installing.NEEDS, "python-313", source, strip="", owner="root")


async def test_one_that_is_under_way_when_vibed_ends_is_begun_again_by_the_next(world: World, tmp_path: Path) -> None:
    layers, _ = installing.with_layers(world)
    layers.pin = lambda key, *, pinned: True  # type: ignore[method-assign]
    source = tmp_path / "ab.tar.gz"
    source.write_bytes(b"lists")
    written = world.means.layout.home / "layers" / "bakes"
    spawned = world.means.tasks.spawn
    begun_tasks: list[asyncio.Task[None]] = []
    world.means.tasks.spawn = lambda work: begun_tasks.append(it := spawned(work)) or it  # type: ignore[method-assign, func-returns-value]
    begun = await Bakes(world.means).begin(installing.NEEDS, "python-313", source, strip="in/", owner="root")
    await asyncio.sleep(0.05)
    for task in begun_tasks:
        task.cancel()
    await asyncio.gather(*begun_tasks, return_exceptions=True)
    (written / "torn").mkdir()
    bakes = Bakes(world.means)
    await bakes.resume()
    assert [path.name for path in written.iterdir()] == [begun.bake_id]
    assert bakes.figures(begun.bake_id).state == "building"
    layers.go_on.set()
    await until(bakes, begun.bake_id, "ready")
    async with asyncio.timeout(10):
        while list(written.iterdir()):
            await asyncio.sleep(0.01)


def test_a_pinned_layer_stays_however_long_it_is_unused_and_when_it_is_made_again(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    store.prepare()

    def keep(key: str) -> None:
        image = tmp_path / "image"
        image.write_bytes(key.encode())
        store.keep(key, "python", image, template="t", packages={}, took_s=1, private=False)

    one, other = "aa" * 32, "bb" * 32
    keep(one)
    keep(other)
    assert store.pin(one, pinned=True)
    assert not store.pin("cc" * 32, pinned=True)
    keep(one)
    for key in (one, other):
        place = tmp_path / "layers/index" / f"{key}.json"
        os.utime(place, (1, 1))
    assert store.tidy((), most_bytes=1 << 30, unused_s=100) == [other]
    assert [facts.pinned for facts in store.listing()] == [True]
    store.pin(one, pinned=False)
    os.utime(tmp_path / "layers/index" / f"{one}.json", (1, 1))
    assert store.tidy((), most_bytes=1 << 30, unused_s=100) == [one]
