"""The port to what keeps things that vibeD makes itself, beside sources: layers, what builds made, what is known of it.

An object has a name in a room of objects of its kind. All methods block, and may be called from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing has it."""

    name: str
    bytes: int
    modified: float
    """Unix seconds."""


class Objects(Protocol):
    """See the module's docstring."""

    def put(self, room: str, name: str, content: bytes | Path) -> None:
        """Write an object, whole. Raises `VibedError`, OSError."""
        ...

    def get(self, room: str, name: str) -> bytes:
        """A small one. Raises `SourceMissing`, `VibedError`."""
        ...

    def save(self, room: str, name: str, path: Path) -> None:
        """Write one to a file. Raises `SourceMissing`, `VibedError`, OSError."""
        ...

    def look(self, room: str, name: str) -> Listed | None:
        """It as a listing has it; None: there is none. Raises `VibedError`."""
        ...

    def listing(self, room: str) -> list[Listed]:
        """All of a room. Raises `VibedError`."""
        ...

    def delete(self, room: str, name: str) -> None:
        """Idempotent. Raises `VibedError`."""
        ...

    def signed(self, room: str, name: str, ttl_s: float) -> str:
        """An address from which who has it can read this one. Raises `VibedError`."""
        ...
