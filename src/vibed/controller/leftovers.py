"""Removes what earlier versions left on disk: images of templates and tools that nothing uses any more.

There is no account of who uses what that could be wrong after a crash. It is seen where it is true: a sandbox's folder
names the image that it was booted from and the programs that are bound into it, and /proc tells which program a process
runs. That is looked at now and then, so an image goes some minutes after the last of its sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from vibed import records
from vibed.controller.remembering import DRIVER_TOOLS
from vibed.controller.roots import BuiltRoots
from vibed.drivers.process import mounted_images
from vibed.layout import Layout
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.tools import Tools
from vibed.supervision import mounts

log = records.logger("vibed.controller")

EVERY_S = 300.0
SETTLED_S = 300.0
"""How long an image must have been replaced: longer than a boot or the bundling of a worker takes, so that what is just
under way with the one before has come to an end or is seen in its sandbox's folder."""
UNASKED_S = 24 * 3600.0
"""How long no vibeD must have asked for the version of a tool: longer than an upgrade takes."""
CACHED_S = 30 * 24 * 3600.0
"""How long what pip and npm downloaded is kept: the next image needs most of it again."""


class Leftovers:
    """See the module's docstring."""

    def __init__(
        self, *, layout: Layout, templates: Iterable[str], builder: TemplateBuilder, roots: BuiltRoots, tools: Tools
    ) -> None:
        self._layout = layout
        self._templates = tuple(templates)
        self._builder = builder
        self._roots = roots
        self._tools = tools
        # as they are now: a checkout's locks may change while this controller goes on with what it started with
        self._own = {tools.path(name) for names in DRIVER_TOOLS.values() for name in names}

    async def run(self) -> None:
        """Look every `EVERY_S` seconds until cancelled; what fails is logged and tried again at the next look."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.look()

    async def look(self, *, settled_s: float = SETTLED_S) -> None:
        """Look once. Never raises."""
        removed = 0
        with _logged("the images of sandboxes could not be found out, so none is removed"):
            used = await asyncio.to_thread(digests_in_use, self._layout.sandboxes)
            for template in self._templates:
                with _logged("images of earlier versions could not be removed", template=template):
                    removed += await self._images(template, used, settled_s)
        with _logged("tools of earlier versions could not be removed"):
            for folder in await asyncio.to_thread(self._tools.earlier_versions, UNASKED_S):
                removed += await self._tool(folder)
        if removed:
            # that was an upgrade, so what was downloaded for the version before is of no more use either
            with _logged("old downloads could not be removed"):
                for cache in ("pip", "npm"):  # Go looks after its own
                    await asyncio.to_thread(_remove_old, self._layout.home / "cache" / cache)

    async def _images(self, template: str, used: Collection[str], settled_s: float) -> int:
        root = self._roots.settled(template, settled_s)
        if root is None:
            return 0
        try:
            removed = await self._builder.prune(template, {root.digest, *used})
        except TimeoutError:
            return 0  # a build is under way: at the next look
        for name in removed:
            await asyncio.to_thread(mounts.unmount_below, mounted_images(self._layout) / name)
        if removed:
            log.info("removed images that nothing uses any more", template=template, images=removed)
        return len(removed)

    async def _tool(self, folder: Path) -> int:
        if any(path.is_relative_to(folder) for path in self._own):
            return 0
        if await asyncio.to_thread(is_named, folder, self._layout) or await asyncio.to_thread(is_run, folder):
            return 0
        try:
            await self._tools.remove(folder)
        except TimeoutError:
            return 0  # it is being installed
        log.info("removed a tool that nothing uses any more", tool=folder.name)
        return 1


@contextlib.contextmanager
def _logged(what: str, **details: str) -> Iterator[None]:
    """Log what fails, and go on."""
    try:
        yield
    except Exception:
        log.exception(what, **details)


def digests_in_use(sandboxes: Path) -> set[str]:
    """Blocking: the digests of the images that sandboxes were booted from, whatever state these are in.

    Raises ValueError, OSError when the folder of one cannot be read: then nothing is known.
    """
    used = set()
    for path in sandboxes.glob("*/spec.json"):
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            used.add(str(json.loads(path.read_text()).get("template_digest")))
    return used


def is_named(folder: Path, layout: Layout) -> bool:
    """Blocking: whether the watchdog's plan or a sandbox's folder names something in a tool's folder, so that it may be
    started or bound again.
    """
    plans = [*layout.runtime.glob("*.json"), *layout.sandboxes.glob("*/spec.json"), *layout.sandboxes.glob(".*.json")]
    for path in plans:
        with contextlib.suppress(FileNotFoundError):
            if f"/{folder.name}/" in path.read_text():
                return True
    return False


def is_run(folder: Path) -> bool:
    """Blocking: whether a process runs a program of this folder, by whatever path it sees it."""
    programs = {(found.st_dev, found.st_ino) for found in map(os.lstat, folder.rglob("*"))}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                program = (process / "exe").stat()
                if (program.st_dev, program.st_ino) in programs:
                    return True
    return False


def _remove_old(cache: Path) -> None:
    for folder, _, files in os.walk(cache):
        for name in files:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.lstat().st_mtime > CACHED_S:
                    path.unlink()
