"""A static site for a pod: what visitors may see of its source, packed anew, and how the server of many is started.

The same folder as on one machine (`vibed.drivers.unpacking`): what is not for visitors stays out, and what the site is
beyond its files is written down, always: nobody but the site itself says what answers for paths that are no file.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

from vibed.drivers import packing
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.drivers.unpacking import Shown, shown
from vibed.sandboxes.driver import Run, RunFailed
from vibed.sources.extraction import unpacked_tree
from vibed.sources.limits import ArchiveLimits

KIND = "static"
FOLDER = "sites"
"""Where the sites of a pod are, below what serves them; the agent makes it (agent/pod)."""
_SITE = "site"
_TYPES = "types.json"
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Packed:
    """A site as it is handed to a pod."""

    archive: Path
    disk_bytes: int
    """What it takes there."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A site that is to be packed (`vibed.drivers.packing.Plan`)."""

    run: Run
    shown: Shown
    limits: ArchiveLimits

    tree: tuple[int, int]
    """Of what is shown (`vibed.sources.extraction.unpacked_tree`)."""

    @property
    def needs(self) -> int:
        return packing.needed(self.tree)

    def pack(self, folder: Path) -> Packed:
        """A tar.gz with the site's folder."""
        runtime = self.run.runtime
        place, archive = folder / _SITE, folder / "packed.tar.gz"
        made = self.shown.write(self.run.source, place, (os.geteuid(), os.getegid()), self.limits)
        replace(made, facts=replace(made.facts, ruled=True)).complete(self.run.app_id, runtime)
        with packing.compressed(archive) as tar:
            tar.add(place, _SITE)
            # beside the site: two that are alike are two objects, of which each is gone once its own is unpacked
            tar.addfile(tarfile.TarInfo(f"{self.run.app_id}.{self.run.number}"))
        size = sum(_on_disk(path) for path in [place, *place.rglob("*")])
        # it waits for a pod, and what it was made of need not
        shutil.rmtree(place)
        return Packed(archive, size)


def planned(run: Run, most: int, limits: ArchiveLimits) -> Planned:
    """By the table of its source. `most`: bytes that a site may take in its pod. Blocking. Raises `ArchiveError`,
    `RunFailed`.
    """
    site = shown(run.source, run.runtime.strip, run.runtime.root, limits)
    tree = unpacked_tree(site.table, site.prefix, site.left_out)
    check(tree[0], most)
    return Planned(run, site, limits, tree)


def check(size: int, most: int) -> None:
    """Raise `RunFailed` where a site takes more bytes than a pod has for all of its sites."""
    if size > most:
        raise RunFailed(
            f"the site takes {-(-size >> 20)} MB, and a pod of sites has {most >> 20}",
            code="DiskFull",
            hint="the operator decides (site_pod_mb)",
        )


def host(archive: Path) -> list[str]:
    """Write what a server of many sites is started from; its argv. It is the agent's own program. Raises OSError."""
    text = json.dumps({"types": TYPES, "unknown": UNKNOWN}).encode()
    archive.write_bytes(packing.packed({_TYPES: text}))
    return ["/proc/self/exe", "site", "-types", _TYPES, "-many", FOLDER]


def _on_disk(path: Path) -> int:
    return max(1, -(-path.lstat().st_size // _BLOCK)) * _BLOCK
