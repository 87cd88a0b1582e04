"""Logs and events as streams, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_harness import ADMIN_KEY, Running, listening, refused

from vibed.api import streams
from vibed.api.errors import Unauthorized
from vibed.apps.app import App, Event
from vibed.apps.store import NewEvent
from vibed.supervision import runlogs


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with listening(tmp_path / "home", tmp_path / "run") as made:
        await made.deploy("a")
        yield made


def write(api: Running, run: int, *seqs: int) -> None:
    folder = api.layout.run_log("a", run)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("a") as file:
        for seq in seqs:
            line = {"seq": seq, "ts": run * 1000 + seq, "stream": "stdout", "text": f"{run}.{seq} ü\n"}
            file.write(json.dumps(line) + "\n")


@asynccontextmanager
async def stream(
    api: Running, path: str, last_id: str | None = None, *, key: Mapping[str, str] | None = None
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    headers = key or {"Authorization": f"Bearer {ADMIN_KEY}"}
    if last_id:
        headers = {**headers, "Last-Event-ID": last_id}
    async with (
        httpx.AsyncClient(base_url=api.config.api_url, headers=headers, timeout=20) as client,
        client.stream("GET", path) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        if not line:
            if "data" in event:
                yield event
            event = {}
            continue
        name, _, value = line.partition(": ")
        event[name] = json.loads(value) if name == "data" else value


async def take(source: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [await anext(source) for _ in range(count)]


async def test_a_log_that_is_not_followed_ends_with_an_event_that_says_so(api: Running) -> None:
    write(api, 1, 1, 2)
    async with stream(api, "/v1/apps/a/logs") as source:
        seen = [event async for event in source]
    assert [event["event"] for event in seen] == ["log", "log", "end"]
    assert [event.get("id") for event in seen] == ["1-1", "1-2", None]
    assert seen[0]["data"] == {"run": 1, "seq": 1, "ts": 1001.0, "stream": "stdout", "text": "1.1 ü\n"}


async def test_a_followed_log_tells_what_comes(api: Running) -> None:
    write(api, 1, 1)
    async with stream(api, "/v1/apps/a/logs?follow=true") as source:
        assert (await anext(source))["id"] == "1-1"
        write(api, 1, 2)
        assert (await anext(source))["id"] == "1-2"
        write(api, 2, 1)
        assert (await anext(source))["id"] == "1-2,2-1"


async def test_coming_back_with_the_last_id_misses_and_repeats_nothing(api: Running) -> None:
    write(api, 1, *range(1, 50))
    place: str | None = None
    seen: list[int] = []
    for count in (3, 1, 20, 25):
        async with stream(api, "/v1/apps/a/logs?follow=true&tail=100", place) as source:
            for event in await take(source, count):
                seen.append(event["data"]["seq"])
                place = event["id"]
    assert seen == list(range(1, 50))


async def test_the_tail_is_followed(api: Running) -> None:
    write(api, 1, 1, 2, 3)
    async with stream(api, "/v1/apps/a/logs?follow=true&tail=1") as source:
        assert (await anext(source))["id"] == "1-3"
        write(api, 1, 4)
        assert (await anext(source))["id"] == "1-4"
    async with stream(api, "/v1/apps/a/logs?follow=true&tail=0") as source:
        waiting = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0.3)
        write(api, 1, 5)
        assert (await waiting)["id"] == "1-5"


async def test_a_page_says_where_the_next_begins(api: Running) -> None:
    write(api, 1, *range(1, 8))
    page = (await api.client.get("/v1/apps/a/logs?format=json&limit=5")).json()
    assert [line["seq"] for line in page["items"]] == [1, 2, 3, 4, 5]
    page = (await api.client.get(f"/v1/apps/a/logs?format=json&after={page['next']}")).json()
    assert [line["seq"] for line in page["items"]] == [6, 7]
    page = (await api.client.get(f"/v1/apps/a/logs?format=json&after={page['next']}")).json()
    assert page["items"] == []
    page = (await api.client.get("/v1/apps/a/logs?format=json&tail=2")).json()
    assert [line["seq"] for line in page["items"]] == [6, 7]


async def test_an_app_that_has_not_printed_has_an_empty_page_that_can_be_continued(api: Running) -> None:
    page = (await api.client.get("/v1/apps/a/logs?format=json&tail=10")).json()
    assert page["items"] == []
    write(api, 1, 1)
    page = (await api.client.get(f"/v1/apps/a/logs?format=json&after={page['next']}")).json()
    assert [line["seq"] for line in page["items"]] == [1]


async def test_a_position_that_is_none_is_refused(api: Running) -> None:
    refused(await api.client.get("/v1/apps/a/logs", headers={"Last-Event-ID": "../x"}), 400, "MalformedRequest")
    refused(await api.client.get("/v1/apps/a/events", headers={"Last-Event-ID": "1-2"}), 400, "MalformedRequest")


async def test_events_are_told_and_resumed(api: Running) -> None:
    async with stream(api, "/v1/apps/a/events") as source:
        seen = [event async for event in source]
    assert [event["event"] for event in seen] == ["event", "event", "end"]
    assert [event["data"]["reason"] for event in seen[:2]] == ["Accepted", "Serving"]
    async with stream(api, "/v1/apps/a/events?follow=true", seen[0]["id"]) as source:
        assert (await anext(source))["id"] == seen[1]["id"]
        await api.store.record("a", None, events=[NewEvent("Warning", "Restarted", "it was killed", 1)])
        event = await anext(source)
    assert (event["data"]["kind"], event["data"]["message"]) == ("Warning", "it was killed")
    page = (await api.client.get("/v1/apps/a/events?format=json&tail=1")).json()
    assert [item["reason"] for item in page["items"]] == ["Restarted"]


@pytest.mark.parametrize("what", ["logs", "events"])
async def test_a_stream_ends_when_its_app_goes_and_does_not_continue_with_the_next_of_that_name(
    api: Running, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(streams, "CHECK_S", 0.2)
    write(api, 1, 1)
    alice = await api.key("alice")
    async with stream(api, f"/v1/apps/a/{what}?follow=true") as source:
        await anext(source)
        await api.client.delete("/v1/apps/a")
        # Its events would have the numbers that this reader waits for.
        await api.deploy("a", headers=alice)
        rest = [event async for event in source]
    assert rest[-1]["event"] == "end"
    assert rest[-1]["data"] == {"reason": "AppDeleted"}


@pytest.mark.parametrize("what", ["logs", "events"])
async def test_a_stream_breaks_off_when_its_key_is_revoked_and_the_client_is_told_when_it_comes_back(
    api: Running, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(streams, "CHECK_S", 0.2)
    write(api, 1, 1)
    key = await api.key("ops", admin=True)
    key_id = (await api.client.get("/v1/whoami", headers=key)).json()["key_id"]
    path = f"/v1/apps/a/{what}?follow=true"
    async with stream(api, path, key=key) as source, asyncio.timeout(10):
        await anext(source)
        await api.client.delete(f"/v1/keys/{key_id}")
        rest = [event async for event in source]
    assert "end" not in {event["event"] for event in rest}
    refused(await api.client.get(path, headers=key), 401, "Unauthorized")


async def test_a_stream_that_always_has_something_to_tell_is_checked_too_but_not_for_each_line(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHECK_S", 0.05)
    app = await api.store.get("a")
    reads = checks = 0

    async def read(after: int) -> Sequence[Event]:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return [Event("a", after + 1, 0.0, "Normal", "Restarted", "", 1)]

    async def still_there() -> App:
        nonlocal checks
        checks += 1
        if checks == 2:
            raise Unauthorized("this key was revoked")
        return app

    async with asyncio.timeout(10):
        async for _ in api.app.state.context.events.stream(app, still_there, read, after=0, follow=True):
            pass
    assert checks == 2
    assert reads > checks


async def test_a_stream_that_vibed_has_to_cut_does_not_say_that_it_is_the_end(api: Running) -> None:
    write(api, 1, 1)
    async with stream(api, "/v1/apps/a/logs?follow=true") as source:
        await anext(source)
        api.stopping.set()
        assert [event async for event in source] == []


async def test_a_reader_that_leaves_is_noticed(api: Running) -> None:
    gauge = api.app.state.context.measures.streams.labels("logs")
    async with stream(api, "/v1/apps/a/logs?follow=true"):
        await asyncio.sleep(0.2)
        assert gauge._value.get() == 1
    async with asyncio.timeout(10):
        while gauge._value.get():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["a page", "a stream"])
async def test_a_reader_that_leaves_while_its_log_is_read_leaves_no_file_open(
    api: Running, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    write(api, 1, 1)
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    runs = runlogs.runs

    def slowly(directory: Path) -> list[int]:
        begun.set()
        go_on.wait(10)
        return runs(directory)

    def reported(reader: runlogs.LogReader, limit: int, most_text: int | None = None) -> list[tuple[runlogs.Line, str]]:
        try:
            return read(reader, limit)
        finally:
            ended.set()

    read = runlogs.LogReader.read
    monkeypatch.setattr(runlogs, "runs", slowly)
    monkeypatch.setattr(runlogs.LogReader, "read", reported)
    app, logs = await api.store.get("a"), api.app.state.context.logs

    async def still_there() -> App:
        return app

    async def look() -> None:
        if how == "a page":
            await logs.page("a", after=None, tail=None, limit=10)
        async for _ in logs.stream(app, still_there, after=None, tail=None, follow=False):
            pass

    reading = asyncio.create_task(look())
    await asyncio.to_thread(begun.wait, 10)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    go_on.set()
    await asyncio.to_thread(ended.wait, 10)
    async with asyncio.timeout(10):
        while any(link.startswith(str(api.layout.logs)) for link in _open_files()):
            await asyncio.sleep(0.01)


def _open_files() -> list[str]:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(descriptor.readlink()))
    return links
