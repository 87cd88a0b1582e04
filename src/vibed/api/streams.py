"""Logs and events of an app as streams, and as pages for clients that poll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vibed.api import sse
from vibed.api.errors import Unauthorized
from vibed.api.failing import failing
from vibed.api.measures import Measures
from vibed.api.runlogs import LogReader, Position
from vibed.api.sse import Sent, Stopping
from vibed.api.views import event_view
from vibed.apps.app import App, Event, Phase
from vibed.apps.errors import NotFound, VibedError
from vibed.apps.standing import of_app
from vibed.sandboxes.diagnosis import About

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
    """Opens readers of apps' logs; `root` is `Layout.logs`."""

    def __init__(self, root: Path, stopping: Stopping, measures: Measures) -> None:
        self._root = root
        self._stopping = stopping
        self._measures = measures

    def _reading(self, app_id: str, position: Position | None) -> _Reading:
        return _Reading(LogReader(self._root / app_id, position))

    async def page(self, app_id: str, *, after: Position | None, tail: int | None, limit: int) -> dict[str, Any]:
        """`{items, next}`: up to `limit` lines, and the position to ask from next time."""
        reading = self._reading(app_id, after)
        reader = reading.reader
        try:
            if after is None and tail is not None:
                limit = min(tail, limit)
                await reading.do(reader.seek_tail, limit)
            lines = await reading.do(reader.read, limit)
        finally:
            reading.close()
        return {"items": [line.view() for line, _ in lines], "next": str(reader.position)}

    async def end(self, app_id: str) -> Position:
        """The position behind the last line that is there now."""
        reading = self._reading(app_id, None)
        try:
            await reading.do(reading.reader.seek_tail, 0)
        finally:
            reading.close()
        return reading.reader.position

    async def failing(self, app: App) -> str | None:
        """How the first request of the run that serves failed, as long as it has not succeeded since."""
        stands = of_app(app)
        if not stands.live or stands.phase is not Phase.READY:
            return None
        # the newest run is the one that serves where nothing else is wanted
        about = About.of(app.runtime, app.env_names)
        return await asyncio.to_thread(failing, self._root / app.app_id / f"{app.runs:010d}", about)

    async def stream(
        self, app: App, still_there: StillThere, *, after: Position | None, tail: int | None, follow: bool
    ) -> AsyncIterator[bytes]:
        """Lines as server-sent events `log` (and `gap` where rotation was faster than the reader)."""
        reading = self._reading(app.app_id, after)
        reader = reading.reader

        async def read() -> bytes:
            lines = await reading.do(reader.read, _BATCH)
            return b"".join(
                Sent("gap" if line.missing else "log", line.view(), place).encode() for line, place in lines
            )

        with self._measures.streams.labels("logs").track_inprogress():
            try:
                yield sse.RETRY
                if after is None and tail is not None:
                    await reading.do(reader.seek_tail, tail)
                async for told in _telling(read, self._stopping, _Checks(app, still_there), follow=follow):
                    yield told
            finally:
                reading.close()


class _Reading:
    """A reader that works in threads, one after the other. A thread goes on when whoever waited for it has left, so the
    files are closed when it has ended.
    """

    def __init__(self, reader: LogReader) -> None:
        self.reader = reader
        self._doing: asyncio.Future[Any] | None = None

    async def do(self, work: Callable[[int], T], count: int) -> T:
        doing = self._doing = asyncio.get_running_loop().run_in_executor(None, work, count)
        return await asyncio.shield(doing)

    def close(self) -> None:
        if self._doing is None or self._doing.done():
            self.reader.close()
        else:
            self._doing.add_done_callback(self._ended)

    def _ended(self, done: asyncio.Future[Any]) -> None:
        self.reader.close()
        if not done.cancelled():
            done.exception()  # seen: nobody waits for it any more


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
