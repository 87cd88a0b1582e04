"""This machine's package clients are asked for their registries without anybody waiting twice."""

from __future__ import annotations

import asyncio

import pytest

from vibed.controller.layering import Asked
from vibed.runtimes.registries import Registries


class Clients:
    """Say what they are told to, when they are told to."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Registries]] = []

    async def __call__(self) -> Registries:
        answer: asyncio.Future[Registries] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return await answer


async def test_all_who_come_first_wait_for_one_asking() -> None:
    clients, said = Clients(), Registries()
    asked = Asked(clients)
    waiting = [asyncio.create_task(asked()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    clients.answers[0].set_result(said)
    assert [await one for one in waiting[1:]] == [said, said]
    assert len(clients.answers) == 1


async def test_who_comes_later_gets_what_they_said_before_while_they_are_asked_again() -> None:
    clients, said, said_later = Clients(), Registries(), Registries(pypi=("later",))
    asked = Asked(clients, again_s=-1.0)
    first = asyncio.create_task(asked())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clients.answers[0].set_result(said)
    assert await first is said
    assert [await asked() for _ in range(3)] == [said] * 3
    await asyncio.sleep(0)
    assert len(clients.answers) == 2
    clients.answers[1].set_result(said_later)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await asked() is said_later


async def test_clients_that_do_not_answer_are_asked_again_by_the_next_who_comes() -> None:
    clients, said = Clients(), Registries()
    asked = Asked(clients)
    first = asyncio.create_task(asked())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clients.answers[0].set_exception(OSError("not now"))
    with pytest.raises(OSError, match="not now"):
        await first
    second = asyncio.create_task(asked())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clients.answers[1].set_result(said)
    assert await second is said
