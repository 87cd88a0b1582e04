"""The log folder of a run, as far as it is the controller's: made for the supervisor, which writes the log, and given
the line that a supervisor which was killed could not write.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path


def make_folder(folder: Path, gid: int) -> None:
    """Make it, for `gid` to read (-1: as it comes). Raises OSError."""
    for place in (folder.parent, folder):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o750, parents=True)
        if gid not in (-1, place.stat().st_gid):  # also of one that a killed controller had just made
            os.chown(place, -1, gid)


def append_system_line(log_dir: Path, text: str) -> None:
    """The line that the dead supervisor could not write; `seq` goes on where it stopped."""
    path = log_dir / "log.jsonl"
    seq = max(last_seq(log_dir / "log.1.jsonl"), last_seq(path))
    line = {"seq": seq + 1, "ts": round(time.time(), 6), "stream": "system", "text": text}
    with contextlib.suppress(OSError), path.open("ab+") as out:
        half_written = out.tell() > 0 and out.seek(-1, os.SEEK_END) >= 0 and out.read(1) != b"\n"
        out.write(b"\n" * half_written + json.dumps(line).encode() + b"\n")


def last_seq(path: Path) -> int:
    """The number of the last whole line of a log file, 0 when there is none. A line has at most 16 KiB of text, each
    byte of which may take six.
    """
    seq = 0
    with contextlib.suppress(OSError), path.open("rb") as lines:
        lines.seek(max(0, lines.seek(0, os.SEEK_END) - 131_072))
        for line in lines.read().split(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                seq = max(seq, int(json.loads(line)["seq"]))
    return seq
