"""Moving, merging and removing trees of files while something is put together, and having them on the disk."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def move(source: Path, target: Path) -> None:
    """Also into a folder that is not there yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def merge(source: Path, target: Path) -> None:
    """Move the tree `source` into the tree `target`; what both have is replaced."""
    if not target.is_dir():
        move(source, target)
        return
    for entry in os.scandir(source):
        there = target / entry.name
        if entry.is_dir(follow_symlinks=False) and there.is_dir() and not there.is_symlink():
            merge(Path(entry.path), there)
        else:
            remove(there)
            Path(entry.path).rename(there)


def normalise(root: Path) -> None:
    """Everything readable by every uid, nothing set-uid: permissions of packages mean nothing in a sandbox."""
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                continue
            wanted = stat.S_IMODE(mode) & 0o1777 | 0o644
            if stat.S_ISDIR(mode) or mode & 0o111:
                wanted |= 0o111
            if wanted != stat.S_IMODE(mode):
                Path(path).chmod(wanted)


def remove(path: Path) -> None:
    """Whatever it is, also when it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: str | Path) -> None:
    """Have a file's content, or a folder's names, be on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
