"""Layers on disk: never half-built, never damaged, and gone when nobody needs them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from vibed.runtimes.keeping import JUST_USED_S, doomed
from vibed.runtimes.layers.layer import Layer, LayerFacts
from vibed.runtimes.layers.store import LayerStore

KEY, OTHER = "a" * 64, "b" * 64
DAY = 86_400.0


def made(store: LayerStore, key: str = KEY, content: bytes = b"image", **more: Any) -> Layer:
    told: dict[str, Any] = {"template": "python-313", "base": "one", "packages": {"humanize": "4.17.0"}, **more}
    with store.making() as place:
        image = place / "layer.erofs"
        image.write_bytes(content)
        return store.keep(key, "python", image, took_s=1.5, **{"private": False, **told})


def facts(key: str, size: int, used_at: float) -> LayerFacts:
    return LayerFacts(key, "python", "python-313", size, {}, 0.0, used_at, 1.0, False)


def test_a_layer_that_was_kept_is_found_with_what_is_in_it(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    assert store.find(KEY) is None
    kept = made(store)
    found = LayerStore(tmp_path).find(KEY)
    assert found == kept
    assert found.image.read_bytes() == b"image"
    assert found.packages == {"humanize": "4.17.0"}
    assert found.image.stat().st_mode & 0o777 == 0o644


def test_a_python_layer_is_pythons_user_base_and_a_node_layer_a_link_in_the_app(tmp_path: Path) -> None:
    python, node = (Layer(KEY, kind, tmp_path / "x.erofs", 1) for kind in ("python", "node"))
    assert python.mount.target == "/layers/python"
    assert python.env["PYTHONUSERBASE"] == "/layers/python"
    assert python.env["PATH"].startswith("/layers/python/bin:/usr/local")
    assert node.links == {"node_modules": "/layers/node/node_modules"}
    assert node.env["PATH"].startswith("/layers/node/node_modules/.bin:")
    assert not python.links


def test_what_other_layers_hold_is_found_in_as_few_of_them_as_will_do(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    made(store, "1" * 64, b"1", pieces=["a==1", "b==1"])
    made(store, "2" * 64, b"2", pieces=["b==1", "c==1", "d==1"])
    made(store, "3" * 64, b"3", pieces=["c==1"])
    made(store, "4" * 64, b"4", pieces=["a==1", "b==1", "c==1", "d==1"], base="another")
    made(store, "5" * 64, b"5", pieces=["a==1", "b==1", "c==1", "d==1"], private=True)
    found = store.holding("one", ["a==1", "c==1", "d==1", "e==1"])
    assert [(image.read_bytes(), pins) for image, pins in found] == [(b"2", ("c==1", "d==1")), (b"1", ("a==1",))]
    assert store.holding("one", ["e==1"]) == []
    assert store.holding("nothing", ["a==1"]) == []
    found[0][0].write_bytes(b"damaged")
    left = LayerStore(tmp_path).holding("one", ["c==1", "d==1"])
    assert [(image.read_bytes(), pins) for image, pins in left] == [(b"3", ("c==1",))]


@pytest.mark.parametrize("damage", [b"imagE", b"imag", b""])
def test_a_damaged_image_is_as_good_as_none_and_makes_way_for_another(tmp_path: Path, damage: bytes) -> None:
    made(LayerStore(tmp_path)).image.write_bytes(damage)
    store = LayerStore(tmp_path)
    assert store.find(KEY) is None
    assert made(store).image.read_bytes() == b"image"
    assert store.find(KEY) is not None
    assert store.listing()[0].builds == 2


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"image": "../../x", "kind": "python", "bytes": 1, "packages": {}}']
)
def test_an_index_that_was_damaged_names_no_layer(tmp_path: Path, content: str) -> None:
    store = LayerStore(tmp_path)
    made(store)
    (tmp_path / "layers/index" / f"{KEY}.json").write_text(content)
    assert store.find(KEY) is None
    assert store.listing() == []


def test_what_was_in_the_making_when_vibed_ended_is_gone_at_the_next_start(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    kept = made(store)
    half = tmp_path / "layers/.making-x"
    half.mkdir()
    (half / "layer.erofs").write_bytes(b"half")
    nameless = tmp_path / "layers/images" / f"{'c' * 64}.erofs"
    nameless.write_bytes(b"renamed, and then the power went")
    LayerStore(tmp_path).prepare()
    assert not half.exists()
    assert not nameless.exists()
    assert kept.image.exists()


def test_the_same_request_leads_to_its_layer_without_a_resolution(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    store.remember("request", KEY, ["left out: lxml"])
    assert LayerStore(tmp_path).remembered("request") == (KEY, ("left out: lxml",))
    assert store.remembered("another") is None


def test_an_image_that_two_layers_share_goes_with_the_last(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    first, second = made(store, KEY), made(store, OTHER)
    assert first.image == second.image
    store.remove(KEY)
    assert second.image.exists()
    store.remove(OTHER)
    assert not second.image.exists()


def test_tidying_takes_what_was_unused_for_long_and_forgets_its_requests(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    made(store, KEY)
    made(store, OTHER, b"another")
    store.remember("old", KEY, [])
    long_ago = time.time() - 40 * DAY
    for path in (tmp_path / "layers/index" / f"{KEY}.json", tmp_path / "layers/requests/old"):
        os.utime(path, (long_ago, long_ago))
    assert store.tidy((), most_bytes=1 << 30, unused_s=30 * DAY) == [KEY]
    assert [layer.key for layer in store.listing()] == [OTHER]
    assert store.remembered("old") is None


def test_one_that_is_found_counts_as_used(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    made(store)
    index = tmp_path / "layers/index" / f"{KEY}.json"
    os.utime(index, (1, 1))
    assert store.find(KEY) is not None
    assert time.time() - index.stat().st_mtime < 60


def test_the_longest_unused_go_first_until_the_rest_fits() -> None:
    now = 100 * DAY
    layers = [facts("new", 5, now - DAY), facts("old", 5, now - 9 * DAY), facts("older", 5, now - 10 * DAY)]
    assert doomed(layers, (), most_bytes=10, unused_s=30 * DAY, now=now) == ["older"]
    assert doomed(layers, (), most_bytes=4, unused_s=30 * DAY, now=now) == ["older", "old", "new"]
    assert doomed(layers, (), most_bytes=100, unused_s=5 * DAY, now=now) == ["old", "older"]


def test_one_in_use_never_goes_nor_one_that_was_just_given_out() -> None:
    now = 100 * DAY
    layers = [facts("in use", 5, now - 90 * DAY), facts("just used", 5, now - JUST_USED_S / 2)]
    assert doomed(layers, {"in use"}, most_bytes=0, unused_s=0, now=now) == []
