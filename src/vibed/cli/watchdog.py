"""The watchdog: starts Caddy, `vibed serve` and `vibed controller`, and starts each again when it dies.

For machines without systemd, and for `vibed up`. Standard library only, so that it stays small. It may be killed
itself: what it started lives on, and the next watchdog takes it over by process id and start time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
HEALTHY_AFTER_S = 10.0
STOP_GRACE_S = 8.0
LOG_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Command:
    """One process to keep alive."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path


def start_time(pid: int) -> str | None:
    """Field 22 of /proc/<pid>/stat (proc(5)): with the pid it names one process for ever. None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] in ("Z", "X") else stat[19]


class Watchdog:
    """Keeps `commands` alive until told to stop; `state` remembers their pids for the next watchdog."""

    def __init__(self, commands: Sequence[Command], state: Path) -> None:
        self._commands = commands
        self._state = state
        self._pids: dict[str, tuple[int, str]] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Returns after SIGTERM or SIGINT, when all processes have ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._pids = running(self._state)
        async with asyncio.TaskGroup() as tasks:
            for command in self._commands:
                tasks.create_task(self._keep(command))
        self._state.unlink(missing_ok=True)

    async def _keep(self, command: Command) -> None:
        failures = 0
        while not self._stopping.is_set():
            known = self._pids.get(command.name)
            if known is None or start_time(known[0]) != known[1]:
                pid = _spawn(command)
                self._pids[command.name] = (pid, start_time(pid) or "")
                self._save()
                say(f"{command.name} started", pid=pid)
            pid = self._pids[command.name][0]
            began = time.monotonic()
            ended = asyncio.ensure_future(_ended(pid))
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not ended.done():
                await _stop(pid, ended)
                return
            self._pids.pop(command.name, None)
            failures = 0 if time.monotonic() - began > HEALTHY_AFTER_S else failures + 1
            wait = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            say(f"{command.name} ended and is started again", after_s=wait)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)

    def _save(self) -> None:
        fresh = self._state.with_suffix(".new")
        fresh.write_text(json.dumps(self._pids))
        fresh.rename(self._state)


def running(state: Path) -> dict[str, tuple[int, str]]:
    """The processes that a watchdog (this or an earlier one) started and that live."""
    try:
        known: dict[str, tuple[int, str]] = json.loads(state.read_text())
    except (OSError, ValueError):
        return {}
    return {name: (pid, began) for name, (pid, began) in known.items() if start_time(pid) == began}


def lock(path: Path) -> IO[str] | None:
    """Become the one watchdog of this vibeD; None when there is one. The lock ends with the process."""
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def holder(path: Path) -> int | None:
    """The pid of the watchdog that lives, if one does."""
    if not path.exists():
        return None
    with path.open("r+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            return int(handle.read().strip() or 0) or None
    return None


def say(what: str, **details: object) -> None:
    """One structured line about the watchdog's own doings."""
    print(json.dumps({"event": what, "logger": "watchdog", "timestamp": time.time(), **details}), flush=True)


def _spawn(command: Command) -> int:
    if command.log.exists() and command.log.stat().st_size > LOG_LIMIT:
        command.log.replace(command.log.with_suffix(".1.log"))
    output = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            command.argv[0],
            list(command.argv),
            dict(command.env),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigmask=[],
        )
    finally:
        os.close(output)
        os.close(nothing)


async def _ended(pid: int) -> None:
    """Wait for any process, child or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (it has ended: this does not wait)


async def _stop(pid: int, ended: asyncio.Future[None]) -> None:
    for number, patience in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, 2.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        done, _ = await asyncio.wait((ended,), timeout=patience)
        if done:
            return


def main(arguments: Sequence[str]) -> int:
    """`python -m vibed.cli.watchdog PLAN.json`: the plan names the commands, the state file and the lock."""
    plan = json.loads(Path(arguments[0]).read_text())
    held = lock(Path(plan["lock"]))
    if held is None:
        say("another watchdog runs")
        return 0
    commands = [Command(c["name"], c["argv"], c["env"], Path(c["log"])) for c in plan["commands"]]
    asyncio.run(Watchdog(commands, Path(plan["state"])).run())
    held.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
