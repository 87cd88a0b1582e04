"""One step of a build: a builder sandbox is booted, does it, and is destroyed.

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
from typing import Any, Protocol

from vibed.apps.app import Runtime, Start
from vibed.apps.errors import VibedError
from vibed.runtimes.gate import registry_gate
from vibed.runtimes.layers.compilers import Compilers
from vibed.runtimes.layers.delivery import Delivery, Undelivered, delivery
from vibed.runtimes.layers.imaging import Clash, ImageFailed, Taken, make_image
from vibed.runtimes.layers.toolbox import Toolbox
from vibed.runtimes.registries import Registries
from vibed.runtimes.shipped import shipped
from vibed.sandboxes.driver import Builder, Exit, Mount, Run, RunFailed, Sandbox
from vibed.supervision.host import Host

APP = "_build"
"""The app that a build runs as: a name that no app can have."""
_APP_FOLDER = "/app"
"""Where a sandbox has a source."""
_PROGRAMS = {
    "python": ("/usr/bin/python3", "-I", "/layers/out/python.py"),
    "node": ("node", "/layers/out/node.cjs"),
    "build": ("node", "/layers/out/build.cjs"),
    "worker": ("node", "/layers/out/worker.cjs"),
    "go": ("/usr/lib/vibed/vibed-agent", "gobuild"),
}
_PROJECT = ("project.cjs", "compilers.cjs", "tarball.cjs", "answer.cjs", "google_fonts.cjs", "angular_fonts.cjs")
_FILES: Mapping[str, tuple[str, ...]] = {
    "python": ("python.py", "pieces.py", "linked.py", "wheels.py"),
    "node": ("node.cjs", "answer.cjs", "compilers.cjs", "linked.py"),
    "build": ("build.cjs", *_PROJECT),
    "worker": ("worker.cjs", "bundle.cjs", *_PROJECT),
    "go": (),
}
_CURES = {
    ".prisma.sh": 'Prisma 7 needs no engine from there, nor do 6.16 and newer with engineType = "client" in the'
    " generator, each with a driver adapter",
}
"""By how hosts end that packages ask for what no registry has: what does without."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Order:
    """What a step is to do."""

    kind: str
    template: str
    request: Mapping[str, Any]
    source: Path | None = None
    """The app's, where it decides what comes of it; else the step sees none of it."""
    strip: str = ""
    mounts: tuple[Mount, ...] = ()
    """What it needs beside the tools."""
    compilers: bool = False
    """Whether it gets what packages are compiled with."""
    take: tuple[Taken, ...] = ()
    """What the image has beside what is installed."""
    env: Mapping[str, str] = field(default_factory=dict)
    own: bool = False
    """Whether what comes of it belongs to one owner's app: links of it may then lead into the app's folder."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a step."""

    answer: Mapping[str, Any]
    image: Path | None = None
    """In the place that the step had for itself; gone with it."""
    pieces: tuple[str, ...] = ()
    """Which packages another layer may take over from the image, by the lines that pin them."""
    archive: Path | None = None
    """So too: what an app's own build made."""


class StepFailed(Exception):
    """An installer failed, or what it ran. The message says how where it did not say so itself."""

    code = "StepFailed"

    def __init__(
        self,
        message: str,
        *,
        said: str = "",
        exit: Exit | None = None,
        denied: Mapping[str, int] | None = None,
        unreachable: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.said = said
        """The installer's own words; empty when it came to none."""
        self.exit = exit
        self.answer: Mapping[str, Any] = {}
        """What the step's program sent."""
        self.denied = dict(denied or {})
        """Hosts that were asked for and refused, and how often."""
        self.unreachable = unreachable
        """What the registries failed in."""

    def elsewhere(self, while_: str) -> str:
        """What was asked for that is no registry, in words; empty when nothing was. `while_`: what was done then."""
        if not self.denied:
            return ""
        hosts = ", ".join(sorted(self.denied)[:5])
        cures = [
            cure for host, cure in _CURES.items() if any(one.rpartition(":")[0].endswith(host) for one in self.denied)
        ]
        return "; ".join(
            [f"the build asked for {hosts}: only the package registries can be reached while {while_}", *cures]
        )


class Clashed(StepFailed):
    """What was installed, and what is taken over, do not go together."""


class Boots(Protocol):
    """The part of a driver that is needed here."""

    async def boot(self, template: str, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox: ...


@dataclass(eq=False)
class Workshop:
    """Performs steps in builder sandboxes."""

    host: Host
    driver: Boots
    toolbox: Toolbox
    compilers: Compilers
    registries: Callable[[], Awaitable[Registries]]
    timeout_s: float
    """For one step."""
    limits: Builder = field(default_factory=Builder)
    most_bytes: int = 2 << 30
    """Of one layer."""

    async def perform(self, order: Order, place: Path, log_dir: Path) -> Done:
        """`place`: an empty folder for this step alone. Raises StepFailed, VibedError (what is no fault of the app),
        OSError.
        """
        mounts = [Mount(await self.toolbox.image(), "/layers/tools"), *order.mounts]
        if order.compilers:
            mounts += await self.compilers.mounts(order.template)
        out = await asyncio.to_thread(_lay_out, place, order)
        async with contextlib.AsyncExitStack() as stack:
            gate = await stack.enter_async_context(registry_gate(self.host, await self.registries()))
            one = await stack.enter_async_context(delivery(out))
            sandbox = await self.driver.boot(order.template, urgent=True, builder=self.limits)
            stack.push_async_callback(_destroy, sandbox)
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
            )
            try:
                return await self._attend(sandbox, run, one, order, place, log_dir)
            except StepFailed as error:
                error.denied = dict(gate.denied())
                error.unreachable = gate.trouble()
                raise

    async def compose(self, take: tuple[Taken, ...], place: Path) -> Done:
        """An image of what is taken over, without anything being installed. Raises StepFailed, OSError."""
        try:
            image = await make_image(self.host, place, None, most_bytes=self.most_bytes, take=take)
        except ImageFailed as error:
            raise _fault(error) from error
        return Done({"installed": True}, image)

    async def _attend(
        self, sandbox: Sandbox, run: Run, one: Delivery, order: Order, place: Path, log_dir: Path
    ) -> Done:
        """Wait for the program's end and for what it sends, which may come in any order."""
        taking = asyncio.create_task(self._take(one, order, place))
        running = asyncio.create_task(
            sandbox.run(run, socket=place / "none.sock", log_dir=log_dir, on_stage=lambda stage: None)
        )
        try:
            await asyncio.wait((taking, running), return_when=asyncio.FIRST_COMPLETED)
            if taking.done() and (failure := taking.exception()) is not None:
                raise _fault(failure)
            failed: RunFailed | None = None
            try:
                await running
            except RunFailed as error:
                failed = error
            # what was sent before the end is there
            try:
                async with asyncio.timeout(30 if failed else None):
                    done = await taking
            except TimeoutError:
                done = Done({})
            except (Undelivered, ImageFailed) as error:
                if failed is None:
                    raise _fault(error) from error
                done = Done({})
        finally:
            for task in (taking, running):
                task.cancel()
            await asyncio.gather(taking, running, return_exceptions=True)
        said = done.answer.get("failed")
        if isinstance(said, str):
            fault = StepFailed("the installer failed", said=said, exit=failed.exit if failed else None)
            fault.answer = done.answer
            raise fault
        if failed is not None:
            raise StepFailed(failed.message, exit=failed.exit)
        return done

    async def _take(self, one: Delivery, order: Order, place: Path) -> Done:
        answer = await one.answer()
        archive: Path | None = None
        if answer.get("built"):
            archive = place / "built.tar.gz"
            await one.save(archive, most_bytes=self.most_bytes)
            if not answer.get("carried"):
                return Done(answer, archive=archive)
            answer = {**await one.answer(), **answer}
        image: Path | None = None
        if answer.get("installed"):

            async def take(descriptor: int) -> None:
                nonlocal image
                image = await make_image(
                    self.host,
                    place,
                    descriptor,
                    most_bytes=self.most_bytes,
                    take=order.take,
                    beyond=_APP_FOLDER if order.own else "",
                )

            await one.hand_on(take)
        return Done(answer, image, archive=archive)


def _fault(failure: BaseException) -> BaseException:
    if isinstance(failure, Clash):
        return Clashed(str(failure))
    if isinstance(failure, (Undelivered, ImageFailed)):
        return StepFailed(str(failure))
    return failure


async def _destroy(sandbox: Sandbox) -> None:
    with contextlib.suppress(VibedError):
        await asyncio.shield(sandbox.destroy(0))


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
