"""What `vibed up` shows of its steps, a line each, and how one fails."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import Any

from vibed.apps.errors import VibedError

AGAIN = "run it again; see vibed doctor if that does not help"


class UpFailed(VibedError):
    """vibeD could not be brought up; says at which step and what to do."""

    code = "UpFailed"


class Steps:
    """Prints one line a step: what, how it went, how long it took."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._began = time.monotonic()
        self._out = sys.stderr if quiet else sys.stdout
        self._live = self._out.isatty()

    @contextmanager
    def step(self, name: str) -> Any:
        """A step; the function it gives tells what it is doing just now."""
        began = time.monotonic()
        last = [""]

        def say(text: str) -> None:
            last[0] = text
            if self._live:
                self._out.write(f"\r\x1b[2K  …  {name:<14} {text[:80]}")
                self._out.flush()

        say("")
        try:
            yield say
        except BaseException:
            self._line("FAIL", name, last[0], began)
            raise
        self._line("ok", name, last[0], began)

    def note(self, name: str, text: str) -> None:
        """A line about what should be known and fails nothing."""
        self._out.write(f"note  {name:<14} {text}\n")
        self._out.flush()

    def _line(self, mark: str, name: str, text: str, began: float) -> None:
        start = "\r\x1b[2K" if self._live else ""
        now = time.monotonic()
        self._out.write(
            f"{start}{mark:>4}  {name:<14} {text:<58} {now - began:6.1f} s  (at {now - self._began:.1f} s)\n"
        )
        self._out.flush()
