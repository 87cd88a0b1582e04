"""The work queue: every wish is worked on after it was made, no key by two at once, failures ever less often."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run

from vibed.cluster.queue import Queue, QueueClosed

KEYS = st.sampled_from("abcd")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEYS),
        st.tuples(st.just("later"), KEYS),
        st.tuples(st.just("fail"), KEYS),
        st.tuples(st.just("take"), KEYS),
        st.tuples(st.just("end"), KEYS),
        st.tuples(st.just("wait"), KEYS),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS)
def test_whatever_is_added_is_worked_on_afterwards_and_never_by_two(steps: list[tuple[str, str]]) -> None:
    async def main() -> None:
        queue: Queue[str] = Queue()
        working: list[str] = []
        unheard: set[str] = set()
        """Keys that were added since work on them began last."""
        for what, key in steps:
            if what == "add":
                queue.add(key)
                unheard.add(key)
            elif what == "later":
                queue.add_after(key, 5.0)
                unheard.add(key)
            elif what == "fail":
                queue.retry(key)
                unheard.add(key)
            elif what == "take" and len(queue):
                taken = await queue.get()
                assert taken not in working
                working.append(taken)
                unheard.discard(taken)
            elif what == "end" and working:
                queue.done(working.pop(0))
            elif what == "wait":
                await asyncio.sleep(1.0)
        # Work on what was added while it was meant for later may have come too early for that wish: it comes again.
        for taken in working:
            queue.done(taken)
        await asyncio.sleep(1000.0)
        heard = Counter[str]()
        while len(queue):
            taken = await queue.get()
            heard[taken] += 1
            queue.done(taken)
        assert unheard <= heard.keys()
        assert all(times == 1 for times in heard.values())

    run(main())


def test_a_key_that_was_added_often_is_handed_out_once() -> None:
    async def main() -> None:
        queue: Queue[str] = Queue()
        for _ in range(5):
            queue.add("a")
        queue.add("b")
        assert [await queue.get(), await queue.get()] == ["a", "b"]
        assert len(queue) == 0

    run(main())


def test_a_key_that_is_added_while_it_is_worked_on_comes_once_more_when_that_is_done() -> None:
    async def main() -> None:
        queue: Queue[str] = Queue()
        queue.add("a")
        await queue.get()
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0
        queue.done("a")
        assert await queue.get() == "a"
        queue.done("a")
        assert len(queue) == 0

    run(main())


def test_of_two_times_for_one_key_the_earlier_holds() -> None:
    async def main() -> None:
        queue: Queue[str] = Queue()
        loop = asyncio.get_running_loop()
        began = loop.time()
        queue.add_after("a", 3600.0)
        queue.add_after("a", 10.0)
        queue.add_after("a", 60.0)
        assert await queue.get() == "a"
        assert round(loop.time() - began) == 10
        queue.done("a")
        await asyncio.sleep(7200.0)
        assert len(queue) == 0

    run(main())


def test_a_key_that_fails_waits_ever_longer_up_to_a_limit_until_it_does_well() -> None:
    async def main() -> None:
        queue: Queue[str] = Queue(first_s=1.0, longest_s=60.0)
        waits = []
        for _ in range(2000):  # 2.0 ** 1024 would be an error
            waits.append(queue.retry("a"))
            assert await queue.get() == "a"
            queue.done("a")
        assert 0.75 <= waits[0] <= 1.0
        assert waits[3] > waits[0]
        assert all(45.0 <= wait <= 60.0 for wait in waits[6:])
        queue.forget("a")
        assert queue.retry("a") <= 1.0

    run(main())


def test_one_key_that_fails_does_not_delay_another() -> None:
    async def main() -> None:
        queue: Queue[str] = Queue(first_s=1.0)
        for _ in range(10):
            queue.retry("bad")
        assert queue.retry("good") <= 1.0

    run(main())


def test_who_waits_gets_the_next_key_even_when_another_who_waited_gave_up() -> None:
    async def main() -> None:
        queue: Queue[str] = Queue()
        first, second = (asyncio.create_task(queue.get()) for _ in range(2))
        await asyncio.sleep(0)
        queue.add("a")  # wakes the first, who is gone before he can take it
        first.cancel()
        assert await second == "a"
        assert first.cancelled()

    run(main())


def test_a_closed_queue_hands_out_nothing_and_lets_go_who_waits() -> None:
    async def main() -> None:
        queue: Queue[str] = Queue()
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.close()
        with pytest.raises(QueueClosed):
            await waiting
        queue.add("a")
        queue.add_after("a", 1.0)
        await asyncio.sleep(10.0)
        with pytest.raises(QueueClosed):
            await queue.get()

    run(main())


def test_what_waits_when_the_queue_closes_is_dropped() -> None:
    async def main() -> None:
        queue: Queue[str] = Queue()
        queue.add("a")
        queue.add_after("b", 5.0)
        queue.close()
        assert len(queue) == 0
        await asyncio.sleep(10.0)
        with pytest.raises(QueueClosed):
            await queue.get()

    run(main())
