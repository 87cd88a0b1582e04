"""What a cause is told of the app, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class About:
    """The app whose error is explained."""

    kind: str = ""
    """`python`, `node`, `go`, `worker`, `binary`."""
    template: str = ""
    memory_mb: int = 0
    disk_mb: int = 0
    unset: tuple[str, ...] = ()
    """Environment variables that its source reads and that it was not given."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What is behind an error, for its author."""

    told: str
    """What is wrong: the rest of a sentence that begins with `the app`; empty where the error's own words say it."""
    hint: str
    """What to change."""
    code: str = ""
    """A code of its own; empty: the one that the failure came with."""
    complete: bool = False
    """Whether `told` says all that the error's own line does, so that the line need not be quoted."""
