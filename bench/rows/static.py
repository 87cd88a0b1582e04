"""Static sites: POST ▸ 200, beside a symlink swapped in front of bare Caddy."""

from __future__ import annotations

import io
import secrets
import shutil
import tarfile
import time
from pathlib import Path

from bench import proxy, sources, web
from bench.harness import Bench, Samples, tell
from bench.report import Row, Verdict, at_most, not_measurable
from vibed.spreading import spread

TARGET_P50_MS = 10.0
TARGET_P99_MS = 30.0
FLOOR = "floor: symlink swap"
QUIET_FSYNC_MS = 2.0
"""p99 of one fsync on a disk that may be called quiet."""


def measure(bench: Bench) -> Row:
    row = bench.begin("static", "static: POST ▸ 200, against a symlink swap in front of bare Caddy")
    row.floor, row.compared = FLOOR, ("vibeD",)
    samples, floor = sample(bench, bench.count(200, 20))
    row.time(FLOOR, floor)
    tell(row, "vibeD", samples)
    seen = row.series.get("vibeD")
    if seen is None:
        row.verdicts.append(not_measurable("static POST ▸ 200", "no deploy succeeded"))
        return row
    bench.static_p50 = seen.p50
    row.verdicts += [
        at_most(f"static p50 ≤ {TARGET_P50_MS:g} ms", seen.p50, TARGET_P50_MS),
        tail_verdict(seen.p99, seen.n),
    ]
    return row


def tail_verdict(p99: float, count: int) -> Verdict:
    """The tail is only one with enough samples to have it."""
    target = f"static p99 ≤ {TARGET_P99_MS:g} ms"
    if count < 100:
        return not_measurable(target, f"{count} samples have no 99th percentile")
    return at_most(target, p99, TARGET_P99_MS)


def sample(bench: Bench, count: int) -> tuple[Samples, list[float]]:
    """Deploys of vibeD and swaps of the floor, in turn."""
    instance = bench.instance
    folder = bench.folder / "swap"
    port = proxy.free_port()
    (folder / "sites").mkdir(parents=True)
    (folder / "versions").mkdir()
    spread(folder / "versions")
    site = f"\troot * {folder}/sites/{{labels.1}}\n\ttry_files {{path}} {{path}}/index.html\n\tfile_server"
    floor: list[float] = []
    address = ("127.0.0.1", port)
    with (
        proxy.caddy(instance.tools.path("caddy"), bench.folder / "caddy", site, listen=address),
        web.Connection(address) as visitor,
    ):
        swap(folder, visitor, port, 0)
        samples = bench.sample(
            instance, sources.static, count, between=lambda n: floor.append(swap(folder, visitor, port, n + 1))
        )
    shutil.rmtree(folder)
    return samples, floor


def swap(folder: Path, visitor: web.Connection, port: int, number: int) -> float:
    """Unpack a site, point the app's symlink at it, ask until it is there. Milliseconds."""
    mark = f"mark-{secrets.token_hex(6)}"
    packed = sources.packed(sources.static(mark))
    asked = web.get("/", f"floor{number}.localhost:{port}")
    began = time.perf_counter()
    version = folder / "versions" / str(number)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python 3.11.2 has none yet
        archive.extractall(version)
    link = folder / "sites" / f"floor{number}"
    fresh = folder / f".{number}"
    fresh.symlink_to(version)
    fresh.rename(link)
    while True:
        page = visitor.send(asked)
        if page.status == 200 and mark.encode() in page.body:
            return (time.perf_counter() - began) * 1000
        if time.perf_counter() - began > 5:
            raise RuntimeError(f"the floor's Caddy answers {page.status} {page.body[:200]!r}")
