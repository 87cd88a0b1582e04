"""Which builder sandboxes are used for another step."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vibed.runtimes.gate import Gate
from vibed.runtimes.layers.delivery import delivery
from vibed.runtimes.layers.equipment import OfHost
from vibed.runtimes.layers.steps import Done, Order, StepFailed
from vibed.runtimes.layers.workbench import Opened, Workbench
from vibed.runtimes.registries import Registries

ANSWER = {"resolution": "tiny==1.0", "waits": True}


class Program:
    """What runs in the sandbox: it answers each order, and ends when there is no other."""

    def __init__(self, at: Path, answer: Mapping[str, Any]) -> None:
        self._at = at
        self._answer = answer
        self.orders: list[Any] = []

    async def __call__(self) -> None:
        more: bytes | None = b""
        while more is not None:
            reader, writer = await asyncio.open_unix_connection(self._at)
            body = json.dumps(self._answer).encode()
            writer.write(len(body).to_bytes(8, "big") + body)
            more = None
            with contextlib.suppress(asyncio.IncompleteReadError):
                more = await reader.readexactly(int.from_bytes(await reader.readexactly(8), "big"))
                self.orders.append(json.loads(more))
            writer.close()


@asynccontextmanager
async def opened(place: Path, order: Order, answer: Mapping[str, Any]) -> AsyncIterator[tuple[Opened, Program]]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(delivery(place))
        program = Program(place / "out.sock", answer)
        running: Any = asyncio.ensure_future(program())
        gate = Gate(place, Registries())
        host: Any = None
        yield Opened(order, running, one, gate, OfHost(host), 1 << 20, stack.pop_all(), more=True), program
        running.cancel()


def ordered(*, builds: bool, **request: Any) -> Order:
    return Order("python", "python-313", {"step": "resolve", **request}, builds=builds)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    assert len(str(tmp_path / "out.sock")) < 107
    return tmp_path


async def done(one: Opened, order: Order, place: Path) -> Done:
    async with asyncio.timeout(10):
        return await one.perform(order, place)


async def test_a_sandbox_in_which_no_code_could_run_is_used_for_the_next_step(place: Path) -> None:
    bench = Workbench(place)
    first = ordered(builds=False)
    async with opened(place, first, ANSWER) as (one, program):
        assert (await done(one, first, place)).answer["resolution"] == "tiny==1.0"
        assert one.waits
        bench.leave(one)
        second = ordered(builds=True, pins=["tiny==1.0"])
        assert bench.opened(second) is one
        await done(one, second, place)
        assert program.orders == [second.request]


async def test_a_program_in_whose_sandbox_code_may_have_run_gets_no_order_whatever_it_says(place: Path) -> None:
    order = ordered(builds=True)
    async with opened(place, order, ANSWER) as (one, program):
        await done(one, order, place)
        assert not one.waits
        assert program.orders == []


async def test_a_step_that_failed_may_be_followed_by_another_in_its_sandbox_too(place: Path) -> None:
    order = ordered(builds=False)
    async with opened(place, order, {"failed": "it has to be built", "barred": True, "waits": True}) as (one, _):
        with pytest.raises(StepFailed, match="the installer failed"):
            await done(one, order, place)
        assert one.waits


@pytest.mark.parametrize("other", [{"compilers": True}, {"template": "python-312"}, {"source": Path("app.tar.gz")}])
async def test_a_step_that_needs_what_the_sandbox_has_not_gets_one_of_its_own(
    place: Path, other: dict[str, Any]
) -> None:
    bench = Workbench(place)
    order = ordered(builds=False)
    async with opened(place, order, ANSWER) as (one, _):
        await done(one, order, place)
        bench.leave(one)
        assert bench.opened(replace(order, **other)) is None


async def test_a_sandbox_that_ended_meanwhile_is_not_used(place: Path) -> None:
    bench = Workbench(place)
    order = ordered(builds=False)
    async with opened(place, order, ANSWER) as (one, _):
        await done(one, order, place)
        one.running.cancel()
        await asyncio.gather(one.running, return_exceptions=True)
        bench.leave(one)
        assert bench.opened(order) is None


async def test_what_was_denied_to_an_earlier_step_is_not_told_of_a_later_one(place: Path) -> None:
    order = ordered(builds=False)
    async with opened(place, order, {"failed": "no", "barred": True, "waits": True}) as (one, _):
        one.gate._hear(b'{"denied": "example.org:443"}')
        with pytest.raises(StepFailed) as failed:
            await done(one, order, place)
        assert failed.value.denied == {}
