"""What a sandbox is booted from: a template that is built, as drivers see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vibed.sandboxes.driver import Limits


@dataclass(frozen=True, slots=True)
class Root:
    """A template as drivers see it: what a sandbox is booted from."""

    name: str
    digest: str
    image: Path | None = None
    """The EROFS image of its root file system, named by its content."""
    modules: Path | None = None
    """A `node_modules` that bundling may take packages from."""
    limits: Limits = Limits()
    """Of its sandboxes when an app says nothing; the size of their disk is decided by them at boot."""


class Roots(Protocol):
    """The templates that are built."""

    def root(self, template: str) -> Root:
        """Raises `BootFailed` when the template is unknown or not built."""
        ...
