"""Layers for apps: found, or made once however many ask.

A build goes on as long as somebody wants it, and ends with the last who does. What vibeD was making when it ended is
made again when the app is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vibed import records
from vibed.apps.app import Install
from vibed.runtimes.layers import go, node, python
from vibed.runtimes.layers.ask import FAILED, Ask
from vibed.runtimes.layers.asker import Asker
from vibed.runtimes.layers.keys import Base, Owner, request_key
from vibed.runtimes.layers.layer import Layer, LayerFacts
from vibed.runtimes.layers.making import Making, Steps
from vibed.runtimes.layers.popular import popular
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.layers.workbench import Workbench
from vibed.runtimes.once import Interrupted, Once, Unwanted
from vibed.runtimes.tool import ToolError
from vibed.runtimes.turn import Turn, one_after_another
from vibed.sandboxes.driver import RunFailed
from vibed.sources.extraction import iter_files
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.reader import read_table

log = records.logger("vibed.layers")

MOST_BYTES = 20 << 30
"""Of all layers together; on a small disk, a quarter of it."""
_RESERVE_BYTES = 2 << 30
"""Of the disk, for everything else: nothing is installed while less is free."""
SET_ASIDE_S = 7 * 86_400.0
"""So long what could only be had on another template is not tried on the first one again."""
UNUSED_S = 30 * 86_400.0
_RECIPES = {"python": python.make, "node": node.make, "go": go.make}


class Layers:
    """The layers of one vibeD."""

    def __init__(
        self,
        store: LayerStore,
        steps: Steps,
        *,
        base: Callable[[str], Base | None],
        version: Callable[[str], str],
        turn: Turn | None = None,
        limits: ArchiveLimits = DEFAULT_LIMITS,
        closing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`base`: what layers for a template are made for, None while it is not built; `version` of an installer;
        `turn`: of each installation, one after another if None; `closing`: what is called at the end.
        """
        self._closing = closing
        self._store = store
        self._making = Making(store, steps)
        self._base = base
        self._version = version
        self.in_use: Callable[[], Collection[str]] = frozenset
        """Tells the keys of the layers that apps have; those never go."""
        self._turn = turn or one_after_another()
        self._limits = limits
        self._once: Once[tuple[Layer, tuple[str, ...]]] = Once()
        self._clearing: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        """Blocking: make the folders, and clear what an earlier vibeD left. Raises OSError."""
        self._store.prepare()

    def ready(self, template: str) -> bool:
        """Whether a template is there as its definition says, so that layers can be made for it."""
        return self._base(template) is not None

    def find(self, install: Install, asker: Asker) -> Layer | None:
        """The layer that the same request led to before, if it is there. Blocking. Raises `RunFailed`, `unmet` where it
        was set aside.
        """
        base = self._base(asker.template)
        if base is None or install.kind not in _RECIPES:
            return None
        request, _, _ = self._asked(install, base, asker)
        if (aside := self._store.unmet(request, within_s=SET_ASIDE_S)) is not None:
            why, fits = aside
            raise RunFailed(why, code=FAILED, unmet=True, fits=fits)
        return self._remembered(request)

    def set_aside(self, install: Install, asker: Asker, failed: RunFailed) -> None:
        """Remember that this template could not have what another one had. Blocking. Raises `RunFailed`, OSError."""
        if (base := self._base(asker.template)) is not None:
            request, _, _ = self._asked(install, base, asker)
            self._store.set_aside(request, failed.message, failed.fits)

    async def provide(
        self,
        install: Install,
        asker: Asker,
        *,
        log_dir: Path,
        on_step: Callable[[str], None],
        wanted: Callable[[], bool],
        compiles: bool = True,
    ) -> Layer:
        """The layer for a version of an app. `on_step` hears what a build is at; `wanted` is asked while it waits.
        Without `compiles` what has to be compiled fails, `unmet`.

        Raises `RunFailed` (`DependencyBuildFailed`; `Stopped` when it is wanted no more), and other errors that are no
        fault of the app.
        """
        base = self._base(asker.template)
        if base is None:
            raise _not_now(f"template {asker.template} is not built yet")
        if install.kind not in _RECIPES:
            raise RunFailed(f"dependencies of {install.kind} cannot be installed", code="DependenciesMissing")
        request, files, whose = await asyncio.to_thread(self._asked, install, base, asker)
        if (found := await asyncio.to_thread(self._remembered, request)) is not None:
            return found

        async def make(say: Callable[[str], None]) -> tuple[Layer, tuple[str, ...]]:
            async with self._turn(owner=asker.owner, app_id=asker.app_id):
                bench = self._making.bench()
                ask = Ask(install, base, files, whose, asker.source, asker.strip, log_dir, say, bench, compiles)
                try:
                    made = await self._make(request, ask)
                except BaseException:
                    await bench.close()
                    raise
                # the app need not wait for that
                clearing = asyncio.create_task(self._clear_up(bench), name="clearing up after an installation")
                self._clearing.add(clearing)
                clearing.add_done_callback(self._clearing.discard)
                return made

        try:
            which = request if compiles else f"{request} uncompiled"
            layer, notes = await self._once.get(which, make, on_step=on_step, wanted=wanted)
        except Unwanted:
            raise RunFailed("it was stopped while its dependencies were installed", code="Stopped") from None
        except Interrupted:
            raise _not_now("the installation was interrupted") from None
        return replace(layer, notes=notes)

    def listing(self) -> Sequence[LayerFacts]:
        """Those that are there, the last used first. Blocking."""
        return self._store.listing()

    def popular(
        self, used: Mapping[str, Collection[str]], apps: Mapping[str, int], least: int
    ) -> Mapping[str, Sequence[Layer]]:
        """Those that sandboxes should have ahead, by template (`vibed.runtimes.layers.popular`). Blocking."""
        found = popular(used, self._store.facts, apps, least)
        return {
            template: [layer for key in keys if (layer := self._store.look(key)) is not None]
            for template, keys in found.items()
        }

    def pin(self, key: str, *, pinned: bool) -> bool:
        """Have a layer stay, or go when nothing uses it any more; whether there is one. Blocking. Raises OSError."""
        return self._store.pin(key, pinned=pinned)

    def remove(self, key: str) -> None:
        """Have a layer go that nothing uses. Blocking. Raises OSError."""
        self._store.remove(key)

    def building(self) -> Mapping[str, str]:
        """What is in the making, by request, and what it is at."""
        return self._once.under_way()

    async def close(self) -> None:
        """End what is in the making."""
        await self._once.close()
        await asyncio.gather(*self._clearing, return_exceptions=True)
        if self._closing is not None:
            await self._closing()

    async def tidy(self) -> None:
        """Have what is not worth its place go. Raises OSError."""
        gone = await asyncio.to_thread(
            self._store.tidy, frozenset(self.in_use()), most_bytes=self._store.share(MOST_BYTES), unused_s=UNUSED_S
        )
        if gone:
            log.info("layers went", keys=[key[:12] for key in gone])

    async def _make(self, request: str, ask: Ask) -> tuple[Layer, tuple[str, ...]]:
        # another's build, of another request, may have made it meanwhile: the recipes look
        try:
            if (free := await asyncio.to_thread(self._store.free)) < _RESERVE_BYTES:
                raise _not_now(f"the disk has {free >> 20} MB left", "the operator has to make room on the disk")
            layer, notes = await _RECIPES[ask.install.kind](ask, self._making, self._installer(ask.install, ask.files))
        except OSError as error:
            raise _not_now(f"this machine could not keep them ({error.strerror or error})") from error
        except ToolError as error:
            raise _not_now(error.message, error.hint) from error
        with contextlib.suppress(OSError):  # it is only resolved again then
            await asyncio.to_thread(self._store.remember, request, layer.key, notes)
        return layer, notes

    async def _clear_up(self, bench: Workbench) -> None:
        await bench.close()
        with contextlib.suppress(OSError):
            await self.tidy()

    def _asked(self, install: Install, base: Base, asker: Asker) -> tuple[str, Mapping[str, bytes], Owner | None]:
        """The request's key, the files that it names, and whose alone it is. Blocking."""
        files = self._files(install, asker.source, asker.strip)
        whose = Owner(asker.owner, "" if install.by_files else asker.source_digest) if install.private else None
        return request_key(install, files, base, self._installer(install, files), whose), files, whose

    def _remembered(self, request: str) -> Layer | None:
        said = self._store.remembered(request)
        layer = self._store.find(said[0]) if said else None
        return replace(layer, notes=said[1]) if said and layer else None

    def _installer(self, install: Install, files: Mapping[str, bytes]) -> str:
        match install.kind:
            case "python":
                name = "uv"
            case "node":
                name = node.tool(install, files)
            case kind:
                return kind  # Go installs itself, and is in the template
        return f"{name} {self._version(name)}"

    def _files(self, install: Install, source: Path, strip: str) -> dict[str, bytes]:
        """Those that the install names. Blocking. Raises `RunFailed`, `ArchiveError`."""
        wanted = set(install.files)
        if not wanted:
            return {}
        table = read_table(source, self._limits)
        found = {
            path: content
            for path, content in iter_files(source, table, strip=strip, limits=self._limits)
            if path in wanted
        }
        if lost := wanted - set(found):
            raise RunFailed(f"the source has no {', '.join(sorted(lost))}", code=FAILED)
        return found


def _not_now(why: str, hint: str | None = None) -> RunFailed:
    return RunFailed(f"the dependencies cannot be installed now: {why}", code=FAILED, hint=hint, retryable=True)
