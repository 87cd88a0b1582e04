"""The bench of the driver contract for pods: a namespace on a cluster with fake nodes and real agents, and the driver
`agent-sandbox` on it. One namespace and its warm pool serve all tests of a session; each test has drivers of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cluster.agents import agents
from tests.cluster.cluster import Cluster, Namespace
from tests.cluster.ports import free_port
from tests.contract.driver_kit import Bench, Subject, TestRoots, general, programs
from tests.prepare import home as test_home
from vibed.apps.app import Start
from vibed.cluster.client import Client
from vibed.drivers.agent_sandbox.claims import BY, MANAGED
from vibed.drivers.agent_sandbox.driver import AgentSandboxDriver, Place
from vibed.drivers.agent_sandbox.signing import ClaimKeys
from vibed.drivers.agent_sandbox.templates import PodSettings
from vibed.layout import Layout, Uids
from vibed.runtimes.templates import load_templates
from vibed.sandboxes.driver import Driver, Limits, Mount, Run

TEMPLATE = "python-313"
WARM = 2


@dataclass(frozen=True)
class Pods:
    """A namespace whose pods have agents."""

    namespace: Namespace
    key: Ed25519PrivateKey


@contextmanager
def pods(cluster: Cluster) -> Iterator[Pods]:
    """For a session. The agents' watch has a thread and an event loop of its own: those of tests come and go."""
    made = Pods(cluster.namespace(f"drivers-{token_hex(3)}"), Ed25519PrivateKey.generate())
    loop, over, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def keep() -> None:
        client = Client.connect(kubeconfig=cluster.config, namespace=made.namespace.name)
        driver = _driver(made, client, Path("/nowhere"))
        template = {TEMPLATE: load_templates()[TEMPLATE]}
        try:
            async with agents(client, made.namespace.name):
                await driver.ensure_pools(template, {TEMPLATE: WARM})
                ready.set()
                await over.wait()
        finally:
            await client.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(keep(),))
    thread.start()
    try:
        if not ready.wait(60):
            raise TimeoutError("the pool of pods could not be made")
        yield made
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
        cluster.kubectl("delete", "namespace", made.namespace.name, "--wait=false")


def _driver(where: Pods, client: Client, logs: Path) -> AgentSandboxDriver:
    place = Place(where.namespace.name, lambda app_id: None, lambda app, run: logs / app / f"{run:010d}")
    return AgentSandboxDriver(client, place, ClaimKeys([where.key]), PodSettings("registry.example/vibed", "1.0"))


@dataclass
class PodBench(Bench):
    """See the module's docstring."""

    where: Pods = field(kw_only=True)
    client: Client = field(kw_only=True)
    watching: list[asyncio.Task[None]] = field(default_factory=list)

    def left(self) -> list[str]:
        """Claims that are to stay."""
        found = self.where.namespace.get("sandboxclaims", "-l", f"{MANAGED}={BY}")["items"]
        return [one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]]

    def pods_driver(self) -> Driver:
        driver = _driver(self.where, self.client, self.layout.logs)
        driver._templates = {TEMPLATE: load_templates()[TEMPLATE]}  # the pool is there
        self.watching.append(asyncio.create_task(driver.run()))
        return driver


@asynccontextmanager
async def pod_bench(scratch: Path, where: Pods) -> AsyncIterator[PodBench]:
    """A bench whose sandboxes are all ended afterwards."""
    client = Client.connect(kubeconfig=where.namespace.cluster.config, namespace=where.namespace.name)
    layout = Layout(scratch / "home", scratch / "run", Uids(3_000_000_000))
    it = PodBench(layout, programs(), TestRoots(test_home()), scratch, where=where, client=client)
    try:
        yield it
    finally:
        await it.end()
        for watch in it.watching:
            watch.cancel()
        await asyncio.gather(*it.watching, return_exceptions=True)
        await client.close()


def _of(bench: Bench) -> PodBench:
    assert isinstance(bench, PodBench)
    return bench


@dataclass(frozen=True)
class PodSubject(Subject):
    """The driver `agent-sandbox`."""

    def run(
        self,
        on: Bench,
        files: Mapping[str, str | bytes] | None = None,
        *,
        start: Start | None = None,
        app: str = "app",
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mount] = (),
        timeout_s: float = 30.0,
        options: Mapping[str, object] | None = None,
    ) -> Run:
        # fake pods have no network of their own, so each app has a port of its own
        start = replace(start or self.runtime.start, port=free_port())
        return super().run(
            on, files, start=start, app=app, env=env, limits=limits, mounts=mounts, timeout_s=timeout_s, options=options
        )


_GENERAL = general("agent-sandbox", lambda on: _of(on).pods_driver())
PODS = PodSubject(_GENERAL.name, _GENERAL.make, _GENERAL.template, _GENERAL.runtime, _GENERAL.files)

__all__ = ["PODS", "PodBench", "Pods", "pod_bench", "pods"]
