"""On a real node: POST ▸ 200 for a site, Flask and Express, in pods under gVisor, beside bare claims of their pools."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench import sources, web
from bench.claims import ready_after
from bench.harness import Bench
from bench.report import Row, not_measurable
from tests.cluster import binaries, box
from tests.cluster.development import APPS, LISTEN, Development
from vibed.cluster.client import Client

_TEMPLATES = ("static-nginx", "python-313", "node-24")
_APPS: Mapping[str, tuple[sources.Source, str]] = {
    "static": (sources.static, "static-nginx"),
    "flask": (sources.flask, "python-313"),
    "express": (sources.express, "node-24"),
}
_WAIT_S = 180.0


def measure(bench: Bench) -> Row:
    """The chart as it is installed, visitors by the router's Service; each app is new, and deleted afterwards."""
    row = bench.begin("cluster-node", "POST ▸ 200 on a real node, pods under gVisor, beside a bare claim of their pool")
    if why := box.cannot():
        row.verdicts.append(not_measurable("a real node", why))
        return row
    with tempfile.TemporaryDirectory(prefix="vbn-") as folder:
        try:
            made = Development(Path(folder))
        except binaries.NotBuilt as error:
            row.verdicts.append(not_measurable("a real node", str(error)))
            return row
        try:
            made.start()
            made.import_images(("vibed", "vibed-caddy", *_TEMPLATES))
            made.install({"sandboxes": {"templates": list(_TEMPLATES)}})
            _measure(bench, row, made)
        finally:
            made.end()
    return row


def _measure(bench: Bench, row: Row, made: Development) -> None:
    kubeconfig, key = made.forward(), made.admin_key()
    host, _, port = LISTEN.rpartition(":")
    with web.Connection((host, int(port)), timeout_s=60) as api, web.Connection((host, int(port))) as visitor:
        for name, (source, template) in _APPS.items():
            took: list[float] = []
            steps: list[dict[str, float]] = []
            bare: list[float] = []
            for number in range(-1, bench.count(12, 2)):
                _wait_warm(made, template)
                if number >= 0:
                    bare.append(asyncio.run(_bare(kubeconfig, template)) * 1000)
                    _wait_warm(made, template)
                app, mark = sources.name_and_mark()
                live, timings = _deploy(api, visitor, key, int(port), app, sources.packed(source(mark)), mark.encode())
                if number >= 0:
                    took.append(live)
                    steps.append(timings)
                api.send(web.request("DELETE", f"/v1/apps/{app}", f"localhost:{port}", b"", **_as(key)))
            row.time(f"{name}: POST ▸ 200", took)
            row.time(f"{name}: bare claim of {template} ▸ Ready", bare)
            row.time_steps(name, steps)


def _deploy(
    api: web.Connection, visitor: web.Connection, key: str, port: int, app: str, source: bytes, mark: bytes
) -> tuple[float, dict[str, float]]:
    """Milliseconds from the first byte sent to the first answer with the mark, and the steps. Raises RuntimeError."""
    kind, body = web.multipart({"name": app}, source)
    request = web.request("POST", "/v1/deploy", f"localhost:{port}", body, Content_Type=kind, **_as(key))
    asked = web.get("/", f"{app}.localhost:{port}")
    began = time.perf_counter()
    answer = api.send(request)
    if answer.status >= 300:
        raise RuntimeError(f"deploying {app}: {answer.status} {answer.body[:400]!r}")
    while True:
        page = visitor.send(asked)
        seen = time.perf_counter()
        if page.status == 200 and mark in page.body:
            return (seen - began) * 1000, answer.json()["timings"]
        if seen - began > _WAIT_S:
            raise RuntimeError(f"{app} does not answer: {page.status} {page.body[:200]!r}")
        time.sleep(0.005)


def _wait_warm(made: Development, template: str) -> None:
    until = time.monotonic() + _WAIT_S
    while True:
        pool = made.cluster.get("-n", APPS, "sandboxwarmpool", template)
        if (pool.get("status") or {}).get("readyReplicas", 0) >= max(1, pool["spec"]["replicas"]):
            return
        if time.monotonic() > until:
            raise TimeoutError(f"the pool of {template} is not full after {_WAIT_S:g} s: {pool.get('status')}")
        time.sleep(0.3)


async def _bare(kubeconfig: Path, template: str) -> float:
    client = Client.connect(kubeconfig=kubeconfig, namespace=APPS)
    try:
        return await ready_after(client, template)
    finally:
        await client.close()


def _as(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
