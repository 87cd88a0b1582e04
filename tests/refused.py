"""Clients whose request is refused while its body still comes, over connections that they would like to keep."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Lost(AssertionError):
    """An answer that did not come, or a connection that ended without a word."""


@dataclass
class Client:
    """One that sends a request after another by one connection, as long as no answer says that it closes."""

    port: int
    reads_first: bool
    """Whether it looks for an answer while it sends, as some do; others send everything before."""
    chance: random.Random = field(default_factory=random.Random)
    streams: Streams | None = None
    kept: int = 0
    """How often a request went by a connection that had been used."""

    async def ask(self, host: str, request: str, size: int, *, fields: str = "", chunked: bool = False) -> int:
        """The status. Raises `Lost`."""
        kept = self.streams is not None
        self.kept += kept
        try:
            reader, writer = self.streams or await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as error:
            raise Lost(f"nobody listens: {error}") from error
        self.streams = None
        about = f"{request} of {host}, {size} bytes, {'a kept' if kept else 'a new'} connection"
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        head = f"{request} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n{fields}\r\n"
        sending = asyncio.create_task(self._send(writer, head.encode(), size, chunked=chunked))
        try:
            async with asyncio.timeout(60):
                if not self.reads_first:
                    await sending
                status, closes = await _answer(reader)
                # who reads first may stop sending when it is told that the connection ends
                if not closes:
                    await sending
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            writer.close()
            raise Lost(f"{about}: {error!r}") from error
        finally:
            sending.cancel()
        if closes:
            writer.close()
        else:
            self.streams = reader, writer
        return status

    async def _send(self, writer: asyncio.StreamWriter, head: bytes, size: int, *, chunked: bool) -> None:
        writer.write(head)
        async for piece in self._pieces(size):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _pieces(self, size: int) -> AsyncIterator[bytes]:
        left = size
        while left:
            piece = min(left, self.chance.choice((1, 700, 5_000, 70_000)))
            left -= piece
            yield b"x" * piece
            await asyncio.sleep(self.chance.choice((0, 0, 0.001, 0.01)))

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split()[1])
    fields = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return status, fields.get("connection") == "close"


async def hammer(
    port: int,
    wanted: Mapping[tuple[str, str], tuple[int, ...]],
    *,
    clients: int,
    rounds: int,
    sizes: Sequence[int] = (1_000, 5_000, 60_000, 250_000, 300_000, 1_000_000),
    fields: Sequence[str] = ("", "", "", "Connection: close\r\n"),
    seed: int = 0,
) -> tuple[int, list[str]]:
    """Ask for everything in `wanted` (host and request: the statuses that are right) over and over: how many requests
    went by a kept connection, and what was lost.
    """
    wrong: list[str] = []

    async def one(number: int) -> int:
        chance = random.Random(seed + number)
        client = Client(port, reads_first=number % 2 == 0, chance=chance)
        for _ in range(rounds):
            (host, request), statuses = chance.choice(list(wanted.items()))
            size, more = chance.choice(sizes), chance.choice(fields)
            try:
                status = await client.ask(host, request, size, fields=more, chunked=chance.random() < 0.3)
                if status not in statuses:
                    wrong.append(f"{request} of {host}, {size} bytes: {status}")
            except Lost as lost:
                wrong.append(f"{lost} {more.strip()}")
        client.close()
        return client.kept

    return sum(await asyncio.gather(*map(one, range(clients)))), wrong
