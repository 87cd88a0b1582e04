"""All of vibeD is killed: until its URLs answer again, counted from the start of `vibed up`; and what apps notice while
only its own processes restart.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

from bench import memory, sources, web
from bench.harness import Bench
from bench.instance import Instance
from bench.report import Row, at_most, none_of

APPS: dict[str, tuple[sources.Source, str]] = {
    "static": (sources.static, ""),
    "worker": (sources.worker, "workerd"),
    "python": (sources.python, "gvisor"),
}
WITHIN_MS = 5_000.0
EVERYTHING = ("watchdog", "controller", "serve", "caddy")


def measure(bench: Bench) -> Row:
    row = bench.begin("restart", "kill -9 of all of vibeD ▸ URLs back, from the start of `vibed up`")
    row.figures["floor: python -m vibed.cli.main version (ms)"] = _interpreter()
    untouched: dict[str, int] = {}
    with bench.fresh() as instance:
        instance.wait_warm()
        marks = _deploy(instance)
        own = _own_starts(bench, marks)
        for scenario in ("vibeD alone", "vibeD and every sandbox"):
            times: dict[str, list[float]] = {name: [] for name in marks}
            for _ in range(bench.count(3, 1)):
                instance.wait_warm()
                for name, took in _restart(instance, marks, sandboxes=scenario != "vibeD alone").items():
                    times[name].append(took)
            for name, some in times.items():
                seen = row.time(f"{scenario} killed: {name} back", some)
                start = own[name] if scenario != "vibeD alone" else 0.0
                if seen is not None:
                    target = f"{scenario} killed: {name} back within {WITHIN_MS / 1000:g} s plus its own start"
                    row.verdicts.append(at_most(target, seen.most, WITHIN_MS + start))
        instance.wait_warm()
        for names in (("serve",), ("controller",), ("serve", "controller")):
            failed, asked = _served_through(instance, marks, names)
            untouched[f"while {' and '.join(names)} restart"] = failed
            row.figures[f"requests while {' and '.join(names)} restarted"] = asked
        row.figures["kill -9 of Caddy ▸ 200, restarted by the watchdog (ms)"] = _caddy(instance, marks)
    row.verdicts.append(none_of("apps keep serving while vibeD's own processes restart", untouched))
    return row


def _deploy(instance: Instance) -> dict[str, str]:
    marks = {}
    with instance.connect() as api, instance.connect() as visitor:
        for name, (source, _) in APPS.items():
            marks[name] = f"mark-{secrets.token_hex(6)}"
            instance.deploy(api, visitor, f"back-{name}", sources.packed(source(marks[name])), marks[name])
    return marks


def _own_starts(bench: Bench, marks: dict[str, str]) -> dict[str, float]:
    """Milliseconds of each app's boot and start in a bare sandbox."""
    own = {}
    for name, (source, driver) in APPS.items():
        own[name] = 0.0
        if driver:
            packed = sources.packed(source(marks[name]))
            own[name] = bench.bare.start_cold(driver, packed, bench.bare.runtime(packed), marks[name]).live_ms
    return own


def _restart(instance: Instance, marks: dict[str, str], *, sandboxes: bool) -> dict[str, float]:
    """Kill, bring up, and ask each app meanwhile; milliseconds by app."""
    supervisors = instance.supervisors()
    doomed = [pid for one in supervisors for pid in memory.family(one)] if sandboxes else []
    instance.kill(*EVERYTHING)
    for pid in doomed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    times: dict[str, float] = {}
    began = time.perf_counter()
    threads = [threading.Thread(target=_until, args=(instance, name, marks[name], began, times)) for name in marks]
    for thread in threads:
        thread.start()
    instance.up()
    for thread in threads:
        thread.join()
    return times


def _until(instance: Instance, name: str, mark: str, began: float, times: dict[str, float]) -> None:
    asked = web.get("/", instance.host(f"back-{name}"))
    while time.perf_counter() - began < 60:
        with suppress(OSError, web.Broken), instance.connect() as visitor:
            page = visitor.send(asked)
            if page.status == 200 and mark.encode() in page.body:
                times[name] = (time.perf_counter() - began) * 1000
                return
        time.sleep(0.01)
    times[name] = 60_000.0


def _served_through(instance: Instance, marks: dict[str, str], names: tuple[str, ...]) -> tuple[int, int]:
    """How many requests to apps failed, of how many, while parts of vibeD were killed and came back."""
    stop = threading.Event()
    failed: list[str] = []
    asked = [0]

    def ask(name: str) -> None:
        request = web.get("/", instance.host(f"back-{name}"))
        with instance.connect() as visitor:
            while not stop.is_set():
                asked[0] += 1
                try:
                    page = visitor.send(request)
                    if page.status != 200 or marks[name].encode() not in page.body:
                        failed.append(f"{name}: {page.status}")
                except (OSError, web.Broken) as error:
                    failed.append(f"{name}: {error}")
                time.sleep(0.002)

    threads = [threading.Thread(target=ask, args=(name,)) for name in marks]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    instance.kill(*names)
    _wait_api(instance)
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    return len(failed), asked[0]


def _wait_api(instance: Instance) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError, web.Broken):
            if instance.call("GET", "/readyz").status == 200:
                return
        time.sleep(0.02)
    raise RuntimeError("vibeD's processes did not come back within 30 s")


def _caddy(instance: Instance, marks: dict[str, str]) -> float:
    times: dict[str, float] = {}
    instance.kill("caddy")
    began = time.perf_counter()
    _until(instance, "worker", marks["worker"], began, times)
    return times["worker"]


def _interpreter() -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "vibed.cli.main", "version"], capture_output=True, check=True)
        times.append((time.perf_counter() - began) * 1000)
    return min(times)
