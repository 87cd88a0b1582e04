"""From this machine into a box: `python -m tests.cluster.forward PID LISTEN TARGET [LISTEN TARGET ...]`.

Listens at each LISTEN (`127.0.0.1:18080`) here and connects to its TARGET in the network of the process PID.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress

from tests.cluster.box import enter_network

_PIECE = 1 << 16
_CONNECT_S = 10.0


def main(pid: str, *pairs: str) -> int:
    """Runs until it is ended. Raises OSError where a place to listen is taken."""
    here = [(_listening(listen), target) for listen, target in zip(pairs[::2], pairs[1::2], strict=True)]
    # sockets stay where they were made: those that listen here, those that connect from now on there
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    enter_network(there)
    print("ready", flush=True)
    asyncio.run(_serve(here))
    return 0


def _listening(place: str) -> socket.socket:
    host, port = _address(place)
    return socket.create_server((host, port), backlog=1024)


def _address(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return host, int(port)


async def _serve(places: list[tuple[socket.socket, str]]) -> None:
    async with asyncio.TaskGroup() as group:
        for listening, target in places:
            host, port = _address(target)

            async def joined(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str = host, port: int = port
            ) -> None:
                await _join(reader, writer, host, port)

            server = await asyncio.start_server(joined, sock=listening)
            group.create_task(server.serve_forever())


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    try:
        async with asyncio.timeout(_CONNECT_S):
            far_reader, far_writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        writer.close()
        return
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
            return
    writer.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
