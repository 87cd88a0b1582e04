"""The driver `agent-sandbox` on a cluster with fake nodes and real agents: whose a pod is, what becomes of claims, and
what a controller that comes after another one finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
import json
import subprocess
import sys
import tarfile
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cluster.agents import Agents, agents
from tests.cluster.cluster import Cluster, Namespace
from tests.cluster.ports import free_port
from tests.contract.driver_kit import GENERAL_APP, WORKER, programs
from vibed.apps.app import Runtime, Start
from vibed.cluster.client import Client
from vibed.cluster.kinds import POD, SANDBOX_CLAIM, SANDBOX_WARM_POOL
from vibed.drivers.agent_sandbox import line as lines
from vibed.drivers.agent_sandbox import sandbox as sandboxes
from vibed.drivers.agent_sandbox import site_pods
from vibed.drivers.agent_sandbox.claims import MANAGED, SITES, Wanted
from vibed.drivers.agent_sandbox.driver import AgentSandboxDriver, Place
from vibed.drivers.agent_sandbox.line import INGRESS_PORT, AgentLine, NotOurs
from vibed.drivers.agent_sandbox.sandbox import PodSandbox
from vibed.drivers.agent_sandbox.shared_site import SharedSite
from vibed.drivers.agent_sandbox.shelf import Signed
from vibed.drivers.agent_sandbox.signing import ClaimKeys
from vibed.drivers.agent_sandbox.site_pods import Bounds
from vibed.drivers.agent_sandbox.templates import PodSettings
from vibed.runtimes.templates import load_templates
from vibed.sandboxes.driver import (
    BootFailed,
    Builder,
    Claimed,
    Isolation,
    Limits,
    Mount,
    Run,
    RunFailed,
    Sandbox,
    SandboxLost,
    State,
)
from vibed.sources.store import ServedStore
from vibed.wire import WireError

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

TEMPLATE = "python-313"
WORKERS = "workerd"
SITES_TEMPLATE = "static-nginx"
SETTINGS = PodSettings("registry.example/vibed", "1.0")
_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def agent() -> None:
    """The agent as its sources are now."""
    subprocess.run([sys.executable, "-m", "tests.prepare", "tools"], check=True, cwd=Path(__file__).parents[2])
    programs()


@dataclass
class Controller:
    """One controller's driver, with its watches."""

    driver: AgentSandboxDriver
    watching: asyncio.Task[None]

    async def end(self) -> None:
        await self.driver.close()
        self.watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.watching


@dataclass
class Bed:
    """A namespace with a pool whose pods have agents."""

    client: Client
    namespace: Namespace
    scratch: Path
    agents: Agents
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    owners: dict[str, str] = field(default_factory=dict)
    led: dict[str, list[Claimed]] = field(default_factory=dict)
    """The runs whose names lead to an address."""
    controllers: list[Controller] = field(default_factory=list)

    async def controller(self, keys: ClaimKeys | None = None, *, folder: str = "first") -> AgentSandboxDriver:
        place = Place(
            self.namespace.name,
            self.owners.get,
            lambda app, run: self.scratch / folder / app / f"{run:010d}",
            led_to=lambda address: self.led.get(address, []),
        )
        driver = AgentSandboxDriver(self.client, place, keys or ClaimKeys([self.key]), SETTINGS)
        made = Controller(driver, asyncio.create_task(driver.run()))
        self.controllers.append(made)
        await driver.synced()
        return driver

    async def pooled(self, size: int = 1, *, template: str = TEMPLATE) -> AgentSandboxDriver:
        driver = await self.controller()
        await driver.ensure_pools({template: load_templates()[template]}, {template: size})
        if size:
            await self.ready(template, size)
        return driver

    async def ready(self, template: str, size: int) -> None:
        async with asyncio.timeout(60):
            while True:
                pool = await self.client.get(SANDBOX_WARM_POOL, template, namespace=self.namespace.name)
                if pool.get("status", {}).get("readyReplicas", 0) >= size:
                    return
                await asyncio.sleep(0.1)

    async def claims(self) -> list[dict[str, Any]]:
        found = await self.client.objects(SANDBOX_CLAIM, namespace=self.namespace.name, labels=f"{MANAGED}=vibed")
        return [one for one in found.items if "deletionTimestamp" not in one["metadata"]]

    async def no_claims(self) -> None:
        async with asyncio.timeout(30):
            while await self.claims():
                await asyncio.sleep(0.05)

    def archive(self, files: Mapping[str, str]) -> Path:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(text.encode()), 0o644
                tar.addfile(member, io.BytesIO(text.encode()))
        path = self.scratch / f"{hashlib.sha256(out.getvalue()).hexdigest()}.tar.gz"
        path.write_bytes(out.getvalue())
        return path

    def run(self, files: Mapping[str, str] | None = None, *, app: str = "todo", start: Start | None = None) -> Run:
        # pods have no network of their own here, so each app has a port of its own
        start = replace(start or Start(("python3", "app.py")), port=free_port())
        runtime = Runtime("general", TEMPLATE, "python", "app.py", "test", start=start)
        source = self.archive(files if files is not None else {"app.py": GENERAL_APP})
        return Run(
            app, 3, next(_numbers), source, runtime, {"GREETING": "world"}, Limits(), start_timeout_s=60, app_key="17.5"
        )

    async def start(
        self, driver: AgentSandboxDriver, run: Run | None = None, *, template: str = TEMPLATE
    ) -> PodSandbox:
        run = run or self.run()
        sandbox = await driver.boot(template)
        log_dir = self.scratch / "first" / run.app_id / f"{run.number:010d}"
        self.stages: list[str] = []
        self.started = await sandbox.run(run, socket=Path(), log_dir=log_dir, on_stage=self.stages.append)
        assert isinstance(sandbox, PodSandbox)
        return sandbox

    def log(self, sandbox: Sandbox, folder: str = "first") -> list[str]:
        assert sandbox.claimed is not None
        path = self.scratch / folder / sandbox.claimed.app_id / f"{sandbox.claimed.number:010d}" / "log.jsonl"
        return [json.loads(line)["text"] for line in path.read_text().splitlines()] if path.exists() else []

    async def logged(self, sandbox: Sandbox, text: str, folder: str = "first") -> None:
        async with asyncio.timeout(30):
            while not any(text in line for line in self.log(sandbox, folder)):
                await asyncio.sleep(0.05)

    async def pod_of(self, sandbox: Sandbox) -> str:
        (claim,) = [one for one in await self.claims() if one["metadata"]["name"] == _name(sandbox)]
        return str(claim["status"]["sandbox"]["name"])


def _name(sandbox: Sandbox) -> str:
    assert sandbox.claimed is not None
    return f"{sandbox.claimed.app_id}-{sandbox.claimed.number}"


async def ask(sandbox: Sandbox, path: str = "/", *, run: str | None = None) -> tuple[int, str]:
    """As a router asks."""
    assert sandbox.endpoint is not None and sandbox.claimed is not None
    host, _, port = sandbox.endpoint.address.rpartition(":")
    means = f"{sandbox.claimed.app_id}/{sandbox.claimed.number}" if run is None else run
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        path = "/" + urllib.parse.quote(path[1:], safe="/?=:")
        writer.write(f"GET {path} HTTP/1.1\r\nHost: app\r\nX-Vibed-Run: {means}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode(errors="replace")
    finally:
        writer.close()


@pytest.fixture
async def bed(namespace: Namespace, tmp_path: Path) -> AsyncIterator[Bed]:
    client = Client.connect(kubeconfig=namespace.cluster.config, namespace=namespace.name)
    async with agents(client, namespace.name) as running:
        it = Bed(client, namespace, tmp_path, running)
        try:
            yield it
        finally:
            for one in it.controllers:
                await one.end()
    await client.close()


# The life of a sandbox


async def test_a_run_claims_a_warm_pod_and_is_served_at_its_address(bed: Bed) -> None:
    driver = await bed.pooled()
    sandbox = await driver.boot(TEMPLATE)
    assert (sandbox.state, sandbox.claimed, sandbox.endpoint) == (State.WARM, None, None)
    assert await bed.claims() == []  # a place alone costs nothing

    sandbox = await bed.start(driver)
    assert bed.stages == ["claimed", "injected", "started"]
    assert sandbox.state is State.RUNNING
    assert sandbox.endpoint == bed.started.endpoint
    assert sandbox.endpoint is not None and sandbox.endpoint.address.endswith(f":{INGRESS_PORT}")
    assert await ask(sandbox) == (200, "hello world")
    await bed.logged(sandbox, "app starts")
    (claim,) = await bed.claims()
    pod = await bed.client.get(POD, await bed.pod_of(sandbox), namespace=bed.namespace.name)
    assert claim["metadata"]["name"] == f"todo-{sandbox.claimed and sandbox.claimed.number}"
    assert pod["metadata"]["labels"]["sandbox.users.io/app"] == "todo"

    await sandbox.drain(10)
    ended = await sandbox.wait()
    assert sandbox.state is State.EXITED
    assert (sandbox.exit, sandbox.endpoint) == (ended, None)
    await bed.no_claims()
    await bed.logged(sandbox, "drained: 0 requests open")


async def test_a_pod_gets_its_source_itself_where_it_is_signed_for(bed: Bed) -> None:
    driver = await bed.pooled()
    run = bed.run()
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        body = run.source.read_bytes()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    store = ServedStore(
        bed.scratch / "sources", key=bytes(32), base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    )
    driver._shelf = Signed(store)
    async with server:
        sandbox = await bed.start(driver, run)
    assert await ask(sandbox) == (200, "hello world")
    assert len(asked) == 1 and run.source.name.partition(".")[0] in asked[0]


async def test_a_claim_belongs_to_its_app(vibed_cluster: Cluster, bed: Bed) -> None:
    owner = bed.namespace
    spec = {"owner": "alice", "source": {"tarballRef": "none"}, "runtime": {"lane": "general"}}
    owner.apply({"apiVersion": "vibed.dev/v1alpha1", "kind": "VibedApp", "metadata": {"name": "todo"}, "spec": spec})
    # the garbage collector takes what belongs to an owner that is not there
    bed.owners["todo"] = uid = owner.get("vibedapp", "todo")["metadata"]["uid"]
    driver = await bed.pooled()
    await bed.start(driver)
    (claim,) = await bed.claims()
    (reference,) = claim["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["name"], reference["uid"]) == ("VibedApp", "todo", uid)


async def test_an_address_answers_for_its_own_run_alone(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    assert sandbox.claimed is not None
    for other in ("", f"todo/{sandbox.claimed.number + 1}", f"other/{sandbox.claimed.number}"):
        status, body = await ask(sandbox, run=other)
        assert (status, "hello" in body) == (421, False)


async def test_an_app_finds_nothing_of_the_control_plane(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    _, seen = await ask(sandbox, "/__import__('json').dumps(dict(os.environ))")
    assert not [name for name in json.loads(seen) if name.startswith(("VIBED_", "KUBERNETES_"))]
    for what in ("environ", "mem", "fd"):
        _, seen = await ask(sandbox, f"/open(f'/proc/{{os.getppid()}}/{what}').read(1)")
        assert "Permission" in seen or "Error" in seen


# Sites


def a_site(bed: Bed, app: str, files: Mapping[str, str], **more: Any) -> Run:
    runtime = Runtime("fast", SITES_TEMPLATE, "static", "index.html", "test", **more)
    return replace(bed.run(files, app=app), runtime=runtime)


async def hosted(bed: Bed, driver: AgentSandboxDriver, run: Run) -> SharedSite:
    site = await driver.boot(SITES_TEMPLATE)
    stages: list[str] = []
    await site.run(run, socket=Path(), log_dir=bed.scratch / "log", on_stage=stages.append)
    assert stages == ["claimed", "injected", "started"]
    assert isinstance(site, SharedSite)
    return site


async def test_a_log_that_the_disk_refuses_for_a_while_is_copied_when_it_does_not(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    driver = await bed.pooled()
    (bed.scratch / "first").mkdir()
    in_the_way = bed.scratch / "first" / "todo"
    in_the_way.touch()
    sandbox = await bed.start(driver)
    async with asyncio.timeout(30):
        while "cannot be copied" not in caplog.text:
            await asyncio.sleep(0.05)
    assert (await ask(sandbox))[0] == 200
    in_the_way.unlink()
    await bed.logged(sandbox, "app starts")
    await sandbox.destroy()


async def test_what_does_not_fit_into_its_pod_is_refused_before_a_node_evicts_it_again_and_again(bed: Bed) -> None:
    driver = await bed.pooled()
    large = bed.scratch / "large.tar.gz"
    with large.open("wb") as file:
        file.truncate((2 * load_templates()[TEMPLATE].resources.disk_mb << 20) + 1)
    with pytest.raises(RunFailed, match="takes 1025 MB packed, and its sandbox has 1024") as refused:
        await bed.start(driver, replace(bed.run(), mounts=(Mount(large, "/layers/python"),)))
    assert (refused.value.error_code, refused.value.may_retry) == ("DiskFull", False)
    await bed.no_claims()


async def test_a_site_is_served_by_a_pod(bed: Bed) -> None:
    driver = await bed.pooled(template=SITES_TEMPLATE)
    files = {"index.html": "<p>home", "style.css": "p {}", "_redirects": "/old / 302\n", ".env": "SECRET=1"}
    site = await hosted(bed, driver, a_site(bed, "pages", files))
    assert await ask(site) == (200, "<p>home")
    assert (await ask(site, "/old"))[0] == 302
    assert (await ask(site, "/.env"))[0] == 404
    assert (await ask(site, "/types.json"))[0] == 404
    single = await hosted(bed, driver, a_site(bed, "single", {"index.html": "an app"}, spa=True))
    assert await ask(single, "/any/path") == (200, "an app")


async def test_many_sites_share_a_pod_and_each_is_answered_for_by_its_own_run(bed: Bed, monkeypatch: Any) -> None:
    monkeypatch.setattr(site_pods, "_IDLE_S", 0.2)
    driver = await bed.pooled(template=SITES_TEMPLATE)
    names = ("one", "two", "three")
    found = await asyncio.gather(
        *(hosted(bed, driver, a_site(bed, name, {"index.html": name, "big.txt": "x" * 9000})) for name in names)
    )
    (claim,) = await bed.claims()
    assert "ownerReferences" not in claim["metadata"], "it goes with no app"
    assert len({site.endpoint and site.endpoint.address for site in found}) == 1
    for name, site in zip(names, found, strict=True):
        assert await ask(site) == (200, name)
    one, two, three = found
    again = await hosted(bed, driver, a_site(bed, "one", {"index.html": "one, again"}))
    assert (await ask(one), await ask(again)) == ((200, "one"), (200, "one, again"))
    assert (await ask(one, run="one/999999"))[0] == 421

    pod = bed.agents.folder(str(claim["status"]["sandbox"]["name"]))
    endpoint, number = one.endpoint, one.claimed and one.claimed.number
    assert (pod / f"app/sites/one/{number}/big.txt").exists()
    files = (pod / f"app/sites/one/{number}").resolve()
    await one.drain(0.1)
    assert (one.state, one.endpoint) == (State.EXITED, None)
    again._endpoint = endpoint
    assert (await ask(again, run=f"one/{number}"))[0] == 421, "its name leads elsewhere by now"
    assert await ask(again) == (200, "one, again")
    async with asyncio.timeout(20):
        while files.exists():
            await asyncio.sleep(0.1)
    assert len(await bed.claims()) == 1
    for site in (two, three, again):
        await site.destroy(0)
    await bed.no_claims()  # nobody needs the pod any more


async def test_a_site_that_is_ended_while_it_is_handed_over_is_not_left_in_its_pod(bed: Bed) -> None:
    driver = await bed.pooled(template=SITES_TEMPLATE)
    stays = await hosted(bed, driver, a_site(bed, "stays", {"index.html": "here"}))
    given_up = await driver.boot(SITES_TEMPLATE)
    ending: list[asyncio.Task[None]] = []

    def on_stage(stage: str) -> None:
        ending.append(asyncio.create_task(given_up.destroy(0)))  # a pod was found, and is handed the site now

    with pytest.raises(SandboxLost):
        run = a_site(bed, "given-up", {"index.html": "nobody wants it"})
        await given_up.run(run, socket=Path(), log_dir=bed.scratch / "log", on_stage=on_stage)
    await asyncio.gather(*ending)
    assert given_up.claimed is not None
    assert (await ask(stays, run=f"given-up/{given_up.claimed.number}"))[0] == 421
    assert await ask(stays) == (200, "here")


async def test_an_app_that_is_made_anew_has_its_own_site_though_its_runs_are_numbered_anew(bed: Bed) -> None:
    driver = await bed.pooled(template=SITES_TEMPLATE)
    run = replace(a_site(bed, "again", {"index.html": "the first owner's"}), number=1, app_key="1")
    first = await hosted(bed, driver, run)
    anew = replace(a_site(bed, "again", {"index.html": "the second owner's"}), number=1, app_key="2")
    second, _ = await asyncio.gather(hosted(bed, driver, anew), first.destroy(0))
    assert await ask(second) == (200, "the second owner's")
    await asyncio.sleep(3)  # when the files of the first go
    assert await ask(second) == (200, "the second owner's")


async def test_sites_that_are_alike_may_come_at_the_same_time(bed: Bed) -> None:
    driver = await bed.pooled(template=SITES_TEMPLATE)
    runs = [a_site(bed, f"same-{n}", {"index.html": "the same"}) for n in range(12)]
    for site in await asyncio.gather(*(hosted(bed, driver, run) for run in runs)):
        assert await ask(site) == (200, "the same")
    assert len(await bed.claims()) == 1


async def test_a_pod_takes_so_many_sites_and_bytes_and_then_there_is_another(bed: Bed) -> None:
    driver = await bed.pooled(2, template=SITES_TEMPLATE)
    driver.site_bounds = Bounds(2, 64 << 10)
    sites = [await hosted(bed, driver, a_site(bed, f"s{n}", {"index.html": str(n)})) for n in range(3)]
    addresses = [site.endpoint.address for site in sites if site.endpoint is not None]
    assert addresses[0] == addresses[1] != addresses[2]
    large = {"index.html": "large", "a.txt": "x" * (50 << 10)}
    fits_neither = await hosted(bed, driver, a_site(bed, "large", large))
    assert fits_neither.endpoint is not None and fits_neither.endpoint.address not in addresses[:2]
    assert await ask(fits_neither) == (200, "large")
    with pytest.raises(RunFailed) as failed:
        await hosted(bed, driver, a_site(bed, "huge", {"index.html": "", "a.txt": "x" * (70 << 10)}))
    assert failed.value.error_code == "DiskFull"


async def test_a_site_that_was_served_before_its_bound_was_lowered_gets_a_pod_that_it_fills_alone(bed: Bed) -> None:
    driver = await bed.pooled(2, template=SITES_TEMPLATE)
    driver.site_bounds = Bounds(10, 64 << 10)
    small = await hosted(bed, driver, a_site(bed, "small", {"index.html": "small"}))
    run = a_site(bed, "large", {"index.html": "large", "a.txt": "x" * (70 << 10)})
    large = await hosted(bed, driver, replace(run, served_before=True))
    assert await ask(large) == (200, "large")
    assert large.endpoint is not None and large.endpoint != small.endpoint
    another = await hosted(bed, driver, a_site(bed, "another", {"index.html": "another"}))
    assert another.endpoint == small.endpoint
    with pytest.raises(RunFailed) as failed:  # its pod's volume has no room for it
        run = a_site(bed, "huge", {"index.html": "huge", "a.txt": "x" * (140 << 10)})
        await hosted(bed, driver, replace(run, served_before=True))
    assert failed.value.error_code == "DiskFull"


async def test_sites_whose_pod_goes_are_lost_and_can_be_had_again(bed: Bed) -> None:
    driver = await bed.pooled(2, template=SITES_TEMPLATE)
    sites = [await hosted(bed, driver, a_site(bed, name, {"index.html": name})) for name in ("one", "two")]
    (claim,) = await bed.claims()
    bed.namespace.kubectl("delete", "pod", claim["status"]["sandbox"]["name"], "--wait=false")
    for site in sites:
        ended = await asyncio.wait_for(site.wait(), 30)
        assert (ended.known, site.endpoint, site.state) == (False, None, State.EXITED)
    again = await hosted(bed, driver, a_site(bed, "one", {"index.html": "back"}))
    assert await ask(again) == (200, "back")


async def test_the_next_controller_finds_the_sites_of_a_pod(bed: Bed) -> None:
    driver = await bed.pooled(template=SITES_TEMPLATE)
    sites = [await hosted(bed, driver, a_site(bed, name, {"index.html": name})) for name in ("one", "two")]
    await bed.controllers.pop().end()
    driver = await bed.controller(folder="second")
    await driver.ensure_pools({SITES_TEMPLATE: load_templates()[SITES_TEMPLATE]}, {SITES_TEMPLATE: 1})
    adopted = {site.claimed and site.claimed.app_id: site for site in await driver.adopt()}
    assert {name: site.claimed for name, site in adopted.items()} == {
        site.claimed and site.claimed.app_id: site.claimed for site in sites
    }
    assert await ask(adopted["two"]) == (200, "two")
    another = await hosted(bed, driver, a_site(bed, "three", {"index.html": "three"}))
    assert len(await bed.claims()) == 1, "it has room in the same pod"
    await adopted["one"].destroy(0)
    assert await ask(another) == (200, "three")
    assert (await ask(another, run=f"one/{sites[0].claimed and sites[0].claimed.number}"))[0] == 421


async def test_a_pod_of_sites_that_knows_the_key_before_takes_more_of_them_once_that_is_renewed(bed: Bed) -> None:
    driver = await bed.pooled(template=SITES_TEMPLATE)
    await hosted(bed, driver, a_site(bed, "one", {"index.html": "one"}))
    await bed.controllers.pop().end()
    driver = await bed.controller(ClaimKeys([Ed25519PrivateKey.generate(), bed.key]), folder="second")
    driver._templates = {SITES_TEMPLATE: load_templates()[SITES_TEMPLATE]}  # its pool is not refilled yet
    await driver.adopt()
    another = await hosted(bed, driver, a_site(bed, "two", {"index.html": "two"}))
    assert await ask(another) == (200, "two")
    assert len(await bed.claims()) == 1, "it has room in the same pod"


async def _two_sites_of_which_one_is_led_to(bed: Bed) -> tuple[SharedSite, SharedSite]:
    """In one pod; their controller has ended."""
    driver = await bed.pooled(template=SITES_TEMPLATE)
    one, two = [await hosted(bed, driver, a_site(bed, name, {"index.html": name})) for name in ("one", "two")]
    assert one.claimed is not None and one.endpoint is not None
    bed.led[one.endpoint.address] = [one.claimed]
    await bed.controllers.pop().end()
    return one, two


async def _goes_on_with_one(bed: Bed, driver: AgentSandboxDriver, one: SharedSite, two: SharedSite) -> None:
    """Once the pod says what it has: its name's site is served as before, nobody's site goes, and it takes others."""
    async with asyncio.timeout(40):
        while (await ask(two))[0] != 421:
            await asyncio.sleep(0.1)
    assert await ask(one) == (200, "one")
    another = await hosted(bed, driver, a_site(bed, "three", {"index.html": "three"}))
    assert await ask(another) == (200, "three")
    assert len(await bed.claims()) == 1


async def test_a_pod_that_does_not_say_which_sites_it_has_keeps_those_whose_names_lead_there(
    bed: Bed, monkeypatch: Any
) -> None:
    monkeypatch.setattr(site_pods, "_LISTED_WITHIN_S", 0.5)
    one, two = await _two_sites_of_which_one_is_led_to(bed)
    (claim,) = await bed.claims()
    pod = str(claim["status"]["sandbox"]["name"])
    bed.agents.freeze(pod)
    driver = await bed.controller(folder="second")
    driver._templates = {SITES_TEMPLATE: load_templates()[SITES_TEMPLATE]}  # its pool is not refilled yet
    (adopted,) = await driver.adopt()
    assert (adopted.claimed, adopted.endpoint) == (one.claimed, one.endpoint)
    assert [claim["metadata"]["uid"]] == [left["metadata"]["uid"] for left in await bed.claims()]
    bed.agents.thaw(pod)
    await _goes_on_with_one(bed, driver, one, two)
    assert adopted.exit is None


async def test_a_pod_that_answers_with_a_passing_error_when_it_is_asked_for_its_sites_is_asked_again(
    bed: Bed, monkeypatch: Any
) -> None:
    monkeypatch.setattr(site_pods, "_LISTED_WITHIN_S", 0.5)
    one, two = await _two_sites_of_which_one_is_led_to(bed)
    assert one._pod is not None and one._pod.pod._got is not None
    where = one._pod.pod._got.where
    friends: list[AgentLine] = []
    with pytest.raises(WireError):  # no more can be connected
        while True:
            friends.append(AgentLine(where, ClaimKeys([bed.key]), lambda event: None))
            await friends[-1].call("status", 5)
    driver = await bed.controller(folder="second")
    driver._templates = {SITES_TEMPLATE: load_templates()[SITES_TEMPLATE]}
    (adopted,) = await driver.adopt()
    assert adopted.claimed == one.claimed
    assert (await ask(one), await ask(two)) == ((200, "one"), (200, "two"))
    for friend in friends:
        await friend.close()
    await _goes_on_with_one(bed, driver, one, two)
    assert adopted.exit is None


async def test_a_pod_of_sites_that_never_came_to_serve_any_goes(bed: Bed) -> None:
    driver = await bed.pooled(template=SITES_TEMPLATE)
    wanted = Wanted(SITES, 7, 1, SETTINGS.image_tag, "", pool=SITES_TEMPLATE, sandbox="s0123456789a")
    got = await driver.claims.get_one(wanted)
    await AgentLine(got.where, ClaimKeys([bed.key]), lambda event: None).claim()
    await bed.controllers.pop().end()
    driver = await bed.controller(folder="second")
    assert await driver.adopt() == []
    await bed.no_claims()


# Workers


def a_worker(bed: Bed, files: Mapping[str, str], entry: str = "worker.js", **options: Any) -> Run:
    bundle = bool(options.pop("bundle", False))
    runtime = Runtime("fast", WORKERS, "worker", entry, "test", bundle=bundle, options=options)
    return replace(bed.run(files), runtime=runtime)


async def test_a_worker_runs_in_a_pod_with_its_variables_its_assets_and_its_log(bed: Bed) -> None:
    files = {"worker.js": WORKER, "public/page.html": "<p>an asset", "public/.env": "SECRET=1"}
    run = a_worker(bed, files, assets={"directory": "public"})
    sandbox = await bed.start(await bed.pooled(template=WORKERS), run, template=WORKERS)
    assert await ask(sandbox) == (200, "hello world")
    assert await ask(sandbox, "/page") == (200, "<p>an asset")
    assert (await ask(sandbox, "/.env"))[1] != "SECRET=1"
    assert (await ask(sandbox, "/read?path=/etc/passwd"))[1].startswith("refused")
    assert (await ask(sandbox, "/fetch?to=http://127.0.0.1:20081"))[1].startswith("refused")
    await bed.logged(sandbox, "app starts")
    left = [path.name for path in bed.agents.folder(await bed.pod_of(sandbox)).glob("app/*")]
    assert left == ["site"], "what it was given as variables is in no file"
    await sandbox.drain(5)
    await bed.no_claims()


async def test_what_a_worker_needs_to_be_bundled_for_is_bundled_in_its_pod(bed: Bed) -> None:
    source = """
        import { Hono } from "hono";
        import { word } from "./word";
        const app = new Hono<{ Bindings: { GREETING: string } }>();
        app.get("/", (c) => c.text(`${word} ${c.env.GREETING}`));
        export default app;
    """
    # more than fits into one answer of the agent's
    word = f"export const filling = {'y' * 900_000!r}; export const word: string = 'hi' + filling.length"
    run = a_worker(bed, {"src/index.ts": source, "src/word.ts": word}, "src/index.ts", bundle=True)
    driver = await bed.pooled(2, template=WORKERS)
    assert await ask(await bed.start(driver, run, template=WORKERS)) == (200, "hi900000 world")
    with pytest.raises(RunFailed) as failed:
        source = "import a from 'left-pad'; import b from '@scope/other'; export default { fetch() { a(b) } }"
        await bed.start(driver, a_worker(bed, {"worker.js": source}), template=WORKERS)
    assert failed.value.error_code == "DependenciesMissing"
    assert "'left-pad', '@scope/other'" in failed.value.message


async def test_a_worker_that_is_refused_is_told_why_and_one_that_spins_is_ended(bed: Bed) -> None:
    driver = await bed.pooled(2, template=WORKERS)
    with pytest.raises(RunFailed) as failed:
        await bed.start(driver, a_worker(bed, {"worker.js": "export default { queue() {} }"}), template=WORKERS)
    assert failed.value.error_code == "WorkerRejected"
    assert "no fetch handler" in failed.value.message
    sandbox = await bed.start(driver, a_worker(bed, {"worker.js": WORKER}), template=WORKERS)
    with contextlib.suppress(OSError, IndexError):
        await ask(sandbox, "/spin")
    assert (await asyncio.wait_for(sandbox.wait(), 30)).signal == "SIGKILL"
    assert "the worker did not yield for 5 s" in bed.log(sandbox)
    await bed.no_claims()


async def test_where_there_are_workers_only_the_probe_runs_one(bed: Bed) -> None:
    probe = await (await bed.pooled(template=WORKERS)).probe()
    assert probe.ok, probe.detail
    await bed.no_claims()


async def test_the_probe_serves_a_page_and_tells_what_the_agent_has_measured(bed: Bed) -> None:
    driver = await bed.pooled()
    probe = await driver.probe()
    assert probe.ok, probe.detail
    assert probe.isolation is driver.isolation is Isolation.PROCESS
    assert "the kernel was not booted for this pod" in probe.detail
    await bed.no_claims()


async def test_a_pod_that_stands_in_too_little_gets_no_code_whatever_the_probe_has_found(bed: Bed) -> None:
    driver = await bed.pooled()
    with pytest.raises(SandboxLost) as refused:
        await bed.start(driver, replace(bed.run(), least=Isolation.KERNEL))
    assert (refused.value.error_code, refused.value.may_retry) == ("IsolationTooLow", True)
    assert "at isolation 'process' (kernel " in refused.value.message
    assert not bed.stages
    await bed.no_claims()
    sandbox = await bed.start(driver, replace(bed.run(), least=Isolation.PROCESS))
    assert sandbox.isolation is Isolation.PROCESS


async def test_what_there_is_no_pool_of_does_not_boot(bed: Bed) -> None:
    driver = await bed.pooled(0)
    with pytest.raises(BootFailed):
        await driver.boot("cobol-59")
    with pytest.raises(BootFailed):
        await driver.boot(TEMPLATE, builder=Builder())


async def test_templates_that_are_not_wanted_any_more_lose_their_pools(bed: Bed) -> None:
    driver = await bed.controller()
    templates = load_templates()
    await driver.ensure_pools({name: templates[name] for name in ("python-313", "node-24")}, {})
    await driver.ensure_pools({"node-24": templates["node-24"]}, {"node-24": 1})
    there = {one["metadata"]["name"]: one for one in bed.namespace.get("sandboxwarmpools")["items"]}
    assert [name for name, one in there.items() if "deletionTimestamp" not in one["metadata"]] == ["node-24"]
    assert there["node-24"]["spec"]["replicas"] == 1


# How runs fail and end


async def test_an_app_that_does_not_start_is_told_with_its_words_and_leaves_no_claim(bed: Bed) -> None:
    driver = await bed.pooled()
    with pytest.raises(RunFailed) as failed:
        await bed.start(driver, bed.run({"app.py": "print('so far', flush=True)\nimport nothing_of_that_name\n"}))
    assert "nothing_of_that_name" in failed.value.message
    assert failed.value.exit is not None and failed.value.exit.code == 1
    await bed.no_claims()


async def test_last_words_are_told_however_long_the_supervisor_takes_to_say_that_it_has_ended(bed: Bed) -> None:
    driver = await bed.pooled()
    # a process that goes on with the app's output keeps whoever reads that from its end
    code = """
import subprocess, sys
subprocess.Popen(["sleep", "60"], start_new_session=True)
print("the table is missing", file=sys.stderr)
sys.exit(3)
"""
    with pytest.raises(RunFailed) as failed:
        await bed.start(driver, bed.run({"app.py": code}))
    assert failed.value.exit is not None
    assert failed.value.exit.tail[-1] == "the table is missing"
    await bed.no_claims()


async def test_an_app_that_ends_is_told_with_its_status_and_its_log_is_whole(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    with contextlib.suppress(OSError, IndexError):
        await ask(sandbox, "/print('last words', flush=True) or os._exit(3)")
    ended = await asyncio.wait_for(sandbox.wait(), 30)
    assert (ended.code, ended.signal, ended.oom) == (3, None, False)
    assert [line for line in bed.log(sandbox) if line in ("last words", "exited with status 3")] == [
        "last words",
        "exited with status 3",
    ]
    await bed.no_claims()


async def test_a_pod_that_is_deleted_is_a_lost_sandbox_and_not_the_apps_fault(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    bed.namespace.kubectl("delete", "pod", await bed.pod_of(sandbox), "--wait=false")
    ended = await asyncio.wait_for(sandbox.wait(), 30)
    assert not ended.known
    assert sandbox.endpoint is None
    await bed.no_claims()


async def test_a_claim_that_somebody_deletes_ends_its_sandbox(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    bed.namespace.kubectl("delete", "sandboxclaim", _name(sandbox), "--wait=false")
    assert not (await asyncio.wait_for(sandbox.wait(), 30)).known


async def test_a_pod_that_is_evicted_is_a_lost_sandbox(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    bed.namespace.evict(await bed.pod_of(sandbox))
    assert not (await asyncio.wait_for(sandbox.wait(), 30)).known
    await bed.no_claims()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes tenths of them."""
    for name, seconds in {"_BEAT_S": 0.4, "_BEAT_ANSWER_S": 0.8, "_UNREACHABLE_S": 2.0, "_WITNESS_S": 1.2}.items():
        monkeypatch.setattr(sandboxes, name, seconds)
    monkeypatch.setattr(lines, "_CONNECT_S", 0.5)


async def test_a_pod_whose_node_is_gone_without_a_word_is_a_lost_sandbox(bed: Bed, impatient: None) -> None:
    sandbox = await bed.start(await bed.pooled())
    pod = await bed.pod_of(sandbox)
    bed.agents.freeze(pod)
    bed.namespace.unready(pod)
    assert not (await asyncio.wait_for(sandbox.wait(), 30)).known
    await bed.no_claims()


async def test_a_pod_that_is_not_ready_and_answers_is_not_lost(bed: Bed, impatient: None) -> None:
    sandbox = await bed.start(await bed.pooled())
    bed.namespace.unready(await bed.pod_of(sandbox))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sandbox.wait(), 4)
    assert await ask(sandbox) == (200, "hello world")


async def test_a_silent_agent_is_lost_if_another_is_heard_and_not_if_all_are_silent(bed: Bed, impatient: None) -> None:
    driver = await bed.pooled(2)
    one, other = await bed.start(driver), await bed.start(driver, bed.run(app="other"))
    pods = [await bed.pod_of(one), await bed.pod_of(other)]
    for pod in pods:
        bed.agents.freeze(pod)
    ending = asyncio.create_task(one.wait())
    # it may be the controller that is cut off, and pods are said to be ready
    await asyncio.wait([ending], timeout=4)
    assert not ending.done()
    assert other.exit is None
    bed.agents.thaw(pods[1])
    assert not (await asyncio.wait_for(ending, 30)).known
    assert await ask(other) == (200, "hello world")
    (claim,) = await bed.claims()
    assert claim["metadata"]["name"] == _name(other)


async def test_a_pod_that_was_killed_for_its_memory_says_so(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    pod = await bed.pod_of(sandbox)
    # the kernel kills all of a container at once, its agent too
    bed.agents.process(pod).kill()
    bed.namespace.killed_for_memory(pod)
    ended = await asyncio.wait_for(sandbox.wait(), 30)
    assert (ended.oom, ended.known) == (True, True)
    await bed.no_claims()


async def test_a_pod_that_had_failed_when_it_was_given_out_is_claimed_again(bed: Bed) -> None:
    driver = await bed.pooled()
    (failed,) = bed.namespace.get("pods")["items"]
    name = failed["metadata"]["name"]
    bed.namespace.kubectl(
        "patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"phase": "Failed"}})
    )
    async with asyncio.timeout(30):
        while True:
            pods = bed.namespace.get("sandbox", name)["status"].get("conditions", ())
            if any(one["reason"] == "PodFailed" for one in pods):
                break
            await asyncio.sleep(0.1)
    sandbox = await bed.start(driver)
    assert await ask(sandbox) == (200, "hello world")
    (claim,) = await bed.claims()
    assert claim["status"]["sandbox"]["name"] != name


async def test_a_sandbox_runs_once(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    with pytest.raises(SandboxLost) as refused:
        await sandbox.run(bed.run(), socket=Path(), log_dir=bed.scratch / "again", on_stage=lambda stage: None)
    assert refused.value.error_code == "AlreadyClaimed"
    assert await ask(sandbox) == (200, "hello world")


async def test_a_run_that_is_given_up_leaves_no_claim(bed: Bed) -> None:
    driver = await bed.pooled(0)
    # nobody answers at the pod that will be made
    bed.agents.stop()
    starting = asyncio.create_task(bed.start(driver))
    async with asyncio.timeout(30):
        while not await bed.claims():
            await asyncio.sleep(0.05)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError, SandboxLost):
        await starting
    await bed.no_claims()


async def test_handing_over_tells_the_proxy_to_let_go(bed: Bed) -> None:
    driver = await bed.pooled(2)
    old, new = await bed.start(driver), await bed.start(driver)
    await old.hand_over(new)
    assert await ask(old) == (200, "hello world")  # whoever still comes is served
    await old.drain(10)
    assert await ask(new) == (200, "hello world")


# A controller after another one


async def test_the_next_controller_goes_on_with_what_runs(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    await bed.logged(sandbox, "app starts")
    before = sandbox.endpoint
    await bed.controllers.pop().end()

    driver = await bed.controller(folder="second")
    (adopted,) = await driver.adopt()
    assert adopted.claimed == sandbox.claimed
    assert (adopted.state, adopted.endpoint, adopted.template) == (State.RUNNING, before, TEMPLATE)
    assert await ask(adopted) == (200, "hello world")
    await bed.logged(adopted, "app starts", "second")  # all of the log, though this one has seen none of it
    await adopted.destroy()
    await bed.no_claims()


async def test_a_key_that_was_renewed_still_opens_what_the_old_one_claimed(bed: Bed) -> None:
    await bed.start(await bed.pooled())
    await bed.controllers.pop().end()
    driver = await bed.controller(ClaimKeys([Ed25519PrivateKey.generate(), bed.key]))
    (adopted,) = await driver.adopt()
    assert await ask(adopted) == (200, "hello world")


async def test_a_controller_of_before_that_leads_while_the_key_is_changed_ends_no_app(bed: Bed) -> None:
    both = ClaimKeys([Ed25519PrivateKey.generate(), bed.key])
    driver = await bed.controller(both)
    await driver.ensure_pools({TEMPLATE: load_templates()[TEMPLATE]}, {TEMPLATE: 1})
    await bed.ready(TEMPLATE, 1)
    sandbox = await bed.start(driver)
    got = sandbox._got
    assert got is not None
    await bed.controllers.pop().end()

    (adopted,) = await (await bed.controller()).adopt()  # it knows the earlier key alone
    assert (adopted.state, adopted.endpoint) == (State.STARTING, sandbox.endpoint)
    with pytest.raises(SandboxLost):
        await adopted.requests()
    assert adopted.exit is None
    assert await ask(adopted) == (200, "hello world")
    await bed.controllers.pop().end()

    (adopted,) = await (await bed.controller(both)).adopt()
    assert adopted.state is State.RUNNING
    (claim,) = await bed.claims()
    assert claim["metadata"]["uid"] == got.uid


async def test_a_pod_that_waited_while_the_key_was_renewed_is_claimed_all_the_same(bed: Bed) -> None:
    await bed.pooled()  # of pods that know the old key alone
    await bed.controllers.pop().end()
    renewed = ClaimKeys([Ed25519PrivateKey.generate(), bed.key])
    driver = await bed.controller(renewed)
    driver._templates = {TEMPLATE: load_templates()[TEMPLATE]}  # the pools are not refilled yet
    assert await ask(await bed.start(driver)) == (200, "hello world")
    # and when they are, their pods know both
    await driver.ensure_pools({TEMPLATE: load_templates()[TEMPLATE]}, {TEMPLATE: 1})
    template = bed.namespace.get("sandboxtemplate", TEMPLATE)
    env = template["spec"]["podTemplate"]["spec"]["containers"][0]["env"]
    assert {"name": "VIBED_CLAIM_KEYS", "value": renewed.public} in env


async def test_what_a_controller_claimed_and_never_used_goes(bed: Bed) -> None:
    await bed.pooled()
    body = {
        "apiVersion": SANDBOX_CLAIM.api_version,
        "kind": SANDBOX_CLAIM.kind,
        "metadata": {
            "name": "todo-9",
            "labels": {MANAGED: "vibed", "vibed.dev/app": "todo", "vibed.dev/run": "9", "vibed.dev/version": "1"},
        },
        "spec": {"warmPoolRef": {"name": TEMPLATE}},
    }
    bed.namespace.apply(body)
    bed.namespace.wait("sandboxclaim/todo-9", "condition=Ready")
    await bed.controllers.pop().end()
    driver = await bed.controller()
    assert await driver.adopt() == []
    await bed.no_claims()


async def test_an_agent_that_answers_the_next_controller_with_an_error_is_asked_again_and_keeps_its_claim(
    bed: Bed,
) -> None:
    sandbox = await bed.start(await bed.pooled())
    got = sandbox._got
    assert got is not None
    await bed.controllers.pop().end()
    friends: list[AgentLine] = []
    with pytest.raises(WireError) as refused:  # no more can be connected
        while True:
            friends.append(AgentLine(got.where, ClaimKeys([bed.key]), lambda event: None))
            await friends[-1].call("status", 5)
    assert (refused.type, refused.value.error_code) == (WireError, "Internal")
    driver = await bed.controller()
    (adopted,) = await driver.adopt()
    assert (adopted.state, adopted.endpoint) == (State.STARTING, sandbox.endpoint)
    assert await ask(adopted) == (200, "hello world")
    for friend in friends:
        await friend.close()
    async with asyncio.timeout(30):
        while adopted.state is not State.RUNNING:
            await asyncio.sleep(0.05)
    (claim,) = await bed.claims()
    assert claim["metadata"]["uid"] == got.uid


async def test_a_pod_that_is_silent_while_it_is_taken_over_goes_on_when_it_is_heard(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    pod = await bed.pod_of(sandbox)
    await bed.controllers.pop().end()
    bed.agents.freeze(pod)
    driver = await bed.controller()
    (adopted,) = await driver.adopt()
    assert (adopted.state, adopted.endpoint) == (State.STARTING, sandbox.endpoint)
    bed.agents.thaw(pod)
    async with asyncio.timeout(30):
        while adopted.state is not State.RUNNING:
            await asyncio.sleep(0.05)
    assert await ask(adopted) == (200, "hello world")


# Whose a pod is


async def test_another_controllers_key_opens_nothing(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    got = sandbox._got
    assert got is not None
    stranger = AgentLine(got.where, ClaimKeys([Ed25519PrivateKey.generate()]), lambda event: None)
    with pytest.raises(NotOurs) as refused:
        await stranger.call("status", 5)
    assert refused.value.error_code == "WrongToken"
    assert refused.value.asked
    with pytest.raises(NotOurs) as refused:
        await stranger.call("status", 5)
    assert not refused.value.asked, "known from before, which is no sign that the pod is there"
    with pytest.raises(NotOurs) as refused:
        await stranger.claim()
    assert refused.value.error_code == "ClaimRefused"


async def test_a_pod_is_never_two_claims(bed: Bed) -> None:
    sandbox = await bed.start(await bed.pooled())
    got = sandbox._got
    assert got is not None
    other = replace(got.where, claim="todo-99", claim_uid="another")
    with pytest.raises(NotOurs) as refused:
        await AgentLine(other, ClaimKeys([bed.key]), lambda event: None).claim()
    assert refused.value.error_code == "AlreadyClaimed"


async def test_who_stands_between_gets_neither_a_claim_nor_a_token_through(bed: Bed, monkeypatch: Any) -> None:
    await bed.pooled()
    (pod,) = bed.namespace.get("pods")["items"]
    heard: list[bytes] = []
    ip = pod["status"]["podIP"]

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        heard.append(line)
        up_reader, up_writer = await asyncio.open_connection(ip, 20081, ssl=_trusting())
        up_writer.write(line)
        writer.write(await up_reader.readline())
        await writer.drain()
        writer.close()
        up_writer.close()

    between = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=_server(bed.scratch))
    port = between.sockets[0].getsockname()[1]
    from vibed.drivers.agent_sandbox.line import Where

    monkeypatch.setattr(lines, "CONTROL_PORT", port)
    where = Where("todo-1", "uid", bed.namespace.name, pod["metadata"]["name"], pod["metadata"]["uid"], "127.0.0.1")
    line = AgentLine(where, ClaimKeys([bed.key]), lambda event: None)
    async with between:
        with pytest.raises(NotOurs) as refused:
            await line.claim()
    assert refused.value.error_code == "ClaimRefused"
    assert "somebody is between" in refused.value.message
    assert heard


def _trusting() -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _server(folder: Path) -> Any:
    import ssl

    key, certificate = folder / "key.pem", folder / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=between"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_pods_keep_to_the_restricted_standard(bed: Bed) -> None:
    driver = await bed.pooled(0)
    assert driver is not None
    bed.namespace.cluster.kubectl(
        "label", "namespace", bed.namespace.name, "pod-security.kubernetes.io/enforce=restricted"
    )
    spec = bed.namespace.get("sandboxtemplate", TEMPLATE)["spec"]["podTemplate"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    bed.namespace.kubectl("create", "--dry-run=server", "-f", "-", given=pod)
