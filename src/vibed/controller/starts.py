"""Whose turn it is to start: a machine starts a few apps at a time, and somebody may be waiting for one of them.

A place stands for the seconds of processor time that an app needs to come up; what takes longer than that hangs, or
waits for something itself, and does not hold its place. Places are shared by owner: who has nothing under way goes
before who has, and finds a place even when another's apps have taken all. After everything was killed, all apps of the
general lane come back at once; what a visitor waits for goes first, and half of the places are kept for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import monotonic

PLACE_S = 5.0
"""For how long a start holds its place, where it is not a compiler's."""
NAMED = 3
"""Of how many apps the names are told."""


@dataclass(eq=False, slots=True)
class Start:
    """One that waits for its turn, or has it."""

    owner: str
    app_id: str
    wanted: Callable[[], bool]
    over: Callable[[], bool]
    turn: asyncio.Future[None]
    begun: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """The places that are taken."""

    all: int
    unwanted: int
    """Of what nobody waits for."""
    by_owner: Counter[str]


class Starts:
    """At most `at_once` places, as many again for owners who have none, and at most half as many (one at least) for
    what nobody waits for. `hold_s`: for how long a start holds its place; None: to its end. `most`: so many under way,
    whether or not they hold places; the last of them for an owner who has none.
    """

    def __init__(
        self,
        at_once: int,
        *,
        hold_s: float | None = PLACE_S,
        most: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._at_once = at_once
        self._most = most
        self._hold_s = hold_s
        self._clock = clock
        self._for_nobody = max(1, at_once // 2)
        self._waiting: list[Start] = []
        self._under_way: list[Start] = []
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def turn(
        self,
        *,
        owner: str = "",
        app_id: str = "",
        wanted: Callable[[], bool] = lambda: True,
        over: Callable[[], bool] = lambda: False,
        on_wait: Callable[[Callable[[], str]], None] = lambda why: None,
    ) -> AsyncIterator[None]:
        """Wait for a turn and hold it. `wanted`: whether somebody waits for this one; `over`: whether it will not start
        any more and only has to be let through. `look` must be called when either may have changed. `on_wait` is given
        what tells, at any time until the turn has come, for what this one waits.
        """
        start = Start(owner, app_id, wanted, over, asyncio.get_running_loop().create_future())
        self._waiting.append(start)
        if over() or self._has_place(start, wanted(), self._held()):
            self.look()
        else:
            self._look_again()  # those before it have none either: there may be a thousand
        if not start.turn.done():
            on_wait(lambda: self._why(start))
        try:
            await start.turn
            yield
        finally:
            for places in (self._waiting, self._under_way):
                with contextlib.suppress(ValueError):
                    places.remove(start)
            self.look()

    def look(self) -> None:
        """Give the turns that are free: to what is wanted first, then to the owner with the fewest under way, in the
        order in which they came.
        """
        for late in [start for start in self._waiting if start.over()]:
            self._waiting.remove(late)
            _let(late)
        while (start := self._next()) is not None:
            self._waiting.remove(start)
            start.begun = self._clock()
            self._under_way.append(start)
            _let(start)
        self._look_again()

    def _next(self) -> Start | None:
        held = self._held()
        fitting = (
            (not wanted, held.by_owner[start.owner], at, start)
            for at, start in enumerate(self._waiting)
            if self._has_place(start, wanted := start.wanted(), held)
        )
        first = min(fitting, key=lambda found: found[:3], default=None)
        return first[3] if first is not None else None

    def _holding(self) -> list[Start]:
        if self._hold_s is None:
            return self._under_way
        since = self._clock() - self._hold_s
        return [start for start in self._under_way if start.begun > since]

    def _held(self) -> Held:
        holding = self._holding()
        unwanted = sum(not start.wanted() for start in holding)
        return Held(len(holding), unwanted, Counter(start.owner for start in holding))

    def _has_place(self, start: Start, wanted: bool, held: Held) -> bool:
        if self._most is not None:
            another = any(other.owner == start.owner for other in self._under_way)
            if len(self._under_way) >= self._most - another:
                return False
        if not wanted:
            return held.all < self._at_once and held.unwanted < self._for_nobody
        return held.all < (self._at_once if held.by_owner[start.owner] else 2 * self._at_once)

    def _look_again(self) -> None:
        """When the next place becomes free by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        holding = self._holding()
        if self._waiting and holding and self._hold_s is not None:
            wait_s = min(start.begun for start in holding) + self._hold_s - self._clock()
            self._timer = asyncio.get_running_loop().call_later(max(0.01, wait_s), self.look)

    def _why(self, start: Start) -> str:
        """For what it waits, in words that name no other owner's app."""
        own = sorted(other.app_id for other in self._holding() if other.owner == start.owner)
        if not own:
            return "this machine is starting as many apps as it can at a time"
        names = ", ".join(own[:NAMED]) + (f" and {len(own) - NAMED} more" if len(own) > NAMED else "")
        return f"{len(own)} of your apps {'is' if len(own) == 1 else 'are'} starting ({names})"


def _let(start: Start) -> None:
    if not start.turn.done():
        start.turn.set_result(None)
