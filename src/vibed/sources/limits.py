"""What an archive may be at most. Every limit is checked while reading, before the memory or disk is spent."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from vibed.config import Config

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds of one source. Sizes in bytes.

    - `compressed` 50 MB: what the API documents; about ten times the largest small app that was seen.
    - `expanded` 600 MB: the largest real app with its dependencies vendored needed just that (notes/real-apps).
      It counts the tar stream with headers, and what links expand to when they become copies.
    - `files` 20,000: distinct paths, directories that are only implied included, so that inodes are bounded. A React
      app's node_modules has about 15,000.
    - `path` 512 bytes, `component` 255 bytes, `depth` 32: any file system we extract to can hold these below its own
      prefix (PATH_MAX 4096, NAME_MAX 255).
    - `file` 300 MB: one member; half of everything.
    - `ratio` 200 beyond `ratio_free` 10 MB: text compresses 3 to 20 times, a repetitive CSV 50 times, zeros a thousand
      times (deflate ends at 1032). The first 10 MB are free, or a small app with one empty database would be refused.
      The ratio is that of the whole archive, so it does not depend on the order of the members.
    - `header` 64 KiB: one pax record or GNU long name; macOS writes extended attributes of a few KiB.
    """

    compressed: int = 50_000_000
    expanded: int = 600_000_000
    file: int = 300_000_000
    files: int = 20_000
    path: int = 512
    component: int = 255
    depth: int = 32
    ratio: int = 200
    ratio_free: int = 10_000_000
    header: int = 65_536

    @classmethod
    def of(cls, config: Config) -> ArchiveLimits:
        """Of what is taken: as the operator set them; the others stay."""
        expanded = config.max_expanded_mb * 1_000_000
        return cls(config.max_source_mb * 1_000_000, expanded, file=min(cls().file, expanded), files=config.max_files)


DEFAULT_LIMITS = ArchiveLimits()
TAKEN = ArchiveLimits(
    compressed=sys.maxsize, expanded=sys.maxsize, file=sys.maxsize, files=sys.maxsize, ratio=sys.maxsize
)
"""Of what was taken before, which is known by its digest: it kept to what the operator had set then, and may be run
whatever he has set since.
"""
