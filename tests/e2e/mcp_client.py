"""What an AI agent calls vibeD's tools with: MCP's official client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


@asynccontextmanager
async def over_http(port: int, key: str) -> AsyncIterator[ClientSession]:
    """A session with the vibeD whose front door is at `port` of 127.0.0.1."""
    headers = {"Authorization": f"Bearer {key}", "Host": f"localhost:{port}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
        streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        yield session


async def call(session: ClientSession, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answers; it has to go well."""
    result = await session.call_tool(tool, arguments)
    assert not result.is_error, f"{tool}: {result.content}"
    assert result.structured_content is not None
    return dict(result.structured_content)


async def refused(session: ClientSession, tool: str, **arguments: Any) -> str:
    """What a tool says that has to refuse."""
    result = await session.call_tool(tool, arguments)
    assert result.is_error, f"{tool} went well: {result.content}"
    return " ".join(getattr(part, "text", "") for part in result.content)
