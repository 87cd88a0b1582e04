"""What went wrong in an installation, in a sentence, with the line that is the cause and the installer's own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_NAMED = 20


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
    unmet: bool = False
    """Whether another version of the language may have what this one has not."""
    fits: frozenset[int] | None = None
    """Which, by the minors of Python 3 or the majors of Node; None where that is not known."""
    stale_lock: bool = False
    """Node: whether the lock does not fit its package.json."""
    peers: bool = False
    """Node: whether only peer dependencies do not fit."""
    compiler: bool = False
    """Whether something has to be compiled, and there was nothing to do that with."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What a compilation did not have."""

    message: str
    hopeless: bool = False
    """Whether it is something that no builder has, compilers or not."""


_FULL = ("No space left on device", "ENOSPC")


def no_room(said: str) -> Trouble | None:
    """Where an installer, whichever it is, ran out of the room that it has."""
    if not any(words in said for words in _FULL):
        return None
    message = "its packages take more room than an installation may have"
    if "nvidia-" in said:
        return Trouble(
            f"{message}: torch brings some 5 GB for graphics processors, of which there are none here",
            "do without torch: onnxruntime runs a model that was exported to ONNX, in a hundredth of the room",
            frozenset({"torch"}),
        )
    return Trouble(message, "ask for fewer or smaller packages")


def not_there(names: Sequence[str]) -> str:
    """The sentence about names that a registry does not have."""
    named = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"there is no package {named} in the package registry"
