"""The processes of one cluster: each with a log, each ended by its id, and none that outlives who started it."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.03
_LAST_LINES = 15
_starting = ThreadPoolExecutor(1, "starts processes")
"""Who starts them: a thread that ends with the program. Tests ask from threads that may end before, and the kernel
would kill what those had started.
"""


class ClusterFailed(Exception):
    """Something of the cluster ended, or did not get ready; says what, and the last lines of its log."""


@dataclass(frozen=True, slots=True)
class _Started:
    argv: tuple[str, ...]
    env: Mapping[str, str]
    process: subprocess.Popen[bytes]


class Processes:
    """What runs. The kernel kills each when the program that started it ends, by kill -9 too."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._started: dict[str, _Started] = {}

    def start(self, name: str, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
        """Start a program under a name that is also its log's."""
        given = {**os.environ, **(env or {})}
        setpriv = shutil.which("setpriv")
        mortal = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        command = tuple(map(str, argv))
        with (self._logs / f"{name}.log").open("ab") as log:
            process = _starting.submit(
                subprocess.Popen,
                [*mortal, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._logs,
                env=given,
                start_new_session=True,
            ).result()
        self._started[name] = _Started(command, given, process)

    def again(self, name: str) -> None:
        """Start a program that was ended, as it was started before."""
        started = self._started.pop(name)
        self.start(name, started.argv, env=started.env)

    def pid(self, name: str) -> int:
        return self._started[name].process.pid

    def pids(self) -> dict[str, int]:
        """Name -> process id."""
        return {name: started.process.pid for name, started in self._started.items()}

    def end(self, name: str, *, within_s: float = 5.0) -> None:
        """Ask a program to end; kill it when it has not within the time."""
        process = self._started[name].process
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill(name)

    def kill(self, name: str) -> None:
        process = self._started[name].process
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        """Kill all, last started first."""
        for name in reversed(list(self._started)):
            self.kill(name)
        self._started.clear()

    def wait_for(self, url: str, *, ends: float, what: str, ca: Path | None = None, token: str = "") -> None:
        """Wait until `url` answers 200. `ends` is of time.monotonic(). Raises ClusterFailed."""
        context = ssl.create_default_context(cafile=str(ca)) if ca else None
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
        while True:
            self.check()
            with suppress(OSError), urllib.request.urlopen(request, context=context, timeout=2) as answer:
                if answer.status == 200:
                    return
            if time.monotonic() > ends:
                raise ClusterFailed(f"{what} was not ready in time ({url})\n{self._all_last_lines()}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raises ClusterFailed where one has ended by itself."""
        for name, started in self._started.items():
            status = started.process.poll()
            if status is not None:
                raise ClusterFailed(f"{name} ended with status {status}; its log says last:\n{self.last_lines(name)}")

    def last_lines(self, name: str) -> str:
        text = (self._logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-_LAST_LINES:])

    def _all_last_lines(self) -> str:
        return "\n".join(f"--- {name}\n{self.last_lines(name)}" for name in self._started)
