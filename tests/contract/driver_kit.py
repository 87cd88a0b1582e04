"""What the driver contract needs: a vibeD's worth of folders, drivers on them, and apps that do as they are told.

The general app evaluates a Python expression that it is asked for, so a test can look around inside any sandbox of the
general lane; the worker has a route for each thing that a test wants of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
import json
import os
import secrets
import shutil
import tarfile
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.prepare import home as test_home
from vibed.apps.app import Runtime, Start
from vibed.drivers.gvisor import GVisorDriver
from vibed.drivers.process import ProcessDriver
from vibed.drivers.static import StaticDriver
from vibed.drivers.workerd.driver import WorkerdDriver
from vibed.layout import Layout, Uids
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import BootFailed, Driver, Endpoint, Limits, Mount, Run, Sandbox, Started
from vibed.supervision import mounts
from vibed.supervision.base import SupervisedDriver
from vibed.supervision.host import Host
from vibed.supervision.roots import Root

GENERAL_APP = """
import http.server, os, sys, time, urllib.parse
state = {}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.unquote(self.path[1:]) or "'hello ' + os.environ.get('GREETING', '')"
        try:
            body = str(eval(query, globals())).encode()
        except BaseException as error:
            body = f"{type(error).__name__}: {error}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
print("app starts", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

WORKER = """
import { readFileSync } from "node:fs";
console.log("app starts");
const kept = [];
const routes = {
  "/env": (url, env) => Response.json({ bindings: env, process: process.env }),
  "/slow": async () => { await scheduler.wait(700); return new Response("slow"); },
  "/throw": () => { throw new Error("thrown on purpose"); },
  "/later": (url, env, ctx) => {
    ctx.waitUntil((async () => { await scheduler.wait(50); console.log("done later"); })());
    return new Response("ok");
  },
  "/spin": () => { for (;;); },
  "/fill": async () => {
    for (let i = 0; i < 500; i++) { kept.push(new Uint8Array(4 << 20).fill(i)); await scheduler.wait(1); }
    return new Response("filled");
  },
  "/fetch": (url) => told(async () => { await fetch(url.searchParams.get("to")); return "reached"; }),
  "/read": (url) => told(async () => readFileSync(url.searchParams.get("path"), "utf8")),
};
async function told(what) {
  try { return new Response(await what()); } catch (error) { return new Response(`refused: ${error.message}`); }
}
export default {
  fetch(request, env, ctx) {
    const url = new URL(request.url);
    const route = routes[url.pathname] ?? (() => new Response(`hello ${env.GREETING ?? ""}`));
    return route(url, env, ctx);
  },
};
"""


class TestRoots:
    """The templates that `python -m tests.prepare templates` has built."""

    __test__ = False

    def __init__(self, home: Path) -> None:
        self._home = home
        self.limits = Limits(cpus=2.0, memory_mb=256, pids=128, disk_mb=64)

    def root(self, template: str) -> Root:
        current = self._home / "templates" / template / "current"
        if template == "workerd" and not current.exists():
            return Root("workerd", "none")
        if not current.exists():
            raise BootFailed(f"template {template} is not built: python -m tests.prepare templates", retryable=False)
        folder = current.resolve()
        image, modules = folder / "rootfs.erofs", folder / "node_modules"
        return Root(
            template,
            folder.name,
            image=image if image.exists() else None,
            modules=modules if modules.exists() else None,
            limits=self.limits,
        )


class TestPrograms:
    """The programs that `python -m tests.prepare tools` has installed, as they are when the session begins."""

    __test__ = False

    def __init__(self) -> None:
        tools = Tools(test_home())
        self._paths = {name: tools.path(name) for name in ("vibed-agent", "workerd", "esbuild", "runsc")}

    def path(self, name: str) -> Path:
        return self._paths[name]


@cache
def programs() -> TestPrograms:
    return TestPrograms()


_numbers = itertools.count(1)


@dataclass
class Bench:
    """One vibeD's folders, and whatever drivers a test makes on them."""

    layout: Layout
    programs: TestPrograms
    roots: TestRoots
    scratch: Path
    drivers: list[Driver] = field(default_factory=list)
    sandboxes: list[Sandbox] = field(default_factory=list)

    def host(self) -> Host:
        return Host(self.layout, self.programs, self.roots)

    def archive(self, files: Mapping[str, str | bytes]) -> Path:
        """A source, named by its digest as the source store does."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))
        path = self.scratch / f"{hashlib.sha256(out.getvalue()).hexdigest()}.tar.gz"
        path.write_bytes(out.getvalue())
        return path

    async def end(self) -> None:
        """End what tests have made on it."""
        for sandbox in self.sandboxes:
            with contextlib.suppress(Exception):
                await sandbox.destroy(0)
        for driver in self.drivers:
            await driver.close()

    def left(self) -> list[str]:
        """What of any sandbox is still there: folders, groups, mounts, processes."""
        host = self.host()
        found = [str(path) for path in self.layout.sandboxes.glob("*")] if self.layout.sandboxes.exists() else []
        found += [f"group {id}" for id in host.cgroups.ids()]
        mounts = Path("/proc/self/mountinfo").read_text()
        found += [line for line in mounts.splitlines() if f"{self.layout.sandboxes}/" in line]
        if not self.layout.uids.rootless:
            uids = set(self.layout.uids.sandboxes)
            for process in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    if process.name.isdigit() and process.stat().st_uid in uids:
                        found.append(f"process {process.name}: {(process / 'cmdline').read_text()!r}")
        marker = str(self.layout.sandboxes).encode()
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and marker in (process / "cmdline").read_bytes():
                    found.append(f"process {process.name}: {(process / 'cmdline').read_text()!r}")
        return found


@asynccontextmanager
async def bench(scratch: Path) -> AsyncIterator[Bench]:
    """A bench whose sandboxes are all ended afterwards."""
    name = f"t{secrets.token_hex(3)}"
    root = os.geteuid() == 0
    runtime = (Path("/run/vibed") if root else Path("/tmp") / f"vibed-{os.geteuid()}") / name
    runtime.mkdir(parents=True)
    # uids that no vibeD on this machine is likely to use, others for each bench of a parallel run
    base = 3_000_000_000 + secrets.randbelow(1_000) * 65_536
    uids = Uids(base) if root else Uids(os.geteuid(), rootless=True)
    home = scratch / "home"
    home.mkdir()
    for folder in (home, *home.parents):
        # a sandbox's uid looks up nothing here, but Caddy's would
        with contextlib.suppress(OSError):
            folder.chmod(folder.stat().st_mode | 0o011)
    it = Bench(Layout(home, runtime, uids), programs(), TestRoots(test_home()), scratch)
    try:
        yield it
    finally:
        await it.end()
        host = it.host()
        for id in host.cgroups.ids():
            await host.cgroups.get(id).end()
        host.cgroups.remove()
        if root:
            mounts.unmount_below(runtime)
        shutil.rmtree(runtime, ignore_errors=True)


@dataclass
class Running:
    """An app that was started."""

    sandbox: Sandbox
    started: Started
    socket: Path
    log_dir: Path
    stages: list[str]

    async def get(self, path: str = "/", **headers: str) -> Answer:
        claimed = self.sandbox.claimed
        if self.started.endpoint.address and claimed is not None:
            headers = {"X_Vibed_Run": f"{claimed.app_id}/{claimed.number}", **headers}  # as a router says it
        return await request(self.started.endpoint, path, headers)

    async def ask(self, expression: str) -> str:
        """What the general app evaluates an expression to."""
        return (await self.get("/" + urllib.parse.quote(expression, safe=""))).body

    def log(self) -> list[dict[str, Any]]:
        file = self.log_dir / "log.jsonl"
        return [json.loads(line) for line in file.read_text().split("\n") if line] if file.exists() else []

    def texts(self, *streams: str) -> list[str]:
        return [line["text"] for line in self.log() if not streams or line["stream"] in streams]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: str


async def request(endpoint: Endpoint, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    """GET `path` of an app, from its socket or address or, of a site, from its folder as Caddy would."""
    if endpoint.site:
        file = endpoint.path / (path.strip("/") or endpoint.index)
        return Answer(200, {}, file.read_text()) if file.is_file() else Answer(404, {}, "")
    if endpoint.address:
        host, _, port = endpoint.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 22)
    else:
        reader, writer = await asyncio.open_unix_connection(str(endpoint.path), limit=1 << 22)
    try:
        lines = [f"GET {path} HTTP/1.1", "Host: app.localhost", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in (headers or {}).items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.read()
        if fields.get("transfer-encoding") == "chunked":
            body = _unchunked(body)
        return Answer(int(head[0].split()[1]), fields, body.decode(errors="replace"))
    finally:
        writer.close()


class KeptConnection:
    """A connection to an app's socket that is used again and again, as the proxy does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @staticmethod
    async def open(endpoint: Endpoint) -> KeptConnection:
        return KeptConnection(*await asyncio.open_unix_connection(str(endpoint.path), limit=1 << 22))

    async def get(self, path: str) -> str:
        """The body; the connection stays open."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: app.localhost\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            return _unchunked(await self._reader.readuntil(b"\r\n0\r\n\r\n")).decode()
        length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
        return (await self._reader.readexactly(int(length.partition(":")[2]))).decode()


def _unchunked(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        out, data = out + data[:length], data[length + 2 :]
    return out


@dataclass(frozen=True)
class Subject:
    """A driver under test: how it is made, and what its kind of app looks like."""

    name: str
    make: Callable[[Bench], Driver]
    template: str
    runtime: Runtime
    files: Mapping[str, str]

    @property
    def general(self) -> bool:
        return self.runtime.lane == "general"

    @property
    def supervised(self) -> bool:
        return self.name != "static"

    def driver(self, on: Bench) -> Driver:
        driver = self.make(on)
        on.drivers.append(driver)
        return driver

    def run(
        self,
        on: Bench,
        files: Mapping[str, str | bytes] | None = None,
        *,
        app: str = "app",
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mount] = (),
        start: Start | None = None,
        timeout_s: float = 30.0,
        options: Mapping[str, object] | None = None,
    ) -> Run:
        runtime = self.runtime
        if start is not None:
            runtime = replace(runtime, start=start)
        if options is not None:
            runtime = replace(runtime, options=options)
        return Run(
            app,
            1,
            next(_numbers),
            on.archive(files if files is not None else self.files),
            runtime,
            env if env is not None else {"GREETING": "world"},
            limits or on.roots.limits,
            mounts=mounts,
            start_timeout_s=timeout_s,
            app_key="1764000000.5",
        )

    async def boot(self, on: Bench, driver: Driver, *, urgent: bool = True) -> Sandbox:
        """Urgent unless the test is about what takes longer: warm processes take seconds."""
        sandbox = await driver.boot(self.template, urgent=urgent)
        on.sandboxes.append(sandbox)
        return sandbox

    async def start(self, on: Bench, driver: Driver, run: Run | None = None, sandbox: Sandbox | None = None) -> Running:
        """Boot (unless given) and run."""
        sandbox = sandbox or await self.boot(on, driver)
        run = run or self.run(on)
        socket, log_dir = (
            on.layout.runtime / f"{run.app_id}-{run.number}.sock",
            on.layout.run_log(run.app_id, run.number),
        )
        stages: list[str] = []
        started = await sandbox.run(run, socket=socket, log_dir=log_dir, on_stage=stages.append)
        return Running(sandbox, started, socket, log_dir, stages)


def general(name: str, make: Callable[[Bench], Driver]) -> Subject:
    start = Start(("python3", "app.py"))
    runtime = Runtime("general", "python-313", "python", "app.py", "test", start=start)
    return Subject(name, make, "python-313", runtime, {"app.py": GENERAL_APP})


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "static",
            lambda on: StaticDriver(on.layout),
            "static-nginx",
            Runtime("fast", "static-nginx", "static", "index.html", "test"),
            {"index.html": "hello world"},
        ),
        Subject(
            "workerd",
            lambda on: WorkerdDriver(on.host()),
            "workerd",
            Runtime("fast", "workerd", "worker", "worker.js", "test"),
            {"worker.js": WORKER},
        ),
        general("gvisor", lambda on: GVisorDriver(on.host())),
        general("process", lambda on: ProcessDriver(on.host())),
    )
}


async def gone(on: Bench, deadline_s: float = 5.0) -> list[str]:
    """What is still left after a moment; [] when nothing is."""
    for _ in range(int(deadline_s / 0.02)):
        if not on.left():
            return []
        await asyncio.sleep(0.02)
    return on.left()


def supervisor_pid(on: Bench, sandbox: Sandbox) -> int:
    return int(json.loads((on.layout.sandboxes / sandbox.id / "state.json").read_text())["pid"])


def command_pid(on: Bench, sandbox: Sandbox) -> int:
    return int(json.loads((on.layout.sandboxes / sandbox.id / "state.json").read_text())["command_pid"])


__all__ = [
    "SUBJECTS",
    "Bench",
    "Running",
    "Subject",
    "SupervisedDriver",
    "bench",
    "command_pid",
    "gone",
    "supervisor_pid",
]
