"""Requests through the router, beside the same Caddy binary with a fixed address to the same upstream socket."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import load, proxy, sources
from bench.harness import Bench
from bench.instance import Instance
from bench.report import Row, at_least, none_of, not_measurable

if TYPE_CHECKING:
    from vibed.router.markers import Markers

RATIO = 0.85
CONNECTIONS = 32
_TRIVIAL = "trivial upstream"
_WORKER = "worker"


def measure(bench: Bench) -> Row:
    """Two upstreams: one that costs next to nothing, on which the target is judged, and a real app."""
    row = bench.begin("router", "requests through the router, against Caddy with a fixed address to the same socket")
    instance = bench.instance
    caddy = instance.tools.path("caddy")
    row.figures["load generator"] = load.generator()
    socket = _publish(instance, "zz-bench")
    # Caddy's mount namespace holds the apps' folder and none of the harness's, so the upstream listens there
    with proxy.caddy(caddy, bench.folder / "upstream", "\trespond ok", listen=socket):
        _compare(bench, row, instance, caddy, _TRIVIAL, "zz-bench", socket)
    _markers(instance).clear("zz-bench")
    name, mark = "bench-router", f"mark-{secrets.token_hex(6)}"
    with instance.connect() as api, instance.connect() as visitor:
        instance.deploy(api, visitor, name, sources.packed(sources.worker(mark)), mark)
        _compare(bench, row, instance, caddy, _WORKER, name, (instance.layout.apps / f"{name}.sock").resolve())
        instance.delete(api, name)
    return row


def _compare(bench: Bench, row: Row, instance: Instance, caddy: Path, label: str, app: str, socket: Path) -> None:
    """Rounds in turn, so that what else the machine does hits both alike."""
    port = proxy.free_port()
    site = f"\treverse_proxy unix/{socket}"
    direct: list[load.Throughput] = []
    routed: list[load.Throughput] = []
    alone: tuple[list[float], list[float]] = ([], [])
    seconds = bench.count(4, 1)
    with proxy.caddy(caddy, bench.folder / "fixed", site, listen=("127.0.0.1", port)):
        for _ in range(2):
            load.run(port, instance.host(app), connections=CONNECTIONS, seconds=1)
            load.run(instance.port, instance.host(app), connections=CONNECTIONS, seconds=1)
        for number in range(bench.count(6, 2)):
            both = [(port, direct), (instance.port, routed)]
            for where, results in both if number % 2 else reversed(both):
                time.sleep(0.2)
                results.append(load.run(where, instance.host(app), connections=CONNECTIONS, seconds=seconds))
            alone[0].append(load.run(port, instance.host(app), connections=1, seconds=1).p50_ms)
            alone[1].append(load.run(instance.port, instance.host(app), connections=1, seconds=1).p50_ms)
    through, fixed = _middle([one.per_second for one in routed]), _middle([one.per_second for one in direct])
    row.figures |= {
        f"{label}: router (requests/s, middle of {len(routed)} rounds)": through,
        f"{label}: floor, fixed address (requests/s)": fixed,
        f"{label}: each round's ratio": ", ".join(
            f"{a.per_second / b.per_second:.2f}" for a, b in zip(routed, direct, strict=True)
        ),
        f"{label}: p50 of one connection, router / floor (ms)": f"{_middle(alone[1]):.3f} / {_middle(alone[0]):.3f}",
        f"{label}: p99 of {CONNECTIONS} connections, router / floor (ms)": (
            f"{_middle([one.p99_ms for one in routed]):.1f} / {_middle([one.p99_ms for one in direct]):.1f}"
        ),
    }
    target = f"router ≥ {RATIO:g} x fixed address ({label})"
    broken = sum(one.failed for one in direct)
    if broken or not fixed:
        # quick refusals would pass for a fast floor
        why = f"{broken} requests failed on the floor itself: the app behind both ended, see its log"
        row.verdicts.append(not_measurable(target, why))
    else:
        row.verdicts.append(at_least(target, through / fixed, RATIO, "x"))
    failed = {"failed through the router": sum(one.failed for one in routed)}
    row.verdicts.append(none_of(f"no failed request ({label})", failed))


def _middle(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _publish(instance: Instance, app: str) -> Path:
    """A marker as the controller makes it, for an upstream that is no app; returns where its socket has to be."""
    from vibed.sandboxes.driver import Endpoint

    markers = _markers(instance)
    markers.make_room(app)
    socket = markers.socket(app, 1, 1)
    markers.publish(app, 1, 1, Endpoint(socket))
    return socket


def _markers(instance: Instance) -> Markers:
    from vibed.router.markers import Markers

    return Markers(instance.layout.apps, instance.layout.ingress, gid=instance.layout.uids.caddy)
