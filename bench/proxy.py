"""Bare Caddy: the same binary that vibeD runs, with nothing but what the floor of a row needs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import machine
from bench.web import Address, Connection

_OPTIONS = """\
{
	admin off
	persist_config off
	auto_https off
	log {
		level ERROR
	}
}
"""
_START_S = 10.0


@contextmanager
def caddy(program: Path, folder: Path, site: str, *, listen: Address) -> Iterator[subprocess.Popen[bytes]]:
    """Run Caddy with one site (the inside of its block) until the block ends; it answers when this begins."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(listen, Path):
        head = f"http://floor.invalid {{\n\tbind unix/{listen}|0666\n"
    else:
        head = f"http://:{listen[1]} {{\n\tbind {listen[0]}\n"
    config = folder / "Caddyfile"
    config.write_text(_OPTIONS + head + site + "\n}\n")
    env = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "PATH": os.defpath}
    # In a session of its own, as vibeD's Caddy is: the kernel shares the processors out by session first
    # (sched(7), autogroup), and one that shares the load generator's gets another part of them.
    with (folder / "caddy.log").open("ab") as log:
        process = subprocess.Popen(
            [str(program), "run", "--config", str(config), "--adapter", "caddyfile"],
            stdout=log, stderr=log, env=env, start_new_session=True,
        )  # fmt: skip
    machine.go_first(process.pid)
    try:
        _wait(process, listen, folder / "caddy.log")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A TCP port of loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], listen: Address, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with Connection(listen) as connection:
            try:
                connection.open()
                return
            except OSError:
                time.sleep(0.02)
    raise RuntimeError(f"the bare Caddy did not start: {log.read_text()[-500:]}")
