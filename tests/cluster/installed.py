"""A whole vibeD on a cluster with fake nodes: its real processes, a real Caddy, a real S3 server, and in the place of
containers real agents at the pods' addresses (`tests.cluster.agents`).

What the chart would do is done here: the processes' environment, their keys, and the pods that say where routers are.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.cluster.agents import Agents, agents
from tests.cluster.cluster import Namespace
from tests.cluster.ports import free_port
from tests.contract.s3_server import REGION, S3Server
from tests.e2e.client import Client
from tests.prepare import home
from tests.unit.certificates import authority, signed
from vibed.cli.plan import CADDY_GOGC
from vibed.cluster.client import Client as Kube
from vibed.controller.on_cluster import ROUTERS
from vibed.runtimes.tools import Tools

ADMIN_KEY = "vibed_" + "k" * 43
START_S = 60.0
STOP_S = 25.0


@dataclass
class Process:
    """One of vibeD's processes, as its container would run it."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.argv, env=dict(self.env), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self) -> None:
        """With -9, as a node's death is."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As the kubelet does."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.running is None:
            return
        self.running.send_signal(how)
        try:
            self.running.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()
        self.running = None

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@dataclass
class Installed:
    """vibeD in a namespace, which has both its own things and the apps."""

    namespace: Namespace
    folder: Path
    s3: S3Server
    port: int
    own_agents: Agents | None = None
    """None where something else stands in their place."""
    controllers: list[Process] = field(default_factory=list)
    api: list[Process] = field(default_factory=list)
    routers: list[Process] = field(default_factory=list)
    caddies: list[Process] = field(default_factory=list)

    @property
    def agents(self) -> Agents:
        assert self.own_agents is not None, "no agents of their own were asked for"
        return self.own_agents

    @property
    def processes(self) -> list[Process]:
        return [*self.controllers, *self.api, *self.routers, *self.caddies]

    @property
    def leader(self) -> Process | None:
        """The controller that leads by its Lease, whether or not it lives."""
        holder = self.namespace.get("lease/vibed-controller")["spec"].get("holderIdentity")
        return next((one for one in self.controllers if one.name == holder), None)

    def claims(self, app_id: str = "") -> list[Any]:
        """The claims of an app, or of all, that are to stay."""
        labels = f"vibed.dev/app={app_id}" if app_id else "app.kubernetes.io/managed-by=vibed"
        found = self.namespace.get("sandboxclaims", "-l", labels)["items"]
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    @property
    def client(self) -> Client:
        """Of an admin, by the first router's Caddy."""
        return Client(self.port, ADMIN_KEY)

    def cli(self, *arguments: str, cwd: Path | None = None, timeout_s: float = 120.0) -> str:
        """What `vibed ARGUMENTS` prints for its admin; it has to go well."""
        told = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(self.folder),
            "VIBED_URL": f"http://localhost:{self.port}",
            "VIBED_TOKEN": ADMIN_KEY,
        }
        argv = [sys.executable, "-m", "vibed.cli.main", *arguments]
        done = subprocess.run(
            argv, cwd=cwd or self.folder, env=told, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"vibed {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.told()}"
        return done.stdout

    def start_what_has_ended(self) -> None:
        """As the kubelet does."""
        for one in self.processes:
            if one.running is not None and one.running.poll() is not None:
                one.start()

    def told(self) -> str:
        """What its processes said last, for whoever looks at a failure."""
        return "\n".join(f"--- {one.name}\n{one.said[-3000:]}" for one in self.processes)


@dataclass(frozen=True)
class Front:
    """What the routers of one vibeD serve, where it is not plain HTTP for `localhost` by one of them."""

    ports: tuple[tuple[int, int], ...]
    """Of each router's Caddy, for HTTP and HTTPS. The first is where the Service leads."""
    settings: Mapping[str, str]
    """Variables of all processes."""
    certificates: Path
    """The volume in which the routers keep them."""
    amended: Callable[[str], str] = str
    """What a test changes in their Caddyfiles."""


Pods = Callable[[Kube, Namespace], AbstractAsyncContextManager[None]]
"""What stands at the addresses of a namespace's pods, where it is not an agent at each."""


@asynccontextmanager
async def installed(
    namespace: Namespace,
    *,
    controllers: int = 1,
    pools: str = "static-nginx=1,python-313=2",
    front: Front | None = None,
    pods: Pods | None = None,
    rooted: bool = False,
    told: Mapping[str, str] | None = None,
) -> AsyncIterator[Installed]:
    """vibeD, once it answers and its pools are offered. `rooted`: as `tests.cluster.agents` says; `told`: more of its
    environment.
    """
    folder = Path(tempfile.mkdtemp(prefix="vc", dir="/tmp"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        s3 = stack.enter_context(S3Server(home()))
        kube = Kube.connect(kubeconfig=namespace.cluster.config, namespace=namespace.name)
        stack.push_async_callback(kube.close)
        running = None
        if pods is None:
            ways_out = [int(s3.endpoint.rpartition(":")[2])]
            running = await stack.enter_async_context(agents(kube, namespace.name, rooted=rooted, ways_out=ways_out))
        else:
            await stack.enter_async_context(pods(kube, namespace))
        ports = ((free_port(), 0),) if front is None else front.ports
        made = Installed(namespace, folder, s3, ports[0][0], running)
        common = {**_common(namespace, folder, s3, pools), **(told or {})}
        api_port, wire_port = free_port(), free_port()
        shared = {
            **common,
            "VIBED_API_PORT": str(api_port),
            "VIBED_WIRE_PORT": str(wire_port),
            "VIBED_LISTEN": f"127.0.0.1:{made.port}",
            **({} if front is None else front.settings),
        }
        for number in range(controllers):
            address = f"127.0.0.{number + 1}"
            made.controllers.append(_process(f"controller-{number}", ["controller"], shared, folder, address))
        made.api.append(
            _process(
                "api-0",
                ["serve"],
                {**shared, "VIBED_ROUTER_HOST": "127.0.0.1", "VIBED_ROUTER_PORT": str(made.port)},
                folder,
                "127.0.0.1",
            )
        )
        for number, (http_port, https_port) in enumerate(ports):
            told = {**shared, "VIBED_API_HOST": "127.0.0.1", "VIBED_LISTEN": f"127.0.0.1:{http_port}"}
            if https_port:
                told["VIBED_LISTEN_HTTPS"] = f"127.0.0.1:{https_port}"
            await _add_router(made, number, told, front)
        for process in made.processes:
            stack.callback(process.stop)
            process.start()
        try:
            await _until_it_works(made)
            yield made
        except BaseException:
            sys.stderr.write(made.told())
            raise


async def _add_router(vibed: Installed, number: int, told: Mapping[str, str], front: Front | None) -> None:
    """A router and the Caddy beside it, prepared and not yet started."""
    name, folder = f"router-{number}", vibed.folder
    router = _process(name, ["router"], told, folder, _pod_of_a_router(vibed.namespace, name))
    await asyncio.to_thread(
        subprocess.run, [*router.argv, "--prepare"], env=router.env, check=True, capture_output=True
    )
    caddyfile = folder / name / "run" / "caddy" / "Caddyfile"
    if front is not None:
        (folder / name / "home" / "certificates").symlink_to(front.certificates)
        caddyfile.write_text(front.amended(caddyfile.read_text()))
    program = Tools(home()).path("caddy-dns")
    vibed.routers.append(router)
    vibed.caddies.append(
        Process(
            f"caddy-{number}",
            [str(program), "run", "--config", str(caddyfile), "--adapter", "caddyfile"],
            {"HOME": str(folder), "PATH": "/usr/bin:/bin", "GOGC": CADDY_GOGC},
            folder / f"caddy-{number}.log",
        )
    )


def _common(namespace: Namespace, folder: Path, s3: S3Server, pools: str) -> dict[str, str]:
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(key)
    (folder / "signing").write_text("ab" * 32)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KUBECONFIG": str(namespace.cluster.config),
        "VIBED_SUBSTRATE": "kubernetes",
        "VIBED_NAMESPACE": namespace.name,
        "VIBED_APPS_NAMESPACE": namespace.name,
        "VIBED_ADMIN_KEY": ADMIN_KEY,
        "VIBED_WIRE_CERTIFICATES": str(signed(authority(folder / "ca"), folder / "wire")),
        "VIBED_CLAIM_KEY": str(folder / "key.pem"),
        "VIBED_SIGNING_KEY": str(folder / "signing"),
        "VIBED_SOURCE_STORE": "s3",
        "VIBED_S3_BUCKET": s3.bucket,
        "VIBED_S3_ENDPOINT": s3.endpoint,
        "VIBED_S3_REGION": REGION,
        "VIBED_TEMPLATES": ",".join(pool.partition("=")[0] for pool in pools.split(",")),
        "VIBED_POOLS": pools,
        # agents that are processes of this machine share its kernel, and say so
        "VIBED_LEAST_GENERAL": "process",
        "VIBED_LEAST_FAST": "isolate",
        **s3.environment,
    }


def _process(name: str, arguments: list[str], env: Mapping[str, str], folder: Path, address: str) -> Process:
    own = folder / name
    (own / "home").mkdir(parents=True)
    # what its image brings
    for brought in ("tools", "kits"):
        (home() / brought).mkdir(exist_ok=True)
        (own / "home" / brought).symlink_to(home() / brought)
    told = {
        "VIBED_HOME": str(own / "home"),
        "VIBED_LAYOUT": f"{own / 'run'}:{os.getuid()}",
        "VIBED_POD_NAME": name,
        "VIBED_POD_IP": address,
        "VIBED_HEALTH_PORT": str(free_port()),
    }
    return Process(name, [sys.executable, "-m", "vibed.cli.main", *arguments], {**env, **told}, folder / f"{name}.log")


def _pod_of_a_router(namespace: Namespace, name: str) -> str:
    """A pod that says where a router is; its address is this machine's, as those of all fake pods."""
    label, _, value = ROUTERS.partition("=")
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {label: value}},
        "spec": {"containers": [{"name": "router", "image": "vibed"}]},
    }
    namespace.apply(body)
    namespace.wait(f"pod/{name}", "condition=Ready")
    return str(namespace.get(f"pod/{name}")["status"]["podIP"])


async def _until_it_works(vibed: Installed) -> None:
    until = time.monotonic() + START_S
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        while True:
            try:
                answer = await client.get(
                    f"http://127.0.0.1:{vibed.port}/v1/templates",
                    headers={"Host": f"localhost:{vibed.port}", "Authorization": f"Bearer {ADMIN_KEY}"},
                )
                items = answer.json().get("items") or [] if answer.status_code == 200 else []
                if items and all(item["available"] for item in items):
                    return
            except (httpx.HTTPError, ValueError):
                pass
            ended = [one.name for one in vibed.processes if one.running is None or one.running.poll() is not None]
            if ended or time.monotonic() > until:
                raise AssertionError(f"vibeD does not come up; ended: {ended}\n{vibed.told()}")
            await asyncio.sleep(0.2)


async def in_thread(work: Callable[[], Any]) -> Any:
    """The agents' watch goes on beside what a client does."""
    return await asyncio.to_thread(work)
