"""One at a time, across processes: an advisory lock on a file that dies with its holder, kill -9 included."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_POLL_S = 0.05


@asynccontextmanager
async def exclusive(path: Path, *, deadline_s: float) -> AsyncIterator[None]:
    """Hold the lock of `path`, which is created if need be. Raises TimeoutError after `deadline_s` seconds.

    The wait polls rather than blocks a thread, so a cancelled waiter leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(deadline_s):
            while not _try(descriptor):  # noqa: ASYNC110 (another process cannot set an event)
                await asyncio.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
