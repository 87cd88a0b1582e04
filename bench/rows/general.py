"""Python and Node: hello beside the driver's own claim ▸ 200, frameworks beside the same start in the bare sandbox."""

from __future__ import annotations

import secrets

from bench import sources
from bench.bare import described
from bench.harness import Bench, tell
from bench.report import Row, at_most, not_measurable
from bench.rows import static

HELLO = {"python": (sources.python, "python-313"), "node": (sources.node, "node-24")}
FRAMEWORKS = {
    "flask": (sources.flask, "python-313"),
    "gunicorn": (sources.gunicorn, "python-313"),
    "fastapi": (sources.fastapi, "python-313"),
    "express": (sources.express, "node-24"),
}
OVERHEAD_MS = 5.0
FRAMEWORK_RATIO = 1.2
AIM_RATIO = 0.5
HELLO_FLOOR = "floor: driver's claim ▸ 200"
FRAMEWORK_FLOOR = "floor: fresh process in the bare sandbox"


def measure_python(bench: Bench) -> Row:
    return _hello(bench, "python")


def measure_node(bench: Bench) -> Row:
    return _hello(bench, "node")


def _hello(bench: Bench, name: str) -> Row:
    source, template = HELLO[name]
    row = bench.begin(name, f"{name} hello under gVisor: POST ▸ 200, against the driver's own claim ▸ 200")
    row.floor, row.compared = HELLO_FLOOR, ("vibeD",)
    floor: list[float] = []
    steps: list[dict[str, float]] = []
    bare = bench.bare
    mark = f"mark-{secrets.token_hex(6)}"
    packed = sources.packed(source(mark))
    runtime = bare.runtime(packed)
    row.notes.append(f"classified as {described(runtime)}")

    def between(number: int) -> None:
        alone = bare.start("gvisor", packed, runtime, mark)
        floor.append(alone.live_ms)
        steps.append(dict(alone.steps))

    samples = bench.sample(bench.instance, source, bench.count(40, 6), templates=(template,), between=between)
    row.time(HELLO_FLOOR, floor)
    row.time_steps(HELLO_FLOOR, steps)
    tell(row, "vibeD", samples)
    target = f"{name} hello p50 ≤ the driver's own + static p50 + {OVERHEAD_MS:g} ms"
    seen, alone = row.series.get("vibeD"), row.series.get(HELLO_FLOOR)
    if seen is None or alone is None:
        row.verdicts.append(not_measurable(target, "no sample"))
        return row
    if bench.static_p50 is None:
        deployed, _ = static.sample(bench, bench.count(40, 10))
        if not deployed.deploys:
            row.verdicts.append(not_measurable(target, "no static deploy succeeded"))
            return row
        bench.static_p50 = sorted(deployed.live_ms)[len(deployed.live_ms) // 2]
    row.figures["static p50 of this run (ms)"] = bench.static_p50
    row.verdicts.append(at_most(target, seen.p50, alone.p50 + bench.static_p50 + OVERHEAD_MS))
    return row


def measure_flask(bench: Bench) -> Row:
    return _framework(bench, "flask")


def measure_gunicorn(bench: Bench) -> Row:
    return _framework(bench, "gunicorn")


def measure_fastapi(bench: Bench) -> Row:
    return _framework(bench, "fastapi")


def measure_express(bench: Bench) -> Row:
    return _framework(bench, "express")


def _framework(bench: Bench, name: str) -> Row:
    source, template = FRAMEWORKS[name]
    row = bench.begin(name, f"{name}: POST ▸ 200, against the same start in the bare sandbox")
    row.floor, row.compared = FRAMEWORK_FLOOR, ("bare, warm process", "vibeD", "vibeD, warm processes off")
    bare = bench.bare
    mark = f"mark-{secrets.token_hex(6)}"
    packed = sources.packed(source(mark))
    runtime = bare.runtime(packed)
    row.notes.append(f"classified as {described(runtime)}")
    floor: list[float] = []
    warm: list[float] = []

    def between(number: int) -> None:
        floor.append(bare.start("gvisor", packed, runtime, mark, warm=False).live_ms)
        warm.append(bare.start("gvisor", packed, runtime, mark).live_ms)

    count = bench.count(20, 5)
    samples = bench.sample(bench.instance, source, count, templates=(template,), between=between)
    bench.instance.configure(warm_processes=False)
    try:
        bench.instance.wait_warm()
        cold = bench.sample(bench.instance, source, count, templates=(template,))
    finally:
        bench.instance.configure(warm_processes=True)
        bench.instance.wait_warm()
    row.time(FRAMEWORK_FLOOR, floor)
    row.time("bare, warm process", warm)
    tell(row, "vibeD", samples)
    tell(row, "vibeD, warm processes off", cold)
    ratio = row.ratio("vibeD")
    target = f"{name} p50 ≤ {FRAMEWORK_RATIO:g} x the same start in the bare sandbox"
    if ratio is None:
        row.verdicts.append(not_measurable(target, "no sample"))
        return row
    row.verdicts.append(at_most(target, ratio, FRAMEWORK_RATIO, "x"))
    row.verdicts.append(at_most(f"{name}: aim below {AIM_RATIO:g} x with warm processes", ratio, AIM_RATIO, "x"))
    return row
