"""`--against DIR`: another checkout's vibeD beside this one's, deploys in turn, and how the times compare.

The other one is a process of its own with its own modules, programs and templates; only this interpreter and its
packages are shared. What is measured is what both have: POST ▸ 200 of the live URL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench import machine, sources, web
from bench.harness import Bench, Samples
from bench.instance import TEMPLATES, Instance, NotLive, linked
from bench.report import Row, at_most
from bench.rows import serving
from bench.rows.serving import SERVED

SOURCES: Mapping[str, tuple[sources.Source, tuple[str, ...]]] = {
    "static": (sources.static, ()),
    "workerd": (sources.worker, ("workerd",)),
    "workerd-bundled": (sources.bundled_worker, ("workerd",)),
    "python": (sources.python, ("python-313",)),
    "node": (sources.node, ("node-24",)),
    "flask": (sources.flask, ("python-313",)),
    "gunicorn": (sources.gunicorn, ("python-313",)),
    "fastapi": (sources.fastapi, ("python-313",)),
    "express": (sources.express, ("node-24",)),
}
"""What is compared, and the pools that have to be full before each sample."""
SLOWER_MS = 3.0
"""By how much p50 may be worse."""
THIS = "this checkout"
_PAUSE_S = 0.03


class Checkout:
    """Another checkout of vibeD."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError."""
        self.folder = folder.resolve()
        if not (self.folder / "src" / "vibed").is_dir():
            raise ValueError(f"{folder} is no checkout of vibeD")

    @property
    def commit(self) -> str:
        """Its commit, short; else its folder's name."""
        return machine.commit(self.folder) or self.folder.name

    def prepared(self, shared: Path, say: Callable[[str], None]) -> Path:
        """A home with its programs and templates, made by its own code beside `shared`; quick when it is there."""
        home = shared.with_name(f"{shared.name}-{self.commit}")
        if not home.exists():
            linked(shared, home)
        for what in ("tools", "templates"):
            say(f"{what} of {self.commit}")
            subprocess.run(
                [sys.executable, "-m", "tests.prepare", what],
                cwd=self.folder, env={**self.env(), "VIBED_TEST_HOME": str(home)}, check=True, stdout=sys.stderr,
            )  # fmt: skip
        return home

    def env(self) -> dict[str, str]:
        """The environment in which its modules are the ones that are found."""
        return {**os.environ, "PYTHONPATH": str(self.folder / "src")}


class Other(Instance):
    """A vibeD of another checkout."""

    def __init__(self, checkout: Checkout, home: Path, **settings: object) -> None:
        """`home` is one that it has prepared."""
        super().__init__(home, **settings)
        self._checkout = checkout

    def _env(self) -> dict[str, str]:
        return {**super()._env(), "PYTHONPATH": self._checkout.env()["PYTHONPATH"]}

    def _take_from_shared(self) -> None:
        # which versions it wants is for its own code to say: it gets all that there is
        self.home.chmod(0o711)
        linked(self.shared / "tools", self.home / "tools")
        for name in TEMPLATES:
            linked(self.shared / "templates" / name, self.home / "templates" / name)


class Against:
    """Both vibeDs; use it as a context manager."""

    def __init__(self, bench: Bench, checkout: Checkout) -> None:
        self._bench = bench
        self._checkout = checkout
        self.name = f"against {checkout.commit}"
        self._stack = ExitStack()
        self._other: Instance | None = None

    def __enter__(self) -> Against:
        home = self._checkout.prepared(self._bench.shared, self._bench.say)
        self._bench.say(f"bringing vibeD of {self._checkout.commit} up")
        self._other = self._stack.enter_context(Other(self._checkout, home))
        self._other.wait_warm()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, name: str) -> Row:
        """One row. Samples alternate, and so does which of the two goes first."""
        assert self._other is not None
        if name in SERVED:
            return serving.measure(self._bench, name, {self.name: self._other})
        source, templates = SOURCES[name]
        row = self._bench.begin(name, f"{name}: POST ▸ 200, this checkout and {self._checkout.commit} in turn")
        row.floor, row.compared = self.name, (THIS,)
        both = {THIS: self._bench.instance, self.name: self._other}
        found = {side: Samples() for side in both}
        for place in range(-1, self._bench.count(40, 6)):
            for side in list(both)[:: 1 if place % 2 else -1]:
                for instance in both.values():
                    instance.wait_warm(*templates)
                time.sleep(_PAUSE_S)
                self._sample(both[side], source, found[side], counts=place >= 0)
        for side, samples in found.items():
            row.time(side, samples.live_ms)
            row.time_steps(side, samples.steps)
            row.notes += [f"{side}: {trouble}" for trouble in samples.trouble]
        if THIS in row.series and self.name in row.series:
            row.verdicts.append(
                at_most(
                    f"{name} p50 ≤ that of {self._checkout.commit} + {SLOWER_MS:g} ms",
                    row.series[THIS].p50,
                    row.series[self.name].p50 + SLOWER_MS,
                )
            )
        return row

    def _sample(self, instance: Instance, source: sources.Source, into: Samples, *, counts: bool) -> None:
        name, mark = sources.name_and_mark()
        with instance.connect() as api, instance.connect() as visitor:
            # open connections, as an agent's and a browser's are
            api.open()
            visitor.open()
            try:
                one = instance.deploy(api, visitor, name, sources.packed(source(mark)), mark)
            except (NotLive, OSError, web.Broken, ValueError) as error:
                into.trouble.append(f"{type(error).__name__}: {error}")
                return
            if counts:
                # the first fills caches: it is no sample
                into.deploys.append(one)
            instance.delete(api, name)
            instance.wait_gone([name])
