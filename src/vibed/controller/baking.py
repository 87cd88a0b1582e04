"""Layers that the operator has made before an app asks for them, and which of all layers stay.

What is under way when vibeD ends has to be asked for again; what is finished stays, and is pinned.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from vibed import records
from vibed.apps.app import Install
from vibed.apps.errors import NotFound, VibedError
from vibed.controller.link import BakeFigures
from vibed.controller.means import Means
from vibed.runtimes.layers.asker import Asker

log = records.logger("vibed.controller")

_APP = "_bake"
"""The app that asks: a name that no app can have."""
_REMEMBERED = 100
_LOOK_EVERY_S = 0.5


class LayerInUse(VibedError):
    """Apps have the layer."""

    code = "LayerInUse"
    status = 409


class LayersNotMade(VibedError):
    """This vibeD installs nothing."""

    code = "LayersNotMade"
    status = 409


class Bakes:
    """Of one controller."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._bakes: dict[str, BakeFigures] = {}

    async def begin(self, install: Install, template: str, source: Path, *, strip: str, owner: str) -> BakeFigures:
        """Have a layer made, by and by; `source` may go when this returns. Raises `LayersNotMade`, OSError."""
        if self._means.layers is None:
            raise LayersNotMade(
                "this vibeD installs no packages", hint="it takes root, and layers = true in vibed.toml"
            )
        bake_id = secrets.token_hex(6)
        place = self._means.layout.home / "layers" / f".making-bake-{bake_id}"
        await asyncio.to_thread(_copy, source, place)
        figures = BakeFigures(bake_id, install.kind, template, "building", "waiting for its turn")
        self._bakes[bake_id] = figures
        for old in list(self._bakes)[:-_REMEMBERED]:
            del self._bakes[old]
        asker = Asker(template, place / "source.tar.gz", source.name.partition(".")[0], strip, owner, _APP)
        self._means.tasks.spawn(self._make(bake_id, install, asker, place))
        return figures

    def figures(self, bake_id: str) -> BakeFigures:
        """How one stands. Raises `NotFound`."""
        if bake_id not in self._bakes:
            raise NotFound(f"there is no bake {bake_id!r}", hint="vibeD may have been started anew: ask for it again")
        return self._bakes[bake_id]

    async def pin(self, key: str, *, pinned: bool) -> None:
        """Raises `NotFound`, OSError."""
        layers = self._means.layers
        if layers is None or not await asyncio.to_thread(layers.pin, key, pinned=pinned):
            raise NotFound(f"there is no layer {key!r}")

    async def remove(self, key: str, in_use: Mapping[str, Collection[str]]) -> None:
        """Raises `NotFound`, `LayerInUse`, OSError."""
        await self.pin(key, pinned=False)
        if apps := sorted(in_use.get(key, ())):
            raise LayerInUse(
                f"{len(apps)} apps have it ({', '.join(apps[:5])}): it goes when none has, and is no longer pinned"
            )
        assert self._means.layers is not None
        await asyncio.to_thread(self._means.layers.remove, key)

    async def _make(self, bake_id: str, install: Install, asker: Asker, place: Path) -> None:
        def say(step: str) -> None:
            self._bakes[bake_id] = replace(self._bakes[bake_id], message=step)

        layers = self._means.layers
        assert layers is not None
        try:
            there = self._means.placements
            while not layers.ready(asker.template) and there.is_coming(asker.template):
                step = there.progress(asker.template)
                say(f"the template {asker.template} is prepared: {step[0] if step else 'waiting'}")
                await asyncio.sleep(_LOOK_EVERY_S)
            log_dir = place / "log"
            layer = await layers.provide(install, asker, log_dir=log_dir, on_step=say, wanted=lambda: True)
            await self.pin(layer.key, pinned=True)
            told = "; ".join(layer.notes)
            self._bakes[bake_id] = replace(self._bakes[bake_id], state="ready", message=told, key=layer.key)
        except (VibedError, OSError) as error:
            message = error.message if isinstance(error, VibedError) else str(error)
            hint = error.hint if isinstance(error, VibedError) else ""
            log.warning("a layer could not be made beforehand", template=asker.template, error=message)
            said = f"{message}. {hint[0].upper()}{hint[1:]}" if hint else message
            self._bakes[bake_id] = replace(self._bakes[bake_id], state="failed", message=said)
        finally:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(shutil.rmtree, place)


def _copy(source: Path, place: Path) -> None:
    place.mkdir(mode=0o711, parents=True)
    shutil.copyfile(source, place / "source.tar.gz")
