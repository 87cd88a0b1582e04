"""MCP over streamable HTTP at /mcp: stateless, so that a restart of vibeD breaks no session.

The edge has checked host, origin and key before anything of this runs; the tools act as the key's owner. The MCP
library takes a third of the process's memory, so it is loaded by the first call that comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from vibed.api.context import Context
from vibed.api.errors import BodyTooLarge, MethodNotAllowed
from vibed.api.identity import Caller
from vibed.apps.errors import VibedError
from vibed.mcp.words import for_tools

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

LARGEST_BODY = 32 << 20
"""Bytes of one call: files come as JSON text, and a source that needs more is better sent to POST /v1/deploy."""
_INVALID_REQUEST, _INTERNAL = -32600, -32603
"""JSON-RPC's codes; the code of the API is in the error's data."""


class McpOverHttp:
    """The route, and what has to run while it is served."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._wanted = asyncio.Event()
        self._manager: asyncio.Future[_Managers] | None = None
        self.path = "/mcp"
        # every method comes here: those that are not possible are told as MCP tells errors
        self.route = Route(self.path, endpoint=self, include_in_schema=False)

    def error_body(self, error: VibedError) -> dict[str, Any]:
        """A refusal as a JSON-RPC error: clients show nothing of any other."""
        data = {"code": error.error_code, "hint": for_tools(error.hint or ""), "retryable": error.may_retry}
        message = for_tools(error.message) + (f"; {data['hint']}" if error.hint else "")
        code = _INVALID_REQUEST if error.http_status < 500 else _INTERNAL
        return {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message, "data": data}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._manager is not None, "running() was not entered"
        if scope["method"] != "POST":
            # there is no session to end, and no stream that would say anything
            raise MethodNotAllowed(scope["method"], self.path, ["POST"])
        headers = dict(scope["headers"])
        body = await _body(headers, receive)
        self._wanted.set()
        managers = await asyncio.shield(self._manager)
        # only a stream can carry progress, and whoever wants none gets an answer in one piece
        streams = b'"progressToken"' in body and b"text/event-stream" in headers.get(b"accept", b"")
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(given, None) or await receive()

        await (managers.streaming if streams else managers.plain).handle_request(scope, again, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Enter it once, for as long as the API runs."""
        self._manager = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._live())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _live(self) -> None:
        # One task for the whole life: the manager's task group has to end in the task that it began in.
        while True:
            await self._wanted.wait()
            assert self._manager is not None
            ready = self._manager
            try:
                managers = await asyncio.to_thread(self._load)
                async with managers.streaming.run(), managers.plain.run():
                    ready.set_result(managers)
                    await asyncio.Event().wait()
            except Exception as error:
                if ready.done():
                    raise
                # whoever waits is told; for the next call it is tried again
                self._wanted.clear()
                self._manager = asyncio.get_running_loop().create_future()
                ready.set_exception(error)

    def _load(self) -> _Managers:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from vibed.mcp.guide import INSTRUCTIONS
        from vibed.mcp.inprocess import InProcess
        from vibed.mcp.server import create_server
        from vibed.mcp.toolset import toolset

        ctx = self._ctx
        tools = toolset(ctx.catalog.all_packages())

        def manager(*, json_response: bool) -> StreamableHTTPSessionManager:
            return StreamableHTTPSessionManager(
                app=create_server(lambda request: InProcess(ctx, _caller(request)), tools, INSTRUCTIONS),
                stateless=True,
                json_response=json_response,
                max_request_body_size=LARGEST_BODY,
                # The edge has already done what these are for, with the hosts and origins of this vibeD.
                security_settings=None,
            )

        return _Managers(manager(json_response=False), manager(json_response=True))


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """Raises `BodyTooLarge`, before it is read where its length is said."""
    length = headers.get(b"content-length", b"")
    size = int(length) if length.isdigit() else 0
    chunks: list[bytes] = []
    more = True
    while more and size <= LARGEST_BODY:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
        size = max(size, sum(map(len, chunks)) if not length else 0)
    if size > LARGEST_BODY:
        raise BodyTooLarge(
            f"a call may have at most {LARGEST_BODY >> 20} MiB",
            hint="leave out what the app does not need, or send the archive to POST /v1/deploy",
        )
    return b"".join(chunks)


@dataclass(frozen=True, slots=True)
class _Managers:
    """For calls that want to hear of progress, and for all others."""

    streaming: StreamableHTTPSessionManager
    plain: StreamableHTTPSessionManager


def _caller(request: Any) -> Caller:
    http = request.request
    assert http is not None, "tools are only reachable over HTTP here"
    return cast(Caller, http.scope["state"]["caller"])
