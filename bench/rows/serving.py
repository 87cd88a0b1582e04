"""What a deployed app serves: requests a second and their latency, beside the same command on this machine behind the
same Caddy, and beside another checkout's vibeD (`--against`). All sides in turn, in one run.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import load, machine, proxy, sources
from bench.harness import Bench
from bench.instance import Instance
from bench.native import native
from bench.report import Row, Verdict, at_least, at_most, none_of, not_measurable

MANY = 16
_NATIVE = "natively"
_THIS = "vibeD"


@dataclass(frozen=True, slots=True)
class Served:
    """One app and what is asked of it."""

    title: str
    source: sources.Source
    path: str = "/"
    body_bytes: int = 0
    """Posted; 0: a GET."""
    least_of_native: float = 0.6
    """Requests a second over those natively, with 16 connections."""
    times_other: float = 2.0
    """Over the other checkout's: enough by itself, where `either`."""
    either: bool = True
    most_latency: float = 0.0
    """p50 of one connection over the one natively; 0: no target."""
    most_cpu: float = 0.0
    """Processor time of a request over the other checkout's; 0: no target."""


SERVED: Mapping[str, Served] = {
    "serve": Served(
        "Flask hello by gunicorn", sources.payloads,
        least_of_native=0.4, either=False, most_latency=2.5, most_cpu=0.4,
    ),
    "serve-run": Served("Flask hello by app.run()", sources.payloads_by_itself, least_of_native=0.0, times_other=3.0),
    "serve-fastapi": Served("FastAPI by uvicorn", sources.fastapi),
    "serve-express": Served("Express", sources.express),
    "serve-json": Served("a JSON answer of 30 kB by gunicorn", sources.payloads, path="/json"),
    "serve-download": Served("a download of 1 MB by gunicorn", sources.payloads, path="/download"),
    "serve-upload": Served("an upload of 1 MB to gunicorn", sources.payloads, path="/upload", body_bytes=1_000_000),
}  # fmt: skip
"""Rows by name."""


@dataclass(slots=True)
class _Side:
    """Where it is asked."""

    port: int
    host: str
    many: list[load.Throughput] = field(default_factory=list)
    one: list[load.Throughput] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """Of a request with 16 connections: everything on the machine but the generator."""


def row_of(name: str) -> Callable[[Bench], Row]:
    return lambda bench: measure(bench, name)


def measure(bench: Bench, name: str, others: Mapping[str, Instance] | None = None) -> Row:
    """One of `SERVED`. `others`: further vibeDs, by what they are called."""
    served = SERVED[name]
    row = bench.begin(name, f"{served.title}: what it serves in its sandbox, and natively behind the same Caddy")
    row.figures["load generator"] = load.generator()
    mark = f"mark-{secrets.token_hex(6)}"
    files = served.source(mark)
    packed = sources.packed(files)
    runtime = bench.bare.runtime(packed)
    row.notes.append(f"natively: {' '.join(runtime.start.argv)}")
    image = bench.shared / "templates" / runtime.template / "current" / "rootfs.erofs"
    sides: dict[str, _Side] = {}
    with ExitStack() as stack:
        app = stack.enter_context(native(image, bench.folder / "native", files, runtime.start))
        port = proxy.free_port()
        site = f"\treverse_proxy 127.0.0.1:{app}"
        caddy = bench.instance.tools.path("caddy")
        stack.enter_context(proxy.caddy(caddy, bench.folder / "front", site, listen=("127.0.0.1", port)))
        sides[_NATIVE] = _Side(port, "native.localhost")
        for label, instance in {_THIS: bench.instance, **(others or {})}.items():
            api, visitor = stack.enter_context(instance.connect()), stack.enter_context(instance.connect())
            instance.deploy(api, visitor, name, packed, mark)
            stack.callback(instance.delete, api, name)
            sides[label] = _Side(instance.port, instance.host(name))
        _rounds(bench, served, sides)
    _tell(row, served, sides)
    return row


def _rounds(bench: Bench, served: Served, sides: Mapping[str, _Side]) -> None:
    """In turn, so that what else the machine does hits all alike."""
    for side in sides.values():
        _ask(side, served, MANY, 1)
    for number in range(bench.count(6, 2)):
        for side in list(sides.values())[:: 1 if number % 2 else -1]:
            time.sleep(0.3)
            before = machine.busy_s()
            many = _ask(side, served, MANY, bench.count(4, 1))
            spent = machine.busy_s() - before - many.own_cpu_s
            side.many.append(many)
            side.cpu_ms.append(spent * 1000 / max(1.0, many.per_second * bench.count(4, 1)))
            side.one.append(_ask(side, served, 1, bench.count(2, 1)))


def _ask(side: _Side, served: Served, connections: int, seconds: float) -> load.Throughput:
    return load.run(
        side.port, side.host, connections=connections, seconds=seconds,
        path=served.path, body_bytes=served.body_bytes,
    )  # fmt: skip


def _tell(row: Row, served: Served, sides: Mapping[str, _Side]) -> None:
    rates, latencies, costs = {}, {}, {}
    for label, side in sides.items():
        rates[label] = _middle([one.per_second for one in side.many])
        latencies[label] = _middle([one.p50_ms for one in side.one])
        costs[label] = _middle(side.cpu_ms)
        row.figures |= {
            f"{label}: requests/s with {MANY} connections": rates[label],
            f"{label}: its p50 / p99 (ms)": " / ".join(
                f"{_middle(ms):.2f}" for ms in ([one.p50_ms for one in side.many], [one.p99_ms for one in side.many])
            ),
            f"{label}: one connection, p50 / p99 (ms)": " / ".join(
                f"{_middle(ms):.2f}" for ms in ([one.p50_ms for one in side.one], [one.p99_ms for one in side.one])
            ),
            f"{label}: processor time of a request (ms)": costs[label],
        }
    row.verdicts += _verdicts(served, rates, latencies, costs)
    failed = {f"failed, {label}": sum(one.failed for one in side.many + side.one) for label, side in sides.items()}
    row.verdicts.append(none_of("no failed request", failed))


def _verdicts(
    served: Served, rates: Mapping[str, float], latencies: Mapping[str, float], costs: Mapping[str, float]
) -> list[Verdict]:
    found = []
    native, ours = rates[_NATIVE], rates[_THIS]
    other = next((label for label in rates if label not in (_NATIVE, _THIS)), None)
    over_native = at_least(
        f"requests/s ≥ {served.least_of_native:g} × natively", ours / native, served.least_of_native, "x"
    )
    target = f"requests/s ≥ {served.times_other:g} × the other checkout's"
    if not served.either or (served.least_of_native and ours >= served.least_of_native * native):
        found.append(over_native)
    elif other is None:
        found.append(not_measurable(target, f"without --against; {ours / native:.2f} × natively"))
    else:
        found.append(at_least(target, ours / rates[other], served.times_other, "x"))
    if served.most_latency:
        target = f"one connection's p50 ≤ {served.most_latency:g} × natively"
        found.append(at_most(target, latencies[_THIS] / latencies[_NATIVE], served.most_latency, "x"))
    if served.most_cpu:
        target = f"processor time of a request ≤ {served.most_cpu:g} × the other checkout's"
        found.append(
            not_measurable(target, "without --against")
            if other is None
            else at_most(target, costs[_THIS] / costs[other], served.most_cpu, "x")
        )
    return found


def _middle(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
