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
import shutil
import stat
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vibed.apps.errors import VibedError
from vibed.classify.host_rules import host_rules, netlify_settings
from vibed.classify.site import LISTING
from vibed.classify.tree import decoded
from vibed.classify.unpublished import unpublished
from vibed.drivers.ahead import Ahead
from vibed.drivers.listing import listing
from vibed.drivers.site_facts import FILE, Facts
from vibed.layout import Layout
from vibed.sandboxes.driver import (
    BootFailed,
    Claimed,
    Endpoint,
    Exit,
    Isolation,
    Probe,
    Prospect,
    Run,
    RunFailed,
    Sandbox,
    SandboxLost,
    Started,
    State,
)
from vibed.sources.errors import ArchiveError
from vibed.sources.extraction import extract, file_paths
from vibed.sources.limits import DEFAULT_LIMITS, ArchiveLimits
from vibed.sources.reader import read_table
from vibed.spreading import spread

TEMPLATE = "static-nginx"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAME = re.compile(r"(\d{10})-v(\d+)-([0-9a-f]{12})")
_GONE = ".gone."
"""How the names of folders begin that are being removed."""
_LINGER_S = 5.0
"""How long a request that the proxy had routed before the switch may still look up a file."""


@dataclass(frozen=True, slots=True)
class _Unpacked:
    """A folder that is no run's yet, and what its files say."""

    place: Path
    facts: Facts
    pages: tuple[str, ...]


class Site:
    """A directory of files, seen as a sandbox. There may be thousands, so it holds little."""

    __slots__ = ("_claimed", "_driver", "_endpoint", "_exit", "_gone", "_id", "_state")

    def __init__(self, driver: StaticDriver, id: str) -> None:
        self._driver = driver
        self._id = id
        self._state = State.WARM
        self._claimed: Claimed | None = None
        self._endpoint: Endpoint | None = None
        self._gone: asyncio.Event | None = None
        self._exit: Exit | None = None

    @property
    def id(self) -> str:
        return self._id

    @property
    def driver(self) -> str:
        return StaticDriver.name

    @property
    def template(self) -> str:
        return TEMPLATE

    @property
    def template_digest(self) -> str:
        return ""

    @property
    def state(self) -> State:
        return self._state

    @property
    def claimed(self) -> Claimed | None:
        return self._claimed

    @property
    def endpoint(self) -> Endpoint | None:
        return self._endpoint

    @property
    def exit(self) -> Exit | None:
        return self._exit

    async def run(self, run: Run, *, socket: Path, log_dir: Path, on_stage: Callable[[str], None]) -> Started:
        """Unpack the site; `socket` and `log_dir` stay unused. Raises `RunFailed`, `SandboxLost`."""
        if self._state is not State.WARM:
            raise SandboxLost("this sandbox was claimed before", code="AlreadyClaimed", retryable=False)
        began = time.perf_counter()
        self._state = State.INJECTING
        self._claimed = Claimed(run.app_id, run.version, run.number, run.app_key)
        on_stage("claimed")
        try:
            place = await self._driver.unpacked(run)
        except ArchiveError as error:
            self._end()
            raise RunFailed(error.message, code=error.error_code, hint=error.hint) from error
        except RunFailed:
            self._end()
            raise
        except (VibedError, OSError) as error:
            self._end()
            raise SandboxLost(f"the site could not be written: {error}") from error
        except asyncio.CancelledError:
            self._end()
            raise
        on_stage("injected")
        took = (time.perf_counter() - began) * 1000
        self.serve(place, run.runtime.index, run.runtime.spa)
        on_stage("started")
        assert self._endpoint is not None
        return Started(self._endpoint, timings={"claim": 0.0, "inject": took, "start": 0.0})

    def serve(self, place: Path, index: str, spa: bool, claimed: Claimed | None = None) -> None:
        self._claimed = claimed or self._claimed
        ruled = (place / FILE).exists()
        self._endpoint = Endpoint(place, site=True, index=index, spa=spa, ruled=ruled)
        self._state = State.RUNNING

    async def hand_over(self, heir: Sandbox | None) -> None:
        """Caddy reads the files itself: there is nothing to hand over."""

    async def drain(self, deadline_s: float) -> None:
        """Remove the site when requests that were on their way to it have opened their file."""
        if self._state is State.RUNNING:
            self._state = State.DRAINING
            await asyncio.sleep(min(deadline_s, _LINGER_S))
        await self.destroy()

    async def destroy(self, grace_s: float = 2.0) -> None:
        """Remove the site. Idempotent."""
        endpoint, self._endpoint = self._endpoint, None
        self._end()
        if endpoint is not None:
            await asyncio.to_thread(_remove, endpoint.path)

    async def wait(self) -> Exit:
        """Return when the site was removed by `drain` or `destroy`: it does not end by itself."""
        while self._exit is None:
            self._gone = self._gone or asyncio.Event()
            await self._gone.wait()
        return self._exit

    def _end(self) -> None:
        if self._exit is None:
            self._exit = Exit(code=0, signal=None, oom=False, at=time.time())
        self._state = State.EXITED
        self._driver.forget(self)
        if self._gone is not None:
            self._gone.set()


class StaticDriver:
    """Makes sites below `layout.sites`; they belong to this process's user and are readable to Caddy's group only."""

    name = "static"
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

    async def boot(self, template: str = TEMPLATE, *, urgent: bool = False) -> Sandbox:
        """A place for one site. Raises `BootFailed` for another template than `static-nginx`."""
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
            _remove(old)
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
        await asyncio.to_thread(_remove, self.folder / app_id)

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
            if runtime.options.get(LISTING):
                self._give(fresh / "index.html", listing(run.app_id, made.pages))
            _name_index(fresh, runtime.index)
            said = made.facts.text(spa=runtime.spa, base=str(runtime.options.get("base", "")))
            if said is not None:
                self._give(fresh / FILE, said)
            try:
                return fresh.rename(self._folder_for(run.app_id) / name)
            except FileNotFoundError:
                # what was made for a run that did not come has just taken the app's empty folder with it
                return fresh.rename(self._folder_for(run.app_id) / name)
        except OSError:
            await asyncio.to_thread(_remove, fresh)
            raise

    def _work(self, app_id: str, source: Path, strip: str, root: str) -> tuple[Hashable, Callable[[], _Unpacked]]:
        return (app_id, source, strip, root), partial(self._unpack, app_id, source, strip, root)

    def _unpack(self, app_id: str, source: Path, strip: str, root: str) -> _Unpacked:
        """Blocking: write a site to a folder that is nobody's yet."""
        self._folder_for(app_id)
        fresh = self._fresh / f"{app_id}.{secrets.token_hex(6)}"
        table = read_table(source, self._limits)
        prefix = strip + root

        def text(path: str) -> str:
            return decoded(table.texts.get(prefix + path, b""))

        paths = frozenset(file_paths(table, prefix))
        left_out = unpublished(paths, text)
        # what a link ends at is published under the link's name, and copied from there
        links = {entry.path[len(prefix) :]: entry.target[len(prefix) :] for entry in table.entries if entry.target}
        left_out = left_out - frozenset(links.values()) | {FILE, *(name for name, to in links.items() if to == FILE)}
        netlify = netlify_settings(decoded(table.texts.get(f"{strip}netlify.toml", b"")))
        facts = Facts.of(paths - left_out, host_rules(text, "", netlify))
        files = extract(
            source,
            table,
            fresh,
            strip=prefix,
            file_mode=0o640,
            dir_mode=0o750,
            owner=self._owner,
            without=left_out,
            limits=self._limits,
        )
        if not files:
            _remove(fresh)
            raise RunFailed(f"the source has no file below {prefix!r}", code="InjectFailed")
        return _Unpacked(fresh, facts, tuple(path for path in paths - left_out if path.endswith((".html", ".htm"))))

    def _give(self, path: Path, text: str) -> None:
        """Write a file of ours beside those of a site."""
        path.write_text(text)
        path.chmod(0o640)
        there = path.stat()
        if (there.st_uid, there.st_gid) != self._owner:
            os.chown(path, *self._owner)

    def _throw_away(self, made: _Unpacked) -> None:
        _remove(made.place)
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
        _remove(place)

    def _remove_leftovers(self, half_written: Sequence[Path]) -> None:
        # one that is being removed at this moment may go twice
        for place in (*half_written, *self.folder.glob(f"{_GONE}*"), *self.folder.glob(f"*/{_GONE}*")):
            _remove(place)
        with contextlib.suppress(FileNotFoundError):
            for boot in self._sites.iterdir():
                if boot.name == self._boot or not boot.is_dir():
                    continue
                for app in boot.iterdir():
                    if self._closing.is_set():
                        return
                    _remove(app)
                    # a deploy that waits for the disk goes first
                    time.sleep(0.002)
                _remove(boot)


def _name_index(place: Path, index: str) -> None:
    """Have the site's first page be found where every first page is, whatever its name: Caddy knows one name only."""
    if index != "index.html" and "/" not in index and (place / index).is_file():
        with contextlib.suppress(FileExistsError):
            (place / "index.html").hardlink_to(place / index)


def _remove(place: Path) -> None:
    """Remove a folder so that its name is free at once: a half removed site must not be found."""
    hidden = place.with_name(f"{_GONE}{secrets.token_hex(6)}")
    try:
        place.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)
