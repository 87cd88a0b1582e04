"""The real Caddy in front of apps that are a few lines each, for the tests of the router and of its certificates."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.instance import free_port
from tests.prepare import home
from vibed.config import Config
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.layout import Layout, Uids
from vibed.router import caddyfile
from vibed.router.markers import Markers
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Endpoint

open_connections: dict[str, set[asyncio.StreamWriter]] = {}
"""By socket name: a server that is closed keeps its connections, a process that dies does not."""

Handler = Callable[[bytes, bytes], Awaitable[bytes]]


async def serve(path: Path, answer: Handler) -> asyncio.Server:
    """A keep-alive HTTP/1.1 server on a Unix socket; `answer(head, body)` gives a 200's body, or a whole answer."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here = open_connections.setdefault(path.name, set())
        here.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    lengths = (line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                    said = await answer(head, await reader.readexactly(int(next(lengths, 0))))
                    if not said.startswith(b"HTTP/1.1"):
                        said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
                    writer.write(said)
                    await writer.drain()
        finally:
            here.discard(writer)
            writer.close()

    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(converse, str(path), limit=1 << 20)


async def let_go(name: str) -> None:
    """End the connections that Caddy holds to a server that `serve` began at the socket of that name.

    Caddy has let go of them before the next request, which it would otherwise lose on one of them.
    """
    for writer in tuple(open_connections.get(name, ())):
        await ended(writer)


async def ended(writer: asyncio.StreamWriter) -> None:
    """End a connection of Caddy's, and wait until it has let go of it."""
    if not writer.is_closing():
        writer.write_eof()
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@dataclass
class Router:
    layout: Layout
    config: Config
    markers: Markers
    asked: list[bytes] = field(default_factory=list)
    """Requests that the activator got."""
    activate: Callable[[str], Awaitable[bytes]] | None = None
    servers: list[asyncio.Server] = field(default_factory=list)
    site_server: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        """Caddy's."""
        return self.layout.home.parent / "caddy.log"

    async def serve_sites(self) -> None:
        """Start the site server, as the watchdog does."""
        told = {"socket": str(self.layout.sites_socket), "apps": str(self.layout.apps), "types": TYPES}
        config = self.layout.runtime / "sites.json"
        config.write_text(json.dumps({**told, "unknown": UNKNOWN}))
        before = self.layout.sites_socket.exists() and self.layout.sites_socket.stat().st_ino
        agent = str(Tools(home()).path("vibed-agent"))
        self.site_server = await asyncio.create_subprocess_exec(
            agent, "sites", str(config), stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(20):
            while not self.layout.sites_socket.exists() or self.layout.sites_socket.stat().st_ino == before:
                await asyncio.sleep(0.01)

    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def app(self, app_id: str, run: int, says: bytes) -> None:
        """An app that answers `says` and the length of what it was sent."""

        async def answer(head: bytes, body: bytes) -> bytes:
            return says + b" %d" % len(body)

        self.markers.make_room(app_id)
        self.servers.append(await serve(self.markers.socket(app_id, run, run), answer))
        self.markers.publish(app_id, run, run, Endpoint(self.markers.socket(app_id, run, run)))
        for earlier in range(1, run):
            # which stands for moving them to the new run: agent/ingress/moving_test.go
            await let_go(f"{earlier}-{earlier}.sock")

    async def ask(self, host: str, path: str = "/", *, method: str = "GET", **more: object) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            return await client.request(
                method,
                f"http://127.0.0.1:{self.config.port}{path}",
                headers={"Host": f"{host}:{self.config.port}", **more.pop("headers", {})},  # type: ignore[dict-item]
                **more,  # type: ignore[arg-type]
            )


@contextlib.asynccontextmanager
async def running(
    settings: Mapping[str, Any] | None = None,
    credentials: Mapping[str, str] | None = None,
    amended: Callable[[str], str] = str,
    base: Path | None = None,
) -> AsyncIterator[Router]:
    """Caddy as vibeD starts it, in `base` or a folder that is removed afterwards. `settings` are of the configuration,
    `credentials` of the DNS provider; `amended` changes the Caddyfile.
    """
    stays = base is not None
    base = base or Path(tempfile.mkdtemp(prefix="vr"))
    config = replace(Config(base / "home", listen=f"127.0.0.1:{free_port()}", max_source_mb=1), **(settings or {}))
    # what serves certificates, and is in a cluster's image, is another build of Caddy, and often another release
    own_build = config.https or config.substrate == "kubernetes"
    caddy = Tools(home()).path("caddy-dns" if own_build else "caddy")
    layout = Layout(base / "home", base / "run", Uids(os.getuid(), rootless=True))
    for folder in (
        layout.apps,
        layout.ingress,
        layout.serve_socket.parent,
        layout.fallback_socket.parent,
        layout.front_socket.parent,
        layout.acme,
    ):
        folder.mkdir(parents=True, exist_ok=True)
    for name, value in (credentials or {}).items():
        (layout.acme / name).write_text(value)
    if config.acme_ca_roots is not None:
        shutil.copy(config.acme_ca_roots, layout.acme_roots)
    (base / "Caddyfile").write_text(amended(caddyfile.caddyfile(config, layout, tuple(credentials or {}))))
    made = Router(layout, config, Markers(layout.apps, layout.ingress))

    async def api(head: bytes, body: bytes) -> bytes:
        return b"api"

    async def activator(head: bytes, body: bytes) -> bytes:
        made.asked.append(head)
        if made.activate is not None:
            return await made.activate(head.decode())
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nno app"

    made.servers.append(await serve(layout.serve_socket, api))
    made.servers.append(await serve(layout.activator_socket, activator))
    with (base / "caddy.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            str(caddy), "run", "--config", str(base / "Caddyfile"), "--adapter", "caddyfile",
            stdout=log, stderr=log, env={"HOME": str(base), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    try:
        for _ in range(500):
            with contextlib.suppress(httpx.HTTPError):
                await made.ask("127.0.0.1")
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError((base / "caddy.log").read_text()[-2000:])
        await made.serve_sites()
        yield made
    finally:
        if made.site_server is not None and made.site_server.returncode is None:
            made.site_server.kill()
            await made.site_server.wait()
        for client in made.clients:
            client.transport.abort()
        if process.returncode is None:
            process.terminate()
        await process.wait()
        for server in made.servers:
            server.close()
        if not stays:
            shutil.rmtree(base)
