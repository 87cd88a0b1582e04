"""Removing folders and saying what stays: a file system that is read-only or broken must not be called clean."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def remove(paths: Iterable[Path]) -> list[str]:
    """Remove folders with all that is in them, as much as is possible; returns what stays, each with the reason."""
    left = []
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)  # goes on after an error
        if os.path.lexists(path) and (reason := _reason(path)):
            left.append(f"{path}: {reason}")
    return left


def remove_but_last(folder: Path, last: str) -> list[str]:
    """As `remove`, the entry `last` at the end: it has the program that does this, and whoever was interrupted can
    begin again.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name != last and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
    return remove([folder])


def _reason(path: Path) -> str:
    """Why it cannot be removed; empty when it could be after all."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return "it was written to meanwhile; try again" if os.path.lexists(path) else ""
    except OSError as error:
        where = error.filename if error.filename not in (None, str(path)) else ""
        return f"{error.strerror} ({where})" if where else str(error.strerror)
    return ""
