"""JSON lines over a Unix socket, or over TLS where they are on several machines: how vibeD's own processes talk.

One object a line. A request `{"id", "op", …}` is answered `{"id", "ok"}` or `{"id", "error": {code, message, details}}`
in any order; `{"event", …}` comes unasked. docs/reference/supervisor.md has the operations of a supervisor,
`vibed.controller.link` those of the controller.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vibed.apps.errors import VibedError

MAX_LINE = 1 << 20
GOODBYE_S = 0.5
"""How long the end of a TLS connection waits for the other side's: its machine may be gone, or it waits itself."""

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Remote:
    """A process on another machine, or in another pod."""

    host: str
    port: int
    tls: ssl.SSLContext
    """Which of the two proves to whom what they are is decided here."""
    name: str
    """The name that the other side's certificate has to have; empty where `tls` does not look at names."""

    def __str__(self) -> str:
        return address(self.host, self.port)


def address(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class WireError(VibedError):
    """The other process answered with an error; `error_code` is its code."""

    code = "WireError"
    status = 500


class MessageTooLong(WireError):
    """What is to be said has more bytes than a line may have."""

    code = "MessageTooLong"


class Disconnected(VibedError):
    """The other process is not there, or went away before it answered."""

    code = "Disconnected"
    status = 503
    retryable = True


class Connection:
    """A client's connection. Calls may overlap; `on_event` hears events in order, on the event loop."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_event: Callable[[Message], None]
    ) -> None:
        self._writer = writer
        self._calls: dict[int, asyncio.Future[Message]] = {}
        self._next = 0
        self._on_event = on_event
        self._reading = asyncio.ensure_future(self._read(reader))

    @classmethod
    async def open(
        cls, where: Path | Remote, on_event: Callable[[Message], None] = lambda event: None, *, timeout: float = 5.0
    ) -> Connection:
        """Connect to a socket's path, or to another machine. Raises `Disconnected`."""
        try:
            async with asyncio.timeout(timeout):
                if isinstance(where, Remote):
                    reader, writer = await asyncio.open_connection(
                        where.host,
                        where.port,
                        ssl=where.tls,
                        server_hostname=where.name,
                        ssl_shutdown_timeout=GOODBYE_S,
                        limit=MAX_LINE,
                    )
                else:
                    reader, writer = await asyncio.open_unix_connection(str(where), limit=MAX_LINE)
        except (OSError, TimeoutError) as error:  # what TLS refuses is an OSError, too
            raise Disconnected(f"nothing answers at {where}: {error}") from error
        return cls(reader, writer, on_event)

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when the connection has ended; awaiting it never raises."""
        return self._reading

    async def call(self, op: str, *, timeout: float | None = None, **arguments: object) -> Message:
        """Ask and wait for the answer. Raises `WireError`, `Disconnected`, `TimeoutError`; nothing was sent when it
        raises `MessageTooLong`.
        """
        if self._reading.done():
            raise Disconnected(f"the connection ended before {op!r} could be asked")
        self._next += 1
        number = self._next
        line = json.dumps({"id": number, "op": op, **arguments}).encode() + b"\n"
        if len(line) > MAX_LINE:
            raise MessageTooLong(f"{op!r} cannot be asked: its arguments have {len(line):,} bytes")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self._writer.write(line)
            async with asyncio.timeout(timeout):
                await self._writer.drain()
                return await answer
        except TimeoutError:  # which is an OSError, too
            raise
        except OSError as error:
            raise Disconnected(f"the connection ended while {op!r} was asked") from error
        finally:
            self._calls.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where the write failed first; asyncio would log it as lost

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):
                while line := await reader.readline():
                    self._take(json.loads(line))
        finally:
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(Disconnected("the other process went away before it answered"))
            self._writer.close()

    def _take(self, message: Message) -> None:
        if "event" in message:
            self._on_event(message)
            return
        answer = self._calls.get(message.get("id", 0))
        if answer is None or answer.done():
            return
        if "error" in message:
            error = message["error"]
            answer.set_exception(
                WireError(
                    error.get("message", ""),
                    code=error.get("code", "WireError"),
                    details=error.get("details") or {},
                    retryable=bool(error.get("retryable", False)),
                    hint=error.get("hint"),
                    status=error.get("status"),
                )
            )
        else:
            answer.set_result(message.get("ok") or {})


Handler = Callable[[str, Message], Awaitable[Message]]


async def serve(path: Path, handler: Handler, *, mode: int = 0o600, gid: int = -1) -> asyncio.Server:
    """Listen at `path` (replaced if it is there) and answer each request with `handler(op, message)`.

    A `VibedError` becomes the error answer; anything else is answered as `Internal` and re-raised into the loop's
    exception handler, so that it is logged and never lost.
    """
    path.unlink(missing_ok=True)
    before = os.umask(0o777 & ~mode)
    try:
        server = await asyncio.start_unix_server(_conversation(handler), str(path), limit=MAX_LINE)
    finally:
        os.umask(before)
    if gid != -1:
        os.chown(path, -1, gid)
    return server


async def serve_remote(host: str, port: int, tls: ssl.SSLContext, handler: Handler) -> asyncio.Server:
    """The same for processes elsewhere; `tls` demands a certificate of whoever connects."""
    assert tls.verify_mode is ssl.CERT_REQUIRED, "whoever connects has to prove what it is"
    return await asyncio.start_server(_conversation(handler), host, port, ssl=tls, limit=MAX_LINE)


def _conversation(handler: Handler) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as tasks:
            try:
                while line := await reader.readline():
                    message = json.loads(line)
                    tasks.create_task(_answer(handler, message, writer))
            except (OSError, ValueError):
                # What follows a line that is no message, or too long, cannot be understood: the other side has to know.
                writer.close()
        writer.close()

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await converse(reader, writer)

    return conversation


async def _answer(handler: Handler, message: Message, writer: asyncio.StreamWriter) -> None:
    number = message.get("id")
    try:
        reply: Message = {"id": number, "ok": await handler(str(message.get("op")), message)}
    except VibedError as error:
        reply = {
            "id": number,
            "error": {**error.body(), "status": error.http_status, "retryable": error.may_retry, "hint": error.hint},
        }
    except Exception as error:
        reply = {"id": number, "error": {"code": "Internal", "message": f"{type(error).__name__}: {error}"}}
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"the operation {message.get('op')!r} failed", "exception": error}
        )
    if writer.is_closing():
        return
    with contextlib.suppress(OSError):
        writer.write(json.dumps(reply).encode() + b"\n")
        await writer.drain()
