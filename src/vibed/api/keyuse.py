"""When keys were last used: noted for nothing while a request is answered, written in the background.

The time is coarse on purpose: it tells which keys somebody still needs, not what was done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vibed import records
from vibed.api.background import in_background
from vibed.apps.store import AppStore

AFTER_S = 1.0
"""How long the first use waits to be written: the deploy that it is often part of is over by then."""
EVERY_S = 60.0
"""How long the next ones wait: all of them are one write."""

log = records.logger("vibed.api")


class KeyUse:
    """Notes uses, and writes them while `kept` is open."""

    def __init__(self, store: AppStore) -> None:
        self._store = store
        self._used: dict[str, float] = {}
        self._any = asyncio.Event()

    def note(self, key_id: str) -> None:
        """A key is used now. Neither waits nor fails."""
        self._used[key_id] = time.time()
        self._any.set()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write what is noted now and then, and what is left at the end."""
        try:
            async with in_background(self._go_on()):
                yield
        finally:
            await self._write()

    async def _go_on(self) -> None:
        while True:
            await self._any.wait()
            await asyncio.sleep(AFTER_S)
            self._any.clear()
            await self._write()
            await asyncio.sleep(EVERY_S)

    async def _write(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.keys_used(used)
        except Exception as error:
            log.warning("the last use of keys could not be written; it is tried again", error=str(error))
            self._used = used | self._used
            self._any.set()
