"""What a run's first answers came to, where they failed: an app that answers 500 to everything is Ready like any other.

Nobody asks an app to find that out. Its supervisor sees what visitors are answered, and writes one line into the run's
log when an answer is 5xx before any request has succeeded, and one when the same request succeeds (agent/ingress).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vibed.sandboxes.diagnosis import About, unset, why_it_answered_so

_SYSTEM = b'"stream": "system", "text": "'
"""As the supervisor writes it: no text of an app's has these bytes, since its quotes are escaped."""
FAILED = "failed before any request succeeded: "
SUCCEEDS = "succeeds now: "
_NEAR_S = 2.0
"""The error is printed about when the answer is given, and takes its way through a pipe."""
_NEAR_BYTES = 64 * 1024
_LOG_BYTES = 5 * 1024 * 1024
"""Of one of the two files of a run's log, which ends at 4 MiB."""


def failing(folder: Path, about: About) -> str | None:
    """How a run's first request failed, with the app's error behind it and what to change where that is known; None
    when it did not, when what failed has succeeded since, or when the log does not go back so far. `folder` is
    `Layout.run_log`. Blocking.
    """
    for name in ("log.1.jsonl", "log.jsonl"):
        data = _read(folder / name)
        at = data.find(_SYSTEM + FAILED.encode())
        if at >= 0:
            break
    else:
        return None
    ended = _SYSTEM + SUCCEEDS.encode()
    if ended in data or (name != "log.jsonl" and ended in _read(folder / "log.jsonl")):
        return None
    near = list(_lines(data, at))
    told = next((line for line in near if line["stream"] == "system" and line["text"].startswith(FAILED)), None)
    if told is None:
        return None
    printed = [line["text"] for line in near if line["stream"] != "system" and abs(line["ts"] - told["ts"]) <= _NEAR_S]
    error = why_it_answered_so(printed, about)
    what = f"{told['text'].removeprefix(FAILED)} before any request succeeded"
    if error:
        return f"{what}: {error}"
    return f"{what}; its log may say why" + (f", or it needs {unset(about)}" if about.unset else "")


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(_LOG_BYTES)


def _lines(data: bytes, at: int) -> Iterator[dict[str, Any]]:
    """The whole lines around `at`."""
    begin = max(0, at - _NEAR_BYTES)
    if begin:
        begin = data.find(b"\n", begin) + 1
    for raw in data[begin : at + _NEAR_BYTES].split(b"\n"):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and {"stream", "text", "ts"} <= line.keys():
            yield line
