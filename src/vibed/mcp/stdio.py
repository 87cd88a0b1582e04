"""`vibed mcp`: the same tools on standard input and output, calling vibeD over HTTP with the user's own key."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from vibed.apps.errors import VibedError
from vibed.client.api import Client
from vibed.mcp.backend import View
from vibed.mcp.guide import INSTRUCTIONS
from vibed.mcp.server import create_server
from vibed.mcp.toolset import toolset


def run() -> None:
    """Serve until standard input ends. Raises `NoSettings` when nothing says where vibeD is."""
    client = Client()
    backend = OverHttp(client)
    tools = toolset(_packages(client), pack=partial(_pack, client))
    anyio.run(_serve, create_server(lambda request: backend, tools, INSTRUCTIONS))


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _pack(client: Client, path: str) -> bytes:
    """A folder of this machine as a source. Raises the errors of `pack_directory`."""
    from vibed.sources.pack import PackError, has_home, pack_directory

    folder = Path(path).expanduser()
    if has_home(folder):
        raise PackError(
            f"{folder} is a home folder, or has one in it: all that lies there would be sent",
            hint="name the folder that holds the app",
        )
    packed = io.BytesIO()
    pack_directory(folder, packed, ask_limit=client.source_limit)
    return packed.getvalue()


def _packages(client: Client) -> Mapping[str, Mapping[str, str]]:
    """What the templates bring; nothing while vibeD cannot be reached: the tools say so when they are called."""
    try:
        return {item["name"]: item["packages"] for item in client.get("/v1/templates")["items"]}
    except VibedError:
        return {}


class OverHttp:
    """`vibed.mcp.backend.Backend` as a client of the API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def _call(self, method: str, path: str, body: object = None, **query: object) -> View:
        # An Idempotency-Key makes the deploy that was cancelled in between one that can be asked for again.
        headers = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        answer = await asyncio.to_thread(self._client.call, method, path, body=body, query=query, headers=headers)
        return dict(answer.body)

    async def _upload(self, path: str, metadata: View, source: bytes | None) -> View:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        file = None if source is None else io.BytesIO(source)
        answer = await asyncio.to_thread(self._client.upload, path, metadata, file, len(source or b""), headers=headers)
        return dict(answer.body)

    async def deploy(self, metadata: View, source: bytes) -> View:
        return await self._upload("/v1/deploy", metadata, source)

    async def redeploy(self, app_id: str, metadata: View, source: bytes | None) -> View:
        return await self._upload(f"/v1/apps/{_segment(app_id)}/redeploy", metadata, source)

    async def app(self, app_id: str) -> View:
        return await self._call("GET", f"/v1/apps/{_segment(app_id)}")

    async def apps(self, *, q: str | None, limit: int, offset: int) -> View:
        return await self._call("GET", "/v1/apps", q=q, limit=limit, offset=offset)

    async def delete(self, app_id: str) -> None:
        await asyncio.to_thread(self._client.call, "DELETE", f"/v1/apps/{_segment(app_id)}")

    async def logs(self, app_id: str, *, tail: int, after: str | None) -> View:
        return await self._call(
            "GET", f"/v1/apps/{_segment(app_id)}/logs", format="json", tail=tail, after=after, limit=tail
        )

    async def events(self, app_id: str, *, tail: int) -> View:
        return await self._call("GET", f"/v1/apps/{_segment(app_id)}/events", format="json", tail=tail, limit=tail)

    async def source(self, app_id: str, *, version: int | None, paths: Sequence[str] | None) -> View:
        query = {"format": "json", "version": version, "path": paths}
        where = f"/v1/apps/{_segment(app_id)}/source"
        return dict((await asyncio.to_thread(self._client.call, "GET", where, query=query)).body)

    async def request(self, app_id: str, question: View) -> View:
        return await self._call("POST", f"/v1/apps/{_segment(app_id)}/request", question)

    async def versions(self, app_id: str, *, limit: int) -> View:
        return await self._call("GET", f"/v1/apps/{_segment(app_id)}/versions", limit=limit)

    async def rollback(self, app_id: str, version: int) -> View:
        return await self._call("POST", f"/v1/apps/{_segment(app_id)}/rollback", {"version": version})

    async def templates(self) -> View:
        return await self._call("GET", "/v1/templates")


def _segment(app_id: str) -> str:
    """An id as one segment of a path, whatever an agent made of it."""
    return quote(app_id, safe="")
