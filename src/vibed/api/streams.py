"""Logs and events of an app as streams, and as pages for clients that poll."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from vibed.api import sse
from vibed.api.errors import Unauthorized
from vibed.api.logs import Logs
from vibed.api.measures import Measures
from vibed.api.sse import Sent, Stopping
from vibed.api.views import event_view
from vibed.apps.app import App, Event, Phase
from vibed.apps.errors import NotFound, VibedError
from vibed.apps.standing import of_app
from vibed.supervision.runlogs import Position

T = TypeVar("T")

CHECK_S = 3.0
"""How soon a stream notices that its app is gone or its key was revoked."""
_BATCH = 500
_QUICK_S = 0.1
_SLOW_S = 0.5
"""A log that moves is looked at this often, one that is quiet less often."""

StillThere = Callable[[], Awaitable[App]]
"""Reads the app again for the caller; raises `NotFound` when it is not theirs any more, `Unauthorized` when they are
nobody any more."""


class LogStreams:
    """Streams and pages of apps' logs."""

    def __init__(self, logs: Logs, stopping: Stopping, measures: Measures) -> None:
        self._logs = logs
        self._stopping = stopping
        self._measures = measures

    async def page(self, app_id: str, *, after: Position | None, tail: int | None, limit: int) -> dict[str, Any]:
        """`{items, next}`: up to `limit` lines, and the position to ask from next time."""
        reading = self._logs.open(app_id, after)
        try:
            if after is None and tail is not None:
                limit = min(tail, limit)
                await reading.seek_tail(limit)
            lines = await reading.read(limit)
        finally:
            reading.close()
        return {"items": [line.view() for line, _ in lines], "next": str(reading.position)}

    async def end(self, app_id: str) -> Position:
        """The position behind the last line that is there now."""
        reading = self._logs.open(app_id, None)
        try:
            await reading.seek_tail(0)
        finally:
            reading.close()
        return reading.position

    async def failing(self, app: App) -> str | None:
        """How the first request of the run that serves failed, as long as it has not succeeded since."""
        stands = of_app(app)
        if not stands.live or stands.phase is not Phase.READY:
            return None
        return await self._logs.failing(app)

    async def stream(
        self, app: App, still_there: StillThere, *, after: Position | None, tail: int | None, follow: bool
    ) -> AsyncIterator[bytes]:
        """Lines as server-sent events `log` (and `gap` where rotation was faster than the reader)."""
        reading = self._logs.open(app.app_id, after)

        async def read() -> bytes:
            lines = await reading.read(_BATCH)
            return b"".join(
                Sent("gap" if line.missing else "log", line.view(), place).encode() for line, place in lines
            )

        with self._measures.streams.labels("logs").track_inprogress():
            try:
                yield sse.RETRY
                if after is None and tail is not None:
                    await reading.seek_tail(tail)
                async for told in _telling(read, self._stopping, _Checks(app, still_there), follow=follow):
                    yield told
            finally:
                reading.close()


class EventStreams:
    """The same for an app's events; ids are their seq."""

    def __init__(self, stopping: Stopping, measures: Measures) -> None:
        self._stopping = stopping
        self._measures = measures

    async def stream(
        self,
        app: App,
        still_there: StillThere,
        read: Callable[[int], Awaitable[Sequence[Event]]],
        *,
        after: int,
        follow: bool,
    ) -> AsyncIterator[bytes]:
        """Events after `after` as server-sent events `event`."""

        async def read_on() -> bytes:
            nonlocal after
            events = await read(after)
            if events:
                after = events[-1].seq
            return b"".join(Sent("event", event_view(event), str(event.seq)).encode() for event in events)

        with self._measures.streams.labels("events").track_inprogress():
            yield sse.RETRY
            async for told in _telling(read_on, self._stopping, _Checks(app, still_there), follow=follow):
                yield told


async def _telling(
    read: Callable[[], Awaitable[bytes]], stopping: Stopping, checks: _Checks, *, follow: bool
) -> AsyncIterator[bytes]:
    """What `read` brings, piece by piece, until there is no more to come."""
    pause = _QUICK_S
    while not stopping.is_set:
        if checks.due:
            try:
                await checks.make()
            except NotFound:
                yield Sent("end", {"reason": "AppDeleted"}).encode()
                return
            except Unauthorized:
                # Not the end of what there is to tell: the client comes back and is told about its key.
                return
            yield sse.HEARTBEAT
        if told := await read():
            pause = _QUICK_S
            yield told
            continue
        if not follow:
            yield Sent("end", {"reason": "NoMore"}).encode()
            return
        pause = min(pause * 1.5, _SLOW_S)
        if await stopping.wait(pause):
            return


class _Checks:
    """Whether a stream still may go on: asked now and then, not for each line."""

    def __init__(self, app: App, still_there: StillThere) -> None:
        self._app = app
        self._still_there = still_there
        self._made = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._made >= CHECK_S

    async def make(self) -> None:
        """Raises `NotFound` when the app is gone, or is another one of the same name; `Unauthorized`."""
        self._made = time.monotonic()
        try:
            app = await self._still_there()
        except (NotFound, Unauthorized):
            raise
        except VibedError:
            # The store is busy: not a reason to cut a reader off.
            return
        if app.created_at != self._app.created_at:
            raise NotFound(f"{app.app_id!r} is another app now")
