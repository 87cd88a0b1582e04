"""A step of a build: what it is to do, what comes of it, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vibed.runtimes import binaries
from vibed.runtimes.layers.imaging import Taken
from vibed.sandboxes.driver import Exit, Mount


@dataclass(frozen=True, slots=True)
class Order:
    """What a step is to do."""

    kind: str
    template: str
    request: Mapping[str, Any]
    source: Path | None = None
    """The app's, where it decides what comes of it; else the step sees none of it."""
    strip: str = ""
    mounts: tuple[Mount, ...] = ()
    """What it needs beside the tools."""
    compilers: bool = False
    """Whether it gets what packages are compiled with."""
    take: tuple[Taken, ...] = ()
    """What the image has beside what is installed."""
    env: Mapping[str, str] = field(default_factory=dict)
    own: bool = False
    """Whether what comes of it belongs to one owner's app: links of it may then lead into the app's folder."""
    builds: bool = True
    """Whether code of packages may be run for it; whatever is in its sandbox afterwards may be theirs."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a step."""

    answer: Mapping[str, Any]
    image: Path | None = None
    """In the place that the step had for itself; gone with it."""
    pieces: tuple[str, ...] = ()
    """Which packages another layer may take over from the image, by the lines that pin them."""
    archive: Path | None = None
    """So too: what an app's own build made."""


class StepFailed(Exception):
    """An installer failed, or what it ran. The message says how where it did not say so itself."""

    code = "StepFailed"

    def __init__(
        self,
        message: str,
        *,
        said: str = "",
        exit: Exit | None = None,
        denied: Mapping[str, int] | None = None,
        unreachable: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.said = said
        """The installer's own words; empty when it came to none."""
        self.exit = exit
        self.answer: Mapping[str, Any] = {}
        """What the step's program sent."""
        self.denied = dict(denied or {})
        """Hosts that were asked for and refused, and how often."""
        self.unreachable = unreachable
        """What the registries failed in."""
        self.lacking: Mapping[str, str] = {}
        """Sources of programs that were asked and could not be had, and why, by their names."""

    def elsewhere(self, while_: str) -> str:
        """What was asked for that no registry has, and could not be had, in words; empty when nothing was. `while_`:
        what was done then."""
        words = [binaries.lacking(name, why) for name, why in sorted(self.lacking.items())]
        if self.denied:
            hosts = ", ".join(sorted(self.denied)[:5])
            words.append(f"the build asked for {hosts}: only the package registries can be reached while {while_}")
        return "; ".join(words)

    def also(self, hint: str, while_: str) -> str:
        """A hint with that behind it."""
        return "; ".join(filter(None, (hint, self.elsewhere(while_))))


class Clashed(StepFailed):
    """What was installed, and what is taken over, do not go together."""
