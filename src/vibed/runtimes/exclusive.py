"""One at a time, across processes: an advisory lock on a directory that dies with its holder, kill -9 included.

A directory, because a home that was copied with hard links would share the lock of a file with the original.
"""

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
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
