"""One program as installed, and what can go wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vibed.apps.errors import VibedError

Progress = Callable[[str, float | None], None]
"""Called with the step that begins and, where it is known, the fraction of the whole that is done."""


class ToolError(VibedError):
    """A tool could not be installed. `hint` says what would help."""

    code = "ToolInstallFailed"
    status = 503
    retryable = True

    def __init__(self, tool: str, message: str, hint: str | None = None) -> None:
        self.tool = tool
        super().__init__(f"{tool}: {message}", hint=hint)


@dataclass(frozen=True)
class Tool:
    """A program as installed."""

    name: str
    version: str
    path: Path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
