"""Whose turn it is to start: a machine starts a few apps at a time, and somebody may be waiting for one of them.

After everything was killed, all apps of the general lane come back at once, each with a second or more of processor
time. A visitor of one of them must not wait for the others, so what somebody waits for goes first, and half of the
places are kept for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class _Start:
    wanted: Callable[[], bool]
    over: Callable[[], bool]
    turn: asyncio.Future[None]


class Starts:
    """At most `at_once` starts under way, and at most half as many (one at least) that nobody waits for."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._for_nobody = max(1, at_once // 2)
        self._waiting: list[_Start] = []
        self._under_way: list[_Start] = []

    @contextlib.asynccontextmanager
    async def turn(
        self, *, wanted: Callable[[], bool] = lambda: True, over: Callable[[], bool] = lambda: False
    ) -> AsyncIterator[None]:
        """Wait for a turn and hold it. `wanted`: whether somebody waits for this one; `over`: whether it will not start
        any more and only has to be let through. `look` must be called when either may have changed.
        """
        start = _Start(wanted, over, asyncio.get_running_loop().create_future())
        self._waiting.append(start)
        self.look()
        try:
            await start.turn
            yield
        finally:
            for places in (self._waiting, self._under_way):
                with contextlib.suppress(ValueError):
                    places.remove(start)
            self.look()

    def look(self) -> None:
        """Give the turns that are free: to what is wanted first, in the order in which they came."""
        for start in sorted(self._waiting, key=lambda start: not start.wanted()):
            if start.over():
                self._waiting.remove(start)
            elif self._has_place(start):
                self._waiting.remove(start)
                self._under_way.append(start)
            else:
                continue
            if not start.turn.done():
                start.turn.set_result(None)

    def _has_place(self, start: _Start) -> bool:
        if len(self._under_way) >= self._at_once:
            return False
        return start.wanted() or sum(not other.wanted() for other in self._under_way) < self._for_nobody
