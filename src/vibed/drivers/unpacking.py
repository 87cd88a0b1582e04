"""A site's source becomes a folder: without what is not for visitors, and with what it is beyond files written down."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vibed.apps.app import Runtime
from vibed.classify.host_rules import host_rules, netlify_settings
from vibed.classify.site import LISTING
from vibed.classify.tree import decoded
from vibed.classify.unpublished import unpublished
from vibed.drivers.listing import listing
from vibed.drivers.site_facts import FILE, Facts
from vibed.sandboxes.driver import RunFailed
from vibed.sources.extraction import extract, file_paths
from vibed.sources.limits import ArchiveLimits
from vibed.sources.reader import read_table
from vibed.sources.table import ArchiveTable

_FILE_MODE = 0o640
_FOLDER_MODE = 0o750


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A folder that is no run's yet, and what its files say."""

    place: Path
    facts: Facts
    pages: tuple[str, ...]
    owner: tuple[int, int]

    def complete(self, app_id: str, runtime: Runtime) -> None:
        """Add what the version says of the site. Raises OSError."""
        if runtime.options.get(LISTING):
            self._give("index.html", listing(app_id, self.pages))
        self._name_index(runtime.index)
        said = self.facts.text(spa=runtime.spa, base=str(runtime.options.get("base", "")))
        if said is not None:
            self._give(FILE, said)

    def _name_index(self, index: str) -> None:
        """Have the first page be found where every first page is, whatever its name: Caddy knows one name only."""
        if index != "index.html" and "/" not in index and (self.place / index).is_file():
            with contextlib.suppress(FileExistsError):
                (self.place / "index.html").hardlink_to(self.place / index)

    def _give(self, name: str, text: str) -> None:
        path = self.place / name
        path.write_text(text)
        path.chmod(_FILE_MODE)
        there = path.stat()
        if (there.st_uid, there.st_gid) != self.owner:
            os.chown(path, *self.owner)


@dataclass(frozen=True, slots=True)
class Shown:
    """What visitors may see of a source, as its table says before anything is written."""

    table: ArchiveTable
    prefix: str
    paths: frozenset[str]
    left_out: frozenset[str]
    facts: Facts

    def write(self, source: Path, place: Path, owner: tuple[int, int], limits: ArchiveLimits) -> Unpacked:
        """As `unpack`."""
        files = extract(
            source,
            self.table,
            place,
            strip=self.prefix,
            file_mode=_FILE_MODE,
            dir_mode=_FOLDER_MODE,
            owner=owner,
            without=self.left_out,
            limits=limits,
        )
        # nor a folder of that name, which would stand in its way
        shutil.rmtree(place / FILE, ignore_errors=True)
        if not files:
            shutil.rmtree(place, ignore_errors=True)
            raise RunFailed(f"the source has no file below {self.prefix!r} that can be shown", code="InjectFailed")
        pages = (path for path in self.paths - self.left_out if path.lower().endswith((".html", ".htm")))
        return Unpacked(place, self.facts, tuple(pages), owner)


def unpack(source: Path, place: Path, strip: str, root: str, owner: tuple[int, int], limits: ArchiveLimits) -> Unpacked:
    """Write the site in the folder `root` below `strip` to `place`, which must not exist. Blocking. Raises
    `ArchiveError`, `StorageFull`, `StorageFailed`, `RunFailed`.
    """
    return shown(source, strip, root, limits).write(source, place, owner, limits)


def shown(source: Path, strip: str, root: str, limits: ArchiveLimits) -> Shown:
    """What is shown of the site in the folder `root` below `strip`. Blocking. Raises `ArchiveError`."""
    table = read_table(source, limits)
    prefix = strip + root

    def text(path: str) -> str:
        return decoded(table.texts.get(prefix + path, b""))

    paths = frozenset(file_paths(table, prefix))
    # what a link ends at is published under the link's name, and copied from there
    links = {entry.path[len(prefix) :]: entry.target[len(prefix) :] for entry in table.entries if entry.target}
    left_out = unpublished(paths, text) - frozenset(links.values())
    # nobody writes the site server's file but us
    left_out |= {FILE, *(name for name, target in links.items() if target == FILE)}
    netlify = netlify_settings(decoded(table.texts.get(f"{strip}netlify.toml", b"")))
    facts = Facts.of(paths - left_out, host_rules(text, "", netlify))
    return Shown(table, prefix, paths, frozenset(left_out), facts)
