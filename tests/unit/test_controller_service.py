"""What the controller does besides keeping apps."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from vibed.apps.errors import StoreUnavailable
from vibed.controller import service as module
from vibed.controller.service import Service


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
    service._markers = SimpleNamespace(with_sockets=list)
    service._reconciler = SimpleNamespace(wake=lambda app_id: woken.set())
    recovering = asyncio.create_task(service._recover())
    await asyncio.wait_for(woken.wait(), 5)
    assert not recovering.done()
    recovering.cancel()
