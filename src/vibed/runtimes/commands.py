"""Runs one outside program to its end: under a deadline, in a session of its own, its output in a log."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL_BYTES = 2000


class CommandFailed(Exception):
    """A program ended with an error or did not end in time. `tail` holds its last output."""

    code = "CommandFailed"

    def __init__(self, argv: Sequence[str], why: str, tail: str) -> None:
        self.argv = tuple(argv)
        self.why = why
        self.tail = tail
        last = " / ".join(line.strip() for line in tail.splitlines()[-3:] if line.strip())
        super().__init__(f"{Path(argv[0]).name} {why}: {last[-500:] or '(no output)'}")


async def run(
    argv: Sequence[str],
    *,
    log: Path,
    deadline_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run `argv`, appending what it prints to `log`. Raises CommandFailed.

    On failure, timeout and cancellation nothing of it stays behind: its whole process group is killed. Should
    vibeD itself be killed, the kernel kills the program (where util-linux's setpriv is there to ask for that), though
    not what it has started: a program that leaves work to others belongs in a PID namespace.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        sink.write(f"$ {shlex.join(argv)}\n".encode())
        sink.flush()
        start = sink.tell()
        process = await asyncio.create_subprocess_exec(
            *_mortal([*_READABLE, *argv]),
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(deadline_s):
                code = await process.wait()
        except TimeoutError:
            raise CommandFailed(argv, f"did not end within {deadline_s:.0f} s", _tail(log, start)) from None
        finally:
            await _end(process)
    if code != 0:
        raise CommandFailed(argv, f"failed with status {code}", _tail(log, start))


async def output(
    argv: Sequence[str], *, deadline_s: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run `argv` and return what it printed on standard output. Raises CommandFailed."""
    process = await asyncio.create_subprocess_exec(
        *_mortal(argv),
        cwd=cwd,
        env=dict(env) if env is not None else None,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(deadline_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise CommandFailed(argv, f"did not end within {deadline_s:.0f} s", "") from None
    finally:
        await _end(process)
    if process.returncode != 0:
        raise CommandFailed(
            argv, f"failed with status {process.returncode}", err.decode(errors="replace")[-_TAIL_BYTES:]
        )
    return out.decode()


# What is built has to be readable for a sandbox's uid. A shell, since uvloop's subprocesses take no umask.
_READABLE = ("/bin/sh", "-c", 'umask 022; exec "$@"', "sh")


def _mortal(argv: Sequence[str]) -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *argv] if setpriv else list(argv)


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    await process.wait()


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as text:
        size = text.seek(0, os.SEEK_END)
        text.seek(max(start, size - _TAIL_BYTES))
        return text.read().decode(errors="replace").strip()
