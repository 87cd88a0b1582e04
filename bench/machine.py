"""The machine that a run is made on: its load, its programs, and what one durable write costs on its disk."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

from bench.quantiles import Quantiles
from vibed.cli.watchdog import PRECEDENCE


def facts(programs: dict[str, str]) -> dict[str, object]:
    """What a reader needs to judge the figures; `programs` maps names to versions."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(Path(__file__).parent) or "not a checkout",
        "cpus": os.cpu_count() or 0,
        "cpu": _cpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "kernel": platform.release(),
        "load": " ".join(f"{one:.2f}" for one in os.getloadavg()),
        "programs": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, **programs},
    }


def commit(folder: Path) -> str:
    """What is checked out there, short; empty when it is no checkout."""
    return _said(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"])


def go_first(pid: int | None = None) -> None:
    """Have the session of a process (default: this one's) go before others where the processors are short, as vibeD's
    own front door does (`vibed.cli.watchdog.PRECEDENCE`). Harmless where the kernel knows no such thing.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid or 'self'}/autogroup").write_text(str(PRECEDENCE))


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def busy_s() -> float:
    """Processor time that all of this machine has used, in seconds (proc_stat(5): all but idle, iowait, steal)."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def settle(limit: float, patience_s: float) -> float:
    """Wait until the load is below `limit`, at most `patience_s`; returns the load."""
    deadline = time.monotonic() + patience_s
    while load() > limit and time.monotonic() < deadline:
        time.sleep(2.0)
    return load()


def disk(folder: Path, count: int) -> dict[str, Quantiles]:
    """Milliseconds of a file created, written (4 KiB) and synced, and of a SQLite commit (WAL, synchronous FULL)."""
    place = folder / f".disk-{os.getpid()}"
    place.mkdir(parents=True)
    try:
        return {
            "file create+write+fsync": Quantiles.of(_files(place, count)),
            "SQLite commit (WAL, FULL)": Quantiles.of(_commits(place, count)),
        }
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _files(place: Path, count: int) -> list[float]:
    samples = []
    block = os.urandom(4096)
    for number in range(count):
        began = time.perf_counter()
        descriptor = os.open(place / f"f{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, block)
        os.fsync(descriptor)
        os.close(descriptor)
        samples.append((time.perf_counter() - began) * 1000)
    return samples


def _commits(place: Path, count: int) -> list[float]:
    samples = []
    connection = sqlite3.connect(place / "commits.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
    for _ in range(count):
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t (body) VALUES (?)", ("x" * 500,))
        connection.execute("COMMIT")
        samples.append((time.perf_counter() - began) * 1000)
    connection.close()
    return samples


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
