"""Server-sent events that survive both sides' restarts: each carries the id from which the next stream resumes.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. A stream that has told all ends with the event
`end`; one that vibeD has to cut (a restart) just ends, and the client comes back with Last-Event-ID.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse

RETRY_MS = 1_000


@dataclass(frozen=True, slots=True)
class Sent:
    """One event."""

    event: str
    data: dict[str, Any]
    id: str | None = None

    def encode(self) -> bytes:
        # ASCII only: some clients take U+2028 and its like in an app's line for the end of ours.
        head = f"id: {self.id}\n" if self.id is not None else ""
        return f"{head}event: {self.event}\ndata: {json.dumps(self.data)}\n\n".encode()


class Stopping:
    """Set when the process is about to end; streams end by themselves then."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self, seconds: float) -> bool:
        """Sleep at most this long; True when the process is stopping."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


def response(events: AsyncIterator[bytes]) -> StreamingResponse:
    """A stream that no proxy buffers."""
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"x-accel-buffering": "no", "cache-control": "no-store"}
    )


RETRY = f"retry: {RETRY_MS}\n\n".encode()
HEARTBEAT = b": still here\n\n"
