"""What the controller does besides keeping apps."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vibed import records
from vibed.apps.app import Runtime
from vibed.apps.errors import StoreUnavailable
from vibed.apps.sqlite.store import SqliteStore
from vibed.config import Config
from vibed.controller import service as module
from vibed.controller.service import Service
from vibed.drivers.packing import packed
from vibed.layout import Layout, Uids
from vibed.sandboxes.driver import Limits, Run
from vibed.sources.errors import TooManyFiles
from vibed.sources.limits import ArchiveLimits
from vibed.sources.reader import read_table


async def test_a_store_that_fails_for_a_while_keeps_nobody_from_being_looked_for_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.001)
    looks = 0
    woken = asyncio.Event()

    async def unsettled() -> list[Any]:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise StoreUnavailable("the disk does not answer")
        return [SimpleNamespace(app_id="todo")]

    service: Any = object.__new__(Service)
    service._store = SimpleNamespace(unsettled=unsettled)
    service._names = SimpleNamespace(leading=list)
    service._fleet = SimpleNamespace(wake=lambda app_id: woken.set())
    recovering = asyncio.create_task(service._recover())
    await asyncio.wait_for(woken.wait(), 5)
    assert not recovering.done()
    recovering.cancel()


async def test_a_site_that_was_taken_is_served_again_though_the_operator_takes_smaller_ones_now(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "run", Uids(os.geteuid() or 100_000_000, rootless=os.geteuid() != 0))
    source = tmp_path / "source.tar.gz"
    source.write_bytes(packed({f"{number}.html": b"page" for number in range(30)}))
    config = Config(layout.home, max_files=10)
    with pytest.raises(TooManyFiles):
        read_table(source, ArchiveLimits.of(config))
    layout.database.parent.mkdir(parents=True)
    store = await SqliteStore.open(layout.database)
    try:
        sandbox = await Service(config, layout, store)._static.boot("static-nginx")
        runtime = Runtime("fast", "static-nginx", "static", "0.html", "test")
        run = Run("a", 1, 1, source, runtime, {}, Limits(), served_before=True)
        started = await sandbox.run(run, socket=Path(), log_dir=Path(), on_stage=lambda stage: None)
        assert (started.endpoint.path / "29.html").read_text() == "page"
    finally:
        await store.close()


async def test_more_sandboxes_than_a_shells_bound_on_open_files_allows_can_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = 0

    async def opened(path: Path) -> SqliteStore:
        nonlocal found
        found, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise StoreUnavailable("it is enough that it is asked for")

    monkeypatch.setattr(SqliteStore, "open", opened)
    monkeypatch.setattr(records, "set_up", lambda level: None)
    monkeypatch.setattr(module, "_lock", lambda layout: None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        with pytest.raises(StoreUnavailable):
            await module.run(Config(Path("/unused")), Layout.of(Path("/unused")))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found >= min(20_000, before[1])
