"""A real API (SQLite, sources on disk, the controller's socket) with a controller that follows a script."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from vibed import wire
from vibed.api.app import create_app
from vibed.api.classifying import decider
from vibed.api.identity import digest
from vibed.api.sse import Stopping
from vibed.apps.app import Phase
from vibed.apps.sqlite.store import SqliteStore
from vibed.apps.store import NewEvent, VersionOutcome
from vibed.config import Config
from vibed.controller.link import ControllerLink
from vibed.layout import Layout, Uids
from vibed.mcp.http import McpOverHttp
from vibed.runtimes.templates import Template, load_templates
from vibed.sources.store import ServedStore

ADMIN_KEY = "vbd_admin-key-of-the-tests"
ORIGIN = "http://localhost:18080"


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A tar.gz of these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


SITE = archive({"index.html": "<h1>hello</h1>"})
PYTHON = archive({"app.py": "from flask import Flask\napp = Flask(__name__)\n", "requirements.txt": "flask\n"})


LAYER = {
    "key": "ab" * 32, "kind": "python", "template": "python-313", "bytes": 123_456, "packages": {"humanize": "4.13.0"},
    "made_at": 1_764_000_000.0, "used_at": 1_764_000_500.0, "took_s": 2.5, "builds": 1, "private": False, "apps": ["a"],
}  # fmt: skip


class ScriptedController:
    """Speaks the controller's side of the wire, and writes statuses as it would."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.phase = Phase.READY
        self.reason = "Serving"
        self.message = ""
        self.delay_s = 0.0
        self.timings = {"claim": 1.0, "inject": 0.5, "start": 2.0}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.healthy = True
        self.purge = True
        self.templates: list[dict[str, Any]] = []
        self.layers: list[dict[str, Any]] = []
        self.baked: dict[str, Any] = {}
        self.texts: list[str] = []
        """What the DNS says wherever it is asked."""

    async def __call__(self, op: str, message: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((op, message))
        match op:
            case "settle":
                return await self.settle(message["app_id"], message["version"], message["timeout_s"])
            case "prepare":
                return {}
            case "wake":
                await self._wake(message["app_id"])
                return {}
            case "health":
                return {"ok": self.healthy, "checks": {"caddy": {"ok": self.healthy, "detail": "answers"}}}
            case "metrics":
                return {"text": "# TYPE vibed_sandboxes gauge\nvibed_sandboxes 3\n"}
            case "layers":
                return {"items": self.layers}
            case "bake":
                self.baked = {"bake_id": "b1", "kind": message["install"]["kind"], "template": message["template"],
                              "state": "building", "message": "resolving", "key": ""}  # fmt: skip
                return {"bake": self.baked}
            case "baked":
                return {"bake": {**self.baked, "state": "ready", "message": "", "key": "ab" * 32}}
            case "pin_layer" | "remove_layer":
                return {}
            case "templates":
                return {"items": self.templates}
            case "texts":
                return {"texts": self.texts}
            case "lead":
                return {}
        raise AssertionError(op)

    async def settle(self, app_id: str, version: int, timeout_s: float) -> dict[str, Any]:
        await asyncio.sleep(min(self.delay_s, timeout_s))
        app = await self._store.get(app_id)
        if app.version != version or self.delay_s > timeout_s:
            return {"phase": "Pending", "reason": "Starting", "serving_version": app.status.serving_version}
        serving = version if self.phase is Phase.READY else app.status.serving_version
        await self._store.record(
            app_id,
            replace(
                app.status,
                phase=self.phase,
                reason=self.reason,
                message=self.message,
                serving_version=serving,
                observed_generation=app.generation,
                isolation="kernel",
            ),
            outcomes=[VersionOutcome(version, self.phase, self.reason, self.message, self.timings)],
            events=[NewEvent("Normal", self.reason, self.message, version)],
        )
        return {
            "phase": self.phase.value,
            "reason": self.reason,
            "message": self.message,
            "timings": self.timings,
            "serving_version": serving,
        }

    async def _wake(self, app_id: str) -> None:
        app = await self._store.get(app_id)
        if app.deleted and self.purge:
            await self._store.purge(app_id)


@dataclass
class Running:
    """One API and what is behind it."""

    config: Config
    layout: Layout
    store: SqliteStore
    app: FastAPI
    controller: ScriptedController
    controller_server: asyncio.Server
    link: ControllerLink
    client: httpx.AsyncClient
    stopping: Stopping
    keys: dict[str, str] = field(default_factory=dict)

    async def key(self, owner: str, *, admin: bool = False) -> dict[str, str]:
        """Headers with a fresh key of `owner`."""
        answer = await self.client.post("/v1/keys", json={"owner": owner, "label": "test", "admin": admin})
        assert answer.status_code == 201, answer.text
        return {"Authorization": f"Bearer {answer.json()['secret']}"}

    async def deploy(
        self,
        name: str = "todo",
        source: bytes = SITE,
        *,
        headers: Mapping[str, str] | None = None,
        **metadata: Any,
    ) -> httpx.Response:
        """POST /v1/deploy."""
        return await self.client.post("/v1/deploy", headers=headers, files=parts({"name": name, **metadata}, source))

    def sources(self) -> list[str]:
        """Names of every source on the disk, half received ones too."""
        return sorted(
            str(path.relative_to(self.layout.sources)) for path in self.layout.sources.rglob("*") if path.is_file()
        )

    async def stop_controller(self) -> None:
        """Take the controller's socket away."""
        self.controller_server.close()
        await self.link.close()
        self.layout.controller_socket.unlink(missing_ok=True)


def parts(metadata: object | None, source: bytes | None, *, source_first: bool = False) -> list[tuple[str, Any]]:
    """The multipart parts of a deploy, for httpx."""
    made: list[tuple[str, Any]] = []
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        made.append(("metadata", (None, text, "application/json")))
    if source is not None:
        made.append(("source", ("source.tar.gz", source, "application/gzip")))
    return made[::-1] if source_first else made


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The app's lifespan in a task of its own, as a server runs it: fixtures begin and end in different tasks."""
    started, ending = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.router.lifespan_context(app):
            started.set()
            await ending.wait()

    task = asyncio.create_task(live())
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        ending.set()
        await task


@cache
def templates() -> Mapping[str, Template]:
    """Those that vibeD ships."""
    return load_templates()


@asynccontextmanager
async def running(home: Path, runtime: Path, *, with_mcp: bool = False, **settings: Any) -> AsyncIterator[Running]:
    """An API over ASGI, as the admin unless a request says otherwise."""
    config = Config(home, **settings)
    layout = Layout(home, runtime, Uids(1000, rootless=True))
    for folder in (layout.database.parent, layout.logs, layout.controller_socket.parent, layout.serve_socket.parent):
        folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(layout.database)
        stack.push_async_callback(store.close)
        controller = ScriptedController(store)
        server = await wire.serve(layout.controller_socket, controller)
        stack.callback(server.close)
        link = ControllerLink(layout.controller_socket)
        stack.push_async_callback(link.close)
        sources = ServedStore(layout.sources, key=b"k" * 32)
        sources.prepare()
        stopping = Stopping()
        app = create_app(
            config,
            layout,
            store,
            sources,
            link,
            templates(),
            decide=decider(templates()),
            admin_digest=digest(ADMIN_KEY),
            stopping=stopping,
            beside=[McpOverHttp] if with_mcp else [],
        )
        await stack.enter_async_context(_lifespan(app))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url=config.api_url,
                headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            )
        )
        yield Running(config, layout, store, app, controller, server, link, client, stopping)


Check = Callable[[httpx.Response], None]


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert on an error's form; returns its body."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"code", "message", "details"}
    assert body["code"] == code, body
    assert body["message"]
    return dict(body)


@asynccontextmanager
async def listening(home: Path, runtime: Path, *, with_mcp: bool = False, **settings: Any) -> AsyncIterator[Running]:
    """The same on a TCP port of the loopback, as Caddy shows it: `config.api_url` reaches it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        async with running(home, runtime, with_mcp=with_mcp, listen=f"127.0.0.1:{port}", **settings) as api:
            server = uvicorn.Server(
                uvicorn.Config(api.app, lifespan="off", log_config=None, timeout_graceful_shutdown=2)
            )
            task = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            try:
                yield api
            finally:
                api.stopping.set()
                server.should_exit = True
                await task


@asynccontextmanager
async def scripted_controller(home: Path, runtime: Path) -> AsyncIterator[tuple[Layout, ScriptedController]]:
    """What a `vibed serve` of its own process finds: folders, an admin key, and a controller that answers."""
    layout = Layout(home, runtime, Uids(os.geteuid(), rootless=True))
    for folder in (layout.database.parent, layout.logs, layout.controller_socket.parent, layout.serve_socket.parent):
        folder.mkdir(parents=True, exist_ok=True)
    layout.sources.mkdir(exist_ok=True)
    layout.admin_key.write_text(ADMIN_KEY + "\n")
    store = await SqliteStore.open(layout.database)
    controller = ScriptedController(store)
    server = await wire.serve(layout.controller_socket, controller)
    try:
        yield layout, controller
    finally:
        server.close()
        await store.close()
