"""MCP over streamable HTTP at /mcp: stateless, so that a restart of vibeD breaks no session.

The edge has checked host, origin and key before anything of this runs; the tools act as the key's owner. The MCP
library takes a third of the process's memory, so it is loaded by the first call that comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from vibed.api.context import Context
from vibed.api.identity import Caller

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

LARGEST_BODY = 32 << 20
"""Bytes of one call: files come as JSON text, and a source that needs more is better sent to POST /v1/deploy."""


class McpOverHttp:
    """The route, and what has to run while it is served."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._wanted = asyncio.Event()
        self._manager: asyncio.Future[StreamableHTTPSessionManager] | None = None
        self.route = Route("/mcp", endpoint=self, include_in_schema=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._manager is not None, "running() was not entered"
        self._wanted.set()
        manager = await asyncio.shield(self._manager)
        await manager.handle_request(scope, receive, send)

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
                manager = await asyncio.to_thread(self._load)
                async with manager.run():
                    ready.set_result(manager)
                    await asyncio.Event().wait()
            except Exception as error:
                if ready.done():
                    raise
                # whoever waits is told; for the next call it is tried again
                self._wanted.clear()
                self._manager = asyncio.get_running_loop().create_future()
                ready.set_exception(error)

    def _load(self) -> StreamableHTTPSessionManager:
        from vibed.mcp.inprocess import InProcess
        from vibed.mcp.tools import create_server

        ctx = self._ctx
        server = create_server(lambda request: InProcess(ctx, _caller(request)), ctx.catalog.all_packages())
        server.streamable_http_app(
            stateless_http=True,
            json_response=True,
            max_request_body_size=LARGEST_BODY,
            # The edge has already done what this does, with the hosts and origins of this vibeD.
            transport_security=None,
            host="",
        )
        return server.session_manager


def _caller(request: Any) -> Caller:
    http = request.request_context.request
    assert http is not None, "tools are only reachable over HTTP here"
    return cast(Caller, http.scope["state"]["caller"])
