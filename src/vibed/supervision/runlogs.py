"""An app's log across its runs: docs/reference/supervisor.md says how a supervisor writes it.

`<logs>/<app>/<run>/log.jsonl`, rotated once to `log.1.jsonl`; `seq` counts from 1 within a run. Two runs write at the
same time while an old version drains, so a position names the newest runs each: `7-120`, or `6-31,7-120`. A reader that
comes back with its position gets every line that is kept after it, once. What rotation has removed is told as a gap.
"""

from __future__ import annotations

import heapq
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vibed.apps.errors import VibedError

LIVE_RUNS = 3
"""How many of the newest runs may still be writing: the one that serves, one that drains, one that starts."""
_CHUNK = 128 * 1024
_ROTATED = "log.1.jsonl"
_CURRENT = "log.jsonl"


class BadPosition(VibedError):
    """Something that names no place in a log."""

    code = "MalformedRequest"
    status = 400


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log, or a gap of `missing` lines that rotation removed."""

    run: int
    seq: int
    at: float
    stream: str
    text: str
    cont: bool = False
    missing: int = 0

    def view(self) -> dict[str, Any]:
        """As the API shows it."""
        view: dict[str, Any] = {
            "run": self.run,
            "seq": self.seq,
            "ts": self.at,
            "stream": self.stream,
            "text": self.text,
        }
        if self.cont:
            view["cont"] = True
        return view


@dataclass(slots=True)
class Position:
    """How far a reader has come: the last seq of each of the newest runs it has seen. Runs below them are done."""

    seen: dict[int, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises `BadPosition`."""
        seen = {}
        for part in text.split(","):
            run, dash, seq = part.strip().partition("-")
            if not (dash and run.isascii() and run.isdigit() and seq.isascii() and seq.isdigit()) or len(part) > 40:
                raise BadPosition(
                    f"{text[:80]!r} is not a position in a log", hint="send the id of the last line as it came"
                )
            seen[int(run)] = int(seq)
        return cls(seen)

    def __str__(self) -> str:
        return ",".join(f"{run}-{seq}" for run, seq in sorted(self.seen.items()))

    def after(self, run: int) -> int | None:
        """The seq after which lines of `run` are wanted; None when the whole run is done."""
        if run in self.seen:
            return self.seen[run]
        return None if self.seen and run < max(self.seen) else 0

    def advance(self, run: int, seq: int) -> None:
        """Take note of a line that was handed on."""
        self.seen[run] = max(seq, self.seen.get(run, 0))
        for old in sorted(self.seen)[:-LIVE_RUNS]:
            if old < run:
                del self.seen[old]


def runs(directory: Path) -> list[int]:
    """The runs that have a log, oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdigit() and len(name) == 10)


class LogReader:
    """Reads one app's log forward from a position. Blocking: call it in a thread, one call at a time."""

    def __init__(self, directory: Path, position: Position | None = None) -> None:
        """`directory` is `<logs>/<app>`; no position means from the beginning of what is kept."""
        self._directory = directory
        self.position = position or Position()
        self._open: dict[int, _RunFile] = {}

    def seek_tail(self, count: int) -> None:
        """Go to where the last `count` lines of what is kept begin."""
        found = runs(self._directory)
        done, live = found[:-LIVE_RUNS], found[-LIVE_RUNS:]
        last: dict[int, int] = {}
        kept: deque[tuple[int, int]] = deque(maxlen=max(count, 1))
        for line in self._merged(dict.fromkeys(live, 0)):
            last[line.run] = line.seq
            if not line.missing:
                kept.append((line.run, line.seq))
        if len(kept) < count:
            missing = count - len(kept)
            for run in reversed(done):
                lines = [line.seq for line in self._lines(run, 0) if not line.missing]
                if len(lines) >= missing:
                    self.position = Position({run: lines[-missing] - 1})
                    return
                missing -= len(lines)
            return
        first: dict[int, int] = {}
        for run, seq in kept if count else ():
            first.setdefault(run, seq)
        self.position = Position({run: first[run] - 1 if run in first else last.get(run, 0) for run in live})

    def read(self, limit: int, most_text: int | None = None) -> list[tuple[Line, str]]:
        """Up to `limit` further lines in the order in which they were written, each with the position behind it; fewer
        once they have `most_text` characters.

        An empty list means that there is no more for now.
        """
        lines: list[tuple[Line, str]] = []
        found = runs(self._directory)
        done, live = found[:-LIVE_RUNS], found[-LIVE_RUNS:]
        for run in done:
            # Old runs one after the other: each is complete before the next one is begun.
            after = self.position.after(run)
            if after is not None and self._take(self._lines(run, after), lines, limit, most_text):
                return lines
        begun = {run: after for run in live if (after := self.position.after(run)) is not None}
        for run, after in begun.items():
            # A run that has no line yet is named too: its first may come after the next run's.
            self.position.advance(run, after)
        self._take(self._merged(begun), lines, limit, most_text)
        for run in [run for run in self._open if run not in live]:
            self._open.pop(run).close()
        return lines

    def _take(self, stream: Iterator[Line], lines: list[tuple[Line, str]], limit: int, most_text: int | None) -> bool:
        """Move lines over; True when there are enough."""
        size = sum(len(line.text) for line, _ in lines)
        if len(lines) >= limit or (most_text is not None and size >= most_text):
            return True
        for line in stream:
            self.position.advance(line.run, line.seq)
            lines.append((line, str(self.position)))
            size += len(line.text)
            if len(lines) >= limit or (most_text is not None and size >= most_text):
                return True
        return False

    def close(self) -> None:
        """Close the files."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _merged(self, begun: Mapping[int, int]) -> Iterator[Line]:
        """Lines of runs that write at the same time, in the order of their times."""
        streams = [self._lines(run, after) for run, after in begun.items()]
        return heapq.merge(*streams, key=lambda line: line.at)

    def _lines(self, run: int, after: int) -> Iterator[Line]:
        file = self._open.get(run)
        if file is None:
            file = self._open[run] = _RunFile(self._directory / f"{run:010d}")
        return _numbered(file.lines(after), run, after)


def _numbered(raw: Iterator[Mapping[str, Any]], run: int, after: int) -> Iterator[Line]:
    expected = after + 1
    for item in raw:
        seq = int(item["seq"])
        if seq < expected:
            continue
        at = float(item.get("ts", 0.0))
        if seq > expected:
            missing = seq - expected
            text = f"{missing} earlier lines are not kept any more"
            yield Line(run, seq - 1, at, "system", text, missing=missing)
        expected = seq + 1
        yield Line(run, seq, at, str(item.get("stream", "")), str(item.get("text", "")), bool(item.get("cont")))


class _RunFile:
    """The two files of one run, read forward; remembers where the next line begins."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None
        self._inode = 0
        self._offset = 0
        """Of the first byte that was not handed on."""
        self._next_seq = 1

    def lines(self, after: int) -> Iterator[Mapping[str, Any]]:
        """Complete lines with a larger seq than `after`. What a consumer does not take is read again next time."""
        if after + 1 < self._next_seq:
            # Before the place where the last reading ended: look through everything that is kept.
            self.close()
            self._next_seq = 1
        if self._fd is None and not self._begin():
            return
        while True:
            yield from self._drain(after)
            if self._newer() is None:
                return
            # It is written to no more: what came between the last look and the rotation is here.
            yield from self._drain(after)
            newer = self._newer()
            if newer is None or not self._open(newer):
                return

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _begin(self) -> bool:
        # In this order: a rotation in between makes the first of them the second.
        current = self._open(_CURRENT)
        return self._open(_ROTATED) or current

    def _open(self, name: str) -> bool:
        try:
            fd = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        self.close()
        self._fd, self._inode, self._offset = fd, os.fstat(fd).st_ino, 0
        return True

    def _newer(self) -> str | None:
        """The name of the file to go on with if the open one is not the newest."""
        try:
            current = (self._directory / _CURRENT).lstat().st_ino
        except FileNotFoundError:
            return None
        if current == self._inode:
            return None
        try:
            behind = (self._directory / _ROTATED).lstat().st_ino
        except FileNotFoundError:
            behind = self._inode
        # When it was rotated twice since, the file in between comes first.
        return _CURRENT if behind == self._inode else _ROTATED

    def _drain(self, after: int) -> Iterator[Mapping[str, Any]]:
        assert self._fd is not None
        while True:
            fd, start = self._fd, self._offset
            chunk = os.pread(fd, _CHUNK, start)
            end = chunk.rfind(b"\n") + 1
            if not end and len(chunk) == _CHUNK:
                # A text has at most 16 KiB, so this is not one of ours: pass it.
                self._offset += len(chunk)
                continue
            at = start
            for raw in chunk[:end].split(b"\n")[:-1]:
                at += len(raw) + 1
                item = _parsed(raw)
                if item is None or item["seq"] <= after:
                    self._offset = at
                    continue
                yield item
                # Only now it was taken.
                self._offset = at
                self._next_seq = item["seq"] + 1
            if not end:
                return


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        item = json.loads(raw)
        return item if isinstance(item, dict) and isinstance(item.get("seq"), int) else None
    except ValueError:
        return None
