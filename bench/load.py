"""Load on one address: wrk where it is installed, since it costs the least; otherwise threads of the harness's own,
whose figures are then bounded by Python and say so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, replace

from bench import web

PROGRAM = "wrk"


@dataclass(frozen=True, slots=True)
class Throughput:
    """Of one round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers other than 2xx and 3xx, and broken connections."""
    own_cpu_s: float = 0.0
    """Processor time of the generator itself, in seconds."""


def generator() -> str:
    """Which load generator this machine has."""
    return PROGRAM if shutil.which(PROGRAM) else "threads (wrk is not installed, so Python bounds the figures)"


def run(
    port: int,
    host: str,
    *,
    connections: int,
    seconds: float,
    address: str = "127.0.0.1",
    path: str = "/",
    body_bytes: int = 0,
) -> Throughput:
    """GET a path there with that Host header; with `body_bytes`, POST as many."""
    if shutil.which(PROGRAM) is None:
        return _threads(address, port, host, connections, seconds, path, body_bytes)
    argv = [PROGRAM, "-t", "1", "-c", str(connections), "-d", f"{seconds:g}s", "--latency", "-H", f"Host: {host}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body_bytes:
            script.write(f'wrk.method = "POST"\nwrk.body = string.rep("x", {body_bytes})\n')
            script.flush()
            argv += ["-s", script.name]
        before = os.times()
        done = subprocess.run([*argv, f"http://{address}:{port}{path}"], capture_output=True, text=True, check=True)
        after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return replace(parse(done.stdout), own_cpu_s=spent)


def parse(said: str) -> Throughput:
    """What wrk prints with --latency. Raises ValueError when it is not that."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    p50 = re.search(r"^\s*50%\s+([\d.]+)(us|ms|s)\s*$", said, re.MULTILINE)
    p99 = re.search(r"^\s*99%\s+([\d.]+)(us|ms|s)\s*$", said, re.MULTILINE)
    if rate is None or p50 is None or p99 is None:
        raise ValueError(f"not a report of wrk: {said[:300]}")
    failed = 0
    if match := re.search(r"Non-2xx or 3xx responses:\s+(\d+)", said):
        failed += int(match[1])
    if match := re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said):
        failed += sum(int(count) for count in match.groups())
    return Throughput(float(rate[1]), _ms(p50), _ms(p99), failed)


def _ms(match: re.Match[str]) -> float:
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]


def _threads(
    address: str, port: int, host: str, connections: int, seconds: float, path: str, body_bytes: int
) -> Throughput:
    samples: list[float] = []
    failed = [0]
    stop = time.perf_counter() + seconds
    request = web.request("POST" if body_bytes else "GET", path, host, b"x" * body_bytes)
    before = time.process_time()

    def work() -> None:
        with web.Connection((address, port)) as connection:
            while (began := time.perf_counter()) < stop:
                try:
                    failed[0] += connection.send(request).status >= 400
                except (OSError, web.Broken):
                    failed[0] += 1
                samples.append((time.perf_counter() - began) * 1000)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    samples.sort()
    return Throughput(
        len(samples) / seconds,
        samples[len(samples) // 2],
        samples[len(samples) * 99 // 100],
        failed[0],
        time.process_time() - before,
    )
