"""The line to one supervisor: connected when it is first needed, and again when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from vibed import wire


class Line:
    """Calls go through one connection, what the supervisor says unasked to `hear`."""

    def __init__(self, control: Path, hear: Callable[[wire.Message], None]) -> None:
        self._control = control
        self._hear = hear
        self._connection: wire.Connection | None = None
        self._connecting = asyncio.Lock()

    async def connect(self) -> None:
        """Raises `Disconnected`."""
        self._connection = await wire.Connection.open(self._control, self._hear)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def call(self, op: str, timeout: float, **arguments: object) -> wire.Message:
        """As `wire.Connection.call`; connects when there is no connection."""
        async with self._connecting:  # of two calls that find none, one connects
            if self._connection is None or self._connection.closed.done():
                await self.connect()
            connection = self._connection
        assert connection is not None
        return await connection.call(op, timeout=timeout, **arguments)
