"""Markers that carry addresses: to which run of an app its name leads where apps are in pods, as files that Caddy looks
at on each request.

`<apps>/<app id>/<key>_<app id>_<run>_<host:port>` is an empty file whose name says all. A key has a fixed width and
sorts newest first, so that Caddy's `file` matcher, which takes the first match of a sorted glob, finds what was written
last. To make it is the switch: atomic for each request, without a reload, and since every run has an address of its
own, no connection that Caddy keeps to an older run is used for a request that begins afterwards (the way of a Service,
whose address stays, does: a switched selector does not move connections that are open).

One is written for each route that is told, by whoever watches apps (`vibed.router.following`); nothing here is state.
An app's own domain is a link beside the apps' folders to that of its app, and `<domain>.known`, an empty file that says
that it is registered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from vibed.apps import ids
from vibed.apps.app import Route

RETIRE_AFTER_S = 1.0
"""How long an older marker stays beside the newer: Caddy lists a folder, then looks at what it found."""
_WIDTH = 12
_LAST = 10**_WIDTH - 1
_NAME = re.compile(r"(\d{12})_([a-z0-9-]+)_(\d+)_(\S+)")
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_KNOWN = ".known"
_ADDRESS = re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:]{2,45}\]):[0-9]{1,5}")


class AddressedMarkers:
    """See the module's docstring. `apps`: the folder, which is this object's alone."""

    def __init__(self, apps: Path) -> None:
        self._apps = apps
        self._led: dict[str, Route] = {}
        self._domains: dict[str, str] = {}
        """The app that each leads to."""
        self._changed = asyncio.Event()
        self._next = 0

    def begin(self) -> None:
        """Take over what an earlier process left: it stays until it is told anew or `keep_only` leaves it out."""
        self._apps.mkdir(mode=0o750, parents=True, exist_ok=True)
        for name in os.listdir(self._apps):
            if (self._apps / name).is_symlink():
                self._domains[name] = str((self._apps / name).readlink())
        for app_id in self._folders():
            for marker in self._markers(app_id):
                self._next = max(self._next, _LAST - int(marker.name.partition("_")[0]) + 1)

    def leads(self, app_id: str) -> Route | None:
        """Where the name leads, as far as it was told."""
        return self._led.get(app_id)

    def lead(self, app_id: str, route: Route) -> None:
        """Switch: every request that begins after this goes to `route`. What cannot be a route is refused by
        ValueError: names and addresses become names of files, and what Caddy dials.
        """
        if not ids.PATTERN.fullmatch(app_id) or not _ADDRESS.fullmatch(route.address):
            raise ValueError(f"no route: {app_id!r} to {route.address!r}")
        if self._led.get(app_id) == route:
            return
        folder = self._apps / app_id
        folder.mkdir(mode=0o750, exist_ok=True)
        older = self._markers(app_id)
        self._next += 1
        name = f"{_LAST - self._next:0{_WIDTH}d}_{app_id}_{route.run}_{route.address}"
        os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))
        self._led[app_id] = route
        self._tell()
        if older:
            asyncio.get_running_loop().call_later(RETIRE_AFTER_S, self._remove, older)

    def drop(self, app_id: str) -> None:
        """The name leads nowhere any more."""
        self._led.pop(app_id, None)
        self._tell()
        if ids.PATTERN.fullmatch(app_id):
            shutil.rmtree(self._apps / app_id, ignore_errors=True)

    def keep_only(self, app_ids: frozenset[str]) -> None:
        """Drop every app that is not one of these."""
        for app_id in self._folders():
            if app_id not in app_ids:
                self.drop(app_id)

    def name(self, app_id: str, domains: Iterable[str]) -> None:
        """Have exactly these domains of its own lead wherever the app's name does."""
        wanted = {domain for domain in domains if _DOMAIN.fullmatch(domain)}
        for domain in [name for name, of in self._domains.items() if of == app_id and name not in wanted]:
            self._mislead(domain)
        for domain in wanted:
            if self._domains.get(domain) != app_id:
                self._mislead(domain)
                (self._apps / domain).symlink_to(app_id)
                os.close(os.open(self._apps / f"{domain}{_KNOWN}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))
                self._domains[domain] = app_id

    def name_only(self, app_ids: frozenset[str]) -> None:
        """Forget the domains of every app that is not one of these."""
        for app_id in set(self._domains.values()) - app_ids:
            self.name(app_id, ())

    async def reached(self, app_id: str, run: int, address: str, timeout_s: float) -> bool:
        """Whether the name leads to that run at that address; waits for it.

        To that one: a later run is no sign that this was reached. A name is led back to an older run when the newer has
        ended, and the runs of an app that was deleted and made anew begin at 1.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = self._changed
                    route = self._led.get(app_id)
                    if route is not None and (route.run, route.address) == (run, address):
                        return True
                    await changed.wait()
        return False

    def _mislead(self, domain: str) -> None:
        for ending in (_KNOWN, ""):  # it is unknown first
            (self._apps / f"{domain}{ending}").unlink(missing_ok=True)
        self._domains.pop(domain, None)

    def _folders(self) -> list[str]:
        """The apps that have one; no app's id has a dot, and every domain has."""
        return [name for name in os.listdir(self._apps) if ids.PATTERN.fullmatch(name)]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _markers(self, app_id: str) -> list[Path]:
        folder = self._apps / app_id
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [folder / name for name in names if _NAME.fullmatch(name)]

    def _remove(self, markers: list[Path]) -> None:
        for marker in markers:
            marker.unlink(missing_ok=True)
