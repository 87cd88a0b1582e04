"""Where pods get for themselves what they need, by addresses that are good for a short time."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vibed.sandboxes.driver import Mount
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


class Images(Protocol):
    """Where layers are kept (`vibed.runtimes.layers.shared`); both block."""

    def signed(self, digest: str, ttl_s: float) -> tuple[str, int]:
        """An address that is good for so long, and how many bytes it has. Raises `VibedError`."""
        ...

    def fetch(self, digest: str) -> Path:
        """A copy here. Raises `VibedError`, OSError."""
        ...


class Shelf(Protocol):
    """See the module's docstring."""

    async def source(self, path: Path) -> Remote | None:
        """Where the source is that the controller has at `path`; None: it is sent by the controller. Raises
        `VibedError`, OSError.
        """
        ...

    async def layer(self, mount: Mount) -> Remote | None:
        """Where the tar.gz of a layer is; None: it is sent by the controller. Raises `VibedError`, OSError."""
        ...

    async def local(self, mount: Mount) -> Path:
        """The tar.gz of a layer, here. Raises `VibedError`, OSError."""
        ...

    def unsigned(self) -> Shelf:
        """The same for pods that reach nothing: the controller sends them all."""
        ...


class Sent:
    """There is no such place: the controller sends sources and layers itself."""

    def __init__(self, images: Images | None = None) -> None:
        """`images`: where layers are kept that are not here; None: all are."""
        self._images = images

    async def source(self, path: Path) -> Remote | None:
        return None

    async def layer(self, mount: Mount) -> Remote | None:
        return None

    async def local(self, mount: Mount) -> Path:
        if self._images is not None and (digest := _digest_of(mount.source)) is not None:
            return await asyncio.to_thread(self._images.fetch, digest)
        return mount.source

    def unsigned(self) -> Shelf:
        return Sent(self._images)


class Signed(Sent):
    """Sources are got from the source store, and layers from beside them, by addresses that it signs."""

    def __init__(self, store: SourceStore, images: Images | None = None) -> None:
        super().__init__(images)
        self._store = store

    async def source(self, path: Path) -> Remote | None:
        digest = _digest_of(path)
        if digest is None:
            return None  # what a build made is not of the store
        size = (await asyncio.to_thread(path.stat)).st_size
        return Remote(await self._store.signed_url(digest, SIGNED_FOR_S), digest, size)

    async def layer(self, mount: Mount) -> Remote | None:
        digest = _digest_of(mount.source)
        if self._images is None or digest is None:
            return None
        url, size = await asyncio.to_thread(self._images.signed, digest, SIGNED_FOR_S)
        return Remote(url, digest, size)


def _digest_of(path: Path) -> str | None:
    digest = path.name.removesuffix(SUFFIX)
    return digest if _DIGEST.fullmatch(digest) else None
