"""Sources are packed for pods on a disk of a bounded size: as many at a time as have room."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from vibed.apps.app import Runtime
from vibed.drivers import packing
from vibed.drivers.agent_sandbox import sites, workers
from vibed.drivers.packing import Packing, most_of, room_of
from vibed.sandboxes.driver import Limits, Run, RunFailed
from vibed.sources.allotment import Allotment
from vibed.sources.errors import StorageFull
from vibed.sources.limits import ArchiveLimits

MB = 1 << 20
LIMITS = ArchiveLimits(expanded=8 * MB, files=200)
SITE_MOST = 64 * MB


def run_of(folder: Path, files: Mapping[str, bytes], number: int = 1, *, worker: bool = False) -> Run:
    source = folder / f"source-{number}.tar.gz"
    with tarfile.open(source, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    kind, entry = ("worker", "worker.js") if worker else ("static", "")
    runtime = Runtime("fast", "workerd" if worker else "static-nginx", kind, entry, "")
    return Run(f"app-{number}", 1, number, source, runtime, {}, Limits())


async def until(told: Sequence[object], count: int) -> None:
    while len(told) < count:
        await asyncio.sleep(0)


async def test_what_was_asked_for_first_comes_first_and_large_ones_come_too() -> None:
    allotment, had = Allotment(10), []

    async def one(name: str, size: int, done: asyncio.Event) -> None:
        async with allotment.take(size):
            had.append(name)
            await done.wait()

    first, large, small = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(one("first", 6, first))
        await until(had, 1)
        group.create_task(one("large", 10, large))
        group.create_task(one("small", 1, small))
        await asyncio.sleep(0)
        assert had == ["first"], "a small one does not pass a large one again and again"
        first.set()
        await until(had, 2)
        assert (had, allotment.left) == (["first", "large"], 0)
        large.set()
        small.set()
    assert (had, allotment.left) == (["first", "large", "small"], 10)


async def test_who_waits_behind_a_large_one_passes_it_where_both_have_room_and_never_keeps_it_waiting() -> None:
    """On a full cluster what was packed is held until there is a pod: `first` may be held for minutes."""
    allotment, had = Allotment(10), []

    async def one(name: str, size: int, done: asyncio.Event) -> None:
        async with allotment.take(size):
            had.append(name)
            await done.wait()

    first, large, small = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(one("first", 4, first))
        await until(had, 1)
        group.create_task(one("large", 7, large))
        for number in range(5):
            group.create_task(one(f"small-{number}", 1, small))
        await until(had, 4)
        assert had == ["first", "small-0", "small-1", "small-2"], "so many as have room beside the large one"
        assert allotment.left == 3, "which others do not take, whatever is left now"
        first.set()
        await until(had, 5)
        assert had[4] == "large", "it waited for nobody who came later"
        small.set()
        await until(had, 7)
        large.set()
    assert (had[5:], allotment.left) == (["small-3", "small-4"], 10)


async def test_who_has_left_again_lets_another_pass() -> None:
    allotment, had = Allotment(10), []

    async def one(size: int) -> None:
        async with allotment.take(size):
            had.append(size)

    async with allotment.take(4), asyncio.TaskGroup() as group:
        large = group.create_task(one(9))
        for _ in range(5):
            group.create_task(one(1))
        await until(had, 5)
        assert (had, allotment.left) == ([1] * 5, 6)
        large.cancel()
    assert allotment.left == 10


async def test_who_gives_up_waiting_holds_nothing_and_nobody_up() -> None:
    allotment = Allotment(10)
    had, over = [], asyncio.Event()

    async def one(name: str, size: int) -> None:
        async with allotment.take(size):
            had.append(name)
            await over.wait()

    async with allotment.take(6) as first:
        large = asyncio.create_task(one("large", 8))
        await asyncio.sleep(0)
        small = asyncio.create_task(one("small", 4))
        await asyncio.sleep(0)
        large.cancel()
        await until(had, 1)
        late = asyncio.create_task(one("late", 6))
        await asyncio.sleep(0)
        # told to stop in the turn in which it is given its bytes
        first.shrink(0)
        late.cancel()
        await asyncio.wait((large, late))
    assert (had, allotment.left) == (["small"], 6)
    over.set()
    await small
    assert allotment.left == 10


async def test_what_is_needed_no_more_is_the_next_ones() -> None:
    allotment = Allotment(10)
    async with allotment.take(10) as promise:
        promise.shrink(3)
        promise.shrink(7)
        assert allotment.left == 7
        async with allotment.take(7):
            assert allotment.left == 0
    assert allotment.left == 10


async def test_what_never_fits_is_refused_at_once_and_says_who_decides() -> None:
    with pytest.raises(StorageFull, match="takes 2 MiB while it is made, and there are 1") as refused:
        async with Allotment(MB).take(2 * MB):
            raise AssertionError("it does not fit")
    assert not refused.value.may_retry
    assert "max_expanded_mb" in str(refused.value.hint)


@pytest.mark.parametrize("kind", ["many small files in folders", "one large file", "links"])
async def test_packing_takes_no_more_than_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    files = {
        "many small files in folders": {f"{'d' * 60}{n}/{'f' * 120}.html": b"x" for n in range(90)},
        "one large file": {"index.html": os.urandom(7 * MB)},
        "links": {"index.html": os.urandom(MB)},
    }[kind]
    run = run_of(tmp_path, files)
    if kind == "links":
        with tarfile.open(run.source, "w:gz", compresslevel=1) as tar:
            page = tarfile.TarInfo("index.html")
            page.size = MB
            tar.addfile(page, io.BytesIO(files["index.html"]))
            for number in range(6):
                link = tarfile.TarInfo(f"copy-{number}.html")
                link.type, link.linkname = tarfile.LNKTYPE, "index.html"
                tar.addfile(link)
    peak, real = 0, shutil.rmtree

    def seen(place: Path, ignore_errors: bool = False) -> None:
        nonlocal peak
        if place == folder / "site":
            peak = sum(-(-one.stat().st_size // 4096) * 4096 for one in folder.rglob("*"))
        real(place, ignore_errors)

    plan = sites.planned(run, SITE_MOST, LIMITS)
    monkeypatch.setattr(shutil, "rmtree", seen)
    folder = tmp_path / "folder"
    folder.mkdir()
    plan.pack(folder)
    assert 0 < peak <= plan.needs <= most_of(LIMITS)


async def test_so_many_sites_are_packed_at_a_time_as_the_disk_has_room_for(tmp_path: Path) -> None:
    pack = Packing(most_of(LIMITS) + MB)
    page, under_way, most, over = os.urandom(4 * MB), 0, 0, asyncio.Event()
    run = run_of(tmp_path, {"index.html": page})

    class Watched:
        """As a site's plan, which counts those that are packed beside it."""

        def __init__(self) -> None:
            self._plan = sites.planned(run, SITE_MOST, LIMITS)
            self.needs = self._plan.needs

        def pack(self, folder: Path) -> sites.Packed:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way * self.needs)
            made = self._plan.pack(folder)
            under_way -= 1
            return made

    made: list[Path] = []

    async def one() -> None:
        async with pack.of(Watched) as packed:
            made.append(packed.archive)
            # until two archives wait for a pod, and the next one has no room
            if len(made) == 2:
                over.set()
            await over.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(one())
    assert len(made) == 10
    assert 0 < most <= pack.room.most
    assert not [path for path in made if path.exists()]


def test_what_was_taken_before_limits_were_lowered_is_packed_still() -> None:
    assert room_of(ArchiveLimits(expanded=MB, files=10)) == room_of(ArchiveLimits())
    assert room_of(ArchiveLimits(expanded=2_000 * MB)) > room_of(ArchiveLimits())


async def test_who_gives_up_while_it_is_packed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    run = run_of(tmp_path, {"index.html": os.urandom(7 * MB)})
    pack = Packing(most_of(LIMITS))
    task = asyncio.create_task(pack.of(lambda: sites.planned(run, SITE_MOST, LIMITS)).__aenter__())
    while not list((tmp_path / "tmp").iterdir()):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list((tmp_path / "tmp").iterdir())
    assert pack.room.left == pack.room.most


async def test_a_site_that_is_larger_than_its_pod_is_refused_by_its_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "in_thread", None)  # nothing is unpacked
    run = run_of(tmp_path, {"index.html": os.urandom(2 * MB)})
    with pytest.raises(RunFailed, match="the site takes 3 MB, and a pod of sites has 1") as refused:
        async with Packing(most_of(LIMITS)).of(lambda: sites.planned(run, MB, LIMITS)):
            raise AssertionError("it is too large")
    assert (refused.value.error_code, refused.value.hint) == ("DiskFull", "the operator decides (site_pod_mb)")


async def test_what_is_left_out_of_a_site_takes_no_room(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"index.html": b"x", "node_modules/big/index.js": os.urandom(2 * MB)})
    async with Packing(most_of(LIMITS)).of(lambda: sites.planned(run, MB, LIMITS)) as made:
        assert made.disk_bytes < MB


async def test_a_worker_is_promised_what_its_modules_take(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"worker.js": b"export default {}"}, worker=True)
    plan = workers.planned(run, {"worker.js": {"js": "x" * MB}}, LIMITS)
    assert plan.needs > MB
    async with Packing(most_of(LIMITS)).of(lambda: plan) as archive:
        with tarfile.open(archive) as tar:
            assert tar.getnames() == ["worker.json"]
