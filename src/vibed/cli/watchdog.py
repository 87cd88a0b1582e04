"""The watchdog: starts Caddy, `vibed serve` and `vibed controller`, and starts each again when it dies.

For machines without systemd, and for `vibed up`. One loop over process descriptors and little else imported, so that it
stays small. It may be killed itself: what it started lives on, and the next watchdog takes it over by process id and
start time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from vibed.processes import start_time

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
HEALTHY_AFTER_S = 10.0
STOP_GRACE_S = 17.0
"""A little more than the API gives the requests that are under way (`vibed.serving.GRACE_S`)."""
HAND_OVER = signal.SIGUSR1
"""Has a watchdog go and leave its processes to the next one."""
PRECEDENCE = -10
"""Nice value of the sessions of what it starts."""
LOG_LIMIT = 8 << 20
LOOKED_AT_S = 1.0
"""For how long a lock that is held may be held by somebody who only looks whether it is (`holder`)."""
LOOK_S = 10.0
"""How often the logs are measured, and what could not be written is tried again."""


@dataclass(frozen=True, slots=True)
class Command:
    """One process to keep alive."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    fingerprint: str = ""
    """Of all that decides what the process does: one that runs with another is replaced."""


@dataclass
class _Kept:
    """A command and, while it runs, its process."""

    command: Command
    pid: int = 0
    descriptor: int = -1
    began: float = 0.0
    failures: int = 0
    start_at: float = 0.0


class Watchdog:
    """Keeps `commands` alive until told to stop; `state` remembers their pids for the next watchdog."""

    def __init__(self, commands: Sequence[Command], state: Path, own_log: Path | None = None) -> None:
        self._kept = [_Kept(command) for command in commands]
        self._state = state
        self._saved = True
        self._logs = [command.log for command in commands]
        if own_log is not None:
            self._logs.append(own_log)
        self._told: int | None = None

    def run(self) -> None:
        """Returns after SIGTERM, SIGINT, or SIGHUP (the terminal of a `vibed up` was closed) when all processes have
        ended; after `HAND_OVER` at once, leaving them to the next watchdog.
        """
        wake, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(told)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, HAND_OVER):
            signal.signal(number, self._hear)
        self._take_over()
        while self._told is None:
            self._start_due()
            if not self._saved:
                self._save()
            for log in self._logs:
                turn_over(log)
            self._wait(wake)
        if self._told != HAND_OVER:
            self._end(self._kept)
            self._state.unlink(missing_ok=True)

    def _hear(self, number: int, frame: object) -> None:
        self._told = number

    def _take_over(self) -> None:
        """Go on with what an earlier watchdog started; replace what should run differently now."""
        before = running(self._state)
        for kept in self._kept:
            if kept.command.name in before:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    self._watch(kept, before[kept.command.name].pid)
        outdated = [
            kept
            for kept in self._kept
            if kept.descriptor >= 0 and before[kept.command.name].fingerprint != kept.command.fingerprint
        ]
        if outdated:
            say("replacing", names=[kept.command.name for kept in outdated])
            self._end(outdated)
            for kept in outdated:
                kept.start_at, kept.failures = 0.0, 0

    def _start_due(self) -> None:
        for kept in self._kept:
            if kept.descriptor < 0 and kept.start_at <= time.monotonic():
                self._start(kept)

    def _start(self, kept: _Kept) -> None:
        # no memory, no process to be had, a program that an upgrade is just replacing: all of it may pass
        try:
            made = _make(kept.command)
        except OSError as error:
            say(f"{kept.command.name} could not be started", error=str(error), again_s=_back_off(kept))
            return
        self._watch(kept, made.pid)
        self._save()
        try:
            made.let_go()
        except OSError as error:
            say(f"{kept.command.name} could not be started", error=str(error))  # it ends now, which `_wait` notices
        else:
            say(f"{kept.command.name} started", pid=kept.pid)

    def _watch(self, kept: _Kept, pid: int) -> None:
        kept.descriptor = os.pidfd_open(pid)
        kept.pid, kept.began = pid, time.monotonic()

    def _wait(self, wake: int) -> None:
        """Sleep until a process ends, a signal comes, a start is due, or it is time to look after the files."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        for kept in self._kept:
            if kept.descriptor >= 0:
                poll.register(kept.descriptor, select.POLLIN)
        now = time.monotonic()
        due = [now + LOOK_S, *(kept.start_at for kept in self._kept if kept.descriptor < 0)]
        ended = {descriptor for descriptor, _ in poll.poll(max(0.0, min(due) - now) * 1000 + 1)}
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 64)
        for kept in self._kept:
            if kept.descriptor in ended:
                self._ended(kept)

    def _ended(self, kept: _Kept) -> None:
        os.close(kept.descriptor)
        kept.descriptor = -1
        with contextlib.suppress(ChildProcessError):
            os.waitpid(kept.pid, os.WNOHANG)
        if time.monotonic() - kept.began > HEALTHY_AFTER_S:
            kept.failures = -1
        wait = _back_off(kept)
        if self._told is None:
            say(f"{kept.command.name} ended and is started again", after_s=wait)

    def _end(self, which: Sequence[_Kept]) -> None:
        for number, patience in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, 2.0)):
            for kept in which:
                if kept.descriptor >= 0:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(kept.descriptor, number)
            deadline = time.monotonic() + patience
            while (left := [k for k in which if k.descriptor >= 0]) and time.monotonic() < deadline:
                poll = select.poll()
                for kept in left:
                    poll.register(kept.descriptor, select.POLLIN)
                ended = {descriptor for descriptor, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
                for kept in left:
                    if kept.descriptor in ended:
                        self._ended(kept)

    def _save(self) -> None:
        """Where the disk is full, `run` tries again: the processes are looked after all the same."""
        pids = {
            kept.command.name: (kept.pid, start_time(kept.pid) or "", kept.command.fingerprint)
            for kept in self._kept
            if kept.descriptor >= 0
        }
        fresh = self._state.with_suffix(".new")
        self._saved = False
        with contextlib.suppress(OSError):
            fresh.touch(mode=0o600)
            fresh.write_text(json.dumps(pids))
            fresh.rename(self._state)
            self._saved = True


def _back_off(kept: _Kept) -> float:
    """Count a failure; returns for how long the next start waits."""
    kept.failures += 1
    wait = BACKOFF_S[min(kept.failures, len(BACKOFF_S) - 1)]
    kept.start_at = time.monotonic() + wait
    return wait


class Running(NamedTuple):
    """A process that a watchdog started."""

    pid: int
    began: str
    fingerprint: str = ""


def running(state: Path) -> dict[str, Running]:
    """The processes that a watchdog (this or an earlier one) started and that live."""
    try:
        known = {name: Running(*facts) for name, facts in json.loads(state.read_text()).items()}
    except (OSError, ValueError, TypeError):
        return {}
    return {name: process for name, process in known.items() if start_time(process.pid) == process.began}


def lock(path: Path) -> IO[str] | None:
    """Become the one watchdog of this vibeD; None when there is one. The lock ends with the process."""
    handle = path.open("a+")
    deadline = time.monotonic() + LOOKED_AT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() > deadline:
                handle.close()
                return None
        time.sleep(0.01)
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
    """One structured line about the watchdog's own doings; lost where the disk is full."""
    line = json.dumps({"event": what, "logger": "watchdog", "timestamp": time.time(), **details})
    # not through sys.stdout, which would keep the line and fail with it at the end of the process
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())


def turn_over(log: Path) -> None:
    """Keep a log above `LOG_LIMIT` as the one older file, and begin it anew for the process that appends to it.

    It is copied, since that process has it open and goes on. What does not fit on the disk is tried again at the next
    look; of a log that grew while nobody looked only the end is kept.
    """
    with contextlib.suppress(OSError), log.open("r+b") as current:
        size = os.fstat(current.fileno()).st_size
        if size <= LOG_LIMIT:
            return
        # opened like this it first gives back the space of the one before
        with log.with_suffix(".1.log").open("wb") as older:
            at = max(0, size - 2 * LOG_LIMIT)
            # to the end, so that next to nothing is lost between copying and truncating; a writer that never pauses
            # must not hold the watchdog up
            end = at + 4 * LOG_LIMIT
            while at < end and (copied := os.sendfile(older.fileno(), current.fileno(), at, end - at)):
                at += copied
        current.truncate(0)


class _Made(NamedTuple):
    """A process that becomes its command when it is let go, and ends when whoever made it does before that."""

    pid: int
    gate: int
    failure: int

    def let_go(self) -> None:
        """Return when it is the command. Raises OSError if it cannot become it."""
        os.write(self.gate, b"!")
        os.close(self.gate)
        told = os.read(self.failure, 16)
        os.close(self.failure)
        if told:
            raise OSError(int(told), os.strerror(int(told)))


def _make(command: Command) -> _Made:
    """Make a process for a command. It waits until its pid was written down: a watchdog that is killed in between must
    not leave one that nobody knows, which would have the port, or the lock, of all that come after it.
    """
    wait, gate = os.pipe2(os.O_CLOEXEC)
    failure, tell = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        for descriptor in (wait, gate, failure, tell):
            os.close(descriptor)
        raise
    if pid == 0:
        os.close(gate)
        _become(command, wait, tell)
    os.close(wait)
    os.close(tell)
    return _Made(pid, gate, failure)


def _become(command: Command, wait: int, tell: int) -> NoReturn:
    """In the new process."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, HAND_OVER):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        _go_first()
        try:
            output = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError:  # a process without a log is better than none
            output = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if os.read(wait, 1):
            os.execve(command.argv[0], list(command.argv), dict(command.env))
    except OSError as error:
        os.write(tell, str(error.errno).encode())
    finally:
        os._exit(127)


def _go_first() -> None:
    """What every deploy and every visitor passes through is given the processors before what works for one of them: the
    kernel shares them out by session first (sched(7), autogroup). It takes root; in a unit of systemd, the unit's own
    weight counts instead.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(PRECEDENCE))


def main(arguments: Sequence[str]) -> int:
    """`python -m vibed.cli.watchdog PLAN.json`: the plan names the commands, the state file and the lock."""
    plan = json.loads(Path(arguments[0]).read_text())
    held = lock(Path(plan["lock"]))
    if held is None:
        say("another watchdog runs")
        return 0
    commands = [Command(c["name"], c["argv"], c["env"], Path(c["log"]), c["fingerprint"]) for c in plan["commands"]]
    own_log = Path(plan["log"]) if "log" in plan else None
    Watchdog(commands, Path(plan["state"]), own_log).run()
    held.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
