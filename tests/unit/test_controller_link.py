"""The API's side of the link to the controller."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from vibed.config import Config
from vibed.controller.link import GRACE_S, ControllerLink
from vibed.wire import Disconnected


async def test_a_controller_that_is_stopped_keeps_no_caller_longer_than_it_said_it_would_wait(tmp_path: Path) -> None:
    heard = asyncio.Event()
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        heard.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_unix_server(silent, str(tmp_path / "sock"))
    link = ControllerLink(tmp_path / "sock")
    async with server, asyncio.timeout(4):
        for ask in (link.settle("todo", 1, timeout_s=0.1), link.ensure("todo", timeout_s=0.1)):
            with pytest.raises(Disconnected):
                await ask
        assert heard.is_set()
        over.set()
    await link.close()


def test_a_deploy_is_answered_within_ten_seconds_whatever_becomes_of_the_controller(tmp_path: Path) -> None:
    assert Config(tmp_path).deploy_wait_s + GRACE_S < 10
