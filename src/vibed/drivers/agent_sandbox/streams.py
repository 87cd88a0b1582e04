"""What goes in and out of a builder's pod, which has no network: connections that are made in it, at sockets below
/layers, are carried to sockets that the controller has. The pod's agent joins each to a connection that the controller
has made to it before, so that a NetworkPolicy need let nothing out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from vibed import records, wire
from vibed.drivers.agent_sandbox.line import ACCEPTED, AgentLine

log = records.logger("vibed.drivers.agent_sandbox")

AHEAD = 4
"""So many connections wait for one at each socket."""
MOST = 48
"""So many are carried from each; an installer has some ten."""
_CHUNK = 256 << 10
_PAUSE_S = 0.5
_SETTLE_S = 0.5
"""How long a connection that was made just before the end may take to show."""


class Streams:
    """Of one pod."""

    def __init__(self, line: AgentLine) -> None:
        self._line = line
        self._tasks: list[asyncio.Task[None]] = []
        self._carried: set[asyncio.Task[None]] = set()

    async def carry(self, at: str, socket: Path) -> None:
        """Have connections at `at` in the pod be ones to `socket` here; returns once the pod listens there. Raises
        `Disconnected`, `WireError`.
        """
        first = await self._line.stream(at)
        self._tasks.append(asyncio.create_task(self._keep(at, socket, first), name=f"carrying {at}"))

    async def over(self, deadline_s: float) -> None:
        """Return when nothing is carried any more, or the time is over."""
        if self._tasks:
            await asyncio.sleep(_SETTLE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while self._carried:
                    await asyncio.wait(set(self._carried))

    async def close(self) -> None:
        for task in (*self._tasks, *self._carried):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._carried, return_exceptions=True)

    async def _keep(
        self, at: str, socket: Path, first: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None
    ) -> None:
        """Have some wait, always, until cancelled."""
        ahead, most = asyncio.Semaphore(AHEAD), asyncio.Semaphore(MOST)
        while True:
            await ahead.acquire()
            await most.acquire()
            try:
                joined, first = first or await self._line.stream(at), None
            except (wire.Disconnected, wire.WireError) as error:
                log.warning("a builder's pod does not answer", at=at, error=str(error))
                ahead.release()
                most.release()
                await asyncio.sleep(_PAUSE_S)
                continue
            task = asyncio.create_task(self._one(*joined, socket, ahead.release))
            task.add_done_callback(lambda _: most.release())
            self._tasks.append(task)
            task.add_done_callback(self._tasks.remove)

    async def _one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        socket: Path,
        taken: Callable[[], None],
    ) -> None:
        this = asyncio.current_task()
        assert this is not None
        try:
            try:
                came = await reader.readexactly(1)
            finally:
                taken()
            if came == ACCEPTED:
                self._carried.add(this)
                await _joined(reader, writer, socket)
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side has gone, and the other one sees that
        finally:
            self._carried.discard(this)
            writer.close()


async def _joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, socket: Path) -> None:
    """Carry until who is at `socket` has nothing more to say. Raises OSError."""
    ours, to_us = await asyncio.open_unix_connection(str(socket))
    into = asyncio.create_task(_passed(reader, to_us))
    try:
        while data := await ours.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        into.cancel()
        await asyncio.gather(into, return_exceptions=True)
        to_us.close()


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
