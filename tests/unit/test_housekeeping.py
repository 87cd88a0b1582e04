"""What the API does beside answering."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from vibed.api import housekeeping as module
from vibed.api.housekeeping import Housekeeping
from vibed.api.sse import Stopping
from vibed.apps.errors import StoreUnavailable


class Rounds:
    """Counts them; the first ones may fail."""

    def __init__(self, failing: int = 0) -> None:
        self.count = 0
        self._failing = failing

    async def collect(self, store: object) -> int:
        self.count += 1
        if self.count <= self._failing:
            raise StoreUnavailable("the disk is full")
        return 0

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.count < count:
                await asyncio.sleep(0.001)


async def kept() -> bool:
    return True


async def run(rounds: Rounds, *, after_deleting: bool = True) -> tuple[Housekeeping, Stopping, asyncio.Task[None]]:
    housekeeping, stopping = Housekeeping(cast(Any, rounds), cast(Any, None)), Stopping()
    running = asyncio.create_task(housekeeping.run(stopping, kept, after_deleting=after_deleting))
    return housekeeping, stopping, running


async def test_it_looks_again_soon_after_something_was_deleted_until_the_controller_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AFTER_DELETING_S", (0.001, 0.002))
    rounds = Rounds()
    housekeeping, stopping, running = await run(rounds)
    await rounds.reach(1)
    housekeeping.soon()
    await rounds.reach(4)
    await asyncio.sleep(0.05)
    assert rounds.count == 4, "at once, and after each of the waits"
    stopping.set()
    await running


async def test_where_a_round_is_dear_a_deletion_brings_none_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER_DELETING_S", (0.001, 0.002))
    rounds = Rounds()
    housekeeping, stopping, running = await run(rounds, after_deleting=False)
    await rounds.reach(1)
    housekeeping.soon()
    await asyncio.sleep(0.05)
    assert rounds.count == 1
    stopping.set()
    await running


async def test_a_round_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.001)
    rounds = Rounds(failing=2)
    _, stopping, running = await run(rounds)
    await rounds.reach(4)
    stopping.set()
    await running
