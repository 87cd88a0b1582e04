"""Making one layer: find it, or have it made once, whoever asks meanwhile."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from vibed.runtimes.layers.ask import Ask
from vibed.runtimes.layers.imaging import Taken
from vibed.runtimes.layers.layer import MODULES, Layer
from vibed.runtimes.layers.npm_tree.laying import Laid
from vibed.runtimes.layers.npm_tree.plan import Plan
from vibed.runtimes.layers.steps import Done, Order
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.layers.workbench import Workbench
from vibed.sandboxes.driver import Mount

LAID = "/layers/laid"
"""Where a builder has what was laid out for it."""
_MOST_FOLDERS = 300
_FOLDER = re.compile(r"(?:(?!\.{1,2}/|node_modules/)[^/\x00-\x1f:]{1,100}/){0,12}node_modules")
"""One in which packages lie; a colon would part it in two on PATH."""


class Steps(Protocol):
    """Who performs steps (`vibed.runtimes.layers.work.Workshop`)."""

    async def perform(self, order: Order, place: Any, log_dir: Any, bench: Workbench | None = None) -> Done: ...
    async def compose(self, take: tuple[Taken, ...], place: Any) -> Done: ...
    async def lay(self, plan: Plan, place: Any) -> Laid: ...
    async def said(self, orders: Mapping[str, Any], place: Any) -> Mapping[str, Any]: ...


@dataclass(eq=False)
class Making:
    """What the recipes of all managers share."""

    store: LayerStore
    steps: Steps
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def bench(self) -> Workbench:
        """Where the steps of one layer are done; to be closed."""
        stack = ExitStack()
        return Workbench(stack.enter_context(self.store.making()), stack)

    async def resolve(
        self, ask: Ask, request: Mapping[str, Any], *, compilers: bool = False, builds: bool = True
    ) -> str:
        """The resolution that a step answers with. Raises StepFailed, VibedError, OSError."""
        order = self._order(ask, {"step": "resolve", **request}, compilers, builds)
        with self.store.making() as place:
            done = await self.steps.perform(order, place, ask.log_dir, ask.bench)
        return str(done.answer.get("resolution", ""))

    async def layer(
        self, ask: Ask, key: str, packages: Mapping[str, str], install: Callable[[Path], Awaitable[Done]]
    ) -> Layer:
        """The layer of that key; if it is not there, `install` makes it in a folder that is its own. Raises StepFailed,
        VibedError, OSError.
        """
        async with self._alone(key):
            if (found := await asyncio.to_thread(self.store.find, key)) is not None:
                return found
            began = time.monotonic()
            with self.store.making() as place:
                done = await install(place)
                if done.image is None:
                    raise OSError(f"no image came of layer {key[:12]}")
                ask.say("keeping the layer")
                layer = await asyncio.to_thread(
                    self.store.keep,
                    key,
                    ask.install.kind,
                    done.image,
                    template=ask.base.template,
                    base=ask.base.digest,
                    packages=packages,
                    took_s=time.monotonic() - began,
                    private=ask.owner is not None,
                    folders=_folders(done.answer.get("folders")),
                    pieces=done.pieces,
                )
                return replace(layer, notes=tuple(_lacking(done.answer.get("lacking"))))

    async def install(
        self,
        ask: Ask,
        request: Mapping[str, Any],
        place: Path,
        *,
        compilers: bool = False,
        builds: bool = True,
        take: tuple[Taken, ...] = (),
        laid: Path | None = None,
    ) -> Done:
        """What a step installs, in an empty folder of its own. `laid`: an image of what is there already. Raises
        StepFailed, VibedError, OSError.
        """
        order = self._order(ask, {"step": "install", **request}, compilers, builds)
        mounts = () if laid is None else (Mount(laid, LAID),)
        return await self.steps.perform(replace(order, take=take, mounts=mounts), place, ask.log_dir, ask.bench)

    def _order(self, ask: Ask, request: Mapping[str, Any], compilers: bool, builds: bool) -> Order:
        # what the source does not decide must not see it
        own = ask.owner is not None
        source = ask.source if own and not ask.install.by_files else None
        request = {**request, "compilers": compilers, "builds": builds}
        return Order(
            ask.install.kind,
            ask.base.template,
            request,
            source,
            ask.strip,
            compilers=compilers,
            own=own,
            builds=builds,
        )

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Requests of different words may lead to one layer."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield
        if not lock.locked():
            self._locks.pop(key, None)


def _folders(said: object) -> tuple[str, ...]:
    """Where an app finds its packages, as the builder's program says, which may be anything."""
    names = [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
    return tuple(name for name in names[:_MOST_FOLDERS] if _FOLDER.fullmatch(name)) or (MODULES,)


def _lacking(libraries: object) -> Iterator[str]:
    """Notes about what was compiled and will not load. `libraries`: as the builder's program says, which may be
    anything: library -> files that want it.
    """
    for library, files in sorted(libraries.items()) if isinstance(libraries, dict) else ():
        if isinstance(files, list) and files:
            yield f"{str(files[0])[:120]} wants the library {str(library)[:80]}, which the template has not"


def part(place: Path, name: str) -> Path:
    """A new folder in `place`, for one of several steps that a layer takes."""
    folder = place / name
    folder.mkdir()
    return folder
