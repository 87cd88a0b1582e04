"""Work ahead is taken once, or thrown away; a run never depends on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from vibed.apps.errors import VibedError
from vibed.drivers.ahead import MOST, Ahead


def never() -> str:
    raise AssertionError("it was done before")


def failing(error: Exception) -> Callable[[], str]:
    def work() -> str:
        raise error

    return work


async def test_what_was_done_ahead_is_not_done_again() -> None:
    ahead = Ahead[str]()
    ahead.begin("a", lambda: "ahead")
    assert await ahead.take("a", never) == "ahead"


async def test_what_is_still_being_done_is_waited_for() -> None:
    ahead = Ahead[str]()
    go_on = threading.Event()
    ahead.begin("a", lambda: "ahead" if go_on.wait(5) else "late")
    taking = asyncio.create_task(ahead.take("a", never))
    await asyncio.sleep(0.02)
    assert not taking.done()
    go_on.set()
    assert await taking == "ahead"


async def test_it_is_taken_once_and_by_its_key_alone() -> None:
    ahead = Ahead[str]()
    ahead.begin("a", lambda: "ahead")
    assert await ahead.take("b", lambda: "own") == "own"
    assert await ahead.take("a", never) == "ahead"
    assert await ahead.take("a", lambda: "own") == "own"


@pytest.mark.parametrize("error", [OSError("disk"), VibedError("refused")])
async def test_what_failed_ahead_is_done_by_whoever_needs_it_and_fails_there_if_it_must(error: Exception) -> None:
    ahead = Ahead[str]()
    ahead.begin("a", failing(error))
    assert await ahead.take("a", lambda: "own") == "own"
    ahead.begin("b", failing(error))
    with pytest.raises(type(error)):
        await ahead.take("b", failing(error))


async def test_what_nobody_takes_is_thrown_away_after_a_while() -> None:
    thrown: list[str] = []
    ahead = Ahead(thrown.append, kept_s=0.01)
    ahead.begin("a", lambda: "ahead")
    while not thrown:
        await asyncio.sleep(0.005)
    assert thrown == ["ahead"]
    assert await ahead.take("a", lambda: "own") == "own"


async def test_closing_throws_away_what_is_left_also_what_is_still_being_done() -> None:
    thrown: list[str] = []
    ahead = Ahead(thrown.append)
    go_on = threading.Event()
    ahead.begin("a", lambda: "done")
    ahead.begin("b", lambda: "slow" if go_on.wait(5) else "late")
    asyncio.get_running_loop().call_later(0.02, go_on.set)
    await ahead.close()
    assert sorted(thrown) == ["done", "slow"]


async def test_a_taker_that_goes_away_leaves_nothing_behind() -> None:
    thrown: list[str] = []
    ahead = Ahead(thrown.append)
    for begun in (True, False):
        go_on = threading.Event()

        def work(go_on: threading.Event = go_on) -> str:
            return "ahead" if go_on.wait(5) else "late"

        if begun:
            ahead.begin("a", work)
        taking = asyncio.create_task(ahead.take("a", work))
        await asyncio.sleep(0.01)
        taking.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await taking
        await ahead.close()
    assert thrown == ["ahead", "ahead"]


async def test_only_so_much_is_done_ahead() -> None:
    ahead = Ahead[int]()
    for number in range(MOST + 1):
        ahead.begin(number, lambda number=number: number)  # type: ignore[misc]
    assert await ahead.take(MOST, lambda: -1) == -1
    assert await ahead.take(0, lambda: -1) == 0
    ahead.begin(MOST, lambda: MOST)
    assert await ahead.take(MOST, lambda: -1) == MOST
