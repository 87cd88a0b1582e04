"""A static site for a pod: what visitors may see of its source, packed anew, and how the site server is started on it.

The same folder as on one machine (`vibed.drivers.unpacking`): what is not for visitors stays out, and what the site is
beyond its files is written down.
"""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.drivers.unpacking import unpack
from vibed.sandboxes.driver import Run
from vibed.sources.limits import ArchiveLimits

_FOLDER = "site"
_TYPES = "types.json"


@contextmanager
def packed(run: Run, limits: ArchiveLimits) -> Iterator[Path]:
    """A tar.gz with the site's folder and the media types. Blocking. Raises `ArchiveError`, `RunFailed`, OSError."""
    runtime = run.runtime
    with tempfile.TemporaryDirectory(prefix="vibed-site-") as scratch:
        place = Path(scratch) / _FOLDER
        owner = (os.geteuid(), os.getegid())
        made = unpack(run.source, place, runtime.strip, runtime.root, owner, limits)
        made.complete(run.app_id, runtime)
        (Path(scratch) / _TYPES).write_text(json.dumps({"types": TYPES, "unknown": UNKNOWN}))
        archive = Path(scratch) / "packed.tar.gz"
        with gzip.open(archive, "wb", compresslevel=1) as out, tarfile.open(fileobj=out, mode="w|") as tar:
            tar.add(place, _FOLDER)
            tar.add(Path(scratch) / _TYPES, _TYPES)
        yield archive


def start(run: Run) -> list[str]:
    """The argv of its server; of the agent's own program, wherever the image has it."""
    fallback = ["-fallback", "/index.html"] if run.runtime.spa else []
    return ["/proc/self/exe", "site", "-types", _TYPES, *fallback, _FOLDER]
