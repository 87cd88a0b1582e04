"""Whose turn it is to start."""

from __future__ import annotations

import asyncio
import contextlib

from vibed.controller.starts import Starts


class Start:
    """One that holds its turn until it is told to end."""

    def __init__(self, starts: Starts, *, wanted: bool = True) -> None:
        self.wanted = wanted
        self.over = False
        self.begun = False
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(starts))

    async def _run(self, starts: Starts) -> None:
        async with starts.turn(wanted=lambda: self.wanted, over=lambda: self.over):
            self.begun = True
            await self.end.wait()


async def begun(*starts: Start) -> list[bool]:
    for _ in range(5):
        await asyncio.sleep(0)
    return [start.begun for start in starts]


async def ended(*starts: Start) -> None:
    for start in starts:
        start.end.set()
    await asyncio.gather(*(start.task for start in starts))


async def test_so_many_at_once_in_the_order_in_which_they_came() -> None:
    starts = Starts(2)
    made = [Start(starts) for _ in range(4)]
    assert await begun(*made) == [True, True, False, False]
    await ended(made[1])
    assert await begun(*made) == [True, True, True, False]
    await ended(*made)


async def test_half_of_the_places_are_kept_for_what_somebody_waits_for() -> None:
    starts = Starts(4)
    made = [Start(starts, wanted=False) for _ in range(4)]
    assert await begun(*made) == [True, True, False, False]
    wanted = [Start(starts) for _ in range(3)]
    assert await begun(*wanted) == [True, True, False]
    await ended(*made[:2])
    assert await begun(*wanted, *made[2:]) == [True, True, True, True, False]
    await ended(*wanted, *made)


async def test_what_is_waited_for_by_now_goes_first() -> None:
    starts = Starts(2)
    made = [Start(starts, wanted=False) for _ in range(4)]
    assert await begun(*made) == [True, False, False, False]
    made[3].wanted = True
    starts.look()
    assert await begun(*made) == [True, False, False, True]
    await ended(*made)


async def test_one_place_is_for_whoever_comes() -> None:
    starts = Starts(1)
    made = [Start(starts, wanted=False), Start(starts)]
    assert await begun(*made) == [True, False]
    await ended(*made)


async def test_what_will_not_start_any_more_is_let_through_and_takes_no_place() -> None:
    starts = Starts(1)
    made = [Start(starts) for _ in range(3)]
    made[1].over = True
    starts.look()
    assert await begun(*made) == [True, True, False]
    await ended(made[0])
    assert await begun(*made) == [True, True, True]
    await ended(*made)


async def test_one_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    starts = Starts(1)
    made = [Start(starts) for _ in range(4)]
    await begun()
    for cancelled in (made[1], made[0]):
        cancelled.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled.task
    assert await begun(*made[1:]) == [False, True, False]
    await ended(*made[2:])
