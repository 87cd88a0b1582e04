"""What one key may hold of what all clients share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from api_harness import ADMIN_KEY, SITE, Running, archive, listening, parts, refused

from vibed.api import shares

KEY = {"Authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(shares, "AT_ONCE", {"requests": 6, "uploads": 2, "streams": 2})
    async with listening(tmp_path / "home", tmp_path / "run") as made:
        assert (await made.deploy("todo")).status_code == 200
        yield made


def client(api: Running) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=api.config.api_url, headers=KEY)


async def open_request(stack: AsyncExitStack, api: Running, head: str) -> None:
    """Begin a request, and do not end it."""
    _, writer = await asyncio.open_connection("127.0.0.1", api.config.port)
    stack.callback(writer.close)
    writer.write(
        f"{head} HTTP/1.1\r\nHost: localhost:{api.config.port}\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
        'Content-Type: multipart/form-data; boundary="x"\r\nContent-Length: 100\r\n\r\n-'.encode()
    )


async def until(api: Running, held: int) -> None:
    app = api.app.middleware_stack
    while True:
        edge = app
        while not hasattr(edge, "_shares"):
            edge = edge.app  # type: ignore[union-attr]
        if sum(n for (_, kind), n in edge._shares._held.items() if kind != "requests") == held:
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["streams", "uploads"])
async def test_more_at_once_than_a_key_may_have_is_refused_and_told_until_some_have_ended(
    api: Running, kind: str
) -> None:
    async with client(api) as http:

        async def one_more() -> httpx.Response:
            if kind == "uploads":
                return await http.post("/v1/deploy", files=parts({"name": "todo"}, SITE))
            return await http.get("/v1/apps/todo/logs")

        async with asyncio.timeout(30), AsyncExitStack() as stack:
            for number in range(2):
                if kind == "uploads":
                    await open_request(stack, api, "POST /v1/deploy")
                else:
                    path = ("/v1/apps/todo/events?follow=true", "/v1/apps/todo/logs?follow=true")[number]
                    answer = await stack.enter_async_context(http.stream("GET", path))
                    assert answer.status_code == 200
            await until(api, 2)
            answer = await one_more()
            body = refused(answer, 429, "TooManyAtOnce")
            assert f"2 {kind}" in body["message"] and body["details"]["limit"] == 2
            assert answer.headers["retry-after"] == "5"
            other = await api.key("bob")
            assert (await http.get("/v1/apps", headers=other)).status_code == 200, "another key has its own"
        async with asyncio.timeout(30):
            await until(api, 0)
        assert (await one_more()).status_code == 200


async def test_all_of_a_keys_requests_together_are_bounded_whatever_they_are(api: Running) -> None:
    async with client(api) as http, asyncio.timeout(30), AsyncExitStack() as stack:
        for _ in range(6):
            await open_request(stack, api, "POST /v1/keys")
        while (answer := await http.get("/v1/apps")).status_code == 200:
            await asyncio.sleep(0.01)  # until all of them have arrived
        refused(answer, 429, "TooManyAtOnce")
        assert (await http.get("/readyz")).status_code == 200, "what is public takes no key's share"


async def test_what_arrives_at_the_same_time_for_one_owner_is_bounded_by_what_their_apps_may_take(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path / "home", tmp_path / "run", owner_storage_mb=1) as api:
        arrived = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"x" * 900_000
            arrived.set()
            await asyncio.sleep(60)

        intake = api.app.state.context.deployments.intake
        waiting = asyncio.create_task(intake.receive(slowly(), "admin"))
        await arrived.wait()
        large = archive({"index.html": "x", "photo.jpg": os.urandom(200_000)})
        refused(await api.deploy("todo", large), 429, "TooManyAtOnce")
        assert (await api.deploy("todo", large, headers=await api.key("bob"))).status_code == 200
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        refused(await api.deploy("todo", large), 409, "NameTaken")
        assert (await api.deploy("mine", large)).status_code == 200
