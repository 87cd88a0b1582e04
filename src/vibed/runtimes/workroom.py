"""How much things in the making may take of a volume of a bounded size (`pod_disk`).

How large one becomes nobody knows before it is there, and to wait in the middle of it helps none of several that wait
for each other. So the first of them may become as large as one may be, and the others share what is there beside it:
one of them that finds no room ends, and is made anew later, and there is always one that comes to its end.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vibed.runtimes.keeping import making
from vibed.runtimes.pod_disk import BESIDE_BYTES, MAKING_BYTES, MIB


class Workroom:
    """See the module's docstring. May be used by several threads."""

    def __init__(self, most: int = MAKING_BYTES, beside: int = BESIDE_BYTES) -> None:
        """`most`: bytes of one; `beside`: of all others than the first."""
        self._most, self._beside = most, beside
        self._counting = threading.Lock()
        self._open: set[Path] = set()
        self._taken: dict[Path, int] = {}
        """Bytes by folder, the one first that has written first."""

    @contextmanager
    def making(self, folder: Path) -> Iterator[Path]:
        """A folder in `folder` for one thing in the making; it is gone afterwards."""
        place: Path | None = None
        try:
            with making(folder) as place:
                with self._counting:
                    self._open.add(place)
                yield place
        finally:
            if place is not None:
                self._end(place)  # its bytes have gone

    def write(self, at: Path, size: int) -> None:
        """Count bytes that are written to such a folder, or to one in it. Raises OSError where they must not be."""
        with self._counting:
            place = next((one for one in (at, *at.parents) if one in self._open), None)
            if place is None:
                raise OSError(errno.ENOENT, f"nothing is made at {at} any more")
            taken = self._taken.get(place, 0) + size
            if taken > self._most:
                raise OSError(errno.EFBIG, f"it takes more than {self._most // MIB} MiB while it is made")
            first = next(iter(self._taken), place)
            others = sum(self._taken.values()) - self._taken.get(first, 0)
            if place != first and others + size > self._beside:
                raise OSError(errno.ENOSPC, "what is made for others takes the room that there is for it just now")
            self._taken[place] = taken

    def _end(self, place: Path) -> None:
        with self._counting:
            self._open.discard(place)
            self._taken.pop(place, None)
