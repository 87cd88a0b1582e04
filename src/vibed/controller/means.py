"""What the keepers of one controller share: the store, the pools, the drivers' placements, and the tasks they spawn."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vibed import records
from vibed.apps.errors import VibedError
from vibed.apps.store import AppStore
from vibed.config import Config
from vibed.controller.building import Builds
from vibed.controller.installing import Layers
from vibed.controller.memory import Memory
from vibed.controller.metrics import Metrics
from vibed.controller.names import Names
from vibed.controller.placement import Placements
from vibed.controller.starts import PLACE_S, Starts
from vibed.layout import Layout
from vibed.sandboxes.driver import Sandbox
from vibed.sandboxes.pool import Figures, Key
from vibed.sources.store import SourceStore
from vibed.tracing import Tracer

log = records.logger("vibed.controller")

QUIET_S = 0.25
"""What a start on one machine takes, mostly: over before anyone could read of it."""


class Sites(Protocol):
    """What the controller needs of the driver `static` besides the Driver port: sites have no process to adopt."""

    def find(self, app_id: str, version: int, *, index: str = ..., spa: bool = ...) -> Sandbox | None: ...
    async def remove_app(self, app_id: str) -> None: ...


class Pools(Protocol):
    """Where sandboxes come from (`vibed.sandboxes.pool.WarmPools`)."""

    async def claim(self, driver: str, template: str) -> Sandbox:
        """A sandbox that nobody else gets. Raises `BootFailed`."""
        ...

    def deploying(self) -> contextlib.AbstractContextManager[None]:
        """Held from the claim until the app listens: what can wait waits meanwhile."""
        ...

    def figures(self) -> Mapping[Key, Figures]:
        """Real figures of every pool."""
        ...


class Shortage(Protocol):
    """Whether there is memory for one more app (`vibed.controller.memory.Memory`)."""

    def shortage(self) -> str | None:
        """Why no app can be started now; None when one can."""
        ...


class Tasks:
    """Everything slow runs in one of these, so that a keeper never waits for a sandbox."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None

    async def run(self, ready: asyncio.Event) -> None:
        """Hold the tasks until cancelled; `ready` is set when there may be some."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            ready.set()
            await asyncio.Event().wait()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a task. A fault in the handling of one app is logged and does not end the others'."""
        assert self._group is not None, "the fleet is not running"
        return self._group.create_task(_guarded(work))


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        log.exception("a task of the controller failed")


class Places(dict[tuple[str, bool], Starts]):
    """By driver and by whether there is something to build: a worker, which starts in milliseconds, does not wait for
    what takes seconds, and that does not wait for compilers, which hold their places while they work.
    """

    def __init__(self, at_once: int) -> None:
        super().__init__()
        self._at_once = at_once

    def __missing__(self, key: tuple[str, bool]) -> Starts:
        _, builds = key
        starts = self[key] = Starts(self._at_once, hold_s=None if builds else PLACE_S)
        return starts


@dataclass(eq=False)
class Means:
    """See the module's docstring."""

    config: Config
    layout: Layout
    store: AppStore
    pools: Pools
    sites: Sites
    placements: Placements
    names: Names
    metrics: Metrics
    tracer: Tracer
    sources: SourceStore
    layers: Layers | None = None
    """What makes layers; None on a host that cannot."""
    builds: Builds | None = None
    """What builds apps; None on such a host."""
    quiet_s: float = QUIET_S
    """A start that takes less is not written to the store step by step."""
    at_once: int | None = None
    """Starts at the same time, where nobody has configured it; None: what fits this machine."""
    tasks: Tasks = field(default_factory=Tasks)
    memory: Shortage = field(default_factory=Memory)
    starts: Places = field(init=False)

    def __post_init__(self) -> None:
        self.starts = Places(self.config.start_concurrency or self.at_once or max(4, 2 * len(os.sched_getaffinity(0))))

    def look_at_starts(self) -> None:
        """Who waits for which start has changed."""
        for starts in self.starts.values():
            starts.look()


async def destroy(sandbox: Sandbox) -> None:
    """End a sandbox; what keeps it from going is logged."""
    try:
        await sandbox.destroy()
    except VibedError as error:
        log.error("a sandbox could not be removed", sandbox=sandbox.id, error=error.message)
