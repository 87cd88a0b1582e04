"""vibeD on a Kubernetes of the harness's own: a real control plane with a fake node (kwok), vibeD's own processes, a
real Caddy and a real S3 server, and at the pods' addresses real agents, or a stand-in for them (`bench.stand_in`).

All of it stands in one machine, on which the API server is the limit: ratios and counts say something, seconds little.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import vibed.cluster
from bench import audit, memory, web
from bench.memory import Memory
from tests.cluster import binaries
from tests.cluster.cluster import Cluster, Namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.installed import ADMIN_KEY, Installed, Pods, Process, installed
from tests.prepare import home
from vibed.cluster.client import Client
from vibed.drivers.agent_sandbox.claims import POD_APP
from vibed.drivers.agent_sandbox.line import INGRESS_PORT
from vibed.drivers.agent_sandbox.templates import TEMPLATE
from vibed.runtimes.tools import Tools

T = TypeVar("T")

_CRD = Path(vibed.cluster.__file__).parent / "crds" / "vibedapps.yaml"
_LEADS = '"leads"'
"""What a controller says once it does (`vibed.controller.on_cluster`)."""
_START_S = 180.0
_END_S = 90.0


def missing() -> str | None:
    """What has to be built before there can be a cluster, or None."""
    try:
        binaries.programs(binaries.CONTROL_PLANE, home())
    except binaries.NotBuilt as error:
        return str(error)
    if not Tools(home()).installed("caddy-dns"):
        return "the Caddy of vibeD's image: python -m tests.prepare acme"
    return None


class OnCluster:
    """One vibeD on one cluster; use it as a context manager. Blocking; what has to go on beside (the agents' watch)
    goes on in a thread of its own.
    """

    def __init__(self, *, pools: str, stand_in: bool = False) -> None:
        """`pools`: sizes by template, of all templates that there are; `stand_in`: one process answers in the place of
        all agents, and runs no app.
        """
        self._pools, self._stand_in = pools, stand_in
        self._stack = ExitStack()
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> OnCluster:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # asking it

    @property
    def api_host(self) -> str:
        return f"localhost:{self.vibed.port}"

    def host(self, app_id: str) -> str:
        """The Host header of an app."""
        return f"{app_id}.localhost:{self.vibed.port}"

    def connect(self, *, timeout_s: float = 60.0) -> web.Connection:
        """To vibeD's Caddy, behind which are the API and all apps."""
        return web.Connection(("127.0.0.1", self.vibed.port), timeout_s=timeout_s)

    def call(self, connection: web.Connection, method: str, path: str) -> web.Answer:
        """One request to the API."""
        return connection.send(web.request(method, path, self.api_host, b"", Authorization=f"Bearer {ADMIN_KEY}"))

    def deploy_request(self, name: str, source: bytes) -> bytes:
        """A deploy as bytes."""
        kind, body = web.multipart({"name": name}, source)
        return web.request(
            "POST", "/v1/deploy", self.api_host, body, Authorization=f"Bearer {ADMIN_KEY}", Content_Type=kind
        )

    def deploy(self, api: web.Connection, name: str, source: bytes) -> tuple[float, dict[str, Any]]:
        """Milliseconds until the answer that it is Ready, and that answer. Raises RuntimeError for any other."""
        request = self.deploy_request(name, source)
        self.call(api, "GET", "/healthz")  # one that was idle for minutes was closed
        began = time.perf_counter()
        answer = api.send(request)
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise RuntimeError(f"deploying {name}: {answer.status} {answer.body[:500]!r}")
        return took, answer.json()

    def delete(self, api: web.Connection, name: str) -> None:
        """Delete an app and wait until its name is free."""
        self.call(api, "DELETE", f"/v1/apps/{name}")
        until = time.monotonic() + _END_S
        while self.call(api, "GET", f"/v1/apps/{name}").status != 404:
            if time.monotonic() > until:
                raise TimeoutError(f"{name} is not gone after {_END_S:g} s")
            time.sleep(0.02)

    def wait_warm(self, template: str, size: int, *, within_s: float = _START_S) -> None:
        """Return when the pool has that many ready sandboxes, and their agents listen: a fake node says Ready once
        there is a pod. Raises TimeoutError.
        """
        until = time.monotonic() + within_s
        while True:
            status = self.namespace.get("sandboxwarmpool", template).get("status") or {}
            if status.get("readyReplicas", 0) >= size and all(map(_listens, self._unclaimed())):
                return
            if time.monotonic() > until:
                raise TimeoutError(f"the pool of {template} is not full after {within_s:g} s: {status}")
            time.sleep(0.2)

    def _unclaimed(self) -> list[str]:
        """Addresses of sandboxes' pods that no app has."""
        pods = self.namespace.get("pods", "-l", f"{TEMPLATE},!{POD_APP}")["items"]
        return [pod["status"]["podIP"] for pod in pods if pod["status"].get("podIP")]

    # what it costs

    def position(self) -> int:
        """Where the audit log ends now."""
        return audit.position(self.plane.folder)

    def writes(self, since: int) -> list[audit.Write]:
        """All writes after that position."""
        return audit.writes(self.plane.folder, since=since)

    def memory(self, process: Process) -> Memory:
        """What one of vibeD's processes holds now."""
        assert process.running is not None
        return memory.of(process.running.pid)

    @property
    def controller(self) -> Process:
        return self.vibed.controllers[0]

    def stop_controller(self) -> None:
        """As the kubelet does; the lead is given back, so that the next one need not wait for it."""
        self.controller.stop()

    def start_controller(self) -> float:
        """Seconds from its start until it has taken over and leads."""
        seen = len(self.controller.said)
        began = time.monotonic()
        self.controller.start()
        while True:
            said, now = self.controller.said[seen:], time.monotonic() - began
            if _LEADS in said:
                return now
            if now > _START_S:
                raise TimeoutError(f"the controller does not lead after {_START_S:g} s: {said[-2000:]}")
            time.sleep(0.01)

    def run(self, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """Have something done with a client of the API server, as admin."""
        return self.begin(work).result()

    def begin(self, work: Callable[[Client], Coroutine[Any, Any, T]]) -> Future[T]:
        """The same, beside what the harness does."""

        async def done() -> T:
            client = Client.connect(kubeconfig=self.plane.kubeconfig(), namespace=self.namespace.name)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run_coroutine_threadsafe(done(), self._loop)

    # its life

    def _begin(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="vbc-", dir="/tmp"))
        folder.chmod(0o711)
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        programs = binaries.programs(binaries.CONTROL_PLANE, home())
        self.plane = ControlPlane(folder, programs, flags={"kube-apiserver": audit.flags(folder)})
        self._stack.callback(self.plane.stop)
        self.plane.start()
        self.plane.start_fake_node()
        cluster = Cluster(self.plane.kubeconfig(), (str(programs / "kube"), "kubectl"), folder, self.plane)
        cluster.kubectl("apply", "--server-side", "-f", str(_CRD))
        cluster.kubectl("wait", "--for=condition=Established", "crd/vibedapps.vibed.dev", "--timeout=30s")
        self.namespace: Namespace = cluster.namespace(f"bench-{secrets.token_hex(3)}")
        thread = threading.Thread(target=self._loop.run_forever, name="cluster")
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
        begun = asyncio.run_coroutine_threadsafe(self._up(), self._loop)
        self.vibed = begun.result(_START_S)
        self._stack.callback(lambda: asyncio.run_coroutine_threadsafe(self._down(), self._loop).result(_END_S))

    async def _up(self) -> Installed:
        pods: Pods | None = _stand_in if self._stand_in else None
        self._vibed = installed(self.namespace, pools=self._pools, pods=pods)
        return await self._vibed.__aenter__()

    async def _down(self) -> None:
        await self._vibed.__aexit__(None, None, None)


def _listens(ip: str) -> bool:
    try:
        socket.create_connection((ip, INGRESS_PORT), 1).close()
    except OSError:
        return False
    return True


@asynccontextmanager
async def _stand_in(client: Client, namespace: Namespace) -> AsyncIterator[None]:
    argv = [sys.executable, "-m", "bench.stand_in", str(namespace.cluster.config), namespace.name]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(*argv, env=env, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
