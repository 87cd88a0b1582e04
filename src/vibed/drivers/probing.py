"""The start-up probe of a driver that runs code: boot a sandbox, run a small app in it, get its answer, end it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from vibed.apps.app import Runtime, Start
from vibed.apps.errors import VibedError
from vibed.drivers.packing import packed
from vibed.sandboxes.driver import BootFailed, Limits, Probe, Run
from vibed.supervision.base import SupervisedDriver

_DEADLINE_S = 90.0
PROBE = "_probe"
"""The app that a probe runs: a name that no app can have."""
_PYTHON = b"""import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open(os.environ["READ"], "rb").read()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""
_NODE = b"""const fs = require("fs");
require("http").createServer((q, r) => r.end(fs.readFileSync(process.env.READ))).listen(8080, "127.0.0.1");
"""
GENERAL = {
    "python-313": (Runtime("general", "python-313", "python", "", "", start=Start(("python3", "app.py"))), _PYTHON),
    "node-24": (Runtime("general", "node-24", "node", "", "", start=Start(("node", "app.js"))), _NODE),
}
"""Templates of the general lane that a driver can be tried with, the likeliest first."""


async def general(driver: SupervisedDriver, read: str, expected: bytes) -> Probe:
    """Run an app of whichever template is built and expect `expected` in the file `read` as the app sees it."""
    for template, (runtime, source) in GENERAL.items():
        with contextlib.suppress(BootFailed):
            driver.host.roots.root(template)
            sources = {runtime.start.argv[-1]: source}
            return await probe(driver, template, sources, runtime, {"READ": read}, Limits(disk_mb=64), expected)
    return Probe(False, driver.isolation, f"none of {', '.join(GENERAL)} is built yet, so it could not be tried")


async def probe(
    driver: SupervisedDriver,
    template: str,
    source: Mapping[str, bytes],
    runtime: Runtime,
    env: Mapping[str, str],
    limits: Limits,
    expected: bytes,
) -> Probe:
    """Run `source` and expect an answer that contains `expected`. Never raises."""
    began = time.perf_counter()
    folder = driver.host.layout.runtime / f"probe-{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700, parents=True)
        archive = folder / "source.tar.gz"
        archive.write_bytes(packed(source))
        async with asyncio.timeout(_DEADLINE_S):
            sandbox = await driver.boot(template, urgent=True)
            try:
                socket = folder / "app.sock"
                run = Run(PROBE, 1, 1, archive, runtime, env, limits, start_timeout_s=20)
                await sandbox.run(run, socket=socket, log_dir=folder / "log", on_stage=lambda stage: None)
                answer = await _get(socket)
            finally:
                await asyncio.shield(sandbox.destroy(0))
        if expected not in answer:
            return Probe(False, driver.isolation, f"an app in it answered {answer[:200]!r} instead of {expected!r}")
    except TimeoutError:
        return Probe(False, driver.isolation, f"an app in it did not answer within {_DEADLINE_S:g} s")
    except (VibedError, OSError) as error:
        return Probe(False, driver.isolation, str(error))
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)
    took = (time.perf_counter() - began) * 1000
    return Probe(True, driver.isolation, f"ran an app of {template} in {took:.0f} ms; {driver.host.cgroups.detail}")


async def _get(socket: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
        return await reader.read(65_536) + await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
