"""An informer's memory is what the API has, and what it told is what happened: however its watches end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import pytest
from cluster_api import Api
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run

from vibed.cluster.errors import KubeUnavailable
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import ALL, CONFIG_MAP, Object

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(["write"] * 6),
                *(["remove"] * 2),
                *("remake", "learn", "bookmark", "forget", "tell", "wait"),
                *("end cleanly", "end broken", "end gone", "down", "up"),
            ]
        ),
        st.sampled_from("abcd"),
        st.integers(0, 3),
    ),
    max_size=50,
)


def group(item: Object) -> Iterable[str]:
    return [item["group"]] if item["group"] else []


class Told:
    """What an informer told, played back: each change must fit what was told before it."""

    def __init__(self) -> None:
        self.now: dict[str, Object] = {}
        self.changes: list[tuple[Object | None, Object | None]] = []

    def __call__(self, old: Object | None, new: Object | None) -> None:
        self.changes.append((old, new))
        item = new or old
        assert item is not None
        name = item["metadata"]["name"]
        assert self.now.get(name) == old
        if old and new:
            assert old["metadata"]["uid"] == new["metadata"]["uid"]
            assert int(old["metadata"]["resourceVersion"]) < int(new["metadata"]["resourceVersion"])
        if new is None:
            del self.now[name]
        else:
            self.now[name] = new


@contextlib.asynccontextmanager
async def informer(
    api: Api, told: Callable[[Object | None, Object | None], None] | None = None
) -> AsyncIterator[Informer]:
    one = Informer(api, CONFIG_MAP, indexes={"group": group}, on_change=told or Told())
    running = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


def names(items: Iterable[Object]) -> list[str]:
    return sorted(item["metadata"]["name"] for item in items)


@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_whatever_happens_to_the_watches_the_memory_ends_as_the_api_is_and_was_told_change_by_change(
    steps: list[tuple[str, str, int]],
) -> None:
    async def main() -> None:
        api, told = Api(), Told()
        api.write("a", {"group": "1"})
        async with informer(api, told) as memory:
            for what, name, number in steps:
                facts = {"group": str(number) if number else "", "number": api.version}
                if what == "write":
                    api.write(name, facts)
                elif what == "learn":
                    memory.learn(api.write(name, facts))
                elif what == "remove":
                    api.remove(name)
                elif what == "remake":
                    api.remove(name)
                    api.write(name, facts)
                elif what == "bookmark":
                    api.bookmark()
                elif what == "forget":
                    api.forget()
                elif what.startswith("end "):
                    await api.end(what.removeprefix("end "))  # type: ignore[arg-type]
                elif what == "down":
                    await api.fail()
                elif what == "up":
                    api.down = False
                elif what == "tell":
                    await api.tell()
                else:
                    await asyncio.sleep(float(number))
            api.down = False
            await api.tell()
            await asyncio.sleep(60.0)
            assert {item["metadata"]["name"]: item for item in memory.all()} == api.objects_now == told.now
            for key in ("1", "2", "3"):
                assert names(memory.by("group", key)) == names(
                    item for item in api.objects_now.values() if item["group"] == key
                )
            assert memory.trouble is None

    run(main())


def test_a_watch_that_ends_without_an_error_is_gone_on_with_where_it_was_and_nothing_is_listed() -> None:
    async def main() -> None:
        api = Api()
        async with informer(api) as memory:
            await memory.synced()
            for number in range(20):
                last = api.write("a", {"group": "", "number": number})
                await api.end("cleanly")
                await asyncio.sleep(60.0)
            assert api.lists == 1
            assert api.watched_since[-1] == last["metadata"]["resourceVersion"]
            assert memory.get("a") == last

    run(main())


def test_a_bookmark_is_where_the_next_watch_begins() -> None:
    async def main() -> None:
        api = Api()
        async with informer(api) as memory:
            await memory.synced()
            api.bookmark()
            await api.end("broken")
            await asyncio.sleep(60.0)
            assert api.watched_since[-1] == str(api.version)

    run(main())


def test_what_was_deleted_while_nobody_listened_is_told_after_410() -> None:
    async def main() -> None:
        api, told = Api(), Told()
        kept, lost = api.write("kept", {"group": ""}), api.write("lost", {"group": ""})
        async with informer(api, told) as memory:
            await memory.synced()
            await api.fail()
            api.remove("lost")
            api.forget()
            api.down = False
            await asyncio.sleep(60.0)
            assert told.changes == [(None, kept), (None, lost), (lost, None)]
            assert api.lists == 2

    run(main())


def test_an_object_that_was_made_anew_while_nobody_listened_is_told_as_another() -> None:
    async def main() -> None:
        api, told = Api(), Told()
        first = api.write("a", {"group": "1"})
        async with informer(api, told) as memory:
            await memory.synced()
            await api.fail()
            api.remove("a")
            second = api.write("a", {"group": "2"})
            api.forget()
            api.down = False
            await asyncio.sleep(60.0)
            assert told.changes == [(None, first), (first, None), (None, second)]
            assert (names(memory.by("group", "1")), names(memory.by("group", "2"))) == ([], ["a"])

    run(main())


def test_a_list_tells_nothing_of_what_did_not_change() -> None:
    async def main() -> None:
        api, told = Api(), Told()
        api.write("a", {"group": ""})
        async with informer(api, told) as memory:
            await memory.synced()
            await api.end("gone")
            await asyncio.sleep(60.0)
            assert api.lists == 2
            assert len(told.changes) == 1

    run(main())


def test_while_the_api_is_down_it_is_asked_ever_less_often_and_the_trouble_is_told() -> None:
    async def main() -> None:
        api = Api()
        async with informer(api) as memory:
            await memory.synced()
            asked = 0

            async def count() -> None:
                nonlocal asked
                asked += 1
                raise KubeUnavailable("nobody answers")

            api._pass = count  # type: ignore[method-assign]
            await api.end("broken")
            await asyncio.sleep(3600.0)
            assert 3600 / 10 <= asked <= 3600 / 5 + 10
            assert isinstance(memory.trouble, KubeUnavailable)

    run(main())


def test_a_watch_that_cannot_keep_up_and_is_ended_all_the_time_is_gone_on_with_at_once() -> None:
    async def main() -> None:
        api = Api()
        async with informer(api) as memory:
            await memory.synced()
            for number in range(50):
                watches = len(api.watched_since)
                api.write("a", {"group": "", "number": number})
                await api.end("broken")
                await asyncio.sleep(0.3)
                assert len(api.watched_since) > watches, "without a pause that grows"

    run(main())


def test_an_api_that_answers_410_each_time_is_not_listed_without_a_pause() -> None:
    async def main() -> None:
        api = Api()
        async with informer(api) as memory:
            await memory.synced()
            for _ in range(1000):
                await api.end("gone")
                await asyncio.sleep(0.05)
            assert api.lists < 30

    run(main())


def test_who_wrote_reads_what_he_wrote_before_the_watch_has_told_it() -> None:
    async def main() -> None:
        api, told = Api(), Told()
        async with informer(api, told) as memory:
            await memory.synced()
            written = api.write("a", {"group": "1"})
            assert memory.get("a") is None
            memory.learn(written)
            assert memory.get("a") == written
            assert names(memory.by("group", "1")) == ["a"]
            await api.tell()
            assert told.changes == [(None, written)], "the watch brings nothing new"

    run(main())


def test_an_answer_that_came_late_does_not_bring_a_deleted_object_back() -> None:
    async def main() -> None:
        api = Api()
        async with informer(api) as memory:
            await memory.synced()
            written = api.write("a", {"group": ""})
            api.remove("a")
            await api.tell()
            memory.learn(written)
            assert memory.get("a") is None

    run(main())


def test_nor_does_one_that_comes_while_a_list_without_that_object_is_taken() -> None:
    async def main() -> None:
        api, told = Api(), Told()
        for number in range(1000):
            api.write(f"app-{number}", {"group": ""})

        def hear(old: Object | None, new: Object | None) -> None:
            told(old, new)
            if new is None:
                asyncio.get_running_loop().call_soon(memory.learn, answer)

        async with informer(api, hear) as memory:
            await memory.synced()
            api.write("late", {"group": ""})
            await api.tell()
            await api.fail()
            answer = api.write("late", {"group": "1"})
            api.remove("late")
            api.forget()
            api.down = False
            await asyncio.sleep(60.0)
            assert told.changes[-1][1] is None
            assert memory.get("late") is None

    run(main())


def test_what_was_written_while_a_list_was_on_its_way_stays_though_it_is_not_in_it() -> None:
    async def main() -> None:
        api, told = Api(), Told()
        async with informer(api, told) as memory:
            await memory.synced()
            api.on_the_way_s = 5.0
            await api.end("gone")
            await asyncio.sleep(1.0)
            assert api.lists == 2
            written = api.write("a", {"group": ""})
            memory.learn(written)
            await asyncio.sleep(60.0)
            assert told.changes == [(None, written)]

    run(main())


def test_the_end_of_an_object_that_was_made_anew_since_is_not_the_new_ones() -> None:
    async def main() -> None:
        api, told = Api(), Told()
        first = api.write("a", {"group": ""})
        async with informer(api, told) as memory:
            await memory.synced()
            api.remove("a")
            second = api.write("a", {"group": ""})
            memory.learn(second)
            await asyncio.sleep(60.0)
            assert told.changes == [(None, first), (first, None), (None, second)]

    run(main())


def test_in_all_namespaces_an_object_is_found_by_both_names() -> None:
    async def main() -> None:
        api = Api()
        api.write("a", {})
        memory = Informer(api, CONFIG_MAP, namespace=ALL)
        running = asyncio.create_task(memory.run())
        await memory.synced()
        assert memory.get("default/a") is not None
        running.cancel()

    run(main())


def test_what_nobody_reads_is_not_kept() -> None:
    async def main() -> None:
        api = Api()
        api.write("a", {"data": "x" * 1000})
        memory = Informer(api, CONFIG_MAP, trim=lambda item: {"metadata": item["metadata"]})
        running = asyncio.create_task(memory.run())
        await memory.synced()
        found = memory.get("a")
        assert found is not None and found.keys() == {"metadata"}
        running.cancel()

    run(main())


def test_a_listener_that_fails_ends_the_informer_and_is_not_swallowed() -> None:
    async def main() -> None:
        def fail(old: Object | None, new: Object | None) -> None:
            raise ZeroDivisionError

        api = Api()
        api.write("a", {})
        with pytest.raises(ZeroDivisionError):
            await Informer(api, CONFIG_MAP, on_change=fail).run()

    run(main())


def test_a_list_of_thousands_lets_others_have_their_turn_while_it_is_taken() -> None:
    async def main() -> None:
        api, turns, taken_at = Api(), [0], []
        for number in range(1000):
            api.write(f"app-{number}", {"group": ""})

        async def others() -> None:
            while True:
                turns[0] += 1
                await asyncio.sleep(0)

        memory = Informer(api, CONFIG_MAP, on_change=lambda old, new: taken_at.append(turns[0]))
        running = [asyncio.create_task(work) for work in (others(), memory.run())]
        await memory.synced()
        for one in running:
            one.cancel()
        await asyncio.wait(running)
        assert len(taken_at) == 1000
        assert taken_at[-1] > taken_at[0]

    asyncio.run(main())
