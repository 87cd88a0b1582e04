"""A static site for a pod: what visitors may see of its source, packed anew, and how the server of many is started.

The same folder as on one machine (`vibed.drivers.unpacking`): what is not for visitors stays out, and what the site is
beyond its files is written down, always: nobody but the site itself says what answers for paths that are no file.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vibed.drivers import packing
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.drivers.unpacking import unpack
from vibed.sandboxes.driver import Run
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


@contextmanager
def packed(run: Run, limits: ArchiveLimits) -> Iterator[Packed]:
    """A tar.gz with the site's folder. Blocking. Raises `ArchiveError`, `RunFailed`, OSError."""
    runtime = run.runtime
    with tempfile.TemporaryDirectory(prefix="vibed-site-") as scratch:
        place = Path(scratch) / _SITE
        owner = (os.geteuid(), os.getegid())
        made = unpack(run.source, place, runtime.strip, runtime.root, owner, limits)
        replace(made, facts=replace(made.facts, ruled=True)).complete(run.app_id, runtime)
        archive = Path(scratch) / "packed.tar.gz"
        with packing.compressed(archive) as tar:
            tar.add(place, _SITE)
            # beside the site: two that are alike are two objects, of which each is gone once its own is unpacked
            tar.addfile(tarfile.TarInfo(f"{run.app_id}.{run.number}"))
        size = sum(_on_disk(path) for path in [place, *place.rglob("*")])
        # it waits for a pod, and what it was made of need not
        shutil.rmtree(place)
        yield Packed(archive, size)


def host(archive: Path) -> list[str]:
    """Write what a server of many sites is started from; its argv. It is the agent's own program. Raises OSError."""
    text = json.dumps({"types": TYPES, "unknown": UNKNOWN}).encode()
    archive.write_bytes(packing.packed({_TYPES: text}))
    return ["/proc/self/exe", "site", "-types", _TYPES, "-many", FOLDER]


def _on_disk(path: Path) -> int:
    return max(1, -(-path.lstat().st_size // _BLOCK)) * _BLOCK
