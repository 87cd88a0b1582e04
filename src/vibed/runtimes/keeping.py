"""What the stores of made things share: a place for one in the making, and which of those that are there go."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

JUST_USED_S = 600.0
"""Nothing that was given out so lately goes: it may be on its way into a sandbox."""


class Kept(Protocol):
    """Something that was made and is kept."""

    @property
    def key(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def used_at(self) -> float:
        """Unix seconds."""
        ...


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A folder for one thing in the making, on the file system of those that are kept; it is gone afterwards."""
    place = Path(tempfile.mkdtemp(dir=folder, prefix=".making-"))
    place.chmod(0o711)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove what was in the making when vibeD ended."""
    for stale in folder.glob(".making-*"):
        shutil.rmtree(stale, ignore_errors=True)


def doomed(kept: Iterable[Kept], in_use: Collection[str], *, most_bytes: int, unused_s: float, now: float) -> list[str]:
    """Which go: those unused for too long, then the longest unused until the rest fits. One in use never does."""
    gone = []
    left = 0
    rest = []
    for one in sorted(kept, key=lambda one: -one.used_at):
        free = one.key not in in_use and now - one.used_at > JUST_USED_S
        if free and now - one.used_at > unused_s:
            gone.append(one.key)
        else:
            rest.append((one, free))
            left += one.bytes
    for one, free in reversed(rest):
        if left <= most_bytes:
            break
        if free:
            gone.append(one.key)
            left -= one.bytes
    return gone
