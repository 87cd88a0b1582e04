"""On Kubernetes: hundreds of apps at once and held, thousands at rest; a stand-in for agents, a fake node."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter

from bench import sources, web
from bench.audit import BY_THE_CLOCK, OURS
from bench.claims import ready_after
from bench.cluster import OnCluster, missing
from bench.harness import Bench
from bench.populate import populate
from bench.report import Row, at_most, none_of, not_measurable
from vibed.cluster.kinds import is_ready

AT_ONCE = 200
HELD = 500
RSS_MB = 150.0
IDLE = 5_000
FEW = 10
DEPLOY_RATIO = 1.2
START_S = 10.0
_TEMPLATE = "python-313"
_POOL = 3
_LONG_S = 300.0
_REST_S = 60.0
_CLIENTS = 8


def measure_held(bench: Bench) -> Row:
    """200 deploys in the same moment, from a full pool; then up to 500 apps, which are held, and a new controller."""
    at_once, held = bench.count(AT_ONCE, 20), bench.count(HELD, 40)
    row = bench.begin(
        "cluster-held", f"{at_once} VibedApps at once and {held} held, on a fake node, without real agents"
    )
    row.notes.append("one process answers in the place of all agents (bench.stand_in), and runs no app")
    targets = (f"{AT_ONCE} at once, {HELD} held: all Ready", "none claimed twice", f"controller RSS ≤ {RSS_MB:g} MB")
    if (why := missing()) is not None:
        row.verdicts += [not_measurable(target, why) for target in targets]
        return row
    with OnCluster(pools=f"{_TEMPLATE}={at_once}", stand_in=True) as cluster:
        cluster.wait_warm(_TEMPLATE, at_once, within_s=_LONG_S)
        time.sleep(5.0)
        bare = cluster.run(lambda client: ready_after(client, _TEMPLATE, at_once))
        cluster.wait_warm(_TEMPLATE, at_once, within_s=_LONG_S)
        time.sleep(5.0)
        names = [f"held-{number}" for number in range(held)]
        began, position = time.monotonic(), cluster.position()
        statuses = _deploy(cluster, names[:at_once], at_once)
        _until_ready(cluster, at_once)
        took = time.monotonic() - began
        ours = _ours(cluster, position)
        row.figures |= {
            f"{at_once} bare claims at once ▸ all Ready (s)": bare,
            f"{at_once} deploys at once ▸ all Ready (s)": took,
            "ratio": took / bare,
            "answers": ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items())),
            f"writes of ours for each of the {at_once}": ours.total() / at_once,
            f"controller with {at_once}: RSS (MB)": cluster.memory(cluster.controller).rss,
        }
        _deploy(cluster, names[at_once:], _CLIENTS)
        _until_ready(cluster, held)
        time.sleep(bench.count(10, 2))
        position = cluster.position()
        time.sleep(bench.count(_REST_S, 5))
        ready, twice = _counts(cluster, names)
        row.figures[f"writes of ours while {held} are held, {_REST_S:g} s"] = _ours(cluster, position).total()
        before = cluster.memory(cluster.controller)
        row.figures[f"controller with {held}: RSS / PSS (MB)"] = f"{before.rss:.1f} / {before.pss:.1f}"
        cluster.stop_controller()
        position = cluster.position()
        row.figures[f"a new controller with {held}: its start ▸ it has taken over (s)"] = cluster.start_controller()
        time.sleep(bench.count(15, 5))
        row.figures["writes of ours for that"] = _ours(cluster, position).total()
        still, again = _counts(cluster, names)
        after = cluster.memory(cluster.controller)
        row.figures[f"the new controller with {held}: RSS / PSS (MB)"] = f"{after.rss:.1f} / {after.pss:.1f}"
    row.verdicts.append(
        none_of(targets[0], {"not Ready": held - ready, "not Ready after a new controller": held - still})
    )
    row.verdicts.append(none_of(targets[1], {"claimed twice": twice, "claimed twice by the new one": again}))
    row.verdicts.append(
        at_most(targets[2], max(before.rss, after.rss), RSS_MB, "MB")
        if held == HELD
        else not_measurable(targets[2], f"this run holds {held}")
    )
    return row


def measure_idle(bench: Bench) -> Row:
    """Two vibeDs, each with a cluster of its own: one has 10 apps, one 5,000; deploys alternate between them."""
    idle = bench.count(IDLE, 200)
    row = bench.begin("cluster-idle", f"deploys with {idle:,} VibedApps at rest, against {FEW}; a controller's start")
    row.floor, row.compared = f"deploy with {FEW}", (f"deploy with {idle}",)
    row.notes.append("one process answers in the place of all agents (bench.stand_in), and runs no app")
    targets = (
        f"{IDLE:,} at rest: deploy p50 ≤ {DEPLOY_RATIO:g} x that with {FEW}",
        f"{IDLE:,} at rest: the controller's start ≤ {START_S:g} s",
    )
    if (why := missing()) is not None:
        row.verdicts += [not_measurable(target, why) for target in targets]
        return row
    pools = f"{_TEMPLATE}={_POOL}"
    with (
        OnCluster(pools=pools, stand_in=True) as few,
        OnCluster(pools=pools, stand_in=True) as many,
        few.connect() as few_api,
        many.connect() as many_api,
    ):
        for cluster, api, count in ((few, few_api, FEW), (many, many_api, idle)):
            cluster.wait_warm(_TEMPLATE, _POOL)
            cluster.deploy(api, "base", sources.packed(sources.python("base")))
            cluster.stop_controller()  # it would start what has no status yet
            bench.say(f"{count} apps are written")
            cluster.run(lambda client, count=count: populate(client, "base", range(count)))  # type: ignore[misc]
            cluster.start_controller()
        starts = []
        for _ in range(bench.count(3, 2)):
            many.stop_controller()
            starts.append(many.start_controller() * 1000)
        row.time("the controller's start ▸ it has taken over", starts)
        few.stop_controller()
        row.figures[f"the controller's start with {FEW} (s)"] = few.start_controller()
        series: dict[str, list[float]] = {row.floor: [], row.compared[0]: []}
        steps: dict[str, list[dict[str, float]]] = {row.floor: [], row.compared[0]: []}
        both = [(few, few_api, row.floor), (many, many_api, row.compared[0])]
        for number in range(-2, bench.count(30, 5)):
            for cluster, api, name in both if number % 2 else reversed(both):
                try:
                    took, timings = _deploy_alone(cluster, api)
                except (RuntimeError, TimeoutError) as error:
                    row.notes.append(f"{name}: {error}"[:300])
                    continue
                if number >= 0:
                    series[name].append(took)
                    steps[name].append(timings)
        for name, samples in series.items():
            row.time(name, samples)
            row.time_steps(name, steps[name])
        for cluster, count in ((few, FEW), (many, idle)):
            for part, process in (("controller", cluster.controller), ("API", cluster.vibed.api[0])):
                held = cluster.memory(process)
                row.figures[f"{part} with {count}: RSS / PSS (MB)"] = f"{held.rss:.1f} / {held.pss:.1f}"
        with many.connect() as api:
            began = time.perf_counter()
            many.call(api, "GET", "/v1/apps?limit=50")
            row.figures[f"an admin's list with {idle} (ms)"] = (time.perf_counter() - began) * 1000
    ratio, start = row.ratio(row.compared[0]), row.series.get("the controller's start ▸ it has taken over")
    if idle < IDLE or ratio is None or start is None:
        row.verdicts += [not_measurable(target, f"this run has {idle}") for target in targets]
        return row
    row.verdicts += [at_most(targets[0], ratio, DEPLOY_RATIO, "x"), at_most(targets[1], start.p50 / 1000, START_S, "s")]
    return row


def _deploy_alone(cluster: OnCluster, api: web.Connection) -> tuple[float, dict[str, float]]:
    name = f"d{secrets.token_hex(4)}"
    cluster.wait_warm(_TEMPLATE, _POOL)
    time.sleep(0.3)
    took, answer = cluster.deploy(api, name, sources.packed(sources.python(name)))
    cluster.delete(api, name)
    return took, answer["timings"]


def _deploy(cluster: OnCluster, names: list[str], at_once: int) -> Counter[int]:
    """Deploy them, so many at the same time; how many were answered with which status."""
    requests = [cluster.deploy_request(name, sources.packed(sources.python(name))) for name in names]
    statuses: Counter[int] = Counter()
    lock = threading.Lock()
    left = iter(requests)

    def work() -> None:
        with cluster.connect(timeout_s=_LONG_S) as api:
            while True:
                with lock:
                    request = next(left, None)
                if request is None:
                    return
                status = api.send(request).status
                with lock:
                    statuses[status] += 1

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def _until_ready(cluster: OnCluster, count: int) -> None:
    until = time.monotonic() + _LONG_S
    while sum(map(is_ready, cluster.namespace.get("vibedapps")["items"])) < count:
        if time.monotonic() > until:
            return  # how many are not is told
        time.sleep(0.2)


def _counts(cluster: OnCluster, names: list[str]) -> tuple[int, int]:
    """How many of the apps are Ready, and how many have more than one claim."""
    ready = {app["metadata"]["name"] for app in cluster.namespace.get("vibedapps")["items"] if is_ready(app)}
    claims = Counter(
        claim["metadata"]["labels"].get("vibed.dev/app", "")
        for claim in cluster.namespace.get("sandboxclaims")["items"]
    )
    return len(ready & set(names)), sum(claims[name] > 1 for name in names)


def _ours(cluster: OnCluster, since: int) -> Counter[str]:
    return Counter(
        f"{one.verb} {one.resource}"
        for one in cluster.writes(since)
        if one.agent.startswith(OURS) and one.resource not in BY_THE_CLOCK
    )
