"""Where the API reads apps' logs: in files beside it, or from the controller that leads, on another machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vibed.api.controlling import Controller
from vibed.apps.app import App
from vibed.sandboxes.diagnosis import About
from vibed.supervision.failing import failing
from vibed.supervision.runlogs import Line, LogReader, Position

T = TypeVar("T")


class Reading(Protocol):
    """One app's log, read forward; one call at a time."""

    @property
    def position(self) -> Position: ...

    async def seek_tail(self, count: int) -> None:
        """Go to where the last `count` lines of what is kept begin."""
        ...

    async def read(self, limit: int) -> Sequence[tuple[Line, str]]:
        """Up to `limit` further lines, each with the position behind it; none: there is no more for now."""
        ...

    def close(self) -> None: ...


class Logs(Protocol):
    """See the module's docstring."""

    def open(self, app_id: str, position: Position | None) -> Reading:
        """From a position on; None: from the beginning of what is kept."""
        ...

    async def failing(self, app: App) -> str | None:
        """How the first request of the newest run failed, as long as it has not succeeded since."""
        ...


class LocalLogs:
    """Files below `root`, which is `Layout.logs`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, app_id: str, position: Position | None) -> Reading:
        return _LocalReading(LogReader(self._root / app_id, position))

    async def failing(self, app: App) -> str | None:
        # the newest run is the one that serves where nothing else is wanted
        folder = self._root / app.app_id / f"{app.runs:010d}"
        return await asyncio.to_thread(failing, folder, About.of(app.runtime, app.env_names))


class _LocalReading:
    """A reader that works in threads, one after the other. A thread goes on when whoever waited for it has left, so the
    files are closed when it has ended.
    """

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._doing: asyncio.Future[Any] | None = None

    @property
    def position(self) -> Position:
        return self._reader.position

    async def seek_tail(self, count: int) -> None:
        await self._do(self._reader.seek_tail, count)

    async def read(self, limit: int) -> Sequence[tuple[Line, str]]:
        return await self._do(self._reader.read, limit)

    async def _do(self, work: Callable[[int], T], count: int) -> T:
        doing = self._doing = asyncio.get_running_loop().run_in_executor(None, work, count)
        return await asyncio.shield(doing)

    def close(self) -> None:
        if self._doing is None or self._doing.done():
            self._reader.close()
        else:
            self._doing.add_done_callback(self._ended)

    def _ended(self, done: asyncio.Future[Any]) -> None:
        self._reader.close()
        if not done.cancelled():
            done.exception()  # seen: nobody waits for it any more


class ControllersLogs:
    """The logs that the leading controller has."""

    def __init__(self, link: Controller) -> None:
        self._link = link

    def open(self, app_id: str, position: Position | None) -> Reading:
        return _AskedReading(self._link, app_id, position)

    async def failing(self, app: App) -> str | None:
        return await self._link.failing(app.app_id)


class _AskedReading:
    def __init__(self, link: Controller, app_id: str, position: Position | None) -> None:
        self._link = link
        self._app_id = app_id
        self._position = str(position) if position is not None else ""

    @property
    def position(self) -> Position:
        return Position.parse(self._position) if self._position else Position()

    async def seek_tail(self, count: int) -> None:
        await self._ask(tail=count, limit=0)

    async def read(self, limit: int) -> Sequence[tuple[Line, str]]:
        return await self._ask(tail=None, limit=limit)

    async def _ask(self, *, tail: int | None, limit: int) -> Sequence[tuple[Line, str]]:
        page = await self._link.log_page(self._app_id, self._position, tail=tail, limit=limit)
        self._position = page.position
        return [(Line(**line), place) for line, place in page.lines]

    def close(self) -> None:
        """Nothing is held between two readings."""
