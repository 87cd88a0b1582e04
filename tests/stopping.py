"""Stopping a process, so that it is known to do nothing more."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_WITHIN_S = 10.0


def stop(pid: int) -> None:
    """SIGSTOP, and wait until each thread has stopped: they do so one by one, as each gets its turn on a processor, and
    until then the others go on. SIGCONT has it go on.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _WITHIN_S
    while not all(_is_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} was not stopped within {_WITHIN_S:g} s")
        time.sleep(0.001)


def _is_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
