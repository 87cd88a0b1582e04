"""How commands speak: results on standard output, everything else on standard error, JSON where it is asked for."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from vibed.apps.errors import VibedError

OK, FAILED, USAGE, UNREACHABLE, REFUSED = 0, 1, 2, 3, 4

_EXITS = {"Unreachable": UNREACHABLE, "Unauthorized": REFUSED, "Forbidden": REFUSED, "TooManyAttempts": REFUSED}


def show_json(value: object) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def fail(error: VibedError, *, as_json: bool) -> int:
    """Tell an error; returns the exit status."""
    if as_json:
        show_json(error.body())
    else:
        sys.stderr.write(f"{_paint('31', 'error')}: {printable(error.message)}\n")
        if error.hint:
            sys.stderr.write(f"{_paint('2', 'hint')}: {printable(error.hint)}\n")
    return USAGE if error.error_code == "Usage" else _EXITS.get(error.error_code, FAILED)


def printable(text: object, *, lines: bool = False) -> str:
    """Text that came from elsewhere, without what could steer a terminal; `lines` keeps newlines and tabs."""
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need."""
    text = [[printable(cell) for cell in row] for row in rows]
    widths = [max([len(title), *(len(row[n]) for row in text)]) for n, title in enumerate(head)]
    for number, row in enumerate([list(head), *text]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        sys.stdout.write((_paint("1", line) if number == 0 and sys.stdout.isatty() else line) + "\n")


def age(at: str | None) -> str:
    """How long ago an RFC 3339 time was."""
    if not at:
        return "-"
    from datetime import UTC, datetime

    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _paint(code: str, text: str) -> str:
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


class Progress:
    """One line on standard error that says what is going on and for how long; a line a change without a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()
        self._last = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and not self._quiet and self._last:
            sys.stderr.write("\r\x1b[2K")

    def say(self, text: str) -> None:
        """What is going on now."""
        if self._quiet:
            return
        text = printable(text)
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{text[:100]}  {time.monotonic() - self._began:.1f} s")
        elif text != self._last:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        self._last = text


def pick(item: dict[str, Any], *names: str) -> list[Any]:
    """Values by name, `-` for what is empty."""
    return [item.get(name) if item.get(name) not in (None, "") else "-" for name in names]
