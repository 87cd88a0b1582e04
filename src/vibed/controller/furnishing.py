"""The template that a run gets, and what is installed on it.

Where the first choice cannot have what is to be installed, since it is not for that version of the language or would
have to be compiled for it, the next one is tried; that may have to be prepared first. Only what no other one has
ready-made is compiled, for the first. What worked is remembered (`Layers.set_aside`), so that the app is not
kept waiting for the failure of the first every time that it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vibed.apps.app import App, Version
from vibed.apps.errors import VibedError
from vibed.controller.installing import Layer, Layers, asker_of, installed
from vibed.controller.placement import NotYet, Placement, Placements
from vibed.controller.run import LiveRun
from vibed.sandboxes.driver import RunFailed
from vibed.supervision.logs import append_system_line

LOOK_EVERY_S = 0.5


async def furnished(
    placements: Placements,
    layers: Layers | None,
    run: LiveRun,
    version: Version,
    app: App,
    *,
    source: Path,
    log_dir: Path,
    on_step: Callable[[], None],
) -> tuple[Version, Placement, Layer | None]:
    """The version on the template that it runs on, where that is, and its layer; `on_step` hears of news.

    Raises `RunFailed`: what kept it from the first template on which it could be tried.
    """
    first, *others = placements.ways(version.runtime)
    told: dict[str, Any] = {"source": source, "log_dir": log_dir, "on_step": on_step}
    wanted = version.runtime.template
    if first.template != wanted:
        run.moved = f"runs on {first.template}, since {wanted} cannot be had: {placements.trouble(wanted)}"
    on_first = replace(version, runtime=first)
    placement = placements.place(first, version.resources)
    if not isinstance(placement, Placement):
        raise RunFailed(placement.message, code=placement.reason)
    try:
        return on_first, placement, await installed(layers, run, on_first, app, **told, compiles=not others)
    except RunFailed as error:
        if not error.unmet or layers is None:
            raise
        failed = error
    for way in others:
        said = f"{first.template} cannot have what it needs ({failed.message}): {way.template} is tried"
        await asyncio.to_thread(append_system_line, log_dir, said)
        other = replace(version, runtime=way)
        try:
            place = await _prepared(placements, run, other, on_step)
            layer = await installed(layers, run, other, app, **told, compiles=False)
        except RunFailed as error:
            if error.error_code == "Stopped" or error.may_retry:
                raise
            await asyncio.to_thread(append_system_line, log_dir, f"{way.template}: {error.message}")
            continue
        run.moved = f"runs on {way.template}, since on {first.template} {failed.message}"
        if first.install is not None:
            with contextlib.suppress(VibedError, OSError):  # it is only tried again then
                asker = asker_of(on_first, app, source)
                await asyncio.to_thread(layers.set_aside, first.install, asker, failed.message)
        return other, place, layer
    if not others:
        raise failed
    return on_first, placement, await installed(layers, run, on_first, app, **told)


async def _prepared(placements: Placements, run: LiveRun, version: Version, on_step: Callable[[], None]) -> Placement:
    """Where it runs, once that is there. Raises `RunFailed`."""
    runtime = version.runtime
    try:
        while isinstance(place := placements.place(runtime, version.resources), NotYet):
            step = placements.progress(runtime.template)
            if not run.building:
                run.enter("preparing")
            run.building = f"the template {runtime.template} to be prepared: {step[0] if step else 'waiting'}"
            on_step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await run.left.wait()
            if run.leaving:
                raise RunFailed("it was stopped while its template was prepared", code="Stopped")
    finally:
        run.building = ""
    if not isinstance(place, Placement):
        raise RunFailed(place.message, code=place.reason)
    return place
