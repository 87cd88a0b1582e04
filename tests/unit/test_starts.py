"""Whose turn it is to start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from vibed.controller.starts import Starts


class Start:
    """One that holds its turn until it is told to end."""

    def __init__(self, starts: Starts, *, wanted: bool = True, owner: str = "", app_id: str = "") -> None:
        self.wanted = wanted
        self.owner, self.app_id = owner, app_id
        self.why = lambda: ""
        self.has_begun = asyncio.Event()
        self.over = False
        self.begun = False
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(starts))

    async def _run(self, starts: Starts) -> None:
        def on_wait(why: Callable[[], str]) -> None:
            self.why = why

        async with starts.turn(
            owner=self.owner,
            app_id=self.app_id,
            wanted=lambda: self.wanted,
            over=lambda: self.over,
            on_wait=on_wait,
        ):
            self.begun = True
            self.has_begun.set()
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


# Nobody starves nobody


async def test_an_owner_alone_may_use_all_places_and_another_finds_one_at_once() -> None:
    for at_once in (1, 2, 4):
        starts = Starts(at_once)
        hanging = [Start(starts, owner="ann") for _ in range(12)]
        assert sum(await begun(*hanging)) == at_once
        others = [Start(starts, owner=owner) for owner in ("bob", "cec", "dan")]
        assert sum(await begun(*others)) == min(3, at_once)
        assert sum(await begun(*hanging)) == at_once, "they took nothing of what was kept for others"
        await ended(*hanging, *others)


async def test_a_free_place_goes_to_the_owner_with_the_fewest_under_way() -> None:
    starts = Starts(2)
    anns = [Start(starts, owner="ann") for _ in range(5)]
    bobs = [Start(starts, owner="bob") for _ in range(3)]
    assert (sum(await begun(*anns)), sum(await begun(*bobs))) == (2, 1)
    await ended(anns[0])
    assert (sum(await begun(*anns)), sum(await begun(*bobs))) == (2, 1), "three were under way: nothing was free"
    await ended(anns[1])
    assert (sum(await begun(*anns)), sum(await begun(*bobs))) == (3, 1)
    await ended(bobs[0])
    assert (sum(await begun(*anns)), sum(await begun(*bobs))) == (3, 2), "ann has one under way and bob none"
    await ended(*anns, *bobs)


async def test_what_hangs_holds_no_place_for_long_and_what_compiles_does() -> None:
    now = [100.0]
    for hold_s, then in ((5.0, [True, True]), (None, [True, False])):
        starts = Starts(1, hold_s=hold_s, clock=lambda: now[0])
        hangs, waits = Start(starts, owner="ann"), Start(starts, owner="ann")
        assert await begun(hangs, waits) == [True, False]
        now[0] += 4.9
        starts.look()
        assert await begun(hangs, waits) == [True, False]
        now[0] += 0.2
        starts.look()
        assert await begun(hangs, waits) == then
        await ended(hangs, waits)


async def test_what_takes_long_lets_others_go_on_beside_it_up_to_a_bound_with_room_for_who_has_none() -> None:
    now = 0.0
    starts = Starts(1, hold_s=20, most=3, clock=lambda: now)
    made = [Start(starts, owner="ann") for _ in range(3)]
    assert await begun(*made) == [True, False, False]
    now = 21.0
    starts.look()
    assert await begun(*made) == [True, True, False]
    now = 42.0
    starts.look()
    bob, eve = Start(starts, owner="bob"), Start(starts, owner="eve")
    assert await begun(*made, bob, eve) == [True, True, False, True, False]
    await ended(made[0])
    assert await begun(made[2], eve) == [False, True]
    await ended(*made, bob, eve)


async def test_a_place_that_is_held_too_long_is_given_on_without_anybody_asking() -> None:
    starts = Starts(1, hold_s=0.05)
    hangs, waits = Start(starts), Start(starts)
    assert await begun(hangs, waits) == [True, False]
    async with asyncio.timeout(5):
        await waits.has_begun.wait()
    await ended(hangs, waits)


async def test_who_waits_is_told_for_what_and_never_whose_apps_others_are() -> None:
    starts = Starts(5)
    anns = [Start(starts, owner="ann", app_id=f"app-{number}") for number in range(6)]
    bobs = [Start(starts, owner=f"bob-{number}", app_id=f"secret-{number}") for number in range(6)]
    await begun(*anns, *bobs)
    assert anns[5].why() == "5 of your apps are starting (app-0, app-1, app-2 and 2 more)"
    assert bobs[5].why() == "this machine is starting as many apps as it can at a time"
    await ended(*anns[:4])
    await begun(*anns)
    await ended(*anns, *bobs)
    one = Starts(1)
    first, second = (Start(one, owner="ann", app_id=name) for name in ("todo", "notes"))
    await begun(first, second)
    assert second.why() == "1 of your apps is starting (todo)"
    await ended(first, second)


async def test_who_joins_a_long_queue_asks_nothing_of_those_before_it() -> None:
    asked = 0

    def wanted() -> bool:
        nonlocal asked
        asked += 1
        return False

    async def one() -> None:
        async with starts.turn(wanted=wanted):
            await end.wait()

    starts, end = Starts(4), asyncio.Event()
    tasks = [asyncio.create_task(one()) for _ in range(500)]
    await asyncio.sleep(0)
    assert asked < 500 * 10
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    late = Start(starts)
    assert await begun(late) == [True]
    await ended(late)
