"""Bytes of a volume of a bounded size, promised before they are written.

In a pod of a cluster a disk is a volume whose file system has the room of the whole node, and a node evicts the pod
whose volume has outgrown its bound, with all that is under way in it. So what a volume's file system says of its room
(`vibed.sources.room`) is not enough there: who writes much is promised its bytes first, and waits until there are so
many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vibed.sources.errors import StorageFull


@dataclass(eq=False, slots=True)
class _Asked:
    """Somebody who waits for bytes, or has them."""

    size: int
    coming: asyncio.Future[None]
    passed: _Asked | None = None
    """Who waited first, and was passed."""
    beside: int = 0
    """Bytes that those have who passed this one."""


class Promise:
    """Bytes that are somebody's until the context of `Allotment.take` ends."""

    def __init__(self, allotment: Allotment, asked: _Asked) -> None:
        self._allotment = allotment
        self._asked = asked

    def shrink(self, size: int) -> None:
        """No more than these are needed any more."""
        self._allotment._shrink(self._asked, size)


class Allotment:
    """See the module's docstring. Of one event loop. First come, first served, so that large ones come, too; who waits
    behind another one passes it where there is room for both together, so that it is not kept waiting by that.
    """

    def __init__(self, most: int) -> None:
        """`most`: bytes that are promised at a time."""
        self.most = most
        self._left = most
        self._waiting: deque[_Asked] = deque()

    @property
    def left(self) -> int:
        """Bytes that nobody has been promised."""
        return self._left

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[Promise]:
        """Wait until there are `size` bytes, and have them. Raises `StorageFull` where there are never so many."""
        if size > self.most:
            raise StorageFull(
                f"this takes {-(-size >> 20)} MiB while it is made, and there are {self.most >> 20} for it",
                hint="make it smaller; the operator decides how large a source may be (max_expanded_mb, max_files)",
                retryable=False,
            )
        asked = _Asked(size, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._look()
        try:
            await asked.coming
        except asyncio.CancelledError:
            if asked.coming.done() and not asked.coming.cancelled():
                self._shrink(asked, 0)
            else:
                self._waiting = deque(one for one in self._waiting if one is not asked)
                self._look()
            raise
        try:
            yield Promise(self, asked)
        finally:
            self._shrink(asked, 0)

    def _shrink(self, asked: _Asked, size: int) -> None:
        freed = max(0, asked.size - max(0, size))
        asked.size -= freed
        self._left += freed
        if asked.passed is not None:
            asked.passed.beside -= freed
        self._look()

    def _look(self) -> None:
        """Give what is left to those who may have it."""
        while self._waiting and self._waiting[0].size <= self._left:
            self._give(self._waiting.popleft())
        if not self._waiting:
            return
        first, *others = self._waiting
        for one in others:
            if one.size <= self._left and first.size + first.beside + one.size <= self.most:
                self._waiting.remove(one)
                if self._give(one):
                    one.passed = first
                    first.beside += one.size

    def _give(self, one: _Asked) -> bool:
        """Whether it was still waited for."""
        if one.coming.done():
            return False
        self._left -= one.size
        one.coming.set_result(None)
        return True
