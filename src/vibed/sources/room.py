"""The room on the disk that sources and sites leave free: for the store, for logs, and for whoever cleans up.

Whatever takes much of the disk asks before it begins and again while it writes, since others write too. So the store
is not the first to find the disk full, and who deploys is told what is wrong before anything was written.
"""

from __future__ import annotations

import os
from pathlib import Path

from vibed.sources.errors import StorageFull

FLOOR = 64 << 20
"""Bytes that stay free."""
BLOCK = 4096
"""Bytes that the smallest file takes, on the file systems that people have."""


def free(folder: Path | int) -> int:
    """Bytes that we may still write where `folder` is (a path or a descriptor). Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def check(folder: Path | int, wanted: int = 0) -> None:
    """Raises `StorageFull` when `wanted` bytes more would leave less than the floor, OSError."""
    left = free(folder)
    if left - wanted < FLOOR:
        raise StorageFull(
            f"the disk has {left >> 20} MiB left; this needs {-(-wanted >> 20)} MiB, and vibeD keeps {FLOOR >> 20} MiB"
            " free",
            hint="delete apps that are not needed (that works on a full disk too), or free space on the machine;"
            " then deploy again",
        )


def on_disk(size: int) -> int:
    """Bytes that a file of this size takes."""
    return -(-size // BLOCK) * BLOCK
