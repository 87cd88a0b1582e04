"""Whose turn it is to install or to build: the port to who shares the turns, which is fair to owners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol


class Turn(Protocol):
    """Wait for a turn, and hold it (`vibed.controller.starts.Starts.turn`)."""

    def __call__(self, *, owner: str, app_id: str) -> AbstractAsyncContextManager[None]: ...


def one_after_another() -> Turn:
    """Turns in the order in which they are asked for, one at a time."""
    lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(*, owner: str, app_id: str) -> AsyncIterator[None]:
        async with lock:
            yield

    return turn
