"""Copies on this disk of what is in the bucket, while it is used: of one kind, and bounded together (`pod_disk`)."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from vibed.runtimes.pod_disk import MIB
from vibed.sources.errors import SourceMissing
from vibed.sources.objects import Objects

HELD_S = 60.0
"""What was asked for within this time stays: it may be about to be sent."""


class Copies:
    """See the module's docstring. The longest unused go first. All methods block; may be used by several threads."""

    def __init__(self, objects: Objects, room: str, folder: Path, pattern: str, most: int) -> None:
        """`room`: of the objects; `pattern`: which files of the folder are copies; `most`: bytes of all of them."""
        self._objects, self._room = objects, room
        self._folder, self._pattern, self._most = folder, pattern, most
        self._counting = threading.Lock()
        self._coming = 0
        """Bytes that are on their way."""
        self._fetching: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def get(self, name: str, here: Path) -> Path:
        """An object as a file `here`, which counts as used now; fetched once, however many ask. Raises `VibedError`,
        OSError.
        """
        with self._counting:
            fetching = self._fetching.setdefault(name, threading.Lock())
        with fetching:
            # whoever makes room looks at what was used and removes it in one go
            with contextlib.suppress(FileNotFoundError), self._counting:
                os.utime(here)
                return here
            there = self._objects.look(self._room, name)
            if there is None:
                raise SourceMissing(f"there is no {name[:12]}… in {self._room}")
            coming = here.with_name(f".{here.name}.coming")
            with self.room_for(there.bytes):
                try:
                    self._objects.save(self._room, name, coming)
                    coming.replace(here)
                finally:
                    coming.unlink(missing_ok=True)
            return here

    @contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """Have so many bytes be free for a copy that is put there meanwhile. Raises OSError where there are not."""
        with self._counting:
            self._make_room(size)
            self._coming += size
        try:
            yield
        finally:
            with self._counting:
                self._coming -= size

    def _make_room(self, size: int) -> None:
        copies = []
        for path in self._folder.glob(self._pattern):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                copies.append((found.st_mtime, found.st_size, path))
        left = sum(taken for _, taken, _ in copies) + self._coming + size
        for used, taken, path in sorted(copies):
            if left <= self._most or time.time() - used < HELD_S:
                break
            path.unlink(missing_ok=True)
            left -= taken
        if left > self._most:
            wanted, most = -(-size // MIB), self._most // MIB
            raise OSError(
                errno.ENOSPC, f"of the {most} MiB for copies so much is used just now that {wanted} do not fit"
            )
