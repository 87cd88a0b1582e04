"""Markers: which run of an app serves, as files that Caddy looks at on each request.

In `apps`, the folder that Caddy looks into, an app is either of two:

- `<app id>.sock`, a link to the ingress socket of the run that serves. Replacing the link is the switch: whoever dials
  after it reaches the new run, and the connections that Caddy keeps to the old one move (agent/ingress/moving.go);
- `<app id>/<key>-<version>.s` for a site, `.p` for a single-page app, `.r` for a site with rules, which is the site
  server's to answer for (agent/sites), with the directory as the link of the same name and `.d`. A key has a fixed
  width and sorts newest first, so that Caddy's `file` matcher, which takes the first match of a sorted glob, always
  finds the newest. Creating the marker, an empty file, is the switch.

An app's own domain is `<name>` and `<name>.sock`, links to the two of the app, so that it leads wherever the app does,
and `<name>.known`, an empty file that says that it is registered; no app's id has a dot, and every domain has one.

Caddy looks for sites first. Both switches are atomic for each request and need no reload. The sockets themselves are in
`ingress`, apart from the sites: for an app without a site, Caddy's glob then ends at a folder that is not there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vibed.sandboxes.driver import Endpoint

SITES = "prs"
"""The kinds of sites, as Caddy looks for them: `*.[prs]`."""
_ENDINGS = tuple(f".{kind}" for kind in SITES)

_KNOWN = ".known"

_LAST = 10**9 - 1
_SITE = re.compile(r"(\d{9})-(\d+)\.[prs]")


@dataclass(frozen=True, slots=True)
class Marker:
    """One published run."""

    app_id: str
    run: int
    version: int
    path: Path

    @property
    def site(self) -> bool:
        return self.path.suffix != ".sock"

    @property
    def endpoint(self) -> Endpoint:
        """Where requests go while this marker is the first."""
        if self.site:
            place = self.path.parent / f"{self.path.name}.d"
            return Endpoint(place, site=True, spa=self.path.suffix == ".p", ruled=self.path.suffix == ".r")
        return Endpoint(self.path)


class Markers:
    """Writes and reads the markers below `apps`, and knows where in `ingress` sockets belong; Caddy's gid may list and
    connect, nobody else.
    """

    def __init__(self, apps: Path, ingress: Path, *, gid: int = -1) -> None:
        self._apps = apps
        self._ingress = ingress
        self._gid = gid

    def socket(self, app_id: str, run: int, version: int) -> Path:
        """Where the ingress socket of a run belongs; `make_room` for it first."""
        return self._ingress / app_id / f"{run}-{version}.sock"

    def make_room(self, app_id: str) -> None:
        """Make the folder of an app's sockets, if it is not there."""
        self._folder(self._ingress, app_id)

    def publish(self, app_id: str, run: int, version: int, endpoint: Endpoint) -> Marker:
        """Switch: every request that begins after this goes to `endpoint`."""
        before = self.published(app_id)
        if endpoint.site:
            kind = "r" if endpoint.ruled else "p" if endpoint.spa else "s"
            name = f"{_LAST - run:09d}-{version}.{kind}"
            marker = Marker(app_id, run, version, self._folder(self._apps, app_id) / name)
            _link(marker.path.with_name(f"{name}.d"), endpoint.path)
            os.close(os.open(marker.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        else:
            marker = Marker(app_id, run, version, self._apps / f"{app_id}.sock")
            _link(marker.path, endpoint.path)
        for other in before:
            # An older site stays behind the newer for requests that just list the folder; a marker of the other kind
            # would hide this one, or come back when this is retired.
            if other.site != marker.site:
                other.path.unlink(missing_ok=True)
        return marker

    def retire(self, app_id: str, run: int) -> None:
        """No new request finds this run; those that it has go on."""
        for marker in self.published(app_id):
            if marker.run == run:
                marker.path.unlink(missing_ok=True)

    def forget(self, app_id: str, run: int, *, last: bool = True) -> None:
        """Remove what is left of a run: marker, link and socket; with the last one of an app, the room for its sockets,
        which a run that is just starting needs before there is anything in it.
        """
        self.retire(app_id, run)
        for link in (self._apps / app_id).glob(f"{_LAST - run:09d}-*.d"):
            link.unlink(missing_ok=True)
        for socket in (self._ingress / app_id).glob(f"{run}-*.sock"):
            socket.unlink(missing_ok=True)
        for folder in (self._apps / app_id, *([self._ingress / app_id] if last else [])):
            with contextlib.suppress(OSError):
                folder.rmdir()  # while there is something in it, it stays

    def published(self, app_id: str) -> list[Marker]:
        """The app's markers in the order in which Caddy takes them; one that cannot be read is removed."""
        markers = []
        folder = self._apps / app_id
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(folder)):
                match = _SITE.fullmatch(name)
                if match is not None:
                    markers.append(Marker(app_id, _LAST - int(match[1]), int(match[2]), folder / name))
                elif name[-2:] in _ENDINGS:
                    (folder / name).unlink(missing_ok=True)
        link = self._apps / f"{app_id}.sock"
        try:
            run, number = link.readlink().stem.split("-")
            markers.append(Marker(app_id, int(run), int(number), link))
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            link.unlink(missing_ok=True)
        return markers

    def with_sockets(self) -> list[str]:
        """The apps whose name leads to a socket now."""
        with contextlib.suppress(FileNotFoundError):
            found = [name.removesuffix(".sock") for name in os.listdir(self._apps) if name.endswith(".sock")]
            return [name for name in found if "." not in name]
        return []

    def domains(self) -> dict[str, str]:
        """Every domain that leads to an app now, with the app's id."""
        found = {}
        for name in os.listdir(self._apps):
            if name.endswith(_KNOWN):
                domain = name.removesuffix(_KNOWN)
                with contextlib.suppress(OSError):
                    found[domain] = str((self._apps / domain).readlink())
        return found

    def lead(self, domains: Mapping[str, str]) -> None:
        """Have exactly these domains lead to apps: by name, the app's id. What is right already is not touched."""
        there = self.domains()
        for name in there.keys() - domains.keys():
            self._mislead(name)
        for name, app_id in domains.items():
            if there.get(name) == app_id:
                continue
            self._mislead(name)
            (self._apps / name).symlink_to(app_id)
            (self._apps / f"{name}.sock").symlink_to(f"{app_id}.sock")
            os.close(os.open(self._apps / f"{name}{_KNOWN}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))

    def _mislead(self, name: str) -> None:
        """Have a domain lead nowhere: it is unknown first."""
        for ending in (_KNOWN, ".sock", ""):
            (self._apps / f"{name}{ending}").unlink(missing_ok=True)

    def clear(self, app_id: str) -> None:
        """Remove all of an app's markers, links and sockets."""
        for name, of in self.domains().items():
            if of == app_id:
                self._mislead(name)
        for marker in self.published(app_id):
            marker.path.unlink(missing_ok=True)
        shutil.rmtree(self._apps / app_id, ignore_errors=True)
        shutil.rmtree(self._ingress / app_id, ignore_errors=True)

    def _folder(self, parent: Path, app_id: str) -> Path:
        folder = parent / app_id
        try:
            there = folder.stat()
        except FileNotFoundError:
            folder.mkdir(mode=0o750)
            there = folder.stat()
        if self._gid not in (-1, there.st_gid):  # also of one that a killed controller had just made
            os.chown(folder, -1, self._gid)
        return folder


def _link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except FileExistsError:
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.rename(path)
