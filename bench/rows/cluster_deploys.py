"""On Kubernetes: what one deploy writes, and how long it takes beside a bare claim; real agents, a fake node."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from typing import Any

from bench import sources
from bench.audit import BY_THE_CLOCK, OURS, Write
from bench.cluster import OnCluster, missing
from bench.harness import Bench
from bench.report import Row, at_most, not_measurable
from vibed.cluster.client import Client
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import SANDBOX_CLAIM, VIBED_APP, Object, is_ready

WRITES = 6
RATIO = 1.15
BARE = "bare claim ▸ Ready"
CLAIM = "vibeD: claim ▸ the pod is ours"
WHOLE = "vibeD: claim ▸ Ready"
LESS = "vibeD: claim ▸ Ready, without inject and start"
_TEMPLATE = "python-313"
_POOL = 3
_SETTLED_S = 90.0
_QUIET_S = 4.0


def measure_writes(bench: Bench) -> Row:
    """Of one app: its first deploy, then one after the other upon it."""
    row = bench.begin("cluster-writes", "writes to the API server for one deploy, from its audit log")
    targets = [f"{what} ≤ {WRITES} writes of ours" for what in ("first deploy", "redeploy")]
    if (why := missing()) is not None:
        row.verdicts += [not_measurable(target, why) for target in targets]
        return row
    with OnCluster(pools=f"{_TEMPLATE}={_POOL}") as cluster, cluster.connect() as api:
        warm_up(cluster, api)
        for what, target, count in zip(("first deploy", "redeploy"), targets, (3, 5), strict=True):
            most: Counter[str] = Counter()
            others: list[int] = []
            for number in range(bench.count(count, 1)):
                name = f"first-{number}" if what == "first deploy" else "first-0"
                cluster.wait_warm(_TEMPLATE, _POOL)
                time.sleep(_QUIET_S)
                began = cluster.position()
                cluster.deploy(api, name, sources.packed(sources.anywhere(secrets.token_hex(6))))
                _until_one_claim(cluster, name)
                time.sleep(_QUIET_S)
                written = [one for one in cluster.writes(began) if one.resource not in BY_THE_CLOCK]
                ours = _counted(written)
                if ours.total() > WRITES:
                    happened = cluster.namespace.get("vibedapp", name)["status"]["events"]
                    row.notes.append(f"{name}: " + "; ".join(f"{one['reason']}: {one['message']}" for one in happened))
                most = max(most, ours, key=Counter.total)
                others.append(len(written) - ours.total())
            row.figures[f"{what}: writes of ours"] = ", ".join(f"{count} {one}" for one, count in sorted(most.items()))
            row.figures[f"{what}: writes of everybody else, agent-sandbox's and the pool's refill (middle)"] = sorted(
                others
            )[len(others) // 2]
            row.verdicts.append(at_most(target, most.total(), WRITES, ""))
    return row


def measure_claim(bench: Bench) -> Row:
    """Bare claims of the same pool and deploys of new apps, in turn; both timed by one watch of the harness."""
    row = bench.begin("cluster-claim", "a deploy from its claim to Ready, against a bare SandboxClaim of the same pool")
    row.floor, row.compared = BARE, (CLAIM, WHOLE, LESS)
    target = f"claim ▸ Ready ≤ {RATIO:g} × the bare claim's + the agent's inject and start"
    if (why := missing()) is not None:
        row.verdicts.append(not_measurable(target, why))
        return row
    series: dict[str, list[float]] = {name: [] for name in (BARE, CLAIM, WHOLE, LESS)}
    steps: list[dict[str, float]] = []
    with OnCluster(pools=f"{_TEMPLATE}={_POOL}") as cluster, cluster.connect() as api:
        warm_up(cluster, api)
        with Seen(cluster) as seen:
            for number in range(-2, bench.count(40, 5)):
                for bare in (True, False) if number % 2 else (False, True):
                    cluster.wait_warm(_TEMPLATE, _POOL)
                    time.sleep(0.3)
                    if bare:
                        took = cluster.run(lambda client: _bare(client, seen))
                        if number >= 0:
                            series[BARE].append(took)
                        continue
                    name, mark = sources.name_and_mark()
                    _, answer = cluster.deploy(api, name, sources.packed(sources.anywhere(mark)))
                    timings = {step: float(took) for step, took in answer["timings"].items()}
                    whole = (seen.app_ready(name) - seen.claimed(f"{name}-1")) * 1000
                    cluster.delete(api, name)
                    if number < 0:
                        continue
                    steps.append(timings)
                    series[CLAIM].append(timings["claim"])
                    series[WHOLE].append(whole)
                    series[LESS].append(whole - timings.get("inject", 0.0) - timings.get("start", 0.0))
    for name, samples in series.items():
        row.time(name, samples)
    row.time_steps("a deploy", steps)
    ratio = row.ratio(LESS)
    row.verdicts.append(not_measurable(target, "no sample") if ratio is None else at_most(target, ratio, RATIO, "x"))
    return row


def warm_up(cluster: OnCluster, api: Any) -> None:
    """The first deploy opens connections and fills caches."""
    cluster.wait_warm(_TEMPLATE, _POOL)
    cluster.deploy(api, "warm-up", sources.packed(sources.anywhere("warm")))
    cluster.delete(api, "warm-up")


class Seen:
    """When the harness saw what, by watches of its own (`time.perf_counter`)."""

    def __init__(self, cluster: OnCluster) -> None:
        self._cluster = cluster
        self._claims: dict[str, float] = {}
        self._ready_claims: dict[str, float] = {}
        self._ready_apps: dict[str, float] = {}

    def __enter__(self) -> Seen:
        self._following = self._cluster.begin(self._follow)
        time.sleep(1.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._following.cancel()

    def claimed(self, name: str) -> float:
        return self._claims[name]

    def app_ready(self, name: str) -> float:
        return _wait_for(self._ready_apps, name)

    async def claim_ready(self, name: str) -> float:
        return await asyncio.to_thread(_wait_for, self._ready_claims, name)

    async def _follow(self, client: Client) -> None:
        async with asyncio.TaskGroup() as tasks:
            for kind, on_change in ((SANDBOX_CLAIM, self._claim), (VIBED_APP, self._app)):
                tasks.create_task(Informer(client, kind, on_change=on_change).run())

    def _claim(self, old: Object | None, new: Object | None) -> None:
        now = time.perf_counter()
        if new is not None:
            name = new["metadata"]["name"]
            self._claims.setdefault(name, now)
            if is_ready(new):
                self._ready_claims.setdefault(name, now)

    def _app(self, old: Object | None, new: Object | None) -> None:
        if new is not None and is_ready(new):
            self._ready_apps.setdefault(new["metadata"]["name"], time.perf_counter())


async def _bare(client: Client, seen: Seen) -> float:
    """Milliseconds from a claim that is seen to the same claim seen to be Ready."""
    name = f"bare-{secrets.token_hex(4)}"
    body = {"metadata": {"name": name}, "spec": {"warmPoolRef": {"name": _TEMPLATE}}}
    await client.create(SANDBOX_CLAIM, body)
    ready = await seen.claim_ready(name)
    await client.delete(SANDBOX_CLAIM, name)
    return (ready - seen.claimed(name)) * 1000


def _wait_for(times: dict[str, float], name: str) -> float:
    until = time.monotonic() + _SETTLED_S
    while name not in times:
        if time.monotonic() > until:
            raise TimeoutError(f"{name} was not seen to be ready within {_SETTLED_S:g} s")
        time.sleep(0.005)
    return times[name]


def _until_one_claim(cluster: OnCluster, app_id: str) -> None:
    """What was replaced is drained, and then its claim goes."""
    until = time.monotonic() + _SETTLED_S
    while len(cluster.namespace.get("sandboxclaims", "-l", f"vibed.dev/app={app_id}")["items"]) > 1:
        if time.monotonic() > until:
            raise TimeoutError(f"{app_id} still has two claims after {_SETTLED_S:g} s")
        time.sleep(0.5)


def _counted(written: list[Write]) -> Counter[str]:
    return Counter(f"{one.verb} {one.resource}" for one in written if one.agent.startswith(OURS))
