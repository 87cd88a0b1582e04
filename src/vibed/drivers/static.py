"""Driver `static`: a site is a directory that Caddy serves. There is no process, so nothing has to be kept alive.

A site lies in `<home>/sites/<boot>/<app id>/<run>-v<version>-<digest>/`, complete from the moment it has that name.
`<boot>` is of the machine's boot: what a power cut may have left half written has another boot's name and is never
looked at again. Sites are looked up one by one (`find`), so taking over thousands of them costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path

from vibed.drivers.ahead import Ahead
from vibed.drivers.site import DRIVER, GONE, TEMPLATE, Site, remove
from vibed.drivers.unpacking import Unpacked, unpack
from vibed.layout import Layout
from vibed.sandboxes.driver import BootFailed, Builder, Claimed, Isolation, Probe, Prospect, Run, Sandbox
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.spreading import spread

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAME = re.compile(r"(\d{10})-v(\d+)-([0-9a-f]{12})")


class StaticDriver:
    """Makes sites below `layout.sites`; they belong to this process's user and are readable to Caddy's group only."""

    name = DRIVER
    isolation = Isolation.NONE_NEEDED

    def __init__(self, layout: Layout, *, limits: ArchiveLimits = DEFAULT_LIMITS, boot_id: str | None = None) -> None:
        """`limits` are those that sources were accepted by."""
        self._limits = limits
        self._boot = (boot_id or _BOOT_ID.read_text().strip())[:8]
        self._sites = layout.sites
        self._owner = (os.geteuid(), layout.uids.caddy if os.geteuid() == 0 else os.getegid())
        self._live: set[Site] = set()
        self._ahead = Ahead(self._throw_away)
        self._closing = threading.Event()
        self._sweep: asyncio.Task[None] | None = None

    @property
    def folder(self) -> Path:
        """Of this boot of the machine."""
        return self._sites / self._boot

    @property
    def _fresh(self) -> Path:
        """Where sites are written before they are anybody's."""
        return self.folder / ".fresh"

    async def probe(self) -> Probe:
        """Write, rename and remove a site's folder."""
        try:
            await asyncio.to_thread(self._try)
        except OSError as error:
            return Probe(False, self.isolation, f"{self.folder} cannot be written: {error}")
        return Probe(True, self.isolation, f"wrote, renamed and removed a site below {self.folder}")

    async def boot(self, template: str = TEMPLATE, *, urgent: bool = False, builder: Builder | None = None) -> Sandbox:
        """A place for one site. Raises `BootFailed` for another template than `static-nginx`, and for a builder."""
        if builder is not None:
            raise BootFailed("driver static has no builder sandboxes", retryable=False)
        if template != TEMPLATE:
            raise BootFailed(f"driver static has no template {template!r}", retryable=False)
        site = Site(self, f"s{secrets.token_hex(6)[:11]}")
        self._live.add(site)
        return site

    def prepare(self, prospect: Prospect) -> None:
        """Unpack the site."""
        self._ahead.begin(*self._work(prospect.app_id, prospect.source, prospect.strip, prospect.root))

    async def adopt(self) -> Sequence[Sandbox]:
        """None: a site is taken over by `find` when it is asked for. What was half written, and other boots' sites, are
        removed meanwhile.
        """
        if self._sweep is None:
            half = list(self._fresh.iterdir()) if self._fresh.is_dir() else []
            self._sweep = asyncio.create_task(asyncio.to_thread(self._remove_leftovers, half))
        return ()

    def find(self, app_id: str, version: int, *, index: str = "index.html", spa: bool = False) -> Site | None:
        """The site of a version of an app that an earlier controller left, if it is there; `index` and `spa` as in its
        runtime. What else that controller left of the app is removed. One directory is read.
        """
        known = {site.endpoint.path: site for site in self._live if site.endpoint is not None}
        found: list[tuple[int, Path]] = []
        leftovers: list[Path] = []
        with contextlib.suppress(FileNotFoundError):
            for place in (self.folder / app_id).iterdir():
                match = _NAME.fullmatch(place.name)
                if place in known or (match is None and not place.name.startswith(".")):
                    continue
                if match is not None and int(match[2]) == version:
                    found.append((int(match[1]), place))
                elif match is not None:
                    leftovers.append(place)
        for site in known.values():
            if site.claimed is not None and (site.claimed.app_id, site.claimed.version) == (app_id, version):
                return site
        if not found:
            return None
        found.sort()
        number, place = found.pop()
        for old in (*leftovers, *(path for _, path in found)):
            remove(old)
        site = Site(self, f"s{secrets.token_hex(6)[:11]}")
        site.serve(place, index, spa, Claimed(app_id, version, number))
        self._live.add(site)
        return site

    def count(self) -> int:
        """How many apps have a site here. Blocking: one directory is listed."""
        with contextlib.suppress(FileNotFoundError):
            return sum(not name.startswith(".") for name in os.listdir(self.folder))
        return 0

    async def remove_app(self, app_id: str) -> None:
        """Remove every site of a deleted app, those that an earlier controller left included."""
        for site in list(self._live):
            if site.claimed is not None and site.claimed.app_id == app_id:
                await site.destroy()
        await asyncio.to_thread(remove, self.folder / app_id)

    async def close(self) -> None:
        """Sites stay."""
        self._closing.set()
        if self._sweep is not None:
            await self._sweep
        await self._ahead.close()

    async def unpacked(self, run: Run) -> Path:
        """The folder of a run's site, complete. Raises `ArchiveError`, `RunFailed`, OSError."""
        runtime = run.runtime
        made = await self._ahead.take(*self._work(run.app_id, run.source, runtime.strip, runtime.root))
        fresh = made.place
        name = f"{run.number:010d}-v{run.version}-{run.source.name[:12]}"
        try:
            made.complete(run.app_id, runtime)
            try:
                return fresh.rename(self._folder_for(run.app_id) / name)
            except FileNotFoundError:
                # what was made for a run that did not come has just taken the app's empty folder with it
                return fresh.rename(self._folder_for(run.app_id) / name)
        except OSError:
            await asyncio.to_thread(remove, fresh)
            raise

    def _work(self, app_id: str, source: Path, strip: str, root: str) -> tuple[Hashable, Callable[[], Unpacked]]:
        return (app_id, source, strip, root), partial(self._unpack, app_id, source, strip, root)

    def _unpack(self, app_id: str, source: Path, strip: str, root: str) -> Unpacked:
        """Blocking: write a site to a folder that is nobody's yet."""
        self._folder_for(app_id)
        fresh = self._fresh / f"{app_id}.{secrets.token_hex(6)}"
        return unpack(source, fresh, strip, root, self._owner, self._limits)

    def _throw_away(self, made: Unpacked) -> None:
        remove(made.place)
        app = self.folder / made.place.name.rpartition(".")[0]
        with contextlib.suppress(OSError):
            app.rmdir()  # made for it, unless there is something in it

    def forget(self, site: Site) -> None:
        self._live.discard(site)

    def _folder_for(self, app_id: str) -> Path:
        place = self.folder / app_id
        if not (self._is_made(place) and self._is_made(self._fresh)):
            for folder in (self._sites, self.folder, self._fresh, place):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o750, parents=folder is self._sites)
                # whoever made one that is there may have been killed before the rest of this
                if not self._is_made(folder):
                    folder.chmod(0o750)
                    if folder in (self.folder, self._fresh):
                        spread(folder)
                    os.chown(folder, *self._owner)
        return place

    def _is_made(self, folder: Path) -> bool:
        try:
            there = folder.stat()
        except FileNotFoundError:
            return False
        return (there.st_uid, there.st_gid) == self._owner and stat.S_IMODE(there.st_mode) & 0o777 == 0o750

    def _try(self) -> None:
        self._folder_for(".probe")
        place = self.folder / ".probe"
        (place / "a").mkdir(exist_ok=True)
        (place / "a").rename(place / "b")
        remove(place)

    def _remove_leftovers(self, half_written: Sequence[Path]) -> None:
        # one that is being removed at this moment may go twice
        for place in (*half_written, *_half_removed(self.folder)):
            remove(place)
        with contextlib.suppress(FileNotFoundError):
            for boot in self._sites.iterdir():
                if boot.name == self._boot or not boot.is_dir():
                    continue
                for app in boot.iterdir():
                    if self._closing.is_set():
                        return
                    remove(app)
                    # a deploy that waits for the disk goes first
                    time.sleep(0.002)
                remove(boot)


def _half_removed(folder: Path) -> list[Path]:
    """What somebody had begun to remove among the apps of a boot, and among their sites."""
    found: list[Path] = []
    for place in (folder, *(folder / name for name in _names(folder) if not name.startswith("."))):
        found += (place / name for name in _names(place) if name.startswith(GONE))
    return found


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # an app that was deleted just now
        return []
