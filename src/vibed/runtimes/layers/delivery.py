"""What a builder sandbox sends: a connection to a socket that it finds below a claim's mount.

Eight bytes (big-endian) with the length of a JSON object, the object, and after it, of an installation, a tarball. A
build that wrote among its packages sends those by a second one, as an installation does; who waits for an order gets it
by the connection of its answer, and sends the next answer by a new one. So
nothing on the host's disk is writable to a builder, and what it sends is bounded while it is read. The connection
itself becomes the standard input of the program that unpacks the tarball, which is confined: no byte of it passes
through this process.

Whoever sends is not believed: what runs in a builder may be hostile, and then decides what its own layer is, no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_ANSWER_BYTES = 16 << 20


class Undelivered(Exception):
    """What came was no answer. The message says why."""

    code = "Undelivered"


class Delivery:
    """One builder's connections, one after the other."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._connection: socket.socket | None = None

    async def answer(self) -> dict[str, Any]:
        """Wait for the next connection and its object. Raises Undelivered. Without a deadline: who waits has one."""
        loop = asyncio.get_running_loop()
        if self._connection is not None:
            self._connection.close()
        self._connection, _ = await loop.sock_accept(self._listening)
        length = int.from_bytes(await self._exactly(8), "big")
        if length > _ANSWER_BYTES:
            raise Undelivered(f"the builder's answer has {length} bytes")
        try:
            answer = json.loads(await self._exactly(length))
        except ValueError as error:
            raise Undelivered(f"the builder's answer is no JSON: {error}") from None
        if not isinstance(answer, dict):
            raise Undelivered("the builder's answer is no object")
        return answer

    async def order(self, request: Mapping[str, Any]) -> None:
        """Send the next order, in the same form, to who has answered and waits for one. Raises Undelivered."""
        assert self._connection is not None
        body = json.dumps(request).encode()
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, len(body).to_bytes(8, "big") + body)
        except OSError as error:
            raise Undelivered(f"the builder takes no order: {error}") from error

    def no_more(self) -> None:
        """Tell who waits for an order that none comes."""
        if self._connection is not None:
            self._connection.close()

    async def hand_on(self, take: Callable[[int], Awaitable[T]]) -> T:
        """Have `take` read the rest from a descriptor, which is blocking and closed afterwards."""
        assert self._connection is not None
        self._connection.setblocking(True)
        return await take(self._connection.fileno())

    async def save(self, path: Path, *, most_bytes: int, coming: Callable[[int], None]) -> None:
        """Write the rest to a file. `coming` hears of bytes before they are written, and may raise. Raises Undelivered,
        OSError.
        """
        assert self._connection is not None
        loop = asyncio.get_running_loop()
        written = 0
        with path.open("wb") as file:
            while piece := await loop.sock_recv(self._connection, 1 << 18):
                written += len(piece)
                if written > most_bytes:
                    raise Undelivered(f"what came is larger than {most_bytes >> 20} MiB")
                coming(len(piece))
                await asyncio.to_thread(file.write, piece)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listening.close()

    async def _exactly(self, count: int) -> bytes:
        """No byte more: what follows is not for this process."""
        assert self._connection is not None
        loop = asyncio.get_running_loop()
        read = bytearray()
        while len(read) < count:
            piece = await loop.sock_recv(self._connection, min(count - len(read), 1 << 16))
            if not piece:
                raise Undelivered("the builder's answer was cut short")
            read += piece
        return bytes(read)


@asynccontextmanager
async def delivery(folder: Path) -> AsyncIterator[Delivery]:
    """Listen at `out.sock` in `folder`, for any uid: who sees the folder is the builder. Raises OSError."""
    path = folder / "out.sock"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    # bound by a descriptor of the folder: a socket's path ends at 107 bytes
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listening.bind(f"/proc/self/fd/{place}/out.sock")
        path.chmod(0o666)
        listening.listen(1)
        one = Delivery(listening)
        try:
            yield one
        finally:
            one.close()
    finally:
        listening.close()
        os.close(place)
        with contextlib.suppress(OSError):
            path.unlink()
