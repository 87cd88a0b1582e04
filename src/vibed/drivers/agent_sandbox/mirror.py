"""A copy of a run's log on the controller's disk, where it outlives the pod (vibed.supervision.runlogs reads it).

It is written as a supervisor writes it on one machine, and rotated at the same size. What the pod says is the app's
word in the end, so each line is taken apart and written anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from vibed.drivers.agent_sandbox.log_room import LogRoom
from vibed.supervision.logs import last_seq, make_folder

_FILE_BYTES = 4 << 20
_STREAMS = frozenset({"stdout", "stderr", "build", "system"})
_TEXT = 16 << 10


class Mirror:
    """Blocking: call it in a thread."""

    def __init__(self, log_dir: Path, room: LogRoom | None = None) -> None:
        """Nothing is written before the first line. `room`: what all copies share."""
        self._room = room
        self._writing = Lock()
        self._dir = log_dir
        self._current = log_dir / "log.jsonl"
        self._rotated = log_dir / "log.1.jsonl"
        self.after = max(last_seq(self._rotated), last_seq(self._current))
        """The number of the last line that it has."""

    def add(self, lines: Sequence[object]) -> None:
        """Write those that are lines and are new. Raises OSError."""
        with self._writing:
            self._add(lines)

    def say(self, at: float, text: str) -> None:
        """A line that the pod could not write any more. Raises OSError."""
        with self._writing:
            self._add([{"seq": self.after + 1, "ts": at, "stream": "system", "text": text}])

    def _add(self, lines: Sequence[object]) -> None:
        out: list[bytes] = []
        after = self.after
        for line in lines:
            text = _written(line, after)
            if text is not None:
                after, encoded = text
                out.append(encoded)
        if not out:
            return
        make_folder(self._dir, -1)
        batch = b"".join(out)
        with contextlib.suppress(FileNotFoundError):  # none yet, or it had to make room for others
            if self._current.stat().st_size + len(batch) > _FILE_BYTES:
                self._current.replace(self._rotated)
        self._write(batch)
        self.after = after
        if self._room is not None:
            self._room.wrote(len(batch))

    def _write(self, batch: bytes) -> None:
        """All of it or nothing: who is told that the disk is full asks for the same lines again."""
        with self._current.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                view = memoryview(batch)
                while view:
                    view = view[file.write(view) :]
            except OSError:
                file.truncate(before)
                raise


def _written(line: object, after: int) -> tuple[int, bytes] | None:
    if not isinstance(line, Mapping):
        return None
    seq, stream, text = line.get("seq"), line.get("stream"), line.get("text")
    at = line.get("ts")
    if not isinstance(seq, int) or not after < seq < 1 << 53 or not isinstance(text, str):
        return None
    said: dict[str, Any] = {
        "seq": seq,
        "ts": at if isinstance(at, (int, float)) else 0.0,
        "stream": stream if stream in _STREAMS else "stdout",
        "text": text[:_TEXT],
    }
    if line.get("cont") is True:
        said["cont"] = True
    return seq, json.dumps(said).encode() + b"\n"
