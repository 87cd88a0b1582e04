"""A disk that is full: the store lets go, and takes nothing new. On small file systems of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.api_harness import archive, refused, running
from vibed.api.readiness import FRESH_S
from vibed.apps.app import Build, Runtime, Start
from vibed.apps.errors import NotFound, StoreUnavailable
from vibed.apps.sqlite.reserve import SIZE
from vibed.apps.sqlite.store import SqliteStore
from vibed.apps.store import NewEvent, NewVersion
from vibed.drivers.agent_sandbox import sites
from vibed.drivers.agent_sandbox.mirror import Mirror
from vibed.drivers.packing import Packing, room_of
from vibed.runtimes.builds.built import Built
from vibed.runtimes.builds.provider import Builds, BuildUnavailable
from vibed.runtimes.builds.store import BuiltStore
from vibed.runtimes.layers.keys import Base
from vibed.runtimes.layers.steps import Done, Order
from vibed.sandboxes.driver import Limits, Run
from vibed.sources import room
from vibed.sources.errors import StorageFull
from vibed.sources.extraction import extract
from vibed.sources.limits import DEFAULT_LIMITS
from vibed.sources.reader import read_table
from vibed.sources.store import ServedStore

pytestmark = pytest.mark.root

RUNTIME = Runtime(
    lane="fast", template="static-nginx", kind="static", entrypoint="", why="a page", start=Start(argv=())
)


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 128 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", place], check=True)
    else:
        image = tmp_path / "disk.img"
        with image.open("wb") as file:
            file.truncate(128 << 20)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("mkfs.ext4 is not installed")
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        if subprocess.run(
            ["mount", "-o", "loop,errors=remount-ro", image, place], capture_output=True, check=False
        ).returncode:
            pytest.skip("no loop devices here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
async def store(disk: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(disk / "vibed.db")
    assert await store.keep_reserve()
    yield store
    await store.close()


def fill(disk: Path) -> Path:
    """Somebody else's files, down to the last block."""
    filler = disk / "others"
    with filler.open("ab") as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), b"x" * size)
                    os.fsync(file.fileno())
    assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < 64 << 10
    return filler


def version(app_id: str, env: str = "") -> NewVersion:
    return NewVersion(app_id, "alice", "alice", "0" * 64, 1, RUNTIME, {"TEXT": env} if env else {})


async def full_of_apps(store: SqliteStore, disk: Path) -> Path:
    for name in ("one", "two", "three"):
        await store.deploy(version(name, "x" * 10_000))
        for _ in range(10):
            await store.record(name, None, events=[NewEvent("Normal", "Told", "y" * 1_000) for _ in range(100)])
    return fill(disk)


async def exhausted(store: SqliteStore) -> None:
    """Until the log has no room left that it had before."""
    with pytest.raises(StoreUnavailable, match="full"):
        for number in range(1_000):
            await store.deploy(version(f"more-{number}", "z" * 60_000))


async def test_apps_and_keys_are_deleted_on_a_full_disk(store: SqliteStore, disk: Path) -> None:
    key = await store.create_key("alice", admin=False, label="", secret_sha256="s")
    await full_of_apps(store, disk)
    await exhausted(store)
    for name in ("one", "two", "three"):
        assert (await store.request_delete(name)).deleted
    for name in ("one", "two", "three"):
        await store.purge(name)
        with pytest.raises(NotFound):
            await store.get(name)
    await store.revoke_key(key.key_id)
    assert await store.keys() == []


async def test_a_store_that_was_closed_opens_on_a_full_disk(store: SqliteStore, disk: Path) -> None:
    """After a restart of vibeD: the log and its index are gone with the last connection, and are made again."""
    await full_of_apps(store, disk)
    await store.close()
    fill(disk)
    again = await SqliteStore.open(disk / "vibed.db")
    assert (await again.request_delete("two")).deleted
    await again.purge("two")
    assert {app.app_id for app in (await again.list())[0]} == {"one", "three"}
    await again.close()


async def test_the_reserve_is_made_again_when_there_is_room(store: SqliteStore, disk: Path) -> None:
    reserve = disk / "vibed.db.reserve"
    assert reserve.stat().st_blocks * 512 >= SIZE
    filler = await full_of_apps(store, disk)
    await exhausted(store)
    await store.request_delete("one")
    assert reserve.stat().st_blocks == 0
    assert not await store.keep_reserve(), "what others need goes first"
    filler.unlink()
    while reserve.stat().st_blocks * 512 < SIZE:  # by a write, whatever it is
        await store.record("two", None, events=[NewEvent("Normal", "Told", "")])
        await asyncio.sleep(0.05)


async def test_what_frees_nothing_does_not_take_the_reserve(store: SqliteStore, disk: Path) -> None:
    await full_of_apps(store, disk)
    await exhausted(store)
    with pytest.raises(StoreUnavailable, match="full"):
        await store.create_key("bob", admin=False, label="x" * 60_000, secret_sha256="t")
    assert (disk / "vibed.db.reserve").stat().st_blocks * 512 >= SIZE


async def test_a_link_in_the_place_of_the_reserve_leads_nowhere(disk: Path) -> None:
    for make in (os.symlink, os.link):
        other = disk / "other"
        other.write_bytes(b"mine")
        reserve = disk / "vibed.db.reserve"
        reserve.unlink(missing_ok=True)
        make(other, reserve)
        store = await SqliteStore.open(disk / "vibed.db")
        assert not await store.keep_reserve()
        await store.close()
        assert other.read_bytes() == b"mine"


def leave(disk: Path, free: int) -> Path:
    """Somebody else's files, down to so many free bytes."""
    filler = disk / "others"
    with filler.open("ab") as file:
        os.posix_fallocate(file.fileno(), filler.stat().st_size, max(1, room.free(disk) - free))
    return filler


async def test_an_upload_ends_where_the_stores_room_begins(disk: Path) -> None:
    sources = ServedStore(disk / "sources", key=b"k" * 32)
    sources.prepare()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield os.urandom(1 << 20)

    leave(disk, room.FLOOR + (10 << 20))
    with pytest.raises(StorageFull, match="vibeD keeps 64 MiB free") as refused:
        await sources.receive(endless())
    assert "delete apps" in str(refused.value.hint)
    assert room.free(disk) >= room.FLOOR + (5 << 20), "nothing of it is kept"


def test_a_site_that_does_not_fit_is_not_begun_and_of_many_at_once_none_takes_the_stores_room(
    disk: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(archive({f"{n}.bin": os.urandom(1 << 20) for n in range(20)}))
    table = read_table(source)
    filler = leave(disk, room.FLOOR + (18 << 20))
    with pytest.raises(StorageFull, match="this needs 20 MiB"):
        extract(source, table, disk / "site")
    filler.unlink()
    leave(disk, room.FLOOR + (22 << 20))
    with ThreadPoolExecutor(5) as pool:  # each looks before the others have written
        sites = [pool.submit(extract, source, table, disk / f"site-{n}") for n in range(5)]
    assert all(isinstance(site.exception(), StorageFull | None) for site in sites)
    assert any(site.exception() for site in sites)
    assert room.free(disk) > room.FLOOR - 5 * (10 << 20)


async def test_over_http_a_full_disk_takes_no_deploys_and_lets_go_of_apps(disk: Path) -> None:
    async with running(disk / "home", disk / "run") as api:
        assert await api.store.keep_reserve()
        for name in ("one", "two"):
            assert (await api.deploy(name)).status_code in (200, 202)
        filler = fill(disk)
        for answer in (
            await api.deploy("three"),
            await api.client.patch("/v1/apps/one", json={"env": [{"name": "A", "value": "b"}]}),
            await api.client.post("/v1/apps/one/rollback", json={"version": 1}),
        ):
            body = refused(answer, 507, "StorageFull")
            assert "retry-after" in answer.headers
            assert "delete apps" in body["details"]["hint"]
        await asyncio.sleep(FRESH_S)
        checks = refused(await api.client.get("/readyz"), 503, "NotReady")["details"]["checks"]
        assert not checks["sources"]["ok"]
        assert (await api.client.delete("/v1/apps/one")).status_code < 300
        await api.store.purge("one")
        refused(await api.client.get("/v1/apps/one"), 404, "NotFound")
        filler.unlink()
        assert (await api.deploy("three")).status_code in (200, 202)


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
async def test_over_http_a_disk_that_cannot_be_written_is_not_called_ready(disk: Path) -> None:
    async with running(disk / "home", disk / "run") as api:
        assert (await api.client.get("/readyz")).status_code == 200
        break_down(disk)
        await asyncio.sleep(FRESH_S)
        checks = refused(await api.client.get("/readyz"), 503, "NotReady")["details"]["checks"]
        assert checks["store"] == {"ok": False, "detail": "StoreUnavailable"}
        assert not checks["sources"]["ok"]


def break_down(disk: Path) -> None:
    """Have it find an error: it lets nobody write from then on, whatever they have open."""
    device = Path(subprocess.check_output(["findmnt", "-no", "SOURCE", disk], text=True).strip())
    (Path("/sys/fs/ext4") / device.name / "trigger_fs_error").write_text("of a test")


async def test_a_source_that_the_disk_has_no_room_to_pack_is_told_so_and_is_packed_when_it_has(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.tar.gz"
    source.write_bytes(archive({"index.html": "x" * 100_000}))
    run = Run("shop", 1, 1, source, RUNTIME, {}, Limits())
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    packing, there = Packing(room_of(DEFAULT_LIMITS)), set(disk.iterdir())
    filler = fill(disk)
    with pytest.raises(StorageFull, match="disk") as told:
        async with packing.of(lambda: sites.planned(run, 1 << 20, DEFAULT_LIMITS)):
            raise AssertionError("there is no room")
    assert told.value.may_retry
    assert set(disk.iterdir()) == {*there, filler}
    filler.unlink()
    async with packing.of(lambda: sites.planned(run, 1 << 20, DEFAULT_LIMITS)) as made:
        assert made.archive.is_relative_to(disk)
    assert set(disk.iterdir()) == there


def test_a_log_goes_on_where_it_was_when_the_disk_has_room_again(disk: Path) -> None:
    mirror = Mirror(disk / "app" / "0000000001")
    lines = [{"seq": seq, "ts": 0.0, "stream": "stdout", "text": "x" * 900} for seq in range(1, 101)]
    mirror.add(lines[:10])
    filler = fill(disk)
    with pytest.raises(OSError, match="No space") as told:
        mirror.add(lines)
    assert (told.value.errno, mirror.after) == (errno.ENOSPC, 10)
    filler.unlink()
    mirror.add(lines)  # as its pod is asked for what it has behind the last one
    written = (disk / "app" / "0000000001" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in written] == list(range(1, 101))


async def test_a_build_that_the_disk_does_not_take_in_is_told_so_and_is_built_when_it_does(
    disk: Path, tmp_path: Path
) -> None:
    class Sending:
        """As a builder sends what it has made."""

        async def perform(self, order: Order, place: Path, log_dir: Path) -> Done:
            made = place / "built.tar.gz"
            made.write_bytes(archive({"index.html": os.urandom(200_000)}))
            return Done({}, archive=made)

    builds = Builds(BuiltStore(disk), Sending(), base=lambda name: Base(name, "node", {}, {}))
    builds.prepare()

    async def built() -> Built:
        return await builds.provide(
            Build("Vite", "npm run build", "node-24"),
            layer=None,
            source=tmp_path / "source",
            source_digest="a" * 64,
            strip="",
            env={},
            owner="alice",
            app_id="shop",
            log_dir=tmp_path,
            on_step=lambda step: None,
            wanted=lambda: True,
        )

    filler = fill(disk)
    with pytest.raises(BuildUnavailable, match="No space left") as told:
        await built()
    assert told.value.may_retry
    assert [path.name for path in (disk / "built").iterdir()] == []
    filler.unlink()
    assert (await built()).archive.is_relative_to(disk)
