"""The key of a vibeD that its sources' names and URLs are made with: random, kept 0600, made once.

It belongs to whoever owns its folder, whichever process came first.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_BYTES = 32


def signing_key(path: Path) -> bytes:
    """Read the key at `path`, or make it. Raises `OSError`, `ValueError` when the file holds something else."""
    try:
        key = bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        return _made(path)
    if len(key) < _BYTES:
        raise ValueError(f"{path} is not a signing key")
    return key


def _made(path: Path) -> bytes:
    key = secrets.token_bytes(_BYTES)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(fd, owner.st_uid, owner.st_gid)
        os.write(fd, key.hex().encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(beside, path)
    except FileExistsError:
        return signing_key(path)
    finally:
        beside.unlink()
    return key
