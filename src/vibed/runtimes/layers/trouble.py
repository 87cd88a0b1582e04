"""What went wrong in an installation, in a sentence, with the line that is the cause and the installer's own words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """See the module's docstring."""

    message: str
    """The rest of a sentence that begins with "the dependencies cannot be installed: "."""
    hint: str = ""
    packages: frozenset[str] = frozenset()
    """Names that the installer blames, as far as it says."""
    retryable: bool = False
    """Whether a registry could not be reached, so that the same may work later."""
    stale_lock: bool = False
    """Node: whether the lock does not fit its package.json."""
    peers: bool = False
    """Node: whether only peer dependencies do not fit."""
