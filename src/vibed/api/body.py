"""A request's body: its bytes are counted and its time is bounded, and its rest is read when the answer is known early.

One rule for every route: nobody is silent for long, and whoever sends much may take long, but not for ever.

A client (Caddy is one) that still writes when its connection is closed may see the broken connection and not the
answer: a wrong key would look like a vibeD that is down. So what little is left is read before the answer; where it is
much or comes slowly, the answer goes first, and the connection stays open for a while after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar

from vibed.api.errors import BodyTooLarge, UploadTimeout
from vibed.apps.errors import VibedError

Message = MutableMapping[str, Any]

IDLE_S = 30.0
"""How long a client may be silent in the middle of its body."""
FREE_S = 60.0
"""How long any body may take,"""
UPLOAD_FREE_S = 300.0
"""and how long one may that can hold a source: some networks are slow."""
LEAST_RATE = 8 << 10
"""Bytes a second by which both grow."""
PATIENCE_S = 1.0
"""How long the rest of a body is read before the answer."""
LINGER_S = 10.0
"""How long after it."""
LINGERING = 500
"""How many do that at once; of others the connection is closed with the answer."""


class Body:
    """Of one request; `limit` None leaves the count to the handler."""

    _lingering: ClassVar[int] = 0

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        limit: int | None,
        largest_discarded: int,
    ) -> None:
        """`largest_discarded`: bytes up to which a body is read that nobody wants."""
        self._receive = receive
        self._limit = limit
        self._largest_discarded = largest_discarded
        self._seen = 0
        self._began: float | None = None
        self._free_s = FREE_S if limit is not None else UPLOAD_FREE_S
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        self._length = int(length) if length.isdigit() else 0
        self._ended = not self._length and b"transfer-encoding" not in headers
        self._too_late = False
        self.failure: VibedError | None = None
        """Why it cannot be read to its end; whatever its reader makes of that."""

    def check_length(self) -> None:
        """Raises `BodyTooLarge` before a byte is read when the request says that it is."""
        if self._limit is not None and self._length > self._limit:
            self._refuse()

    async def receive(self) -> Message:
        """As ASGI's. Raises `BodyTooLarge`, `UploadTimeout`."""
        if self._ended:
            return await self._receive()  # this waits for the client to leave
        try:
            async with asyncio.timeout(self._patience()):
                message = await self._receive()
        except TimeoutError:
            self._too_late = True
            self.failure = self._too_slow()
            raise self.failure from None
        self._note(message)
        if self._limit is not None and self._seen > self._limit:
            self._refuse()
        return message

    async def finish(self) -> bool:
        """Read what is left before the answer is sent, within bounds. False when some of it stays unread: then the
        connection cannot be used again, and `linger` is due after the answer.
        """
        if not self._ended and not self._too_late and self._length <= self._largest_discarded:
            await self._discard(PATIENCE_S)
        return self._ended

    async def linger(self) -> None:
        """After the answer: let it reach a client that still sends. Nobody needs a key for that, so few may."""
        if Body._lingering < LINGERING:
            Body._lingering += 1
            try:
                await self._discard(LINGER_S)
            finally:
                Body._lingering -= 1

    async def _discard(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not self._ended and self._seen <= self._largest_discarded:
                    self._note(await self._receive())
        except TimeoutError:
            return

    def _note(self, message: Message) -> None:
        if message["type"] != "http.request":
            self._ended = True
            return
        self._seen += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)

    def _patience(self) -> float:
        now = time.monotonic()
        if self._began is None:
            self._began = now
        return max(0.0, min(IDLE_S, self._began + self._free_s + self._seen / LEAST_RATE - now))

    def _too_slow(self) -> UploadTimeout:
        assert self._began is not None
        took = time.monotonic() - self._began
        if took > self._free_s + self._seen / LEAST_RATE:
            return UploadTimeout(
                f"the body came too slowly: {self._seen:,} bytes in {took:.0f} s",
                hint=f"send at least {LEAST_RATE >> 10} KiB a second, or less of it",
            )
        return UploadTimeout(
            f"nothing came for {IDLE_S:g} s in the middle of the body",
            hint="send all that Content-Length says, or end a chunked body",
        )

    def _refuse(self) -> None:
        self.failure = BodyTooLarge(f"the body has more than {self._limit} bytes", hint="send less")
        raise self.failure
