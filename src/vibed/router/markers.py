"""Markers: which run of an app serves, as files that Caddy looks at on each request.

`<apps>/<app id>/<key>.a` says that the socket `<key>.a.sock` beside it serves; `<key>.s` that the directory
`<key>.s.d` (a symlink) does, `<key>.p` the same for a single-page app. A key has a fixed width and sorts newest first,
so that Caddy's `file` matcher, which takes the first match of a sorted glob, always finds the newest. Creating a marker
is the switch: atomic for each request, with no reload (measured: shared note data-path.md).

Caddy looks for sockets first, then for sites, then for single-page apps, each with a glob of its own: markers of
another kind are therefore removed with the switch, not a moment after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vibed.sandboxes.driver import Endpoint

KINDS = "asp"
"""In the order in which Caddy looks for them, as `*.<kind>`."""

_LAST = 10**9 - 1


@dataclass(frozen=True, slots=True)
class Marker:
    """One published run."""

    app_id: str
    run: int
    version: int
    path: Path

    @property
    def site(self) -> bool:
        return self.path.suffix in (".s", ".p")

    @property
    def endpoint(self) -> Endpoint:
        """Where requests go while this marker is the newest."""
        if self.site:
            return Endpoint((self.path.parent / f"{self.path.name}.d"), site=True, spa=self.path.suffix == ".p")
        return Endpoint(self.path.parent / f"{self.path.name}.sock")


class Markers:
    """Writes and reads the markers below `apps`; Caddy's gid may list and connect, nobody else."""

    def __init__(self, apps: Path, *, gid: int = -1) -> None:
        self._apps = apps
        self._gid = gid

    def prepare(self, app_id: str) -> Path:
        """The app's directory, made if it is not there."""
        directory = self._apps / app_id
        if not directory.exists():
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o750)
            os.chown(directory, -1, self._gid)
        return directory

    def socket(self, app_id: str, run: int) -> Path:
        """Where the ingress socket of a run belongs."""
        return self._apps / app_id / f"{_key(run)}.a.sock"

    def publish(self, app_id: str, run: int, version: int, endpoint: Endpoint) -> Marker:
        """Switch: every request that begins after this goes to `endpoint` (unless a newer run is published)."""
        directory = self.prepare(app_id)
        suffix = "a" if not endpoint.site else "p" if endpoint.spa else "s"
        marker = Marker(app_id, run, version, directory / f"{_key(run)}.{suffix}")
        if endpoint.site:
            link = directory / f"{marker.path.name}.d"
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(endpoint.path)
        fresh = directory / f"{marker.path.name}.new"  # Caddy's glob takes names with a leading dot, but not this
        fresh.write_text(json.dumps({"version": version}))
        fresh.chmod(0o644)
        fresh.rename(marker.path)
        for other in self.published(app_id):
            if other.path.suffix != marker.path.suffix:
                other.path.unlink(missing_ok=True)
        return marker

    def retire(self, app_id: str, run: int) -> None:
        """No new request finds this run; those that it has go on."""
        for suffix in KINDS:
            (self._apps / app_id / f"{_key(run)}.{suffix}").unlink(missing_ok=True)

    def forget(self, app_id: str, run: int) -> None:
        """Remove what is left of a run: marker, link and socket."""
        self.retire(app_id, run)
        for name in (f"{_key(run)}.a.sock", f"{_key(run)}.s.d", f"{_key(run)}.p.d"):
            (self._apps / app_id / name).unlink(missing_ok=True)

    def published(self, app_id: str) -> list[Marker]:
        """The app's markers, newest first; one that cannot be read is removed."""
        markers = []
        try:
            names = sorted(name for name in os.listdir(self._apps / app_id) if _is_marker(name))
        except FileNotFoundError:
            return []
        for name in names:
            path = self._apps / app_id / name
            try:
                version = int(json.loads(path.read_text())["version"])
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                continue
            markers.append(Marker(app_id, _LAST - int(name[:9]), version, path))
        return markers

    def clear(self, app_id: str) -> None:
        """Remove all of an app's markers, links and sockets."""
        directory = self._apps / app_id
        for marker in self.published(app_id):
            marker.path.unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)


def _key(run: int) -> str:
    return f"{_LAST - run:09d}"


def _is_marker(name: str) -> bool:
    return len(name) == 11 and name[:9].isdigit() and name[9] == "." and name[10] in KINDS
