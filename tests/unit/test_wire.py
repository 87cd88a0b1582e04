"""Messages that are too long, and peers that go, hurt nobody else."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from vibed.wire import MAX_LINE, Connection, Disconnected, Message, MessageTooLong, serve


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    async def answer(op: str, message: Message) -> Message:
        if op == "slow":
            await asyncio.sleep(30)
        return {"op": op}

    server = await serve(tmp_path / "s", answer)
    yield tmp_path / "s"
    server.close()


async def test_a_message_that_is_too_long_is_refused_where_it_is_sent_and_others_go_on(path: Path) -> None:
    connection = await Connection.open(path)
    with pytest.raises(MessageTooLong):
        await connection.call("ask", what="x" * MAX_LINE)
    assert await connection.call("ask", timeout=5) == {"op": "ask"}
    await connection.close()


async def test_a_call_that_is_not_answered_in_time_ends_and_the_connection_does_not(path: Path) -> None:
    connection = await Connection.open(path)
    with pytest.raises(TimeoutError):
        await connection.call("slow", timeout=0.05)
    assert await connection.call("ask", timeout=5) == {"op": "ask"}
    await connection.close()


async def test_who_sends_a_line_that_is_too_long_is_told_at_once_whatever_is_being_answered(path: Path) -> None:
    connection = await Connection.open(path)
    slow = asyncio.create_task(connection.call("slow"))
    await asyncio.sleep(0.01)
    connection._writer.write(b"x" * (2 * MAX_LINE) + b"\n")
    with pytest.raises(Disconnected):
        await asyncio.wait_for(slow, 5)
    with pytest.raises(Disconnected):
        await connection.call("ask")
    second = await Connection.open(path)
    assert await second.call("ask", timeout=5) == {"op": "ask"}
    await second.close()
    await connection.close()


def test_what_is_still_being_answered_when_the_other_side_has_gone_goes_on_to_its_end(tmp_path: Path) -> None:
    """On the loop that vibeD's processes have: a write to what is closed is another error there."""
    ended: list[str] = []

    async def talk() -> None:
        unhandled: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))

        async def answer(op: str, message: Message) -> Message:
            await asyncio.sleep(0.05 * message["number"])
            ended.append(op)
            return {}

        async with await serve(tmp_path / "s", answer):
            _, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            for number in range(1, 4):
                writer.write(json.dumps({"id": number, "op": f"op {number}", "number": number}).encode() + b"\n")
            writer.write(b"this is no message\n")
            await asyncio.sleep(0.3)
            writer.close()
        assert unhandled == []

    uvloop.run(talk())
    assert ended == ["op 1", "op 2", "op 3"]


async def test_a_peer_that_goes_while_it_is_asked_leaves_nothing_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_unix_server(hang_up, str(tmp_path / "s"))
    connection = await Connection.open(tmp_path / "s")
    asked = [asyncio.ensure_future(connection.call("do", text="x" * 900_000)) for _ in range(8)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Disconnected}
    await connection.close()
    server.close()
    del asked, outcomes
    gc.collect()
    await asyncio.sleep(0)
    assert "never retrieved" not in caplog.text
