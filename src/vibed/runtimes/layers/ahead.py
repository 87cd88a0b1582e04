"""Builders booted ahead: where one was used lately, the next one stands ready, since who installs something often
installs again soon. A boot is a third of what a small installation takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from vibed.apps.errors import VibedError
from vibed.sandboxes.driver import Builder, Sandbox, State

PAUSE_S = 3.0
"""After one is given out, before the next is booted: the app that waits comes first."""
KEPT_S = 600.0
"""So long one waits."""
MOST = 2
"""Templates for which one waits; each is some 45 MB."""


class Boots(Protocol):
    """The part of a driver that is needed here."""

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox: ...


class Ahead:
    """Boots builders of one size, as a driver does."""

    def __init__(
        self,
        driver: Boots,
        limits: Builder,
        digest: Callable[[str], str],
        *,
        pause_s: float = PAUSE_S,
        kept_s: float = KEPT_S,
    ) -> None:
        """`digest`: of a template's image as it is now; raises VibedError where there is none."""
        self._driver = driver
        self._limits = limits
        self._digest = digest
        self._pause_s = pause_s
        self._kept_s = kept_s
        self._ready: dict[str, Sandbox] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}
        """By template, the last used last."""

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox:
        """As the driver; at once where one is ready. Raises BootFailed."""
        if builder != self._limits:
            return await self._driver.boot(template, urgent=urgent, builder=builder)
        ready = self._ready.pop(template, None)
        usable = ready is not None and ready.state is State.WARM and ready.template_digest == self._digest(template)
        self._keep_next(template)
        if ready is not None and usable:
            return ready
        if ready is not None:
            await _destroyed(ready)
        return await self._driver.boot(template, urgent=urgent, builder=builder)

    async def close(self) -> None:
        """End those that wait; none is booted any more."""
        keeping, self._keeping = list(self._keeping.values()), {}
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)

    def _keep_next(self, template: str) -> None:
        if (before := self._keeping.pop(template, None)) is not None:
            before.cancel()
        while len(self._keeping) >= MOST:
            self._keeping.pop(next(iter(self._keeping))).cancel()
        self._keeping[template] = asyncio.create_task(self._next(template), name=f"a builder ahead of {template}")

    async def _next(self, template: str) -> None:
        """Boot one, and end it if nobody has taken it for long."""
        await asyncio.sleep(self._pause_s)
        with contextlib.suppress(VibedError):  # who needs one hears of it
            sandbox = await self._driver.boot(template, builder=self._limits)
            self._ready[template] = sandbox
            try:
                await asyncio.sleep(self._kept_s)
            finally:
                if self._ready.get(template) is sandbox:
                    del self._ready[template]
                    await _destroyed(sandbox)


async def _destroyed(sandbox: Sandbox) -> None:
    with contextlib.suppress(VibedError):
        await asyncio.shield(sandbox.destroy(0))
