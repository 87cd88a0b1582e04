"""Room on the disk that is kept for deleting, for SQLite has to write even then.

A file beside the database holds the room. What frees space gives it up when the disk is full, and then has it for its
log; when there is room again, it is made anew. Nothing else may use it: whatever fills the disk would take it first.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

SIZE = 16 << 20
"""Bytes. Deleting an app with all the events that are kept writes less than one MiB of log; SQLite carries the log
over into the database, and begins it anew, when it has four."""
LEFT_ALONE = 64 << 20
"""Bytes that have to stay free for others when the reserve is made again."""


class Reserve:
    """Of one store; several processes may keep it and give it up."""

    def __init__(self, database: Path, size: int = SIZE) -> None:
        self._path = database.with_name(f"{database.name}.reserve")
        self._size = size

    def keep(self) -> bool:
        """Make the reserve if it is not there and the disk has room; returns whether it is there. Blocking."""
        try:
            descriptor = self._open(os.O_CREAT)
        except OSError:
            return False
        try:
            folder = self._path.parent.stat()
            if os.geteuid() == 0 and folder.st_uid != 0:
                os.fchown(descriptor, folder.st_uid, folder.st_gid)  # whoever keeps the store may give it up
            missing = self._size - os.fstat(descriptor).st_blocks * 512
            if missing <= 0:
                return True
            free = os.fstatvfs(descriptor)
            if free.f_bavail * free.f_frsize < missing + LEFT_ALONE:
                return False
            os.posix_fallocate(descriptor, 0, self._size)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            return False
        finally:
            os.close(descriptor)
        return True

    def held(self) -> bool:
        """Whether the room is there. Raises OSError other than that it is not."""
        try:
            return self._path.lstat().st_blocks * 512 >= self._size
        except FileNotFoundError:
            return False

    def give_up(self) -> bool:
        """Free the room; returns whether there was any. Blocking."""
        try:
            descriptor = self._open(0)
        except OSError:
            return False
        try:
            held = os.fstat(descriptor).st_blocks > 0
            os.ftruncate(descriptor, 0)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return held

    def _open(self, flags: int) -> int:
        """Raises OSError, also for what is no file of the store's alone: the controller, which is root, shares the
        folder with a process that is not."""
        flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(descriptor)
            raise OSError(f"{self._path} is not a file of the store's alone")
        return descriptor


def wants_room(error: sqlite3.Error) -> bool:
    """Whether more room on the disk could be the cure: it is full, or a quota on it or the index of the log is."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
