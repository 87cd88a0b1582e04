"""What a workshop works with: a way to the registries for a builder, and what is made of what a builder sends. On one
machine that takes root, and programs that are confined as root confines them; in a pod of a cluster there is neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vibed.runtimes.gate import Gate, registry_gate
from vibed.runtimes.layers.imaging import Taken, image_beside, make_image
from vibed.runtimes.layers.npm_tree import manifests
from vibed.runtimes.layers.npm_tree.laying import Laid, lay
from vibed.runtimes.layers.npm_tree.plan import Plan
from vibed.runtimes.registries import Registries
from vibed.sandboxes.driver import Mount
from vibed.supervision.host import Host

ImageOf = Callable[[int], Awaitable[Path]]
"""Makes the image of the tarball that a descriptor gives."""
Asking = Callable[[], Awaitable[Registries]]


class Equipment(Protocol):
    """See the module's docstring."""

    def gate(self, registries: Registries) -> AbstractAsyncContextManager[Gate]:
        """A gate for one build. Raises `GateFailed`."""
        ...

    def coming(self, place: Path, size: int) -> None:
        """So many bytes are about to be written to a folder of something in the making. Raises OSError where they must
        not be.
        """
        ...

    def image_beside(
        self, place: Path, *, most_bytes: int, take: Sequence[Taken], beyond: str
    ) -> AbstractAsyncContextManager[ImageOf]:
        """As `imaging.image_beside`."""
        ...

    async def compose(self, place: Path, take: Sequence[Taken], *, most_bytes: int) -> Path:
        """An image of what is taken over alone. Raises `Clash`, `ImageFailed`, OSError."""
        ...

    async def lay(self, place: Path, plan: Plan, registries: Asking, *, most_bytes: int) -> Laid:
        """As `Workshop.lay`. Raises Left, `ImageFailed`, VibedError, OSError."""
        ...

    async def said(
        self, place: Path, orders: Mapping[str, Any], registries: Asking, *, most_bytes: int
    ) -> Mapping[str, Any]:
        """As `Workshop.said`. Raises Left, VibedError, OSError."""
        ...


class Tooling(Protocol):
    """The installers (`vibed.runtimes.layers.toolbox`)."""

    def version(self, name: str) -> str: ...

    async def image(self, kind: str) -> Path | None:
        """With those at least that an order of that kind takes; None: it takes none. Raises ToolError."""
        ...


class Compiling(Protocol):
    """What packages are compiled with (`vibed.runtimes.layers.compilers`)."""

    async def mounts(self, template: str) -> tuple[Mount, ...]: ...


@dataclass(frozen=True, slots=True)
class OfHost:
    """On one machine."""

    host: Host

    def gate(self, registries: Registries) -> AbstractAsyncContextManager[Gate]:
        return registry_gate(self.host, registries)

    def coming(self, place: Path, size: int) -> None:
        pass  # a disk that is full says so itself

    def image_beside(
        self, place: Path, *, most_bytes: int, take: Sequence[Taken], beyond: str
    ) -> AbstractAsyncContextManager[ImageOf]:
        return image_beside(self.host, place, most_bytes=most_bytes, take=take, beyond=beyond)

    async def compose(self, place: Path, take: Sequence[Taken], *, most_bytes: int) -> Path:
        return await make_image(self.host, place, None, most_bytes=most_bytes, take=take)

    async def lay(self, place: Path, plan: Plan, registries: Asking, *, most_bytes: int) -> Laid:
        async with registry_gate(self.host, await registries()) as gate:
            return await lay(self.host, place, plan, gate, most_bytes=most_bytes)

    async def said(
        self, place: Path, orders: Mapping[str, Any], registries: Asking, *, most_bytes: int
    ) -> Mapping[str, Any]:
        async with registry_gate(self.host, await registries()) as gate:
            return await manifests.said(self.host, place, orders, gate, most_bytes=most_bytes)
