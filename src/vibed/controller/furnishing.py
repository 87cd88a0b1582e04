"""The template that a run gets, and what is installed on it.

Where the first choice cannot have what is to be installed, since it is not for that version of the language or
would have to be compiled for it, the next one is tried; that may have to be prepared first. Only what no other one
has ready-made is compiled, for the first. Packages of Node are compiled at once: what a registry has ready-made of
them is for every version, and the rest of their ready-made files lies elsewhere, where no builder gets. So too
where it starts there, and something that it installed wants an older version of the language. What worked is
remembered (`Layers.set_aside`), so that the app is not kept waiting for the failure of the first every time that it
starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vibed.apps.app import App, Runtime, Version
from vibed.apps.errors import VibedError
from vibed.controller.installing import Layer, Layers, asker_of, installed
from vibed.controller.placement import NotYet, Placement, Placements
from vibed.controller.run import LiveRun
from vibed.sandboxes.driver import RunFailed
from vibed.supervision.logs import append_system_line

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Furnished:
    """What a run begins with."""

    version: Version
    """On the template that it runs on."""
    placement: Placement
    layer: Layer | None


@dataclass(frozen=True, slots=True)
class Furnishing:
    """Of one run; `on_step` hears of news."""

    placements: Placements
    layers: Layers | None
    run: LiveRun
    version: Version
    app: App
    source: Path
    log_dir: Path
    on_step: Callable[[], None]

    async def first(self) -> Furnished:
        """On the first template that can have it. Raises `RunFailed`: what kept it from the first one on which it could
        be tried.
        """
        first, *others = self.placements.ways(self.version.runtime)
        wanted = self.version.runtime.template
        if first.template != wanted:
            why = f"{wanted} cannot be had: {self.placements.trouble(wanted)}"
            self.run.moved = f"runs on {first.template}, since {why}"
        await self._there(first)
        placement = self.placements.place(first, self.version.resources)
        if not isinstance(placement, Placement):
            raise RunFailed(placement.message, code=placement.reason)
        _accept(placement, self.run)
        try:
            return await self._on(first, placement, compiles=not others or self._at_once)
        except RunFailed as error:
            if not error.unmet or self.layers is None:
                raise
            failed = error
        if (found := await self._elsewhere(first.template, others, failed)) is not None:
            await self.remember(failed)
            return found
        if not others or self._at_once:
            raise failed
        return await self._on(first, placement, compiles=True)

    async def after(self, failed: RunFailed, template: str) -> Furnished | None:
        """On another one, for a run that failed on `template` for want of another version of the language; None where
        none can have it. Raises `RunFailed` where it was stopped, or a registry failed.
        """
        if failed.fits is None or self.layers is None:
            return None
        others = [way for way in self.placements.ways(self.version.runtime) if way.template != template]
        return await self._elsewhere(template, others, failed)

    async def remember(self, failed: RunFailed) -> None:
        """That the first template is not to be tried again, since another one is known to do."""
        first = replace(self.version, runtime=self.placements.ways(self.version.runtime)[0])
        if self.layers is not None and first.runtime.install is not None:
            with contextlib.suppress(VibedError, OSError):  # it is only tried again then
                asker = asker_of(first, self.app, self.source)
                await asyncio.to_thread(self.layers.set_aside, first.runtime.install, asker, failed)

    async def _elsewhere(self, first: str, others: Sequence[Runtime], failed: RunFailed) -> Furnished | None:
        """On the first of `others` that can have it."""
        fits = failed.fits
        for way in others:
            if fits is not None and self.placements.number(way.template) not in fits:
                continue
            await self._say(f"{first} cannot have what it needs ({failed.message}): {way.template} is tried")
            try:
                place = await _prepared(self.placements, self.run, replace(self.version, runtime=way), self.on_step)
                found = await self._on(way, place, compiles=self._at_once)
            except RunFailed as error:
                if error.error_code == "Stopped" or error.may_retry:
                    raise
                await self._say(f"{way.template}: {error.message}")
                continue
            self.run.moved = f"runs on {way.template}, since on {first} {failed.message}"
            return found
        return None

    @property
    def _at_once(self) -> bool:
        """Whether what has to be compiled is compiled before another template is tried."""
        install = self.version.runtime.install
        return install is not None and install.kind == "node"

    async def _on(self, way: Runtime, placement: Placement, *, compiles: bool) -> Furnished:
        version = replace(self.version, runtime=way)
        layer = await installed(
            self.layers,
            self.run,
            version,
            self.app,
            source=self.source,
            log_dir=self.log_dir,
            on_step=self.on_step,
            compiles=compiles,
        )
        return Furnished(version, placement, layer)

    async def _there(self, way: Runtime) -> None:
        """Wait for the template on which it is installed or built, where that is on its way. Raises `RunFailed`."""
        if self.layers is None or (way.install is None and way.build is None):
            return
        there, template = self.placements, way.build.template if way.build is not None else way.template
        try:
            while not (there.is_ready(template) and self.layers.ready(template)) and there.is_coming(template):
                await _look_again(there, self.run, template, self.on_step)
        finally:
            self.run.building = ""

    async def _say(self, text: str) -> None:
        await asyncio.to_thread(append_system_line, self.log_dir, text)


async def _look_again(placements: Placements, run: LiveRun, template: str, on_step: Callable[[], None]) -> None:
    """Say for which template it waits, and wait a moment. Raises `RunFailed` when it is stopped."""
    step = placements.progress(template)
    if not run.building:
        run.enter("preparing")
    run.building = f"the template {template} to be prepared: {step[0] if step else 'waiting'}"
    on_step()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_EVERY_S):
            await run.left.wait()
    if run.leaving:
        raise RunFailed("it was stopped while its template was prepared", code="Stopped")


async def _prepared(placements: Placements, run: LiveRun, version: Version, on_step: Callable[[], None]) -> Placement:
    """Where it runs, once that is there. Raises `RunFailed`."""
    runtime = version.runtime
    try:
        while isinstance(place := placements.place(runtime, version.resources), NotYet):
            await _look_again(placements, run, runtime.template, on_step)
    finally:
        run.building = ""
    if not isinstance(place, Placement):
        raise RunFailed(place.message, code=place.reason)
    _accept(place, run)
    return place


def _accept(place: Placement, run: LiveRun) -> None:
    """That the sandboxes have less than is asked for is said of a version that was served before. Raises `RunFailed`
    for any other.
    """
    if place.beyond and not run.served_before:
        raise RunFailed(place.beyond, code="ResourcesTooLarge")
    run.lowered = f"has less than it asks for, since that was lowered: {place.beyond}" if place.beyond else ""
