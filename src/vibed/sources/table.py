"""The table of an archive: what is in it, read once, from which everything else is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """What a member is. Links only ever point at files of the same archive."""

    FILE = 0
    DIRECTORY = 1
    LINK = 2


class Entry(NamedTuple):
    """One member. `path` is relative, POSIX, without `.`, `..`, empty parts or a trailing slash."""

    path: str
    kind: Kind
    size: int
    """Bytes of content; of a link, of the file it ends at."""
    mode: int
    """Permission bits only, at most 0o755: set-uid, set-gid and sticky are dropped, and so is writing by others."""
    offset: int
    """Where the content begins in the expanded tar stream."""
    target: str = ""
    """Of a link: the path of the regular file that it ends at."""


@dataclass(frozen=True, slots=True)
class ArchiveTable:
    """Everything about an archive that can be known without writing it anywhere."""

    entries: tuple[Entry, ...]
    """In the order of the archive."""
    compressed: int
    expanded: int
    """Bytes of the files' content, with every link counted as a copy."""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    """Beginnings of the small files that the classifier reads, by path (see `vibed.sources.texts`)."""
    texts_complete: bool = True
    """False when some were left out because they would have been too much together."""
    passed_over: tuple[str, ...] = ()
    """Links of tools that cannot be carried over, by path: no entry stands for them (see `vibed.sources.links`)."""

    @property
    def files(self) -> int:
        """How many files there are (links count: they become files)."""
        return sum(1 for entry in self.entries if entry.kind is not Kind.DIRECTORY)
