"""Bodies that do not end, come slowly, or go on after the answer is known; over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_harness import ADMIN_KEY, SITE, Running, listening

from vibed.api import body
from vibed.apps.store import NewEvent

KEY = f"Authorization: Bearer {ADMIN_KEY}"
JSON = "Content-Type: application/json"
FORM = 'Content-Type: multipart/form-data; boundary="x"'
MCP = "Accept: application/json, text/event-stream"
BODIES = [
    ("POST /v1/keys", (KEY, JSON)),
    ("PATCH /v1/apps/todo", (KEY, JSON)),
    ("POST /v1/apps/todo/rollback", (KEY, JSON)),
    ("POST /v1/apps/todo/redeploy", (KEY, JSON)),
    ("POST /v1/apps/todo/redeploy", (KEY, FORM)),
    ("POST /v1/deploy", (KEY, FORM)),
    ("POST /mcp", (KEY, JSON, MCP)),
]
names = pytest.mark.parametrize(("request_line", "headers"), BODIES, ids=[f"{b[0]} {b[1][1][14:20]}" for b in BODIES])


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with listening(tmp_path / "home", tmp_path / "run", with_mcp=True) as made:
        assert (await made.deploy("todo")).status_code == 200
        yield made


async def talk(
    api: Running,
    request_line: str,
    headers: tuple[str, ...],
    going_on: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> tuple[int, dict[str, str], bytes]:
    """Send a head, then whatever `going_on` sends, until the whole answer is there: status, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.config.port)
    head = f"{request_line} HTTP/1.1\r\nHost: localhost:{api.config.port}\r\n" + "".join(f"{h}\r\n" for h in headers)
    writer.write(f"{head}\r\n".encode())
    sending = asyncio.ensure_future(going_on(writer))
    try:
        async with asyncio.timeout(20):
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            told = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            content = await reader.readexactly(int(told["content-length"]))
        assert not sending.done() or sending.exception() is None, "the connection was broken under it"
    finally:
        sending.cancel()
        writer.close()
    return int(status.split()[1]), told, content


async def silence(writer: asyncio.StreamWriter) -> None:
    writer.write(b"{")
    await asyncio.sleep(60)


async def trickle(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" " * 10_000)
        await writer.drain()
        await asyncio.sleep(0.001)


def told_in(content: bytes) -> dict[str, Any]:
    """The error, which MCP tells as JSON-RPC does."""
    body: dict[str, Any] = json.loads(content)
    return body["error"]["data"] | {"message": body["error"]["message"]} if "jsonrpc" in body else body


def code(content: bytes) -> str:
    return str(told_in(content)["code"])


@names
async def test_a_client_that_falls_silent_in_its_body_is_told_so(
    api: Running, monkeypatch: pytest.MonkeyPatch, request_line: str, headers: tuple[str, ...]
) -> None:
    monkeypatch.setattr(body, "IDLE_S", 0.1)
    monkeypatch.setattr(body, "LINGER_S", 0.1)
    status, told, content = await talk(api, request_line, (*headers, "Content-Length: 100"), silence)
    assert (status, code(content), told["connection"]) == (408, "UploadTimeout", "close")
    assert "nothing came for 0.1 s" in told_in(content)["message"]
    assert b'"retryable": true' in content


@names
async def test_a_body_that_trickles_does_not_last_for_ever(
    api: Running, monkeypatch: pytest.MonkeyPatch, request_line: str, headers: tuple[str, ...]
) -> None:
    monkeypatch.setattr(body, "FREE_S", 0.2)
    monkeypatch.setattr(body, "UPLOAD_FREE_S", 0.2)

    async def source(writer: asyncio.StreamWriter) -> None:
        writer.write(b'--x\r\nContent-Disposition: form-data; name="source"; filename="s"\r\n\r\n')
        await trickle(writer)

    sends = source if FORM in headers else trickle
    status, _, content = await talk(api, request_line, (*headers, "Content-Length: 100000"), sends)
    assert (status, code(content)) == (408, "UploadTimeout")
    assert "too slowly" in told_in(content)["message"]


async def test_a_body_that_is_large_may_take_its_time(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "UPLOAD_FREE_S", 0.1)
    monkeypatch.setattr(body, "LEAST_RATE", 100)
    metadata = b'--x\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"name": "slow"}\r\n'
    part = b'--x\r\nContent-Disposition: form-data; name="source"; filename="s"\r\n\r\n' + SITE + b"\r\n--x--\r\n"
    form = metadata + part

    async def in_pieces(writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(form), 20):
            writer.write(form[at : at + 20])
            await writer.drain()
            await asyncio.sleep(0.02)

    status, _, content = await talk(api, "POST /v1/deploy", (KEY, FORM, f"Content-Length: {len(form)}"), in_pieces)
    assert status == 200, content


@pytest.mark.parametrize("sends", [silence, trickle, flood])
@pytest.mark.parametrize("length", ["Content-Length: 900000000", "Content-Length: 50000", "Transfer-Encoding: chunked"])
async def test_without_a_key_the_refusal_reaches_a_client_that_goes_on_sending(
    api: Running,
    monkeypatch: pytest.MonkeyPatch,
    sends: Callable[[asyncio.StreamWriter], Awaitable[None]],
    length: str,
) -> None:
    monkeypatch.setattr(body, "PATIENCE_S", 0.1)

    async def in_chunks(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(0.01)

    going_on = in_chunks if "chunked" in length else sends
    status, told, content = await talk(api, "POST /v1/keys", (JSON, length), going_on)
    assert (status, code(content)) == (401, "Unauthorized")
    if sends is not flood:
        assert told["connection"] == "close"


async def test_too_large_a_body_is_told_to_a_client_that_goes_on_sending(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line, headers in BODIES[:2]:
        status, _, content = await talk(api, line, (*headers, "Content-Length: 900000000"), flood)
        assert (status, code(content)) == (413, "BodyTooLarge")


async def test_a_stream_that_is_only_listened_to_has_no_such_limit(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "IDLE_S", 0.05)
    monkeypatch.setattr(body, "FREE_S", 0.05)
    got = b""
    client = httpx.AsyncClient(base_url=api.config.api_url, headers=[tuple(KEY.split(": "))])
    async with asyncio.timeout(20), client, client.stream("GET", "/v1/apps/todo/events?follow=true") as answer:
        async for chunk in answer.aiter_bytes():
            got += chunk
            if b"Second" in got:
                break
            if b"Accepted" in got:
                await asyncio.sleep(0.2)
                await api.store.record("todo", None, events=[NewEvent("Normal", "Second", "")])
    assert b"Second" in got
