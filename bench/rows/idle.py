"""What an idle control plane holds in memory, beside a bare Caddy and an empty Python."""

from __future__ import annotations

import subprocess
import sys
import time

from bench import memory, proxy
from bench.harness import Bench
from bench.instance import Instance
from bench.memory import Memory
from bench.report import Row, at_most

RSS_MB = 200.0


def measure(bench: Bench) -> Row:
    row = bench.begin("idle", "memory of an idle control plane, against bare Caddy and an empty Python")
    with bench.fresh() as instance:
        instance.wait_warm()
        time.sleep(bench.count(10, 3))
        parts = control_plane(instance)
        sandboxes = [memory.total([pid]) for pid in instance.supervisors()]
    for name, held in parts.items():
        row.figures[f"{name}: RSS / PSS (MB)"] = f"{held.rss:.1f} / {held.pss:.1f}"
    every = sum(parts.values(), Memory())
    row.figures["control plane in all: RSS / PSS (MB)"] = f"{every.rss:.1f} / {every.pss:.1f}"
    if sandboxes:
        row.figures[f"a supervisor, one for each of {len(sandboxes)} warm sandboxes: PSS (MB)"] = sum(
            one.pss for one in sandboxes
        ) / len(sandboxes)
    row.figures |= _floor(bench)
    row.verdicts.append(at_most(f"idle control plane RSS ≤ {RSS_MB:g} MB in all", every.rss, RSS_MB, "MB"))
    return row


def control_plane(instance: Instance) -> dict[str, Memory]:
    """By name; what confines a part counts with it, supervisors and their sandboxes do not: they are the apps' own."""
    processes = instance.processes()
    kept = set(processes.values())
    parts = {}
    for name, pid in processes.items():
        below = [one for one in memory.family(pid) if one == pid or (one not in kept and name not in _PARENTS)]
        parts[name] = memory.total(below)
    return parts


_PARENTS = ("watchdog", "controller")
"""Their children are other parts, or supervisors."""


def _floor(bench: Bench) -> dict[str, str]:
    program = bench.instance.tools.path("caddy")
    port = proxy.free_port()
    with proxy.caddy(program, bench.folder / "idle", "\trespond ok", listen=("127.0.0.1", port)) as process:
        time.sleep(1.0)
        caddy = memory.of(process.pid)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as empty:
        time.sleep(0.5)
        python = memory.of(empty.pid)
        empty.communicate(b"\n")
    return {
        "floor: bare Caddy: RSS / PSS (MB)": f"{caddy.rss:.1f} / {caddy.pss:.1f}",
        "floor: an empty Python: RSS / PSS (MB)": f"{python.rss:.1f} / {python.pss:.1f}",
    }
