"""Whether the machine has memory for one more app.

Each sandbox is bounded, all of them together are not: limits are for the worst case, and most apps use a tenth of
theirs. So what counts is what the kernel says is available at the moment of a start. Without a bound one start too many
would be paid for by whatever the kernel then ends, which may be an app that has served for weeks.
"""

from __future__ import annotations

from pathlib import Path

LEAST_KEPT_MB = 128
MOST_KEPT_MB = 1024
SHARE_KEPT = 1 / 16
"""Of the machine's memory, between these two: for what the kernel and running apps need in bad moments."""


class Elsewhere:
    """Of a controller whose apps are on other machines: whether there is room, their scheduler says."""

    def shortage(self) -> str | None:
        return None


class Memory:
    """Reads what /proc/meminfo says (proc_meminfo(5)); without it, or without its `MemAvailable`, nothing is short."""

    def __init__(self, meminfo: Path = Path("/proc/meminfo")) -> None:
        self._meminfo = meminfo

    def shortage(self) -> str | None:
        """Why no app can be started now; None when one can."""
        try:
            lines = dict(line.split(":", 1) for line in self._meminfo.read_text().splitlines() if ":" in line)
            total, available = (int(lines[name].split()[0]) >> 10 for name in ("MemTotal", "MemAvailable"))
        except (OSError, ValueError, LookupError):
            return None
        kept = int(min(max(total * SHARE_KEPT, LEAST_KEPT_MB), MOST_KEPT_MB))
        if available >= kept:
            return None
        return (
            f"this machine has {available} MB of memory left and keeps {kept} MB free; it starts by itself when there "
            "is more: delete apps that are not needed any more, or give the machine more memory"
        )
