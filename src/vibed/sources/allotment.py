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

from vibed.sources.errors import StorageFull


class Promise:
    """Bytes that are somebody's until the context of `Allotment.take` ends."""

    def __init__(self, allotment: Allotment, size: int) -> None:
        self._allotment = allotment
        self._size = size

    def shrink(self, size: int) -> None:
        """No more than these are needed any more."""
        freed = max(0, self._size - max(0, size))
        self._size -= freed
        self._allotment._give_back(freed)


class Allotment:
    """See the module's docstring. Of one event loop; first come, first served, so that large ones come, too."""

    def __init__(self, most: int) -> None:
        """`most`: bytes that are promised at a time."""
        self.most = most
        self._left = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

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
        coming: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, coming))
        self._look()
        try:
            await coming
        except asyncio.CancelledError:
            if coming.done() and not coming.cancelled():
                self._give_back(size)
            else:
                self._waiting = deque(one for one in self._waiting if one[1] is not coming)
                self._look()
            raise
        promise = Promise(self, size)
        try:
            yield promise
        finally:
            promise.shrink(0)

    def _give_back(self, size: int) -> None:
        self._left += size
        self._look()

    def _look(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, coming = self._waiting.popleft()
            if not coming.done():
                self._left -= size
                coming.set_result(None)
