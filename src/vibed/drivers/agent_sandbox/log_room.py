"""How much all copies of logs may take on the controller's disk, which is a volume of a bounded size.

A node evicts a pod whose volume has outgrown it, so this is kept to while lines are written. What was written longest
ago goes first, and of each log its older part; the app's pod still has what it keeps itself.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from threading import Lock

_LEFT = 0.75
"""How much of the bound is taken after room was made."""


class LogRoom:
    """Blocking; may be used by several threads. `folder` has `<app>/<run>/log.jsonl` and `log.1.jsonl`."""

    def __init__(self, folder: Path, most: int) -> None:
        """`most`: bytes."""
        self._folder, self._most = folder, most
        self._size: int | None = None
        """Bytes, as they were counted last and written since; others may have removed some meanwhile."""
        self._counting = Lock()

    def wrote(self, size: int) -> None:
        """Count what was written, and make room where it is too much."""
        with self._counting:
            if self._size is not None:
                self._size += size
            if self._size is None or self._size > self._most:
                self._make_room()

    def _make_room(self) -> None:
        there: list[tuple[bool, float, int, Path]] = []
        for path in self._folder.glob("*/*/log*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                there.append((path.name == "log.jsonl", found.st_mtime, found.st_size, path))
        self._size = sum(size for _, _, size, _ in there)
        if self._size <= self._most:
            return
        for _, _, size, path in sorted(there):
            if self._size <= self._most * _LEFT:
                return
            path.unlink(missing_ok=True)
            self._size -= size
