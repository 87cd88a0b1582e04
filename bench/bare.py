"""Sandboxes without vibeD: the same drivers, templates, limits and supervisors, with no API, store, controller or
router around them. What a deploy takes beyond this is vibeD's own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench import web
from vibed.api.classifying import decider
from vibed.api.metadata import Override
from vibed.apps.app import Runtime
from vibed.cli import installation
from vibed.config import Config
from vibed.controller.roots import BuiltRoots
from vibed.drivers.gvisor import GVisorDriver
from vibed.drivers.workerd.driver import WorkerdDriver
from vibed.layout import Layout
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.templates import load_templates
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Limits, Run, Sandbox
from vibed.sources.limits import ArchiveLimits
from vibed.sources.reader import read_table
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.host import Host
from vibed.supervision.supervised import Supervised


@dataclass(frozen=True, slots=True)
class Start:
    """One run in a bare sandbox."""

    live_ms: float
    """Claim ▸ 200 with the mark, asked at the sandbox's own socket."""
    steps: Mapping[str, float]


class _PreparedWorkerd(WorkerdDriver):
    """Takes worker code that was built before, so that only claim, inject and start are timed."""

    code = ""

    async def order(self, sandbox: Supervised, run: Run) -> dict[str, object]:
        if not self.code:
            order = await super().order(sandbox, run)
            type(self).code = Path(str(order["worker"])).read_text()
            return order
        path = sandbox.place.folder / "worker.json"
        path.touch(0o600)
        path.write_text(self.code)
        return {"worker": str(path)}


class BareSandboxes:
    """Drivers of a home that has nothing else; use it as a context manager in synchronous code."""

    def __init__(self, home: Path, folder: Path) -> None:
        """`home` has tools and templates; `folder` becomes the home of these sandboxes."""
        self._config = Config(folder)
        self._layout = Layout.of(folder)
        self._templates = load_templates()
        tools = Tools(home)
        roots = BuiltRoots(TemplateBuilder(home, self._templates, tools), self._templates)
        for name in self._templates:
            roots.refresh(name)
        self._host = Host(self._layout, tools, roots)
        self._runner = asyncio.Runner()
        self._drivers: dict[str, SupervisedDriver] = {}
        self._decide = decider(self._templates, ("python", "node", "build"))
        self._number = 0

    def __enter__(self) -> BareSandboxes:
        installation.lay_out(self._config, self._layout)
        self._runner.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._close())
        self._runner.close()
        installation.remove_runtime(self._layout)
        shutil.rmtree(self._layout.home, ignore_errors=True)

    def runtime(self, source: bytes) -> Runtime:
        """What the classifier decides for a source."""
        path = self._layout.home / "classified.tar.gz"
        path.write_bytes(source)
        return self._decide(read_table(path, ArchiveLimits()), Override())

    def start(
        self, driver: str, source: bytes, runtime: Runtime, mark: str, *, warm: bool = True, layer: Layer | None = None
    ) -> Start:
        """Boot a sandbox, then time claim ▸ 200. `warm`: whether it may start in a process that is there already;
        `layer`: what is mounted for the app.
        """
        return self._runner.run(self._start(driver, source, runtime, mark, warm, layer=layer))

    def start_cold(self, driver: str, source: bytes, runtime: Runtime, mark: str) -> Start:
        """The same with the boot in the time, as for somebody who waits."""
        return self._runner.run(self._start(driver, source, runtime, mark, True, cold=True))

    def new_worker_code(self) -> None:
        """Have driver `workerd-prepared` build its worker code again at the next start, which is then not a sample."""
        _PreparedWorkerd.code = ""

    async def _open(self) -> None:
        prepared = _PreparedWorkerd(self._host)
        self._drivers = {
            "workerd": WorkerdDriver(self._host),
            "workerd-prepared": prepared,
            "gvisor": GVisorDriver(self._host),
        }

    async def _close(self) -> None:
        for driver in self._drivers.values():
            await driver.close()

    async def _start(
        self,
        driver: str,
        source: bytes,
        runtime: Runtime,
        mark: str,
        warm: bool,
        *,
        cold: bool = False,
        layer: Layer | None = None,
    ) -> Start:
        self._number += 1
        folder = self._layout.runtime / f"r{self._number}"
        folder.mkdir()
        archive = folder / "source.tar.gz"
        archive.write_bytes(source)
        run = Run(
            app_id="bare",
            version=1,
            number=self._number,
            source=archive,
            runtime=runtime if warm else replace(runtime, start=replace(runtime.start, warm=False)),
            env=layer.env if layer is not None else {},
            mounts=(layer.mount,) if layer is not None else (),
            links=layer.links if layer is not None else {},
            limits=self._limits(runtime.template),
        )
        began = time.perf_counter()
        sandbox: Sandbox = await self._drivers[driver].boot(runtime.template, urgent=cold)
        try:
            if not cold:
                # what a boot leaves to be done in the background is over after this
                await asyncio.sleep(0.15)
                began = time.perf_counter()
            socket = folder / "app.sock"
            started = await sandbox.run(run, socket=socket, log_dir=folder / "log", on_stage=lambda stage: None)
            with web.Connection(socket) as visitor:
                page = visitor.send(web.get("/", "bare.localhost"))
            live = (time.perf_counter() - began) * 1000
            if page.status != 200 or mark.encode() not in page.body:
                raise RuntimeError(f"a bare sandbox answered {page.status} {page.body[:200]!r}")
            return Start(live, dict(started.timings))
        finally:
            await asyncio.shield(sandbox.destroy(0))
            shutil.rmtree(folder, ignore_errors=True)

    def _limits(self, template: str) -> Limits:
        one = self._templates[template].resources
        return Limits(cpus=one.cpus, memory_mb=one.memory_mb, pids=one.pids, disk_mb=one.disk_mb)


def described(runtime: Runtime) -> str:
    """How a source was classified, for a note."""
    return json.dumps({"template": runtime.template, "start": list(runtime.start.argv), "bundle": runtime.bundle})
