"""Clients that send what they are told and see every part of the answer: HTTP/1.1 by hand, HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

Fields = Sequence[tuple[str, str]]
WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    target: str = "/"
    method: str = "GET"
    fields: Fields = ()
    body: bytes | Iterable[bytes] | None = None
    """Bytes are sent with their length, pieces in chunks."""
    trailers: Fields = ()
    patient: bool = False
    """Waits with the body for a 100, or a final answer."""
    line: str = ""
    """The request line, where it is not the usual one (HTTP/1.1 alone)."""
    sends_first: bool = False
    """Reads nothing before all is sent, as simple clients do."""


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    before: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    """Informational responses."""
    complete: bool = False
    """Ended as its framing says."""

    def get(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name.lower()]


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def http1(connect: Connect, host: str, ask: Ask, *, body_begun: asyncio.Event | None = None) -> Answer:
    """One exchange over HTTP/1.1. `body_begun` is set when the first byte of the body has come."""
    reader, writer = await connect()
    answer = Answer()
    allowed = asyncio.Event()
    line = ask.line or f"{ask.method} {ask.target} HTTP/1.1"
    head = [line, f"Host: {host}", *(f"{name}: {value}" for name, value in ask.fields)]
    if isinstance(ask.body, bytes):
        head.append(f"Content-Length: {len(ask.body)}")
    elif ask.body is not None:
        head.append("Transfer-Encoding: chunked")
        head += [f"Trailer: {name}" for name, _ in ask.trailers]

    async def send() -> None:
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
        await writer.drain()
        if ask.patient:
            await allowed.wait()
            if answer.status:
                return
        if isinstance(ask.body, bytes):
            for at in range(0, len(ask.body), 65_536):
                writer.write(ask.body[at : at + 65_536])
                await writer.drain()
        elif ask.body is not None:
            for piece in ask.body:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            tail = "".join(f"{name}: {value}\r\n" for name, value in ask.trailers)
            writer.write(b"0\r\n" + tail.encode("latin-1") + b"\r\n")
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(WITHIN_S):
            if ask.sends_first:
                await sending
            while True:
                status, fields = await _head(reader)
                if status >= 200 or status == 101:
                    break
                answer.before.append((status, fields))
                if status == 100:
                    allowed.set()
            answer.status, answer.fields = status, fields
            allowed.set()
            async for piece in _body(reader, ask.method, answer):
                answer.body += piece
                if body_begun is not None and answer.body:
                    body_begun.set()
    except (OSError, EOFError, TimeoutError, ValueError):
        answer.complete = False
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await sending
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer


async def _head(reader: asyncio.StreamReader) -> tuple[int, list[tuple[str, str]]]:
    line, *fields = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
    return int(line.split(" ")[1]), [_field(one) for one in fields]


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


async def _body(reader: asyncio.StreamReader, method: str, answer: Answer) -> AsyncIterator[bytes]:
    if method == "HEAD" or answer.status in (101, 204, 304):
        pass
    elif "chunked" in "".join(answer.get("transfer-encoding")):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            answer.trailers.append(_field(line.decode("latin-1").rstrip("\r\n")))
    elif length := answer.get("content-length"):
        missing = int(length[0])
        while missing:
            piece = await reader.read(missing)
            if not piece:
                return
            missing -= len(piece)
            yield piece
    else:
        while piece := await reader.read(65_536):
            yield piece
    answer.complete = True


async def http2(connect: Connect, host: str, ask: Ask, *, body_begun: asyncio.Event | None = None) -> Answer:
    """One exchange over HTTP/2, with prior knowledge or over TLS."""
    reader, writer = await connect()
    scheme = "https" if writer.get_extra_info("ssl_object") else "http"
    h2c = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, header_encoding="latin-1", validate_outbound_headers=False)
    )
    answer, moved, over = Answer(), asyncio.Event(), asyncio.Event()
    head = [(":method", ask.method), (":scheme", scheme), (":authority", host), (":path", ask.target)]
    head += [(name.lower(), value) for name, value in ask.fields]
    if isinstance(ask.body, bytes):
        head.append(("content-length", str(len(ask.body))))

    async def send() -> None:
        if ask.patient:
            while not answer.status and not any(status == 100 for status, _ in answer.before):
                moved.clear()
                await moved.wait()
            if answer.status:
                return
        pieces = [ask.body] if isinstance(ask.body, bytes) else ask.body or ()
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                room = min(h2c.local_flow_control_window(1), h2c.max_outbound_frame_size)
                if not room:
                    moved.clear()
                    await moved.wait()
                    continue
                h2c.send_data(1, bytes(rest[:room]))
                rest = rest[room:]
                writer.write(h2c.data_to_send())
                await writer.drain()
        if ask.trailers:
            h2c.send_headers(1, [(name.lower(), value) for name, value in ask.trailers], end_stream=True)
        else:
            h2c.end_stream(1)
        writer.write(h2c.data_to_send())

    async def receive() -> None:
        while not over.is_set() and (data := await reader.read(65_536)):
            for event in h2c.receive_data(data):
                match event:
                    case h2.events.InformationalResponseReceived():
                        fields = [(str(k), str(v)) for k, v in event.headers]
                        answer.before.append((int(fields[0][1]), fields[1:]))
                    case h2.events.ResponseReceived():
                        fields = [(str(k), str(v)) for k, v in event.headers]
                        answer.status, answer.fields = int(fields[0][1]), fields[1:]
                    case h2.events.DataReceived():
                        answer.body += event.data
                        h2c.acknowledge_received_data(event.flow_controlled_length, 1)
                        if body_begun is not None and answer.body:
                            body_begun.set()
                    case h2.events.TrailersReceived():
                        answer.trailers = [(str(k), str(v)) for k, v in event.headers]
                    case h2.events.StreamEnded():
                        answer.complete = True
                        over.set()
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        over.set()
                    case _:
                        pass
            moved.set()
            writer.write(h2c.data_to_send())
            await writer.drain()

    h2c.initiate_connection()
    h2c.increment_flow_control_window(16 << 20)
    has_body = ask.body is not None
    h2c.send_headers(1, head, end_stream=not has_body)
    writer.write(h2c.data_to_send())
    sending = asyncio.create_task(send()) if has_body else None
    try:
        async with asyncio.timeout(WITHIN_S):
            await receive()
    except (OSError, TimeoutError, h2.exceptions.ProtocolError):
        answer.complete = False
    finally:
        if sending is not None:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, h2.exceptions.ProtocolError):
                await sending
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer
