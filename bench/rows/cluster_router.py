"""On Kubernetes: requests through vibed-router's Caddy, beside the same Caddy with a fixed address."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from bench import load, machine, memory, proxy, sources
from bench.cluster import OnCluster, missing
from bench.harness import Bench
from bench.report import Row, at_least, none_of, not_measurable
from tests.prepare import home
from vibed.runtimes.tools import Tools

RATIO = 0.85
CONNECTIONS = 32
_TEMPLATES = ("static-nginx", "python-313")


def measure(bench: Bench) -> Row:
    """A site, whose pod answers fastest, so that the router's share is largest; and an app."""
    row = bench.begin(
        "cluster-router", "requests through the router, against Caddy with a fixed address to the same pod"
    )
    apps: Mapping[str, sources.Source] = {"site": sources.tiny_static, "app": sources.anywhere}
    if (why := missing()) is not None:
        row.verdicts += [not_measurable(_target(what), why) for what in apps]
        return row
    row.figures["load generator"] = load.generator()
    with OnCluster(pools=",".join(f"{one}=1" for one in _TEMPLATES)) as cluster, cluster.connect() as api:
        front = cluster.vibed.caddies[0].running
        assert front is not None
        machine.go_first(front.pid)  # as the floor's
        for template in _TEMPLATES:
            cluster.wait_warm(template, 1)
        for what, source in apps.items():
            cluster.deploy(api, what, sources.packed(source(what)))
            _compare(bench, row, cluster, what)
    return row


def _compare(bench: Bench, row: Row, cluster: OnCluster, app: str) -> None:
    """Rounds in turn, so that what else the machine does hits all alike."""
    route = cluster.namespace.get("vibedapp", app)["status"]["route"]
    ip, _, pod_port = route["address"].rpartition(":")
    port, host = proxy.free_port(), cluster.host(app)
    site = f"\treverse_proxy {route['address']} {{\n\t\theader_up X-Vibed-Run {app}/{route['run']}\n\t}}"
    places = {
        "router": ("127.0.0.1", cluster.vibed.port),
        "fixed address": ("127.0.0.1", port),
        "no proxy": (ip, int(pod_port)),
    }
    rounds: dict[str, list[load.Throughput]] = {name: [] for name in places}
    spent: dict[str, list[float]] = {name: [] for name in places}
    """Microseconds of processor time that the Caddy in front took a request, which hardly depends on the load."""
    alone: dict[str, list[float]] = {name: [] for name in places}
    seconds = bench.count(4, 1)
    front = cluster.vibed.caddies[0].running
    assert front is not None
    with proxy.caddy(_caddy(), bench.folder / "fixed", site, listen=("127.0.0.1", port)) as fixed:
        pids = {"router": [front.pid], "fixed address": [fixed.pid], "no proxy": []}
        for number in range(-1, bench.count(6, 2)):
            for name in sorted(places, reverse=bool(number % 2)):
                address, at = places[name]
                time.sleep(0.2)
                before = memory.cpu_seconds(pids[name])
                found = load.run(at, host, connections=CONNECTIONS, seconds=seconds, address=address)
                took = memory.cpu_seconds(pids[name]) - before
                if number >= 0:
                    rounds[name].append(found)
                    spent[name].append(1e6 * took / max(1.0, found.per_second * seconds))
                    alone[name].append(load.run(at, host, connections=1, seconds=1, address=address).p50_ms)
    middle = {name: _middle([one.per_second for one in found]) for name, found in rounds.items()}
    row.figures |= {f"{app}: {name} (requests/s)": rate for name, rate in middle.items()}
    row.figures |= {
        f"{app}: each round's ratio": ", ".join(
            f"{a.per_second / b.per_second:.2f}" for a, b in zip(rounds["router"], rounds["fixed address"], strict=True)
        ),
        f"{app}: processor time of Caddy, router / fixed address (µs a request)": " / ".join(
            f"{_middle(spent[name]):.0f}" for name in ("router", "fixed address")
        ),
        f"{app}: p50 of one connection, router / fixed address / no proxy (ms)": " / ".join(
            f"{_middle(alone[name]):.3f}" for name in places
        ),
    }
    broken = sum(one.failed for one in rounds["fixed address"])
    row.verdicts.append(
        not_measurable(_target(app), f"{broken} requests failed on the floor itself")
        if broken or not middle["fixed address"]
        else at_least(_target(app), middle["router"] / middle["fixed address"], RATIO, "x")
    )
    failed = {"failed through the router": sum(one.failed for one in rounds["router"])}
    row.verdicts.append(none_of(f"no failed request ({app})", failed))


def _target(what: str) -> str:
    return f"router ≥ {RATIO:g} × Caddy with a fixed address to the same pod ({what})"


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _caddy() -> Path:
    return Tools(home()).path("caddy-dns")
