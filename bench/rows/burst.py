"""Twenty deploys at once, beside the same twenty started by the drivers alone, one after the other."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass

from bench import sources, web
from bench.harness import Bench
from bench.instance import Instance
from bench.report import Row, at_most, none_of, not_measurable

MIX: tuple[tuple[str, sources.Source, int, str], ...] = (
    ("static", sources.static, 8, ""),
    ("worker", sources.worker, 6, "workerd"),
    ("python", sources.python, 3, "gvisor"),
    ("node", sources.node, 3, "gvisor"),
)
P99_S = 10.0


@dataclass
class _One:
    """A deploy among the others."""

    kind: str
    name: str
    mark: str
    source: bytes
    status: int = 0
    ready: bool = False
    at_once: bool = True
    answer_ms: float = 0.0
    live_ms: float = 0.0
    said: str = ""


def measure(bench: Bench) -> Row:
    row = bench.begin("burst", "20 deploys at once: 8 static, 6 worker, 3 Python, 3 Node")
    instance = bench.instance
    floor = _floor(bench)
    row.figures["floor: the 12 sandboxes booted and started one after the other (s)"] = floor / 1000
    deploys: list[_One] = []
    walls: list[float] = []
    for number in range(bench.count(5, 1)):
        instance.wait_warm()
        time.sleep(0.5)
        began = time.perf_counter()
        some = _round(instance, number)
        walls.append(time.perf_counter() - began)
        deploys += some
        with instance.connect() as api:
            for one in some:
                instance.delete(api, one.name)
        instance.wait_gone([one.name for one in some])
    for kind, _, _, _ in MIX:
        row.time(f"{kind}: POST ▸ 200", [one.live_ms for one in deploys if one.kind == kind and one.ready])
    every = row.time("all: POST ▸ 200", [one.live_ms for one in deploys if one.ready])
    row.figures["rounds"] = len(walls)
    row.figures["whole round, longest (s)"] = max(walls)
    row.figures["answered 202 and Ready later"] = sum(one.ready and one.status == 202 for one in deploys)
    row.notes += [one.said for one in deploys if one.said][:5]
    row.verdicts += [
        none_of("all Ready", {"not Ready": sum(not one.ready for one in deploys)}),
        none_of("no 5xx", {"5xx": sum(one.status >= 500 for one in deploys)}),
        none_of("an answer is true when it comes", {"too early": sum(not one.at_once for one in deploys)}),
    ]
    target = f"p99 < {P99_S:g} s"
    row.verdicts.append(
        not_measurable(target, "nothing was Ready") if every is None else at_most(target, every.p99 / 1000, P99_S, "s")
    )
    return row


def _floor(bench: Bench) -> float:
    """Milliseconds to boot and start everything that needs a sandbox, with nothing warm, one after the other."""
    total = 0.0
    mark = f"mark-{secrets.token_hex(6)}"
    for _, source, count, driver in MIX:
        if driver:
            packed = sources.packed(source(mark))
            runtime = bench.bare.runtime(packed)
            total += sum(bench.bare.start_cold(driver, packed, runtime, mark).live_ms for _ in range(count))
    return total


def _round(instance: Instance, number: int) -> list[_One]:
    run = secrets.token_hex(2)
    deploys = []
    for kind, source, count, _ in MIX:
        for place in range(count):
            mark = f"mark-{secrets.token_hex(6)}"
            name = f"x{run}-{kind}-{number}-{place}"
            deploys.append(_One(kind, name, mark, sources.packed(source(mark))))
    start = threading.Barrier(len(deploys))
    threads = [threading.Thread(target=_deploy, args=(instance, one, start)) for one in deploys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return deploys


def _deploy(instance: Instance, one: _One, start: threading.Barrier) -> None:
    posted = instance.deploy_request(one.name, one.source)
    asked = web.get("/", instance.host(one.name))
    with instance.connect(timeout_s=60) as api, instance.connect(timeout_s=60) as visitor:
        api.open()
        visitor.open()
        start.wait()
        began = time.perf_counter()
        try:
            answer = api.send(posted)
            one.status, one.answer_ms = answer.status, (time.perf_counter() - began) * 1000
            first = True
            while time.perf_counter() - began < 60:
                page = visitor.send(asked)
                if page.status == 200 and one.mark.encode() in page.body:
                    one.ready, one.live_ms = True, (time.perf_counter() - began) * 1000
                    return
                if first and answer.status == 200:
                    one.at_once = False
                first = False
                if answer.status >= 300:
                    break
                time.sleep(0.01)
            one.said = f"{one.name}: POST said {answer.status} {answer.body[:300]!r}, GET {page.status}"
        except (OSError, web.Broken) as error:
            one.said = f"{one.name}: {type(error).__name__}: {error}"
