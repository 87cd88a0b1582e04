"""What the rows share: the vibeD that is measured, the floors beside it, and one deploy sample after the other."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine, memory, sources, web
from bench.bare import BareSandboxes
from bench.instance import Deployed, Instance, NotLive
from bench.report import Row, number

QUIET_LOAD = 1.0
_PAUSE_S = 0.03
"""Between samples: what a deploy leaves to be done in the background is over after this."""


@dataclass
class Samples:
    """Deploys one after the other."""

    deploys: list[Deployed] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """Processor time of each part of vibeD for one deploy and its deletion: this hardly depends on the load.
    Empty where samples wait for pools: asking for their state would be in it."""

    @property
    def live_ms(self) -> list[float]:
        return [one.live_ms for one in self.deploys]

    @property
    def answer_ms(self) -> list[float]:
        return [one.answer_ms for one in self.deploys]

    @property
    def steps(self) -> list[dict[str, float]]:
        return [dict(one.steps) for one in self.deploys]

    @property
    def late(self) -> int:
        """How many answers were not yet true when they came: the first GET was not 200 with the new content."""
        return sum(one.ready and not one.at_once for one in self.deploys)

    @property
    def accepted(self) -> int:
        """How many were answered 202."""
        return sum(not one.ready for one in self.deploys)


class Bench:
    """One run of the harness; use it as a context manager."""

    def __init__(self, shared: Path, *, quick: bool = False, wait_quiet_s: float = 0.0) -> None:
        self.shared = shared
        self.quick = quick
        self.folder = Path(tempfile.mkdtemp(prefix="vbf-"))
        self._wait_quiet_s = wait_quiet_s
        self._stack = ExitStack()
        self._instance: Instance | None = None
        self._bare: BareSandboxes | None = None
        self.static_p50: float | None = None
        """Of the static row in this run, for the rows whose target builds on it."""

    def __enter__(self) -> Bench:
        self.folder.chmod(0o711)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count(self, full: int, quick: int) -> int:
        """How many samples this run takes."""
        return quick if self.quick else full

    @property
    def instance(self) -> Instance:
        """The vibeD of this run, brought up when the first row wants it."""
        if self._instance is None:
            self.say("bringing vibeD up")
            self._instance = self._stack.enter_context(Instance(self.shared))
            self._instance.wait_warm()
        return self._instance

    @property
    def bare(self) -> BareSandboxes:
        """Sandboxes without vibeD."""
        if self._bare is None:
            self._bare = self._stack.enter_context(BareSandboxes(self.shared, self.folder / "bare"))
        return self._bare

    def fresh(self, **settings: object) -> Instance:
        """A vibeD of a row's own (a context manager)."""
        return Instance(self.shared, **settings)

    def drop(self) -> None:
        """Stop the shared vibeD; the next row that wants one gets a new one."""
        if self._instance is not None:
            self._instance.remove()
            self._instance = None

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        print(f"  ..  {text}", file=sys.stderr, flush=True)

    def begin(self, name: str, title: str) -> Row:
        """A row; waits for a quiet machine first, if the run was told to."""
        if self._wait_quiet_s:
            machine.settle(QUIET_LOAD, self._wait_quiet_s)
        return Row(name, title, load=machine.load())

    def sample(
        self,
        instance: Instance,
        source: sources.Source,
        count: int,
        *,
        templates: Sequence[str] = (),
        between: Callable[[int], None] = lambda place: None,
        keep: bool = False,
        mark: str = "",
    ) -> Samples:
        """Deploy `count` new apps, each when the pools of `templates` are full; `between` is the floor's sample; `mark`
        is what all of them answer with (empty: each with its own).

        The connections to API and app are kept, as an agent's and a browser's are.
        """
        samples = Samples()
        run = secrets.token_hex(2)
        names = []
        before = {}
        with instance.connect() as api, instance.connect() as visitor:
            for place in range(-1, count):
                name = f"b{run}-{place + 1}"
                wanted = mark or f"mark-{secrets.token_hex(6)}"
                packed = sources.packed(source(wanted))
                if templates:
                    instance.wait_warm(*templates)
                    time.sleep(_PAUSE_S)
                try:
                    one = instance.deploy(api, visitor, name, packed, wanted)
                except (NotLive, OSError, web.Broken, ValueError) as error:
                    samples.trouble.append(f"{type(error).__name__}: {error}")
                    if len(samples.trouble) >= 3:
                        break
                    continue
                if place >= 0:
                    # the first opens connections and fills caches: it is no sample
                    samples.deploys.append(one)
                names.append(name)
                if place < 0:
                    before = _processor_time(instance)
                if not keep:
                    instance.delete(api, name)
                time.sleep(_PAUSE_S)
                if place >= 0:
                    between(place)
                    time.sleep(_PAUSE_S)
        if not keep:
            instance.wait_gone(names)
        after = _processor_time(instance)
        samples.cpu_ms = {
            part: (after[part] - spent) * 1000 / len(samples.deploys)
            for part, spent in before.items()
            if samples.deploys and part in after and not templates
        }
        return samples


def _processor_time(instance: Instance) -> dict[str, float]:
    """Seconds by part; sandboxes that the controller starts are not its own."""
    return {name: memory.cpu_seconds([pid]) for name, pid in instance.processes().items() if name != "watchdog"}


def tell(row: Row, name: str, samples: Samples) -> None:
    """Put samples into a row: times, steps, and whether every answer was already true."""
    row.time(name, samples.live_ms)
    if samples.deploys:
        row.time(f"{name}, answer alone", samples.answer_ms)
    row.time_steps(name, samples.steps)
    row.figures[f"{name}: answers that were not true yet"] = samples.late
    row.figures[f"{name}: answered 202"] = samples.accepted
    if samples.cpu_ms:
        row.figures[f"{name}: processor time of a deploy and its deletion (ms)"] = ", ".join(
            f"{part} {number(spent)}" for part, spent in samples.cpu_ms.items()
        )
    row.notes += samples.trouble


def live_once(row: Row, instance: Instance, name: str, packed: bytes, mark: str, *, wait_s: float) -> float | None:
    """As `live`, by connections of its own. The app is deleted."""
    with instance.connect() as api, instance.connect() as visitor:
        api.open()
        visitor.open()
        try:
            return live(row, instance, api, visitor, name, packed, mark, wait_s=wait_s)
        finally:
            instance.delete(api, name)


def live(
    row: Row,
    instance: Instance,
    api: web.Connection,
    visitor: web.Connection,
    name: str,
    packed: bytes,
    mark: str,
    *,
    wait_s: float,
) -> float | None:
    """Milliseconds from the POST to the app's own page; its trouble is told in the row."""
    try:
        return instance.deploy(api, visitor, name, packed, mark, wait_s=wait_s).live_ms
    except (NotLive, OSError, web.Broken, ValueError) as error:
        row.notes.append(f"{type(error).__name__}: {error}"[:400])
        return None
