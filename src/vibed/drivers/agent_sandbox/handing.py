"""Folders of the controller's that a builder finds below /layers: their files are handed to its pod, and connections to
their sockets are carried from it (`streams`).
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from vibed.drivers.packing import add
from vibed.sandboxes.driver import Mount


def sockets_of(mounts: Sequence[Mount]) -> list[tuple[str, Path]]:
    """Where a builder finds each socket, and where it is here. Blocking. Raises OSError."""
    folders = [mount for mount in mounts if mount.source.is_dir()]
    return [
        (f"{mount.target}/{path.name}", path)
        for mount in folders
        for path in sorted(mount.source.iterdir())
        if path.is_socket()
    ]


def packed(folder: Path, into: Path) -> bool:
    """Write a tar.gz of a folder's files; whether there are any. Blocking. Raises OSError."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    with tarfile.open(into, "w:gz", compresslevel=1) as archive:
        for path in files:
            add(archive, path.name, path.read_bytes())
    return bool(files)
