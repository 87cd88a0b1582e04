"""Which keys wait to be worked on: each once, however often it was added, and never by two at the same time.

The semantics are those of client-go's work queue, since controllers are written for them: a key that is added while it
is being worked on is handed out once more afterwards, so no change is missed and none is worked on twice at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class QueueClosed(Exception):
    """Nothing is handed out any more."""


class Queue(Generic[K]):
    """For one event loop. The first repetition of a key that failed comes after `first_s`, each further one after
    twice the time, up to `longest_s`.
    """

    def __init__(self, *, first_s: float = 0.1, longest_s: float = 60.0) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._ready: deque[K] = deque()
        self._wanted: set[K] = set()
        """What is to be handed out: what is ready, and what is being worked on and was added meanwhile."""
        self._working: set[K] = set()
        self._later: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._takers: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        """How many wait to be handed out now; not those of later."""
        return len(self._ready)

    def add(self, key: K) -> None:
        """Have the key worked on. What was meant for later stays so."""
        if self._closed or key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._working:
            self._ready.append(key)
            self._wake()

    def add_after(self, key: K, delay_s: float) -> None:
        """Have the key worked on in `delay_s` seconds; of several such wishes for one key the earliest holds."""
        if self._closed:
            return
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        planned = self._later.get(key)
        if planned is not None:
            if planned.when() <= loop.time() + delay_s:
                return
            planned.cancel()
        self._later[key] = loop.call_later(delay_s, self._due, key)

    def retry(self, key: K) -> float:
        """Have a key that failed worked on again, after a time that grows with its failures; returns it in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # 2.0 ** 1024 is an OverflowError
        delay_s = min(self._first_s * 2.0 ** min(failures, 64), self._longest_s) * random.uniform(0.75, 1.0)
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """The key did well: its next failure counts as its first."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The key that waits longest; `done` has to follow. Raises `QueueClosed`."""
        while not self._ready:
            if self._closed:
                raise QueueClosed
            taker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                # Woken and cancelled at once: the key is for the next one, who would sleep on beside it.
                if taker.done() and not taker.cancelled():
                    self._wake()
                with contextlib.suppress(ValueError):
                    self._takers.remove(taker)
                raise
        key = self._ready.popleft()
        self._wanted.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The work on the key is over; what was added meanwhile is handed out again."""
        self._working.discard(key)
        if key in self._wanted and not self._closed:
            self._ready.append(key)
            self._wake()

    def close(self) -> None:
        """Hand out nothing any more: who waits in `get` gets `QueueClosed`, what waits is dropped. A second time:
        nothing.
        """
        self._closed = True
        self._ready.clear()
        self._wanted.clear()
        for planned in self._later.values():
            planned.cancel()
        self._later.clear()
        while self._takers:
            self._wake()

    def _due(self, key: K) -> None:
        del self._later[key]
        self.add(key)

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return
