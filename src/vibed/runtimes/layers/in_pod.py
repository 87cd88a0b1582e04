"""Builders of a cluster, as the controller in a pod of its own has them: the gate is its child, and what they send is
packed as it comes, unread. Who unpacks it is the pod of an app that uses it, which believes nothing either.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vibed.runtimes.gate import Gate, gate_in_pod
from vibed.runtimes.layers import toolbox
from vibed.runtimes.layers.compilers import kits_of
from vibed.runtimes.layers.equipment import Asking, ImageOf
from vibed.runtimes.layers.imaging import Clash, ImageFailed, Taken
from vibed.runtimes.layers.kits import Kits
from vibed.runtimes.layers.npm_tree.laying import Laid
from vibed.runtimes.layers.npm_tree.plan import Left, Plan
from vibed.runtimes.registries import Registries
from vibed.runtimes.templates import Template
from vibed.runtimes.tools import Tools
from vibed.runtimes.workroom import Workroom
from vibed.sandboxes.driver import Mount, RunFailed

_LEVEL = 1
"""Of compression: a layer is read as often as its apps start, and written while one waits for it."""
_PIECE = 1 << 20
_NOT_OF_OTHERS = "layers of a cluster are not made of others"


@dataclass(frozen=True, slots=True)
class OfPod:
    """`vibed.runtimes.layers.equipment.Equipment` without root."""

    agent: Path
    gates: Path
    """Where gates have their sockets."""
    downloads: Path
    workroom: Workroom

    def gate(self, registries: Registries) -> AbstractAsyncContextManager[Gate]:
        return gate_in_pod(self.agent, self.gates, self.downloads, registries)

    def coming(self, place: Path, size: int) -> None:
        self.workroom.write(place, size)

    @asynccontextmanager
    async def image_beside(
        self, place: Path, *, most_bytes: int, take: Sequence[Taken], beyond: str
    ) -> AsyncIterator[ImageOf]:
        if take:
            raise Clash(_NOT_OF_OTHERS)

        async def made(tarball: int) -> Path:
            # the descriptor is closed when its connection is: the thread has one of its own
            into, coming = place / "layer.tar.gz", functools.partial(self.coming, place)
            return await asyncio.to_thread(_packed, os.dup(tarball), into, most_bytes, coming)

        yield made

    async def compose(self, place: Path, take: Sequence[Taken], *, most_bytes: int) -> Path:
        if take:
            raise Clash(_NOT_OF_OTHERS)
        path = place / "layer.tar.gz"
        with tarfile.open(path, "w:gz"):
            pass
        return path

    async def lay(self, place: Path, plan: Plan, registries: Asking, *, most_bytes: int) -> Laid:
        raise Left("on a cluster npm lays out its packages itself")

    async def said(
        self, place: Path, orders: Mapping[str, Any], registries: Asking, *, most_bytes: int
    ) -> Mapping[str, Any]:
        raise Left("on a cluster npm reads its packages itself")


class InstallersOfPod:
    """The installers, for each kind of work those that it takes: a pod gets what it gets by its network."""

    def __init__(self, kits: Kits, tools: Tools) -> None:
        self._kits = kits
        self._tools = tools

    def version(self, name: str) -> str:
        return self._tools.version(name)

    async def image(self, kind: str) -> Path | None:
        """Raises ToolError."""
        kit = toolbox.kit_for(kind, self._tools)
        return None if kit is None else await self._kits.packed(kit)


class CompilersOfPod:
    """What packages are compiled with, got by the builders that compile."""

    def __init__(self, kits: Kits, home: Path, tools: Tools, templates: Mapping[str, Template]) -> None:
        self._kits = kits
        self._home = home
        self._tools = tools
        self._templates = templates

    async def mounts(self, template: str) -> tuple[Mount, ...]:
        """Raises ToolError, RunFailed where there are none for that template."""
        wanted = kits_of(self._home, self._tools, self._templates[template])
        if not all([await asyncio.to_thread(self._kits.has, kit) for kit in wanted.values()]):
            raise RunFailed(
                f"something that it needs has to be compiled, and on a cluster there are no compilers for {template}",
                code="DependencyBuildFailed",
                hint="ask for a version that its registry has ready-made for this platform",
            )
        return tuple([Mount(await self._kits.packed(kit), place) for place, kit in wanted.items()])


def _packed(tarball: int, into: Path, most_bytes: int, coming: Callable[[int], None]) -> Path:
    """What a descriptor gives, compressed. `coming` hears of bytes that are written, and may raise. Blocking. Raises
    ImageFailed, OSError.
    """
    read = written = 0
    with (
        open(tarball, "rb", buffering=0) as sent,
        into.open("wb") as out,
        gzip.GzipFile("", "wb", _LEVEL, out, mtime=0) as zipped,
    ):
        while piece := sent.read(_PIECE):
            read += len(piece)
            if read > most_bytes:
                raise ImageFailed(f"what was installed is too large: more than {most_bytes >> 20} MiB")
            zipped.write(piece)
            coming(out.tell() - written)
            written = out.tell()
    if not read:
        raise ImageFailed("nothing was installed")
    return into
