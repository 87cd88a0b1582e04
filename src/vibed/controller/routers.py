"""The routers that are there, and whether they have heard of a route."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from vibed import records
from vibed.apps.app import Route
from vibed.apps.errors import VibedError
from vibed.wire import Connection, Remote

log = records.logger("vibed.controller")

WAIT_S = 2.0
"""How long a switch waits for a router that does not answer; it follows when it can."""


class Routers:
    """`here` tells where those that take requests are now (`host:port`), `remote` how one is connected to."""

    def __init__(self, here: Callable[[], Sequence[str]], remote: Callable[[str], Remote]) -> None:
        self._here = here
        self._remote = remote
        self._connections: dict[str, Connection] = {}

    async def applied(self, app_id: str, route: Route) -> None:
        """Return when each of them has applied that route, or did not say so in time."""
        routers = self._here()
        self._forget(set(routers))
        told = await asyncio.gather(*(self._ask(router, app_id, route) for router in routers), return_exceptions=True)
        for router, answer in zip(routers, told, strict=True):
            if isinstance(answer, VibedError | TimeoutError) or answer is False:
                log.warning("a router did not say that it follows", router=router, app=app_id, run=route.run)
            elif isinstance(answer, BaseException):
                raise answer

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

    async def _ask(self, router: str, app_id: str, route: Route) -> bool:
        async with asyncio.timeout(WAIT_S + 1):
            connection = await self._connected(router)
            answer = await connection.call(
                "applied", app_id=app_id, run=route.run, address=route.address, timeout_s=WAIT_S
            )
        return bool(answer["applied"])

    async def _connected(self, router: str) -> Connection:
        connection = self._connections.get(router)
        if connection is None or connection.closed.done():
            connection = self._connections[router] = await Connection.open(self._remote(router), timeout=WAIT_S)
        return connection

    def _forget(self, there: set[str]) -> None:
        for router in self._connections.keys() - there:
            # its pod is gone, and with it the other end
            self._connections.pop(router).closed.cancel()
