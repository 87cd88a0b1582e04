"""An agent of the tests: the official client, over HTTP and over `vibed mcp`, and an API for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_harness import ADMIN_KEY, Running, listening
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

TARGET: dict[str, Any] = {
    "name": "python-313", "lane": "general", "description": "Python 3.13", "kind": "python", "warm_pool_size": 2,
    "ready": 1, "claimed": 0, "isolation": "kernel", "packages": {"flask": "3.1.0"}, "available": True, "reason": "",
}  # fmt: skip


@asynccontextmanager
async def served(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Running, str]]:
    async with listening(tmp_path / "home", tmp_path / "run", with_mcp=True, **{"max_source_mb": 2, **settings}) as api:
        api.controller.templates = [TARGET]
        yield api, api.config.api_url.replace("localhost", "127.0.0.1")


@asynccontextmanager
async def over_http(url: str, key: str = ADMIN_KEY) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(url: str, key: str = ADMIN_KEY) -> AsyncIterator[Client]:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "vibed.cli.main", "mcp"],
        env={**os.environ, "VIBED_URL": url, "VIBED_TOKEN": key},
    )
    async with Client(stdio_client(server)) as client:
        yield client


TRANSPORTS = pytest.mark.parametrize("over", [over_http, over_stdio], ids=["http", "stdio"])


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """A call that must work; its structured result."""
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return dict(answer.structured_content)


async def failed(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """A call that must be refused in a way an agent can act on."""
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    content = answer.content[0]
    assert content.type == "text"
    body = json.loads(content.text)
    assert set(body) == {"code", "message", "hint", "retryable", "details"}
    assert answer.structured_content == body
    return dict(body)
