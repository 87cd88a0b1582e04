"""Layers, and what builds made, as a cluster keeps them: in a bucket of a real S3 server, found by every controller."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.contract.s3_server import S3Server
from tests.contract.test_source_store import s3
from tests.prepare import home
from vibed.runtimes.builds.built import Built
from vibed.runtimes.builds.shared import SharedBuiltStore
from vibed.runtimes.copies import Copies
from vibed.runtimes.layers.shared import SharedLayerStore
from vibed.sources.objects import Listed
from vibed.sources.s3_objects import S3Objects

KEY, OTHER, REQUEST = "a" * 64, "b" * 64, "c" * 64
IMAGE = b"a tar.gz, as far as a bucket knows"
DIGEST = hashlib.sha256(IMAGE).hexdigest()


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    with S3Server(home(), "vibed-layers") as it:
        yield it


@pytest.fixture
def server(running: S3Server) -> S3Server:
    """Empty."""
    for path in running.objects().values():
        path.unlink()
    return running


def controller(server: S3Server, folder: Path) -> SharedLayerStore:
    """Its layers, as one has them that begins to lead."""
    store = SharedLayerStore(folder, s3(server, folder).objects())
    store.prepare()
    return store


def keep(store: SharedLayerStore, key: str = KEY, content: bytes = IMAGE, pieces: Sequence[str] = ()) -> None:
    with store.making() as place:
        image = place / "layer.tar.gz"
        image.write_bytes(content)
        store.keep(
            key,
            "python",
            image,
            template="python-313",
            packages={"tiny": "1.0"},
            took_s=1.0,
            private=False,
            base="of the template",
            pieces=pieces,
        )


def names(server: S3Server) -> list[str]:
    return sorted(name.partition("layers-")[2].partition("/")[0] for name in server.objects())


def test_the_next_controller_finds_what_the_last_one_made(server: S3Server, tmp_path: Path) -> None:
    first = controller(server, tmp_path / "first")
    keep(first)
    first.remember(REQUEST, KEY, ["a note"])
    second = controller(server, tmp_path / "second")
    found = second.find(KEY)
    assert found is not None
    assert (found.image.name, found.bytes, found.packages) == (f"{DIGEST}.tar.gz", len(IMAGE), {"tiny": "1.0"})
    assert second.remembered(REQUEST) == (KEY, ("a note",))
    assert [facts.key for facts in second.listing()] == [KEY]
    assert second.fetch(DIGEST).read_bytes() == IMAGE


def test_nothing_is_taken_over_from_a_layer_that_lies_here_as_it_came(server: S3Server, tmp_path: Path) -> None:
    store = controller(server, tmp_path)
    keep(store, pieces=["tiny==1.0"])
    store.fetch(DIGEST)
    assert store.holding("of the template", ["tiny==1.0", "other==1.1"]) == []


def test_a_pod_gets_a_layer_by_an_address_that_is_for_that_one_alone(server: S3Server, tmp_path: Path) -> None:
    store = controller(server, tmp_path)
    keep(store)
    url, size = store.signed(DIGEST, 60)
    assert size == len(IMAGE)
    assert httpx.get(url, trust_env=False).content == IMAGE
    (name,) = [one for one in server.objects() if "layers-index" in one]
    there = url.partition("?")[0].rpartition("/layers-images")[0]
    assert (
        httpx.get(f"{there}/{name.partition('team/')[2]}?{url.partition('?')[2]}", trust_env=False).status_code == 403
    )
    assert not [one for one in server.objects() if one.rpartition("/")[2] in (DIGEST, KEY)], "names cannot be guessed"


def test_a_layer_whose_object_is_gone_or_cut_short_is_none(server: S3Server, tmp_path: Path) -> None:
    store = controller(server, tmp_path)
    for damage in (lambda path: path.write_bytes(IMAGE[:5]), lambda path: path.unlink()):
        keep(store)
        (path,) = [path for name, path in server.objects().items() if "layers-images" in name]
        damage(path)
        assert store.find(KEY) is None
    keep(store)
    assert store.find(KEY) is not None, "it is made again"


def test_what_nobody_uses_goes_from_the_bucket_and_what_is_in_use_stays(server: S3Server, tmp_path: Path) -> None:
    store = controller(server, tmp_path / "first")
    keep(store)
    keep(store, OTHER, b"another")
    store.remember(REQUEST, KEY, [])
    for entry in (tmp_path / "first" / "layers").glob("*/*"):
        os.utime(entry, (time.time() - 5_000, time.time() - 5_000))
    assert store.tidy([OTHER], most_bytes=1 << 30, unused_s=3_600) == [KEY]
    assert names(server) == ["images", "index"]
    assert [facts.key for facts in controller(server, tmp_path / "second").listing()] == [OTHER]


def test_an_image_that_nothing_names_goes_once_it_is_old(server: S3Server, tmp_path: Path) -> None:
    store = controller(server, tmp_path / "first")
    keep(store)
    keep(store, OTHER, b"another")
    indexed = {name: path for name, path in server.objects().items() if "layers-index" in name}
    for path in indexed.values():
        path.unlink()
    controller(server, tmp_path / "second")
    assert names(server) == ["images", "images"], "another controller may be about to name them"
    for path in server.objects().values():
        os.utime(path, (time.time() - 7_200, time.time() - 7_200))
    controller(server, tmp_path / "third")
    assert names(server) == []


def test_a_bucket_that_does_not_answer_is_a_failure_of_the_disk(server: S3Server, tmp_path: Path) -> None:
    objects = s3(server, tmp_path, endpoint="http://127.0.0.1:9", deadline_s=0.5).objects()
    store = SharedLayerStore(tmp_path, objects)
    with pytest.raises(OSError, match="source store"):
        store.prepare()
    with pytest.raises(OSError, match="source store"):
        keep(store)
    assert store.find(KEY) is None


def test_what_a_build_made_is_there_for_the_next_controller(server: S3Server, tmp_path: Path) -> None:
    layers = controller(server, tmp_path / "first")
    objects = s3(server, tmp_path / "first").objects()
    first = SharedBuiltStore(tmp_path / "first", layers, objects)
    first.prepare()
    with first.making() as place:
        archive = place / "built.tar.gz"
        archive.write_bytes(IMAGE)
        kept = first.keep(Built(KEY, archive, site=True, notes=("so it is",)), took_s=1.0)
    assert kept.archive.name == f"built-{KEY}.tar.gz", "no source: those are named by their digests"
    second = SharedBuiltStore(tmp_path / "second", controller(server, tmp_path / "second"), objects)
    second.prepare()
    found = second.find(KEY)
    assert found is not None
    assert (found.archive.read_bytes(), found.site, found.notes) == (IMAGE, True, ("so it is",))
    for entry in (tmp_path / "second" / "built").glob("*.json"):
        os.utime(entry, (time.time() - 5_000, time.time() - 5_000))
    assert second.tidy(most_bytes=1 << 30, unused_s=3_600) == [KEY]
    assert not [name for name in server.objects() if "built" in name]


def test_an_archive_that_nothing_names_goes_once_it_is_old_and_was_not_written_anew(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = s3(server, tmp_path).objects()
    for key in (KEY, OTHER, REQUEST):
        objects.put("built-archives", key, IMAGE)
    objects.put("built-index", REQUEST, b"{}")

    def starts(name: str) -> set[str]:
        """Whose archives are there when another controller has begun."""
        layers = controller(server, tmp_path / name)
        SharedBuiltStore(tmp_path / name, layers, objects).prepare()
        return {one.name for one in objects.listing("built-archives")}

    assert starts("first") == {KEY, OTHER, REQUEST}, "another controller may be about to name them"
    for path in server.objects().values():
        os.utime(path, (time.time() - 7_200, time.time() - 7_200))
    listing = S3Objects.listing

    def listed(self: S3Objects, room: str) -> list[Listed]:
        found = listing(self, room)
        if room == "built-archives":
            objects.put(room, OTHER, IMAGE)  # it is made again meanwhile, and not named yet
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(S3Objects, "listing", listed)
        starts("second")
    assert starts("third") == {OTHER, REQUEST}


def old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - 5_000, time.time() - 5_000))


def test_copies_take_no_more_than_their_room_and_the_longest_unused_go_first(server: S3Server, tmp_path: Path) -> None:
    objects = s3(server, tmp_path).objects()
    copies = Copies(objects, "room", tmp_path, "copy-*", 100)
    for name, size in (("a", 40), ("b", 40), ("c", 40), ("d", 90), ("e", 101)):
        objects.put("room", name, b"x" * size)

    def get(name: str) -> Path:
        return copies.get(name, tmp_path / f"copy-{name}")

    def there() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("*copy-*"))

    old(get("a"), get("b"))
    get("a")
    assert get("c").stat().st_size == 40
    assert there() == ["copy-a", "copy-c"], "b was not used since"
    with pytest.raises(OSError, match="so much is used") as full:
        get("d")
    assert (full.value.errno, there()) == (errno.ENOSPC, ["copy-a", "copy-c"]), "what was just given out stays"
    old(*tmp_path.glob("copy-*"))
    get("d")
    assert there() == ["copy-d"]
    old(*tmp_path.glob("copy-*"))
    with pytest.raises(OSError, match="do not fit"):
        get("e")


def test_a_copy_is_fetched_once_however_many_ask_and_a_broken_one_leaves_nothing(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = s3(server, tmp_path).objects()
    objects.put("room", "a", b"x" * 60)
    copies, fetched, save = Copies(objects, "room", tmp_path, "copy-*", 100), [], S3Objects.save

    def slowly(self: S3Objects, room: str, name: str, path: Path) -> None:
        fetched.append(name)
        save(self, room, name, path)
        time.sleep(0.2)
        if len(fetched) == 1:
            raise OSError(errno.EIO, "it broke")

    monkeypatch.setattr(S3Objects, "save", slowly)
    with pytest.raises(OSError, match="broke"):
        copies.get("a", tmp_path / "copy-a")
    assert not list(tmp_path.glob("*copy-*"))
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: copies.get("a", tmp_path / "copy-a"), range(8)))
    assert (found, fetched) == ({tmp_path / "copy-a"}, ["a", "a"])


def test_room_is_made_before_what_a_build_made_is_kept(server: S3Server, tmp_path: Path) -> None:
    objects = s3(server, tmp_path).objects()
    store = SharedBuiltStore(tmp_path, controller(server, tmp_path), objects, most_bytes=2 * len(IMAGE))
    store.prepare()

    def kept(key: str) -> Path:
        with store.making() as place:
            archive = place / "built.tar.gz"
            archive.write_bytes(IMAGE)
            return store.keep(Built(key, archive, site=True), took_s=1.0).archive

    old(kept(KEY))
    kept(OTHER)
    third = kept(REQUEST)
    assert sorted(path.name for path in third.parent.glob("*.tar.gz")) == [f"built-{OTHER}.tar.gz", third.name]
    with pytest.raises(OSError, match="so much is used"):
        kept("d" * 64)
    assert store.find("d" * 64) is None
    with pytest.raises(OSError, match="so much is used"):  # and is not made anew for that
        store.find(KEY)
    old(third)
    assert store.find(KEY) is not None, "the bucket has it still"


def test_sources_are_left_alone_by_layers_and_layers_by_the_collector_of_sources(
    server: S3Server, tmp_path: Path
) -> None:
    sources = s3(server, tmp_path)
    keep(SharedLayerStore(tmp_path, sources.objects()))
    assert asyncio.run(sources.digests()) == frozenset()
