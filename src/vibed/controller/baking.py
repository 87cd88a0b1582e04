"""Layers that the operator has made before an app asks for them, and which of all layers stay.

What is asked for is written down with its lists until it is made, or has failed: a bake that is under way when vibeD
ends is begun again when vibeD starts. What is finished stays, and is pinned.

    <home>/layers/bakes/<id>/asked.json, source.tar.gz
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vibed import records
from vibed.apps.app import Install
from vibed.apps.errors import NotFound, VibedError
from vibed.controller.link import BakeFigures
from vibed.controller.means import Means
from vibed.runtimes.layers.asker import Asker

log = records.logger("vibed.controller")

_APP = "_bake"
"""The app that asks: a name that no app can have."""
_SOURCE, _ASKED = "source.tar.gz", "asked.json"
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
        place = self._folder / bake_id
        asker = Asker(template, place / _SOURCE, source.name.partition(".")[0], strip, owner, _APP)
        await asyncio.to_thread(_write_down, source, install, asker, place)
        return self._begin(bake_id, install, asker, place)

    async def resume(self) -> None:
        """Begin again what was under way when an earlier vibeD ended."""
        for place in await asyncio.to_thread(_left, self._folder):
            try:
                install, asker = await asyncio.to_thread(_read, place)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("a layer that was asked for is forgotten", bake=place.name, error=str(error))
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
                continue
            if self._means.layers is not None and place.name not in self._bakes:
                self._begin(place.name, install, asker, place)

    def figures(self, bake_id: str) -> BakeFigures:
        """How one stands. Raises `NotFound`."""
        if bake_id not in self._bakes:
            raise NotFound(f"there is no bake {bake_id!r}", hint="the list of layers shows what is made")
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

    @property
    def _folder(self) -> Path:
        return self._means.layout.home / "layers" / "bakes"

    def _begin(self, bake_id: str, install: Install, asker: Asker, place: Path) -> BakeFigures:
        figures = BakeFigures(bake_id, install.kind, asker.template, "building", "waiting for its turn")
        self._bakes[bake_id] = figures
        for old in list(self._bakes)[:-_REMEMBERED]:
            del self._bakes[old]
        self._means.tasks.spawn(self._make(bake_id, install, asker, place))
        return figures

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
        # not where it was cancelled: then vibeD ends, and the next one begins it again
        with contextlib.suppress(OSError):
            await asyncio.to_thread(shutil.rmtree, place)


def _write_down(source: Path, install: Install, asker: Asker, place: Path) -> None:
    place.mkdir(mode=0o711, parents=True)
    shutil.copyfile(source, place / _SOURCE)
    said = {"install": asdict(install), "template": asker.template, "digest": asker.source_digest}
    said |= {"strip": asker.strip, "owner": asker.owner}
    unfinished = place / f".{_ASKED}"
    unfinished.write_text(json.dumps(said))
    unfinished.rename(place / _ASKED)  # what has none was not begun


def _left(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(place: Path) -> tuple[Install, Asker]:
    """Raises OSError, ValueError, KeyError, TypeError."""
    said: dict[str, Any] = json.loads((place / _ASKED).read_text())
    asker = Asker(said["template"], place / _SOURCE, said["digest"], said["strip"], said["owner"], _APP)
    return Install.of(said["install"]), asker
