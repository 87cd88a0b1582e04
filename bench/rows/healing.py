"""A serving sandbox is killed: until its app answers again from a new one, beside the driver's own boot ▸ 200."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from contextlib import suppress
from pathlib import Path

from bench import memory, sources, web
from bench.harness import Bench
from bench.instance import Instance
from bench.report import Row, at_most, not_measurable

KINDS: dict[str, tuple[sources.Source, str, str]] = {
    "worker": (sources.worker, "workerd", "workerd"),
    "python": (sources.python, "python-313", "gvisor"),
    "node": (sources.node, "node-24", "gvisor"),
}
WITHIN_MS = 2_000.0
FLOOR = "floor: driver's boot ▸ 200"


def measure(bench: Bench) -> Row:
    row = bench.begin("self-heal", "kill -9 of a serving sandbox ▸ 200 from a new one, against the driver's boot ▸ 200")
    failures: dict[str, int] = {}
    said: list[str] = []
    for kind, (source, template, driver) in KINDS.items():
        mark = f"mark-{secrets.token_hex(6)}"
        packed = sources.packed(source(mark))
        runtime = bench.bare.runtime(packed)
        times: dict[str, list[float]] = {"sandbox": [], "supervisor": []}
        floor = []
        for number in range(bench.count(6, 2)):
            floor.append(bench.bare.start_cold(driver, packed, runtime, mark).live_ms)
            victim = "supervisor" if number % 3 == 2 else "sandbox"
            took, failed = _heal(
                bench.instance, f"heal-{kind}-{secrets.token_hex(2)}", packed, mark, template, victim, said
            )
            times[victim].append(took)
            failures[f"{kind}, {victim} killed"] = failures.get(f"{kind}, {victim} killed", 0) + failed
        alone = row.time(f"{kind}: {FLOOR}", floor)
        for victim, some in times.items():
            if some:
                row.time(f"{kind}: kill -9 of its {victim} ▸ 200", some)
        target = f"{kind} back within {WITHIN_MS / 1000:g} s plus its own start"
        if not times["sandbox"] or alone is None:
            row.verdicts.append(not_measurable(target, "no sample"))
        else:
            row.verdicts.append(at_most(target, max(times["sandbox"]), WITHIN_MS + alone.p50))
    row.figures |= {f"{name}: requests that failed until then": count for name, count in failures.items()}
    row.notes += said[:6]
    return row


def _heal(
    instance: Instance, name: str, packed: bytes, mark: str, template: str, victim: str, said: list[str]
) -> tuple[float, int]:
    """Milliseconds from the kill to a 200 of another process, and how many requests failed meanwhile."""
    asked = web.get("/", instance.host(name))
    with instance.connect() as api, instance.connect() as visitor:
        instance.wait_warm(template)
        instance.deploy(api, visitor, name, packed, mark)
        before = visitor.send(asked).headers.get("x-instance")
        instance.wait_warm(template)
        time.sleep(0.3)
        pids = _pids(instance, name)
        began = time.perf_counter()
        for pid in pids[:1] if victim == "supervisor" else pids[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        failed = 0
        while True:
            try:
                page = visitor.send(asked)
            except (OSError, web.Broken) as error:
                failed += 1
                said.append(f"{name}: {error}")
                continue
            took = (time.perf_counter() - began) * 1000
            if page.status == 200 and page.headers.get("x-instance") != before:
                break
            if page.status != 200:
                failed += 1
                said.append(f"{name}: {page.status} {page.body[:200]!r}")
            if took > 30_000:
                raise RuntimeError(f"{name} is not back after 30 s: {page.status} {page.body[:200]!r}")
            time.sleep(0.001)
        instance.delete(api, name)
    instance.wait_gone([name])
    return took, failed


def _pids(instance: Instance, name: str) -> list[int]:
    """The supervisor of an app's sandbox, and everything below it."""
    for state in Path(instance.layout.sandboxes).glob("s*/state.json"):
        with suppress(OSError, ValueError):
            told = json.loads(state.read_text())
            if (told.get("run") or {}).get("app_id") == name:
                return memory.family(int(told["pid"]))
    raise RuntimeError(f"{name} has no sandbox")
