"""With 2,000 registered static apps: how long a list takes, and a deploy beside that with 10 apps."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from bench import sources
from bench.harness import Bench
from bench.instance import Instance
from bench.memory import Memory
from bench.report import Row, at_most, none_of, not_measurable
from bench.rows.idle import control_plane

APPS = 2_000
FEW = 10
LIST_MS = 20.0
RATIO = 1.2
RSS_MB = 200.0
_CLIENTS = 4


def measure(bench: Bench) -> Row:
    """Registered through the API, each a site of one file."""
    count = bench.count(APPS, 200)
    row = bench.begin("many", f"{count:,} registered static apps, against {FEW}")
    row.floor, row.compared = f"deploy with {FEW} apps", (f"deploy with {count} apps",)
    samples = bench.count(60, 10)
    with bench.fresh(templates="static-nginx,workerd", pools="workerd=0") as instance:
        _register(instance, 0, FEW)
        row.time(f"list with {FEW} apps", _lists(instance, samples, 50))
        few = bench.sample(instance, sources.static, samples)
        began = time.monotonic()
        trouble = _register(instance, FEW, count)
        row.figures[f"registering {count - FEW} apps, {_CLIENTS} at a time (apps/s)"] = (count - FEW) / (
            time.monotonic() - began
        )
        time.sleep(2.0)
        listed = row.time(f"list with {count} apps", _lists(instance, samples, 50))
        row.time(f"list with {count} apps, 200 a page", _lists(instance, samples, 200))
        many = bench.sample(instance, sources.static, samples)
        time.sleep(bench.count(10, 2))
        parts = control_plane(instance)
    row.time(f"deploy with {FEW} apps", few.live_ms)
    row.time(f"deploy with {count} apps", many.live_ms)
    row.time_steps(f"deploy with {FEW} apps", few.steps)
    row.time_steps(f"deploy with {count} apps", many.steps)
    row.notes += few.trouble + many.trouble
    for name, held in parts.items():
        row.figures[f"{name}: RSS / PSS (MB)"] = f"{held.rss:.1f} / {held.pss:.1f}"
    every = sum(parts.values(), Memory())
    row.figures["control plane in all: RSS / PSS (MB)"] = f"{every.rss:.1f} / {every.pss:.1f}"
    row.verdicts.append(none_of("every app registered", {"refused": trouble}))
    ratio = row.ratio(f"deploy with {count} apps")
    if count < APPS or listed is None or ratio is None:
        for target in (f"list p50 ≤ {LIST_MS:g} ms", f"deploy p50 ≤ {RATIO:g} x that at {FEW}"):
            row.verdicts.append(not_measurable(f"{APPS:,} apps: {target}", f"this run has {count} apps"))
        return row
    row.verdicts += [
        at_most(f"{APPS:,} apps: list p50 ≤ {LIST_MS:g} ms", listed.p50, LIST_MS),
        at_most(f"{APPS:,} apps: deploy p50 ≤ {RATIO:g} x that at {FEW}", ratio, RATIO, "x"),
        at_most(f"{APPS:,} apps: control plane RSS ≤ {RSS_MB:g} MB", every.rss, RSS_MB, "MB"),
    ]
    return row


def _register(instance: Instance, first: int, last: int) -> int:
    """Deploy sites `first` … `last` - 1; returns how many were not answered 200."""
    numbers = iter(range(first, last))
    lock = threading.Lock()
    refused: list[int] = []

    def work() -> None:
        with instance.connect() as api:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                packed = sources.packed(sources.tiny_static(f"many {number}"))
                if api.send(instance.deploy_request(f"many-{number}", packed)).status != 200:
                    refused.append(number)

    _together([threading.Thread(target=work) for _ in range(_CLIENTS)])
    return len(refused)


def _lists(instance: Instance, count: int, limit: int) -> list[float]:
    times = []
    with instance.connect() as api:
        for number in range(-3, count):
            began = time.perf_counter()
            answer = instance.call("GET", f"/v1/apps?limit={limit}", connection=api)
            took = (time.perf_counter() - began) * 1000
            if answer.status != 200:
                raise RuntimeError(f"GET /v1/apps says {answer.status} {answer.body[:200]!r}")
            if number >= 0:
                times.append(took)
    return times


def _together(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
