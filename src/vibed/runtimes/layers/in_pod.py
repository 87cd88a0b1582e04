"""Builders of a cluster, as the controller in a pod of its own has them: the gate is its child, and what they send is
packed as it comes, unread. Who unpacks it is the pod of an app that uses it, which believes nothing either.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vibed.runtimes.gate import Gate, gate_in_pod
from vibed.runtimes.layers.equipment import Asking, ImageOf
from vibed.runtimes.layers.imaging import Clash, ImageFailed, Taken
from vibed.runtimes.layers.npm_tree.laying import Laid
from vibed.runtimes.layers.npm_tree.plan import Left, Plan
from vibed.runtimes.layers.store import LayerStore
from vibed.runtimes.layers.toolbox import NAMES, Toolbox, filled
from vibed.runtimes.registries import Registries
from vibed.runtimes.tool import ToolError
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


class PackedToolbox:
    """The installers as a layer, which vibeD's image brings; made of `vibed.runtimes.tools` where it does not."""

    def __init__(self, store: LayerStore, tools: Tools, brought: Path) -> None:
        """`brought`: the tar.gz that the image has, if it has one."""
        self._store = store
        self._tools = tools
        self._brought = brought
        self._key = Toolbox.key(tools)
        self._making = asyncio.Lock()

    def version(self, name: str) -> str:
        return self._tools.version(name)

    async def image(self) -> Path:
        """Raises ToolError."""
        async with self._making:
            try:
                found = await asyncio.to_thread(self._store.find, self._key)
                if found is not None:
                    return found.image
                with tempfile.TemporaryDirectory(prefix="vibed-tools-") as folder:
                    packed = Path(folder) / "tools.tar.gz"
                    if self._brought.is_file():
                        await asyncio.to_thread(shutil.copyfile, self._brought, packed)
                    else:
                        root = Path(folder) / "root"
                        await filled(root, self._tools)
                        await asyncio.to_thread(pack_tree, root, packed)
                    return await asyncio.to_thread(self._keep, packed)
            except OSError as error:
                raise ToolError("the package installers", f"they could not be kept: {error}") from error

    def _keep(self, packed: Path) -> Path:
        packages = {name: self._tools.version(name) for name in NAMES}
        kept = self._store.keep(
            self._key, "tools", packed, template="", packages=packages, took_s=0.0, private=False
        )  # fmt: skip
        return kept.image


class NoCompilers:
    """There are none on a cluster yet."""

    async def mounts(self, template: str) -> tuple[Mount, ...]:
        raise RunFailed(
            "something that it needs has to be compiled, and on a cluster there are no compilers yet",
            code="DependencyBuildFailed",
            hint="ask for a version that its registry has ready-made for this platform",
        )


def pack_tree(root: Path, into: Path) -> None:
    """A tar.gz of a folder, the same for the same files. Blocking. Raises OSError."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with (
        into.open("wb") as out,
        gzip.GzipFile("", "wb", _LEVEL, out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for path in sorted(root.iterdir()):
            archive.add(path, path.name, filter=plain)


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
