"""How commands speak: results on standard output, everything else on standard error, JSON where it is asked for."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from vibed.apps.errors import VibedError

OK, FAILED, USAGE, UNREACHABLE, REFUSED = 0, 1, 2, 3, 4

_EXITS = {"Unreachable": UNREACHABLE, "Unauthorized": REFUSED, "Forbidden": REFUSED, "TooManyAttempts": REFUSED}


_ROOM = 24
"""What the last column of a table needs to be readable beside the others."""


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
    """Columns as wide as they need; the last one is for what may be long.

    In a terminal it is wrapped beside the others, or below them where they leave it too little room; elsewhere each row
    is one line.
    """
    text = [[printable(cell) for cell in row] for row in (head, *rows)]
    *widths, longest = [max(map(len, column)) for column in zip(*text, strict=True)]
    indent = sum(widths) + 2 * len(widths)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    room = columns - indent
    for number, (*cells, long) in enumerate(text):
        line = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        if longest <= room:
            lines = [line + long]
        elif room >= _ROOM:
            first, *more = _wrapped(long, room)
            lines = [line + first, *(" " * indent + part for part in more)]
        else:
            lines = [line, *(f"    {part}" for part in _wrapped(long, columns - 4))]
        for part in lines:
            part = part.rstrip()
            sys.stdout.write((_paint("1", part) if number == 0 and sys.stdout.isatty() else part) + "\n")


def _wrapped(text: str, room: int) -> list[str]:
    # a URL that is longer than the room stays in one piece: it can still be clicked
    return textwrap.wrap(text, max(room, _ROOM), break_long_words=False, break_on_hyphens=False) or [""]


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


def took(ms: float) -> str:
    """How long something took, for a person."""
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


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

    def note(self, text: str) -> None:
        """Something that stays to be read."""
        if self._quiet:
            return
        if self._live and self._last:
            sys.stderr.write("\r\x1b[2K")
        sys.stderr.write(f"{printable(text)}\n")


def pick(item: dict[str, Any], *names: str) -> list[Any]:
    """Values by name, `-` for what is empty."""
    return [item.get(name) if item.get(name) not in (None, "") else "-" for name in names]
