"""What processes hold in memory and have used of the processors, from /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process or several, in MB (10^6 bytes)."""

    rss: float = 0.0
    """Counts what is shared between processes in each of them."""
    pss: float = 0.0
    """Shared pages divided among those who share them."""

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss)


def of(pid: int) -> Memory:
    """Of one process. Raises OSError when it is gone."""
    return parse(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse(rollup: str) -> Memory:
    """The text of smaps_rollup."""
    fields = dict(line.split(":", 1) for line in rollup.splitlines()[1:] if ":" in line)
    return Memory(*(int(fields[name].split()[0]) * 1024 / 1e6 for name in ("Rss", "Pss")))


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


def total(pids: Iterable[int]) -> Memory:
    """Of all of them that are still there."""
    summed = Memory()
    for pid in pids:
        try:
            summed += of(pid)
        except OSError:
            continue
    return summed


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time (user and system, ended threads included) of all of them that are still there."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
