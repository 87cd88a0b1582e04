"""The vibeD that is measured: a complete one of the harness's own, brought up as anybody would (`vibed up --detach`).

Its home is a short temporary path (a socket path ends at 107 bytes); tools and templates come, by hard link where the
file system allows it, from the shared home that the tests use too, so nothing is downloaded twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import web
from bench.proxy import free_port
from tests.prepare import home as shared_home
from vibed.cli import watchdog
from vibed.layout import Layout
from vibed.processes import start_time
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.templates import load_templates
from vibed.runtimes.tools import Tools

TOOLS = ("vibed-agent", "caddy", "workerd", "esbuild", "runsc")
TEMPLATES = ("workerd", "python-313", "node-24")
_UP_S = 120.0
_WARM_S = 180.0


async def prepare(say: Any) -> Path:
    """Make the shared home hold what the rows need; returns it. Quick when it does already."""
    shared = shared_home()
    shared.mkdir(parents=True, exist_ok=True)
    tools = Tools(shared)
    for name in TOOLS:
        say(f"tool {name}")
        await tools.install(name)
    builder = TemplateBuilder(shared, load_templates(), tools)
    for name in TEMPLATES:
        say(f"template {name}")
        if builder.ready(name) is None:
            await builder.build(name)
    return shared


@dataclass(frozen=True, slots=True)
class Deployed:
    """One deploy, from the first byte sent to the first true answer of the live URL."""

    status: int
    answer_ms: float
    """POST ▸ its answer."""
    live_ms: float
    """POST ▸ 200 with the new content."""
    at_once: bool
    """Whether the first GET after the answer was already 200 with the new content."""
    body: Mapping[str, Any]

    @property
    def steps(self) -> Mapping[str, float]:
        """Milliseconds by step, as the answer says."""
        return self.body.get("timings") or {}

    @property
    def ready(self) -> bool:
        return self.status == 200


class NotLive(Exception):
    """A deployed app did not answer with what was deployed; says what was seen."""


class Instance:
    """One vibeD; use it as a context manager."""

    def __init__(self, shared: Path, **settings: object) -> None:
        """`settings` are those of docs/reference/configuration.md, e.g. `warm_processes=False`."""
        self.shared = shared
        self.port = free_port()
        self.home = Path(tempfile.mkdtemp(prefix="vb-"))
        self.settings: dict[str, object] = {
            "templates": ",".join(("static-nginx", *TEMPLATES)),
            "big_packages": False,
            "log_level": "info",
            **settings,
        }
        self.layout = Layout.of(self.home)
        self.key = ""
        self._connections: list[web.Connection] = []

    def __enter__(self) -> Instance:
        try:
            self._take_from_shared()
            self.up()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def address(self) -> web.Address:
        return ("127.0.0.1", self.port)

    @property
    def api_host(self) -> str:
        return f"localhost:{self.port}"

    def host(self, app_id: str) -> str:
        """The Host header of an app."""
        return f"{app_id}.localhost:{self.port}"

    @property
    def tools(self) -> Tools:
        return Tools(self.home)

    # Its life

    def up(self) -> float:
        """`vibed up --detach`; returns how many seconds it took. Raises RuntimeError."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "vibed.cli.main", "up", "--detach", "--json"],
            env=self._env(), capture_output=True, text=True, timeout=_UP_S, cwd="/",
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"vibed up ended with {done.returncode}:\n{done.stderr[-3000:]}\n{done.stdout[-1000:]}")
        self.key = self.layout.admin_key.read_text().strip()
        return time.monotonic() - began

    def configure(self, **settings: object) -> None:
        """Bring it up again with other settings."""
        self.settings |= settings
        self.up()

    def remove(self) -> None:
        """Stop it and take all of it away."""
        for connection in self._connections:
            connection.close()
        command = [sys.executable, "-m", "vibed.cli.main", "clean", "--yes"]
        subprocess.run(command, env=self._env(), capture_output=True, timeout=_UP_S, cwd="/")
        shutil.rmtree(self.home, ignore_errors=True)

    def processes(self) -> dict[str, int]:
        """The control plane: the watchdog and what it keeps alive, by name."""
        found = {name: known.pid for name, known in watchdog.running(self.layout.runtime / "watchdog.json").items()}
        holder = watchdog.holder(self.layout.runtime / "watchdog.lock")
        return {"watchdog": holder, **found} if holder else found

    def supervisors(self) -> list[int]:
        """Pids of the processes that own sandboxes."""
        pids = []
        for state in self.layout.sandboxes.glob("s*/state.json"):
            with suppress(OSError, ValueError, KeyError):
                pids.append(int(json.loads(state.read_text())["pid"]))
        return pids

    def kill(self, *names: str) -> None:
        """SIGKILL parts of it by name; the watchdog, if named, goes first and so cannot start the others again."""
        processes = self.processes()
        for name in sorted(names, key=lambda one: one != "watchdog"):
            with suppress(ProcessLookupError, KeyError):
                os.kill(processes[name], signal.SIGKILL)
                # confined parts run below the process that confines them, and die with it
                _await_end(processes[name])

    def wait_warm(self, *templates: str) -> None:
        """Return when these pools (default: all) are full. Raises TimeoutError."""
        deadline = time.monotonic() + _WARM_S
        with self.connect() as connection:
            while True:
                items = self.call("GET", "/v1/templates", connection=connection).json()["items"]
                wanted = [one for one in items if not templates or one["name"] in templates]
                asked = {*templates} - {one["name"] for one in wanted}
                broken = [one for one in wanted if not one["available"] and not one["building"]]
                if templates and (broken or asked):
                    raise RuntimeError(f"not available: {asked or broken}")
                short = [
                    one["name"] for one in wanted
                    if one["building"] or (one["available"] and one["ready"] < one["warm_pool_size"])
                ]  # fmt: skip
                if not short:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"pools are not full after {_WARM_S:g} s: {short}")
                time.sleep(0.05)

    # Its API

    def connect(self, *, timeout_s: float = 30.0) -> web.Connection:
        return web.Connection(self.address, timeout_s=timeout_s)

    def call(
        self, method: str, path: str, body: bytes = b"", *, connection: web.Connection | None = None, **headers: str
    ) -> web.Answer:
        """One request to the API."""
        request = web.request(method, path, self.api_host, body, Authorization=f"Bearer {self.key}", **headers)
        if connection is not None:
            return connection.send(request)
        with self.connect() as own:
            return own.send(request)

    def deploy_request(self, name: str, source: bytes) -> bytes:
        """A deploy as bytes."""
        kind, body = web.multipart({"name": name}, source)
        return web.request(
            "POST", "/v1/deploy", self.api_host, body, Authorization=f"Bearer {self.key}", Content_Type=kind
        )

    def deploy(
        self, api: web.Connection, visitor: web.Connection, name: str, source: bytes, mark: str, *, wait_s: float = 30.0
    ) -> Deployed:
        """Deploy and ask the live URL until it answers with `mark`. Raises `NotLive`."""
        posted = self.deploy_request(name, source)
        asked = web.get("/", self.host(name))
        wanted = mark.encode()
        began = time.perf_counter()
        answer = api.send(posted)
        answered = time.perf_counter()
        tries = 0
        while True:
            page = visitor.send(asked)
            seen = time.perf_counter()
            if page.status == 200 and wanted in page.body:
                break
            tries += 1
            if answer.status >= 300 or seen - began > wait_s:
                said = answer.body[:400].decode("utf-8", "replace")
                raise NotLive(f"{name}: POST said {answer.status} {said}; GET says {page.status} {page.body[:200]!r}")
            # asking must not cost what is measured: a layer that is built takes seconds
            time.sleep(max(0.001, (seen - began) / 200))
        return Deployed(answer.status, (answered - began) * 1000, (seen - began) * 1000, tries == 0, answer.json())

    def delete(self, api: web.Connection, name: str) -> None:
        self.call("DELETE", f"/v1/apps/{name}", connection=api)

    def wait_gone(self, names: Sequence[str], *, wait_s: float = 60.0) -> None:
        """Return when deleted apps are gone. Raises TimeoutError."""
        deadline = time.monotonic() + wait_s
        with self.connect() as api:
            for name in names:
                while self.call("GET", f"/v1/apps/{name}", connection=api).status != 404:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{name} is not gone after {wait_s:g} s")
                    time.sleep(0.02)

    # Private

    def _env(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("VIBED_")}
        env |= {"VIBED_HOME": str(self.home), "VIBED_LISTEN": f"127.0.0.1:{self.port}"}
        for name, value in self.settings.items():
            env[f"VIBED_{name.upper()}"] = str(value).lower() if isinstance(value, bool) else str(value)
        return env

    def _take_from_shared(self) -> None:
        self.home.chmod(0o711)
        tools = Tools(self.shared)
        for name in TOOLS:
            folder = f"{name}-{tools.version(name)}"
            linked(self.shared / "tools" / folder, self.home / "tools" / folder)
        builder = TemplateBuilder(self.shared, load_templates(), tools)
        for name in TEMPLATES:
            built = builder.ready(name)
            assert built is not None, f"{name} was not prepared"
            linked(built.directory, self.home / "templates" / name / built.directory.name)
            (self.home / "templates" / name / "current").symlink_to(built.directory.name)


def linked(source: Path, target: Path) -> None:
    """A copy of a folder, by hard link where the file system allows it."""

    def place(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    shutil.copytree(source, target, symlinks=True, copy_function=place)


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + 5
    while start_time(pid) is not None and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)


def prepared(say: Any) -> Path:
    """`prepare`, for synchronous callers."""
    return asyncio.run(prepare(say))
