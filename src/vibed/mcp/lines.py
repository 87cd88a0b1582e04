"""Log lines and events as an agent reads them: plain, one a line, and bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

ROOM = 20_000
"""Characters of an answer."""
LONGEST = 2_000
"""Characters of a line."""

_STEERING = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")
"""What colours a terminal and moves in it."""


def log_lines(items: Iterable[dict[str, Any]]) -> list[str]:
    """The API's log lines; parts of one line that was too long for the log are joined."""
    lines: list[str] = []
    goes_on = False
    for item in items:
        text = plain(item["text"])
        if goes_on:
            lines[-1] += text
        else:
            who = "[vibed] " if item["stream"] == "system" else ""
            lines.append(f"{_when(item['ts'])} r{item['run']} {who}{text}")
        goes_on = bool(item.get("cont"))
    return [cut(line) for line in lines]


def event_lines(items: Iterable[dict[str, Any]]) -> list[str]:
    """The API's events."""
    return [
        cut(f"{_when(datetime.fromisoformat(item['at']).timestamp())} v{item['version'] or '-'} "
            f"{item['reason']}: {plain(item['message'])}")
        for item in items
    ]  # fmt: skip


def newest(lines: Sequence[str], room: int = ROOM) -> list[str]:
    """As many of the last lines as there is room for."""
    kept = 0
    for line in reversed(lines):
        room -= len(line) + 1
        if room < 0:
            break
        kept += 1
    return list(lines[len(lines) - kept :])


def plain(text: str) -> str:
    """Without colours and other control characters."""
    return _STEERING.sub("", text)


def cut(line: str, longest: int = LONGEST) -> str:
    """A long line's beginning, and how much is not shown."""
    return line if len(line) <= longest else f"{line[:longest]} … (+{len(line) - longest:,} characters)"


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%m-%d %H:%M:%S}"
