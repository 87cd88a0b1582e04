"""One run of one version, from its claim to its end, as the controller sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vibed.controller.decision import COMING, RunView, Stage
from vibed.sandboxes.driver import Sandbox


@dataclass(eq=False)
class LiveRun:
    """A run that is not over."""

    number: int
    version: int
    stage: Stage = Stage.STARTING
    entered: list[tuple[str, float]] = field(default_factory=list)
    """Its steps so far, and when they began (Unix seconds)."""
    sandbox: Sandbox | None = None
    begun: float = field(default_factory=time.monotonic)
    serving_since: float = 0.0
    doubted: bool = False
    """Whether nobody answers at its socket: it is over, and what is waited for is the account of why."""
    building: str = ""
    """What of it is installed or built, while it waits for that; the rest of a sentence."""
    moving: bool = False
    """Whether another run of its version is to take over from it, wherever that finds a place."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is told to leave while it is on its way."""
    layer: str = ""
    """The key of the layer that it uses."""
    waits_for: Callable[[], str] | None = None
    """What tells for what it waits, while it has no turn to start yet."""
    timings: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    """Which of several ports is served, and why; the rest of a sentence."""
    moved: str = ""
    """Which other template it runs on, and why; the rest of a sentence."""
    lowered: str = ""
    """What it cannot be given that it asks for; the rest of a sentence."""
    served_before: bool = False
    """Whether an earlier run of its version served."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, step: str) -> None:
        self.entered.append((step, time.time()))

    def view(self) -> RunView:
        step = self.entered[-1][0] if self.entered else ""
        waits_for = self.waits_for() if self.waits_for is not None else ""
        return RunView(
            self.number,
            self.version,
            self.stage,
            step,
            waits_for,
            self.served_s,
            "; it ".join(filter(None, (self.moved, self.lowered, self.note))),
            building=self.building,
            moving=self.moving,
        )

    @property
    def served_s(self) -> float:
        """How long it has served."""
        return time.monotonic() - self.serving_since if self.serving_since else 0.0

    @property
    def coming(self) -> bool:
        return self.stage in COMING

    @property
    def live(self) -> bool:
        """Whether the app's name may lead to it: it takes part in handing connections over."""
        return self.stage in (Stage.SWITCHING, Stage.SERVING)

    @property
    def leaving(self) -> bool:
        return self.stage in (Stage.DRAINING, Stage.STOPPING)

    @property
    def is_site(self) -> bool:
        return self.sandbox is not None and self.sandbox.driver == "static"


def app_key(created_at: float) -> str:
    """What tells an app from an earlier one of its name, beside its sandboxes: when it was made."""
    return repr(created_at)


Runs = dict[int, LiveRun]
"""The runs of one app that are not over, by their number."""


def newest_serving(runs: Runs) -> LiveRun | None:
    """The newest run that serves."""
    return max((run for run in runs.values() if run.stage is Stage.SERVING), key=lambda run: run.number, default=None)
