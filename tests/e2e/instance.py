"""One complete vibeD: a home, a port and processes of its own, brought up and cleaned away as a user would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests import prepare
from tests.e2e.client import Client
from tests.e2e.waiting import eventually
from vibed.cli import watchdog
from vibed.layout import Layout
from vibed.processes import start_time

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ("serve", "controller", "caddy", "sites")
_UP_S = 240.0
_NOT_OURS = ("VIBED_", "SUDO_", "SSH_", "XDG_", "OTEL_")


class Instance:
    """A vibeD below a short temporary folder, with tools and templates from the tests' cache."""

    def __init__(self, **settings: str) -> None:
        """`settings` become `VIBED_*` variables."""
        self.root = Path(tempfile.mkdtemp(prefix="ve-", dir="/tmp"))
        self.root.chmod(0o711)
        self.home = self.root / "home"
        self.user_home = self.root / "user"
        self.user_home.mkdir()
        self.port = free_port()
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)},
            "HOME": str(self.user_home),
            "PYTHONPATH": str(CHECKOUT / "src"),
            "VIBED_HOME": str(self.home),
            "VIBED_LISTEN": f"127.0.0.1:{self.port}",
            "NO_COLOR": "1",
            **{f"VIBED_{name.upper()}": value for name, value in settings.items()},
        }
        self.layout = Layout.of(self.home)
        self._linked_before = Path("/usr/local/bin/vibed").is_symlink()
        self.identity: dict[str, Any] = {}
        """Whose `vibed` it is, as options of `subprocess.run`."""
        self.folder = self.root
        """Where its user is when they run it."""
        self._client: Client | None = None

    # as a user does it

    def up(self, *options: str) -> dict[str, Any]:
        """`vibed up --detach --json`; returns what it tells."""
        if not self.home.exists():
            self._take_from_cache()
        done = self.run("up", "--detach", "--json", *options, timeout_s=_UP_S)
        assert done.returncode == 0, f"vibed up failed:\n{done.stderr}\n{done.stdout}\n{self.own_logs()}"
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def down(self) -> subprocess.CompletedProcess[str]:
        """`vibed down`."""
        return self.run("down", timeout_s=90)

    def clean(self) -> subprocess.CompletedProcess[str]:
        """`vibed clean --yes`."""
        return self.run("clean", "--yes", timeout_s=120)

    def run(
        self,
        *arguments: str,
        timeout_s: float = 60.0,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """`vibed ARGUMENTS`, to its end."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.env, **(env or {})},
            cwd=cwd or self.folder,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            input=stdin,
            check=False,
            **self.identity,
        )

    def command(self, *arguments: str) -> list[str]:
        """The argv of `vibed ARGUMENTS`."""
        return [sys.executable, "-m", "vibed.cli.main", *arguments]

    # what there is

    @property
    def admin_key(self) -> str:
        """The admin key that `vibed up` generated."""
        return self.layout.admin_key.read_text().strip()

    @property
    def api_url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def client(self) -> Client:
        """A client with the admin key."""
        if self._client is None:
            self._client = self.client_with(self.admin_key)
        return self._client

    def client_with(self, key: str) -> Client:
        """A client with another key."""
        return Client(self.port, key)

    def pids(self) -> dict[str, int]:
        """The living processes of vibeD by name: serve, controller, caddy."""
        return {name: process.pid for name, process in watchdog.running(self.layout.runtime / "watchdog.json").items()}

    def watchdog_pid(self) -> int | None:
        return watchdog.holder(self.layout.runtime / "watchdog.lock")

    def kill(self, *parts: str) -> None:
        """SIGKILL to parts of vibeD (`watchdog` is one too), all in the same moment, and wait until they are gone."""
        wanted = {part for part in parts if part != "watchdog"}
        # one that died a moment ago may be waiting for its turn to be started again
        eventually(lambda: wanted <= self.pids().keys(), f"{parts} run", within_s=20, every_s=0.01)
        pids = self.pids()
        guard = self.watchdog_pid()
        chosen = [pids[part] if part != "watchdog" else guard for part in parts]
        born = [(pid, start_time(pid)) for pid in chosen if pid is not None]
        assert len(born) == len(parts), f"not all of {parts} run: {pids}, watchdog {guard}"
        for pid, _ in born:
            os.kill(pid, signal.SIGKILL)
        for pid, began in born:
            eventually(lambda p=pid, b=began: start_time(p) != b, f"process {pid} is gone", every_s=0.005)  # type: ignore[misc]

    def forget_deaths(self) -> None:
        """Have a new watchdog, which starts what dies next at once: it waits longer after each death in a row."""
        self.kill("watchdog")
        self.up()

    def wait_until_ready(self, within_s: float = 60.0) -> None:
        """Until every part runs and /readyz (which remembers for half a second) says 200."""
        eventually(
            lambda: self.pids().keys() == set(PARTS) and self.client.api("GET", "/readyz").status_code == 200,
            "vibeD is ready",
            within_s=within_s,
        )

    def sandbox_of(self, app_id: str) -> dict[str, Any]:
        """`state.json` of the sandbox that runs the app's newest run."""
        found = []
        for path in self.layout.sandboxes.glob("s*/state.json"):
            with suppress(OSError, ValueError):
                state = json.loads(path.read_text())
                if (state.get("run") or {}).get("app_id") == app_id and state.get("state") == "running":
                    found.append({**state, "folder": str(path.parent)})
        assert found, f"no sandbox runs {app_id}"
        newest: dict[str, Any] = max(found, key=lambda state: state["run"]["run"])
        return newest

    def own_logs(self, lines: int = 15) -> str:
        """The last lines of vibeD's own logs, for a failure's message."""
        told = []
        for path in sorted(self.layout.own_logs.glob("*.log")):
            with suppress(OSError):
                text = "\n    ".join(line[:400] for line in path.read_text(errors="replace").splitlines()[-lines:])
                told.append(f"  {path.name}:\n    {text}")
        return "\n".join(told)

    # afterwards

    def leftovers(self) -> list[str]:
        """Everything of this vibeD that is still on the machine after `vibed clean`."""
        left = [f"process {pid}: {text}" for pid, text in self._processes()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        marks = (str(self.root), str(self.layout.runtime))
        left += [f"mount: {line}" for line in mounts if any(mark in line for mark in marks)]
        left += [str(path) for path in (self.home, self.layout.runtime) if path.exists()]
        name = f"vibed-{self.layout.runtime.name}"
        for top, folders, _ in os.walk("/sys/fs/cgroup"):
            left += [f"cgroup {top}/{folder}" for folder in folders if folder == name]
        return left

    def _processes(self) -> list[tuple[int, str]]:
        marks = [os.fsencode(self.root), os.fsencode(self.layout.runtime)]
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    if any(mark in command + (entry / "environ").read_bytes() for mark in marks):
                        found.append((int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")[:160]))
        return found

    def end(self) -> list[str]:
        """`vibed clean`, then what it left; nothing of it stays on the machine in any case."""
        if self._client is not None:
            self._client.close()
        done = self.clean()
        left = [f"vibed clean failed: {done.stderr}"] if done.returncode else []
        with suppress(AssertionError):
            eventually(lambda: not self._processes(), "its processes are gone", within_s=5)
        left += self.leftovers()
        for pid, _ in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        link = Path("/usr/local/bin/vibed")
        if not self._linked_before and link.is_symlink():
            link.unlink()
        shutil.rmtree(self.root, ignore_errors=True)
        return left

    def _take_from_cache(self) -> None:
        """Tools and templates from the tests' cache: links to the same files, so that nothing is built or copied."""
        self.home.mkdir(mode=0o711)
        for name in ("tools", "templates", "layers/tools"):
            if (prepare.home() / name).is_dir():
                take(prepare.home() / name, self.home / name, link)


def take(source: Path, target: Path, copy: Callable[[str, str], object]) -> None:
    """Copy a part of the tests' cache."""
    # a lock or a log that two vibeDs wrote to would be one
    left_out = shutil.ignore_patterns(".*", "*.log", "*.lock")
    shutil.copytree(source, target, symlinks=True, copy_function=copy, ignore=left_out)


def link(source: str, target: str) -> None:
    """A second name for a file; a copy where that cannot be."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(instance: Instance) -> Iterator[Instance]:
    """It is up, and leaves nothing behind."""
    try:
        instance.up()
        yield instance
    finally:
        left = instance.end()
    assert not left, "a test run must leave nothing behind:\n" + "\n".join(left)
