"""Work ahead: what a run will need is begun when a run is likely, and taken by the run when it comes.

It may come to nothing: a deploy can still be refused, and what nobody takes is thrown away after a while. A run never
depends on it; what was not done, or failed, the run does itself and tells what is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from vibed import records

T = TypeVar("T")

log = records.logger("vibed.controller")

MOST = 4
"""Deploys beyond that do not wait for each other's work, and memory and disk stay bounded."""
KEPT_S = 10.0


class Ahead(Generic[T]):
    """A few results by key, each of blocking work in a thread, each taken once or given to `discard` (blocking too)."""

    def __init__(self, discard: Callable[[T], None] = lambda result: None, *, kept_s: float = KEPT_S) -> None:
        self._discard = discard
        self._kept_s = kept_s
        self._work: dict[Hashable, asyncio.Future[T]] = {}
        self._dropping: set[asyncio.Task[None]] = set()

    def begin(self, key: Hashable, work: Callable[[], T]) -> None:
        """Do `work`, unless that much is under way already."""
        if key in self._work or len(self._work) >= MOST:
            return
        loop = asyncio.get_running_loop()
        doing = self._work[key] = loop.run_in_executor(None, work)
        loop.call_later(self._kept_s, self._expire, key, doing)

    async def take(self, key: Hashable, work: Callable[[], T]) -> T:
        """What was done for this key, which is the caller's now; `work` is done if there is nothing. Raises what it
        raises.
        """
        doing = self._work.pop(key, None)
        if doing is not None:
            try:
                return await self._result(doing)
            except Exception as error:
                log.info("work ahead came to nothing", error=str(error))
        return await self._result(asyncio.get_running_loop().run_in_executor(None, work))

    async def close(self) -> None:
        """Throw away what nobody took."""
        for key in list(self._work):
            self._drop(self._work.pop(key))
        await asyncio.gather(*self._dropping, return_exceptions=True)

    async def _result(self, doing: asyncio.Future[T]) -> T:
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            self._drop(doing)
            raise

    def _expire(self, key: Hashable, doing: asyncio.Future[T]) -> None:
        if self._work.get(key) is doing:
            self._drop(self._work.pop(key))

    def _drop(self, doing: asyncio.Future[T]) -> None:
        async def drop() -> None:
            try:
                result = await doing
            except Exception as error:
                log.info("work ahead came to nothing", error=str(error))
                return
            await asyncio.to_thread(self._discard, result)

        dropping = asyncio.create_task(drop())
        self._dropping.add(dropping)
        dropping.add_done_callback(self._dropping.discard)
