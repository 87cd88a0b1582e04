"""What an app's output says went wrong: one error, with the lines that belong to it and the place in the app's code.

Every module that reads a language's errors gives `Fault`s; `vibed.sandboxes.diagnosis.finding` chooses between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONGEST = 300
"""Characters of an error as it is told."""

_ANSI = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()][A-Z0-9]|[=>78cDEHMNOZ])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LIBRARY = re.compile(r"(?:^|/)(?:node_modules|site-packages|dist-packages|vendor|\.?venv|\.?env)/")
_MODULE = re.compile(r"(?!__vibed)[\w-][\w./-]{0,200}\.[cm]?[jt]sx?")
"""A worker's modules have no folder that they lie in."""
_STACKS = ("stack", "exc_info", "exception", "traceback", "err", "error")
_LONGEST_RECORD = 16 << 10


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the app's own code."""

    file: str
    """Below /app."""
    line: int
    """0 where only the file is known."""

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Fault:
    """One error that an app wrote."""

    start: int
    end: int
    """The lines that it stands in: the first, and the one after the last."""
    text: str
    """The error's own words, in one line."""
    place: Place | None = None
    context: tuple[str, ...] = ()
    """All lines that belong to it, and the same for what caused it."""
    library: bool = False
    """Whether it was raised by a package and not by a line of the app's own."""
    formal: bool = True
    """Whether it has the form of an error, or is said to be one; else it is only the last that was written."""

    def __str__(self) -> str:
        return f"{self.text} ({self.place})" if self.place else self.text


def plain(line: str) -> str:
    """A line without what colours it, or moves the cursor, on a terminal."""
    return _CONTROL.sub("", _ANSI.sub("", line))


def prepared(lines: Iterable[str]) -> list[str]:
    """Plain lines; a record in JSON that carries a stack, as loggers write it, becomes the lines of that stack."""
    return [line for raw in lines for line in _unpacked(plain(raw).rstrip())]


def one_line(parts: Iterable[str]) -> str:
    """Words in one line, at most `LONGEST` characters."""
    text = " ".join(" ".join(parts).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 2] + " …"


def own(path: str, line: str | int) -> Place | None:
    """The place, when the path is of the app's own code."""
    path = path.removeprefix("file://")
    if not (path.startswith("/app/") or _MODULE.fullmatch(path)):
        return None
    file = path.removeprefix("/app/")
    return None if _LIBRARY.search(file) else Place(file[:200], int(str(line)[:9]))


def first_place(pattern: re.Pattern[str], lines: Sequence[str]) -> Place | None:
    """Of the first line that names a place of the app's own; the pattern's groups are path and line."""
    return next((place for one in lines if (m := pattern.search(one)) and (place := own(m[1], m[2]))), None)


def _unpacked(line: str) -> list[str]:
    if not line.startswith("{") or len(line) > _LONGEST_RECORD:
        return [line]
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return [line]
    stack = _stack(record)
    return [plain(part).rstrip() for part in stack.splitlines()] if stack else [line]


def _stack(record: object, depth: int = 0) -> str:
    if isinstance(record, str):
        return record if "\n" in record else ""
    if not isinstance(record, dict) or depth > 2:
        return ""
    return next((found for key in _STACKS if (found := _stack(record.get(key), depth + 1))), "")
