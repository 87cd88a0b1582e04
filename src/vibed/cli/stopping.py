"""Ending what runs of one vibeD: the watchdog with its processes, the sandboxes. For `up`, `down` and `clean`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from vibed.cli import watchdog
from vibed.cli.removing import remove
from vibed.layout import Layout
from vibed.processes import start_time


def state(layout: Layout) -> Path:
    """Where the watchdog says what it runs."""
    return layout.runtime / "watchdog.json"


def stop_watchdog(layout: Layout) -> bool:
    """End the watchdog and with it Caddy, the API and the controller. Sandboxes live on."""
    pid = watchdog.holder(layout.runtime / "watchdog.lock")
    if pid is not None:
        end_watchdog(layout, pid, signal.SIGTERM)
    return stop_processes(layout) or pid is not None


def end_watchdog(layout: Layout, pid: int, number: signal.Signals) -> None:
    """Tell the watchdog `number`, and wait until it has let go."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    deadline = time.monotonic() + watchdog.STOP_GRACE_S + 5
    while watchdog.holder(layout.runtime / "watchdog.lock") is not None and time.monotonic() < deadline:
        time.sleep(0.02)


def stop_processes(layout: Layout) -> bool:
    """End what a watchdog that was killed left running."""
    left = watchdog.running(state(layout))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left.values():
            if start_time(process.pid) == process.began:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        deadline = time.monotonic() + watchdog.STOP_GRACE_S
        while (
            any(start_time(process.pid) == process.began for process in left.values()) and time.monotonic() < deadline
        ):
            time.sleep(0.02)
    return bool(left)


def end_sandboxes(layout: Layout) -> tuple[int, list[str]]:
    """End every sandbox and remove its group, mounts and folder; returns how many there were, and what stays."""
    # only here: nothing else in a command line needs the drivers
    from vibed.drivers.teardown import end_all
    from vibed.runtimes.tools import Tools

    ended = asyncio.run(end_all(layout, Tools(layout.home)))
    left = remove([layout.apps, layout.ingress])
    with suppress(OSError):
        left += [f"{folder}: the sandbox could not be ended" for folder in layout.sandboxes.iterdir()]
    return ended, left
