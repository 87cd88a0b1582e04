"""Who asks for a layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Asker:
    """What layers have to know of a version, besides what is to be installed."""

    template: str
    """On which it is installed."""
    source: Path
    """The archive, of which an installation may name files."""
    source_digest: str
    strip: str
    """The prefix that the archive's members lose."""
    owner: str
    app_id: str
