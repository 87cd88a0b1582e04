"""Logs that the API reads through the controller are those that it would read beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vibed.api.logs import ControllersLogs, LocalLogs, Logs
from vibed.controller.answers import MOST_TEXT, Answers
from vibed.controller.link import ControllerLink
from vibed.supervision.runlogs import Line
from vibed.wire import MAX_LINE, serve


def write(root: Path, run: int, texts: list[str]) -> None:
    folder = root / "todo" / f"{run:010d}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("a") as out:
        for seq, text in enumerate(texts, 1):
            out.write(json.dumps({"seq": seq, "ts": run * 1000 + seq, "stream": "stdout", "text": text}) + "\n")


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Path, list[Logs]]]:
    """The folder of the logs, and the two ways to read it."""
    root = tmp_path / "logs"
    means = SimpleNamespace(layout=SimpleNamespace(logs=root))
    answers = cast(Any, Answers).__new__(Answers)
    answers._means = means
    server = await serve(tmp_path / "sock", answers.answer)
    link = ControllerLink(tmp_path / "sock")
    async with server:
        yield root, [LocalLogs(root), ControllersLogs(link)]
        await link.close()


async def everything(logs: Logs, *, tail: int | None = None, at_once: int = 50) -> list[tuple[Line, str]]:
    reading = logs.open("todo", None)
    found: list[tuple[Line, str]] = []
    if tail is not None:
        await reading.seek_tail(tail)
    while some := await reading.read(at_once):
        found += some
    reading.close()
    return found


@pytest.mark.parametrize("tail", [None, 0, 1, 7, 1000])
async def test_both_ways_tell_the_same_lines_and_places(both: tuple[Path, list[Logs]], tail: int | None) -> None:
    root, ways = both
    write(root, 1, ["one"] * 30)
    write(root, 2, ["two"] * 5)
    write(root, 3, ["three"] * 60)
    beside, asked = [await everything(way, tail=tail) for way in ways]
    assert beside == asked


async def test_a_page_of_the_longest_lines_fits_into_a_message(both: tuple[Path, list[Logs]]) -> None:
    root, ways = both
    # each of these characters takes six bytes in JSON
    write(root, 1, ["\x01" * 16_384] * 40)
    assert MOST_TEXT * 6 < MAX_LINE
    beside, asked = [await everything(way, at_once=500) for way in ways]
    assert len(asked) == 40
    assert beside == asked


async def test_one_goes_on_from_where_it_was_when_lines_come(both: tuple[Path, list[Logs]]) -> None:
    root, (_, asked) = both
    write(root, 1, ["a"])
    reading = asked.open("todo", None)
    assert [line.text for line, _ in await reading.read(10)] == ["a"]
    assert not await reading.read(10)
    with (root / "todo" / "0000000001" / "log.jsonl").open("a") as out:
        out.write(json.dumps({"seq": 2, "ts": 1, "stream": "stdout", "text": "b"}) + "\n")
    assert [line.text for line, _ in await reading.read(10)] == ["b"]
    again = asked.open("todo", reading.position)
    assert not await again.read(10)


async def test_a_name_that_is_no_apps_opens_no_file(both: tuple[Path, list[Logs]]) -> None:
    _, (_, asked) = both
    with pytest.raises(Exception, match="no app"):
        await asked.open("../etc", None).read(10)
    await asyncio.sleep(0)
