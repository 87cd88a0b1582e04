"""Where pods get for themselves what they need, by addresses that are good for a short time."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vibed.sandboxes.driver import Mount, SandboxLost
from vibed.sources.store import SUFFIX, SourceStore

SIGNED_FOR_S = 600.0
"""How long an address is good: a pod tries for half of it."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Remote:
    """Something that a pod gets for itself, and what it has to be."""

    url: str
    sha256: str
    size: int


class Shelf(Protocol):
    """See the module's docstring."""

    async def source(self, path: Path) -> Remote | None:
        """Where the source is that the controller has at `path`; None: it is sent by the controller. Raises
        `VibedError`, OSError.
        """
        ...

    async def layer(self, mount: Mount) -> Remote:
        """Where the tar.gz of a layer is. Raises `VibedError`, OSError."""
        ...


class Sent:
    """There is no such place: the controller sends sources itself, and there are no layers."""

    async def source(self, path: Path) -> Remote | None:
        return None

    async def layer(self, mount: Mount) -> Remote:
        raise SandboxLost(f"there is nowhere to get {mount.target} from", code="NotSupported", retryable=False)


class Signed(Sent):
    """Sources are got from the source store, by addresses that it signs."""

    def __init__(self, store: SourceStore) -> None:
        self._store = store

    async def source(self, path: Path) -> Remote | None:
        digest = path.name.removesuffix(SUFFIX)
        if not _DIGEST.fullmatch(digest):
            return None  # what a build made is not of the store
        size = (await asyncio.to_thread(path.stat)).st_size
        return Remote(await self._store.signed_url(digest, SIGNED_FOR_S), digest, size)
