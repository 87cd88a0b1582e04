"""Telling one process from the next that has its pid."""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> str | None:
    """Field 22 of /proc/<pid>/stat (proc(5)): with the pid it names one process for ever. None if it is gone.

    The state of a process there is that of its first thread alone: one that is killed is gone with the last of its
    threads, which until then keeps its sockets and files open.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ended, threads = stat[0] in ("Z", "X"), int(stat[17])
    return None if ended and threads <= 1 else stat[19]
