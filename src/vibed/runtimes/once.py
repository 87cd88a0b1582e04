"""Work that is done once, however many ask for it, as long as one of them wants it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_S = 1.0


class Unwanted(Exception):
    """Who waits wants it no more."""

    code = "Stopped"


class Interrupted(Exception):
    """The work was ended by others."""

    code = "Interrupted"


@dataclass(eq=False)
class _Work(Generic[T]):
    """One piece that is under way."""

    task: asyncio.Task[T] | None = None
    step: str = "waiting for its turn"
    waiting: int = 0
    heard: list[Callable[[str], None]] = field(default_factory=list)

    def say(self, step: str) -> None:
        self.step = step
        for hear in self.heard:
            hear(step)


class Once(Generic[T]):
    """Pieces of work by what they are known by."""

    def __init__(self) -> None:
        self._works: dict[str, _Work[T]] = {}

    async def get(
        self,
        key: str,
        do: Callable[[Callable[[str], None]], Awaitable[T]],
        *,
        on_step: Callable[[str], None],
        wanted: Callable[[], bool],
    ) -> T:
        """What the work of that key comes to; `do`, where it is not under way, gets what it says its steps to.

        `wanted` is asked while it waits. Raises `Unwanted`, `Interrupted` and what `do` raises. Cancelling gives up
        waiting; work that nobody waits for is ended.
        """
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = _Work()
            work.task = asyncio.ensure_future(_run(do(work.say)))
            work.task.add_done_callback(lambda _: self._forget(key, work))
        assert work.task is not None
        work.waiting += 1
        work.heard.append(on_step)
        on_step(work.step)
        try:
            while not work.task.done():
                await asyncio.wait((work.task,), timeout=_LOOK_S)
                if not work.task.done() and not wanted():
                    raise Unwanted
            if work.task.cancelled():
                raise Interrupted
            return work.task.result()
        finally:
            work.waiting -= 1
            work.heard.remove(on_step)
            if not work.waiting and not work.task.done():
                # who asks from now on begins anew
                self._forget(key, work)
                work.task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(asyncio.wait((work.task,)))

    def under_way(self) -> Mapping[str, str]:
        """What is being done, by key, and what it is at."""
        return {key: work.step for key, work in self._works.items()}

    async def close(self) -> None:
        """End what is under way."""
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: str, work: _Work[T]) -> None:
        if self._works.get(key) is work:
            del self._works[key]


async def _run(work: Awaitable[T]) -> T:
    return await work
