"""What the controller does besides keeping apps."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vibed import records
from vibed.apps.errors import StoreUnavailable
from vibed.apps.sqlite.store import SqliteStore
from vibed.config import Config
from vibed.controller import service as module
from vibed.controller.service import Service
from vibed.layout import Layout


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
