"""Workers: POST ▸ 200, beside the warm shim that is given ready worker code by its supervisor alone."""

from __future__ import annotations

import secrets

from bench import sources
from bench.harness import Bench, tell
from bench.report import Row, at_most, not_measurable

TARGET_P50_MS = 20.0
TARGET_P99_MS = 60.0
FLOOR = "floor: shim inject"


def measure(bench: Bench) -> Row:
    """Plain JavaScript."""
    row = bench.begin("workerd", "worker in plain JavaScript: POST ▸ 200, against a warm shim in its sandbox")
    _measure(bench, row, sources.worker, bench.count(100, 10))
    seen = row.series.get("vibeD")
    if seen is None:
        row.verdicts.append(not_measurable("workerd POST ▸ 200", "no deploy succeeded"))
        return row
    row.verdicts.append(at_most(f"workerd p50 ≤ {TARGET_P50_MS:g} ms", seen.p50, TARGET_P50_MS))
    target = f"workerd p99 ≤ {TARGET_P99_MS:g} ms"
    if seen.n < 100:
        row.verdicts.append(not_measurable(target, f"{seen.n} samples have no 99th percentile"))
    else:
        row.verdicts.append(at_most(target, seen.p99, TARGET_P99_MS))
    return row


def measure_bundled(bench: Bench) -> Row:
    """TypeScript with a package, so that esbuild has to run; it has no target of its own."""
    row = bench.begin("workerd-bundled", "worker that esbuild bundles (TypeScript, Hono): POST ▸ 200, reported apart")
    _measure(bench, row, sources.bundled_worker, bench.count(50, 8))
    return row


def _measure(bench: Bench, row: Row, source: sources.Source, count: int) -> None:
    row.floor, row.compared = FLOOR, ("driver alone", "vibeD")
    bare = bench.bare
    mark = f"mark-{secrets.token_hex(6)}"
    packed = sources.packed(source(mark))
    runtime = bare.runtime(packed)
    bare.new_worker_code()
    bare.start("workerd-prepared", packed, runtime, mark)
    floor: list[float] = []
    driver: list[float] = []
    steps: list[dict[str, float]] = []

    def between(number: int) -> None:
        floor.append(bare.start("workerd-prepared", packed, runtime, mark).live_ms)
        alone = bare.start("workerd", packed, runtime, mark)
        driver.append(alone.live_ms)
        steps.append(dict(alone.steps))

    samples = bench.sample(bench.instance, source, count, templates=("workerd",), between=between)
    row.time(FLOOR, floor)
    row.time("driver alone", driver)
    row.time_steps("driver alone", steps)
    tell(row, "vibeD", samples)
