"""Steps of builds: for each a builder sandbox is booted, does it, and is destroyed; where that is safe it may wait for
the next one instead (`workbench`).

A step gets the source (or an empty folder), the program and its orders, the tools and a way to the registries. What
comes of it is an answer and, of an installation, an image.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vibed.apps.app import Runtime, Start
from vibed.apps.errors import VibedError
from vibed.runtimes.layers.ahead import Boots
from vibed.runtimes.layers.delivery import delivery
from vibed.runtimes.layers.equipment import Compiling, Equipment, Tooling
from vibed.runtimes.layers.imaging import Clash, ImageFailed, Taken
from vibed.runtimes.layers.npm_tree.laying import Laid
from vibed.runtimes.layers.npm_tree.plan import Plan
from vibed.runtimes.layers.steps import Clashed, Done, Order, StepFailed
from vibed.runtimes.layers.workbench import Opened, Workbench
from vibed.runtimes.registries import Registries
from vibed.runtimes.shipped import shipped
from vibed.sandboxes.driver import Builder, Isolation, Mount, Run, Sandbox

APP = "_build"
"""The app that a build runs as: a name that no app can have."""
_PROGRAMS = {
    "python": ("/usr/bin/python3", "-I", "/layers/out/python.py"),
    "node": ("node", "/layers/out/node.cjs"),
    "build": ("node", "/layers/out/build.cjs"),
    "worker": ("node", "/layers/out/worker.cjs"),
    "go": ("/usr/lib/vibed/vibed-agent", "gobuild"),
}
_PROJECT = (
    "project.cjs",
    "run_script.cjs",
    "compilers.cjs",
    "tarball.cjs",
    "answer.cjs",
    "google_fonts.cjs",
    "angular_fonts.cjs",
)
_FILES: Mapping[str, tuple[str, ...]] = {
    "python": ("python.py", "alone.py", "pieces.py", "linked.py", "wheels.py"),
    "node": ("node.cjs", "answer.cjs", "compilers.cjs", "linked.py"),
    "build": ("build.cjs", *_PROJECT),
    "worker": ("worker.cjs", "bundle.cjs", *_PROJECT),
    "go": (),
}
_numbers = itertools.count(1)


@dataclass(eq=False)
class Workshop:
    """Performs steps in builder sandboxes."""

    equipment: Equipment
    driver: Boots
    toolbox: Tooling
    compilers: Compiling
    registries: Callable[[], Awaitable[Registries]]
    timeout_s: float
    """For all that is done in one sandbox."""
    limits: Builder = field(default_factory=Builder)
    most_bytes: int = 2 << 30
    """Of one layer."""
    least: Isolation | None = None
    """What a builder's sandbox has to measure of itself before it gets anything; None: its driver's word is enough."""

    async def perform(self, order: Order, place: Path, log_dir: Path, bench: Workbench | None = None) -> Done:
        """`place`: an empty folder for this step alone; `bench`: where it is done, else in a sandbox of its own. Raises
        StepFailed, VibedError (what is no fault of the app), OSError.
        """
        if bench is None:
            one = await self._open(order, place, log_dir)
            try:
                return await one.perform(order, place)
            finally:
                await one.stack.aclose()
        one = bench.opened(order) or await self._open(order, bench.folder(), log_dir, more=True)
        try:
            return await one.perform(order, place)
        finally:
            bench.leave(one)

    async def compose(self, take: tuple[Taken, ...], place: Path) -> Done:
        """An image of what is taken over, without anything being installed. Raises StepFailed, OSError."""
        try:
            image = await self.equipment.compose(place, take, most_bytes=self.most_bytes)
        except Clash as error:
            raise Clashed(str(error)) from error
        except ImageFailed as error:
            raise StepFailed(str(error)) from error
        return Done({"installed": True}, image)

    async def lay(self, plan: Plan, place: Path) -> Laid:
        """An image of what a plan has, without anything of it being run. Raises Left (it is npm's to do), StepFailed,
        VibedError, OSError.
        """
        try:
            return await self.equipment.lay(place, plan, self.registries, most_bytes=self.most_bytes)
        except ImageFailed as error:
            raise StepFailed(str(error)) from error

    async def said(self, orders: Mapping[str, Any], place: Path) -> Mapping[str, Any]:
        """What the packages of orders say of how they are installed, by their folders. Raises Left, VibedError,
        OSError.
        """
        return await self.equipment.said(place, orders, self.registries, most_bytes=self.most_bytes)

    async def _open(self, order: Order, place: Path, log_dir: Path, *, more: bool = False) -> Opened:
        """A sandbox with an order. `place`: an empty folder, there for as long as the sandbox. Raises VibedError,
        OSError.
        """
        tools = await self.toolbox.image(order.kind)
        mounts = [*([Mount(tools, "/layers/tools")] if tools is not None else []), *order.mounts]
        if order.compilers:
            mounts += await self.compilers.mounts(order.template)
        registries = await self.registries()
        async with contextlib.AsyncExitStack() as stack:
            booting = asyncio.create_task(self.driver.boot(order.template, urgent=True, builder=self.limits))
            stack.push_async_callback(_destroyed, booting)
            gate = await stack.enter_async_context(self.equipment.gate(registries))
            out = await asyncio.to_thread(_lay_out, place, order)
            one = await stack.enter_async_context(delivery(out))
            sandbox = await booting
            run = Run(
                app_id=APP,
                version=1,
                number=next(_numbers),
                source=order.source or place / "empty.tar.gz",
                runtime=_runtime(order),
                env={**gate.env, **order.env},
                limits=self.limits,
                mounts=(*mounts, Mount(out, "/layers/out"), gate.mount),
                start_timeout_s=self.timeout_s,
                least=self.least,
            )
            running = asyncio.create_task(
                sandbox.run(run, socket=place / "none.sock", log_dir=log_dir, on_stage=lambda stage: None)
            )
            stack.push_async_callback(_cancelled, running)
            return Opened(order, running, one, gate, self.equipment, self.most_bytes, stack.pop_all(), more)


async def _destroyed(booting: asyncio.Task[Sandbox]) -> None:
    """End a sandbox, whether it has been booted or not."""
    booting.cancel()
    with contextlib.suppress(asyncio.CancelledError, VibedError):
        sandbox = await booting
        await asyncio.shield(sandbox.destroy(0))


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _runtime(order: Order) -> Runtime:
    return Runtime(
        lane="general",
        template=order.template,
        kind="build",
        entrypoint="",
        why="",
        strip=order.strip if order.source else "",
        start=Start(build=(_PROGRAMS[order.kind],), warm=False),
    )


def _lay_out(place: Path, order: Order) -> Path:
    """The folder that the sandbox finds at /layers/out: ours, so that it can write nothing there."""
    out = place / "out"
    out.mkdir(mode=0o755)
    out.chmod(0o755)
    for name in _FILES[order.kind]:
        shutil.copyfile(shipped("templates") / "_builder" / name, out / name)
    (out / "request.json").write_text(json.dumps(order.request))
    for path in out.iterdir():
        path.chmod(0o644)
    if order.source is None:
        (place / "empty.tar.gz").write_bytes(_empty())
    return out


def _empty() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("README"), io.BytesIO())
    return packed.getvalue()
