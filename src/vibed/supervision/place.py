"""The folder of one sandbox: what is where in it, and what its supervisor wrote there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one sandbox, and what is where in it."""

    folder: Path
    uid: int
    app_uid: int

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def spec(self) -> Path:
        return self.folder / "spec.json"

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    @property
    def control(self) -> Path:
        return self.folder / "ctl.sock"

    @property
    def inside(self) -> Path:
        """The one directory that the host and the agent share; it holds their sockets."""
        return self.folder / "in"

    @property
    def slot(self) -> Path:
        """Below it appears what a claim adds."""
        return self.folder / "slot"

    def tail(self) -> str:
        """The last lines of what a failed boot printed."""
        lines: list[str] = []
        for name in ("boot.log", "supervisor.log"):
            with contextlib.suppress(OSError):
                lines += (self.folder / name).read_text(errors="replace").splitlines()[-5:]
        return f": {' | '.join(line.strip() for line in lines if line.strip())}" if lines else ""


def folders(sandboxes: Path) -> Iterable[Path]:
    """Those of all sandboxes, without what is half made."""
    with contextlib.suppress(FileNotFoundError):
        return [folder for folder in sandboxes.iterdir() if not folder.name.startswith(".")]
    return []


def read_json(path: Path) -> dict[str, Any] | None:
    """What a supervisor or vibeD wrote; None when it is not there, not whole or no object."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
