"""HTTP servers of vibeD's own processes: several in one process, with its signals left to the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from vibed.apps.errors import VibedError

GRACE_S = 15
"""How long requests that are under way may take when the process is told to end; streams end at once."""
_BACKLOG = 1024


class Server(uvicorn.Server):
    """Leaves signals to the process, which has several."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Any) -> Server:
    """A server of an ASGI application, for listeners of its own."""
    return Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_S,
            # Only vibeD's Caddy can connect; what is too much waits there.
            backlog=_BACKLOG,
        )
    )


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket at `path` that the group may connect to. It appears by a rename, listening."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(beside))
        beside.chmod(0o660)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        beside.rename(path)
        inode = path.stat().st_ino
        yield listener
        with contextlib.suppress(OSError):
            # A successor may already listen under the same name.
            if path.stat().st_ino == inode:
                path.unlink()
    finally:
        listener.close()
        beside.unlink(missing_ok=True)


@contextmanager
def listening_at(address: str, port: int) -> Iterator[socket.socket]:
    """A socket for a port of the address of a pod."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
    try:
        listener.setblocking(False)
        yield listener
    finally:
        listener.close()


async def run_all(servers: Sequence[tuple[Server, socket.socket]], stop: Callable[[], None]) -> None:
    """Serve until all have ended. One without the others is no use: when one ends, `stop` is called."""
    async with asyncio.TaskGroup() as tasks:
        for one, listener in servers:
            tasks.create_task(_run_one(one, listener, stop))


async def _run_one(one: Server, listener: socket.socket, stop: Callable[[], None]) -> None:
    try:
        await one.serve(sockets=[listener])
    finally:
        stop()
    if not one.started:
        raise VibedError("the API could not start", code="StartFailed", status=500)
