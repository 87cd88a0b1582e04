"""Layers ahead, told by the controller's own code to real agents: who is told of what, and what an app then has."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.contract.driver_kit import programs
from tests.e2e.waiting import eventually
from tests.unit.certificates import authority, signed
from vibed.drivers.agent_sandbox.ahead import AT_ONCE, Ahead
from vibed.drivers.agent_sandbox.claims import POD_APP
from vibed.drivers.agent_sandbox.line import CONTROL_PORT, AgentLine, Where
from vibed.drivers.agent_sandbox.shelf import Remote, Sent
from vibed.drivers.agent_sandbox.signing import ClaimKeys
from vibed.drivers.agent_sandbox.templates import POOL, TEMPLATE
from vibed.drivers.packing import packed
from vibed.sandboxes.driver import Mount

NAMESPACE = "vibed-apps"
MOST = 1 << 20


@dataclass
class Bucket(Sent):
    """Layers, and how often each was got."""

    things: dict[str, bytes] = field(default_factory=dict)
    got: list[str] = field(default_factory=list)
    port: int = 0
    signature: str = ""
    """What the addresses of layers end with."""

    def __post_init__(self) -> None:
        super().__init__()

    def layer_of(self, **files: bytes) -> Mount:
        data = packed({f"lib/{name}.py": text for name, text in files.items()})
        digest = hashlib.sha256(data).hexdigest()
        self.things[digest] = data
        return Mount(Path(f"{digest}.tar.gz"), "/layers/python")

    async def layer(self, mount: Mount) -> Remote | None:
        digest = mount.source.name.removesuffix(".tar.gz")
        return Remote(f"http://127.0.0.1:{self.port}/{digest}?{self.signature}", digest, len(self.things[digest]))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        digest = head.split()[1].strip("/").partition("?")[0]
        self.got.append(digest)
        body = self.things[digest]
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()


@dataclass
class World:
    bucket: Bucket
    ahead: Ahead
    keys: ClaimKeys
    folder: Path
    pods: list[dict[str, Any]] = field(default_factory=list)
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def pod(self, **labels: str) -> dict[str, Any]:
        """One that is ready, with a real agent at its address."""
        uid = secrets.token_hex(8)
        ip = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}.{secrets.randbelow(250) + 1}"
        place = self.folder / uid
        for name in ("run", "app", "home", "layers"):
            (place / name).mkdir(parents=True)
        flags = {"-host": ip, "-dir": "run", "-app": "app", "-home": "home", "-layers": "layers"}
        argv = [str(programs().path("vibed-agent")), "pod", "-zygotes", "/nowhere", "-env", "/nowhere"]
        for flag, value in flags.items():
            argv += [flag, value if flag == "-host" else str(place / value)]
        env = {"VIBED_CLAIM_KEYS": self.keys.public, "VIBED_POD_UID": uid, "VIBED_POD_NAMESPACE": NAMESPACE}
        self.agents.append(await asyncio.to_thread(_begun, argv, env, place / "said"))
        await asyncio.to_thread(eventually, lambda: _listens(ip), "its agent listens", within_s=30)
        made = {
            "metadata": {"name": uid, "uid": uid, "labels": {TEMPLATE: "python-313", POOL: "apps", **labels}},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.pods.append(made)
        return made

    def held(self, pod: dict[str, Any]) -> list[str]:
        """Files that lie in it ahead."""
        place = self.folder / pod["metadata"]["uid"] / "layers" / ".ahead"
        return sorted(path.name for path in place.rglob("*.py"))

    async def settle(self, *layers: Mount, template: str = "python-313") -> None:
        """As the controller does, until all pods have what they are to have."""
        for _ in range(200):
            await self.ahead.have(template, layers, MOST)
            if all(uid in self.ahead._settled for uid in (pod["metadata"]["uid"] for pod in self.pods)):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it does not settle")


def _certificate(folder: Path) -> tuple[Path, Path]:
    made = signed(authority(folder / "ca"), folder / "false")
    return made / "tls.crt", made / "tls.key"


def _begun(argv: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        return subprocess.Popen(argv, env={"PATH": os.environ["PATH"], **env}, stdout=said, stderr=said)


def _listens(ip: str) -> bool:
    try:
        socket.create_connection((ip, CONTROL_PORT), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    bucket, keys = Bucket(), ClaimKeys([Ed25519PrivateKey.generate()])
    server = await asyncio.start_server(bucket.answer, "127.0.0.1", 0)
    bucket.port = server.sockets[0].getsockname()[1]
    made = World(bucket, Ahead(lambda: made.pods, keys, bucket, NAMESPACE), keys, tmp_path)
    yield made
    for agent in made.agents:
        agent.terminate()
    for agent in made.agents:
        await asyncio.to_thread(agent.wait, 30)
    server.close()
    shutil.rmtree(tmp_path, ignore_errors=True)


async def test_pods_that_wait_have_what_they_are_told_once_and_no_more_than_that(world: World) -> None:
    first, second = await world.pod(), await world.pod()
    popular, other = world.bucket.layer_of(tiny=b"x"), world.bucket.layer_of(other=b"y")
    await world.settle(popular)
    assert world.held(first) == world.held(second) == ["tiny.py"]
    for _ in range(3):
        await world.ahead.have("python-313", [popular], MOST)
    assert len(world.bucket.got) == 2, "each has got it once"
    world.ahead._settled.clear()  # as another controller, which knows of none
    await world.settle(popular)
    assert len(world.bucket.got) == 2
    world.ahead._settled.clear()
    await world.settle(other)
    await asyncio.to_thread(eventually, lambda: world.held(first) == ["other.py"], "what was popular has gone")


async def test_pods_of_others_and_of_other_pools_are_told_nothing(world: World) -> None:
    layer = world.bucket.layer_of(tiny=b"x")
    claimed = await world.pod(**{POD_APP: "todo"})
    builder = await world.pod(**{POOL: "builder"})
    of_node = await world.pod(**{TEMPLATE: "node-24"})
    gone = await world.pod()
    gone["metadata"]["deletionTimestamp"] = "now"
    await world.ahead.have("python-313", [layer], MOST)
    await asyncio.sleep(0.2)
    assert world.bucket.got == []
    assert [world.held(pod) for pod in (claimed, builder, of_node, gone)] == [[], [], [], []]


async def test_a_pod_that_was_claimed_meanwhile_is_not_asked_again_and_its_claim_stands(world: World) -> None:
    pod = await world.pod()
    uid, ip = pod["metadata"]["uid"], pod["status"]["podIP"]
    line = AgentLine(Where("todo-1", "uid of the claim", NAMESPACE, uid, uid, ip), world.keys, lambda message: None)
    try:
        await line.claim()
        await world.settle(world.bucket.layer_of(tiny=b"x"))
        assert world.bucket.got == []
        assert (await line.call("status", 5.0))["state"] == "warm"
    finally:
        await line.close()


@pytest.mark.parametrize(
    "said", [b"no JSON\n", b"[]\n", b'{"id": 1, "ok": "x"}\n', b'{"id": 1, "error": 1}\n', b"x" * 1_400_000]
)
async def test_what_answers_in_the_place_of_an_agent_disturbs_nobody(world: World, said: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(world.folder))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(said)
        writer.close()

    pod = await world.pod()
    false = {**pod, "metadata": {**pod["metadata"], "uid": "false"}, "status": {**pod["status"], "podIP": "127.9.8.7"}}
    world.pods.insert(0, false)
    async with await asyncio.start_server(answer, "127.9.8.7", CONTROL_PORT, ssl=context):
        layer = world.bucket.layer_of(tiny=b"x")
        await world.ahead.have("python-313", [layer], MOST)
        await asyncio.to_thread(eventually, lambda: world.held(pod) == ["tiny.py"], "the other has it", within_s=30)


async def test_few_fetch_at_a_time(world: World) -> None:
    for _ in range(AT_ONCE + 1):
        await world.pod()
    layer = world.bucket.layer_of(tiny=b"x")
    await world.ahead.have("python-313", [layer], MOST)
    await asyncio.sleep(0.5)
    assert len(world.bucket.got) == AT_ONCE
    await world.settle(layer)
    assert len(world.bucket.got) == AT_ONCE + 1


async def test_a_layer_that_is_not_to_be_had_keeps_no_pod_from_another(world: World) -> None:
    pods = [await world.pod() for _ in range(AT_ONCE + 1)]
    lost, good = world.bucket.layer_of(lost=b"x"), world.bucket.layer_of(good=b"y")
    world.bucket.things[lost.source.name.removesuffix(".tar.gz")] = b"something else"

    async with asyncio.timeout(30):
        while any(world.held(pod) != ["good.py"] for pod in pods):
            await world.ahead.have("python-313", [lost, good], MOST)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("signature_bytes", "held"), [(3000, 1), (9000, 0)])
async def test_a_pod_is_told_of_as_many_layers_as_it_hears_out(world: World, signature_bytes: int, held: int) -> None:
    """Addresses that are signed for a role are long; an agent hangs up on strangers who go on and on."""
    pod = await world.pod()
    world.bucket.signature = "x" * signature_bytes
    layers = [world.bucket.layer_of(one=b"x"), world.bucket.layer_of(two=b"y")]
    for _ in range(12):
        world.ahead._settled.clear()
        await world.settle(*layers)
    assert len(world.held(pod)) == held
    uid, ip = pod["metadata"]["uid"], pod["status"]["podIP"]
    line = AgentLine(Where("todo-1", "uid of the claim", NAMESPACE, uid, uid, ip), world.keys, lambda message: None)
    await line.claim()
    await line.close()


async def test_what_is_sent_by_the_controller_is_not_had_ahead(world: World) -> None:
    await world.pod()
    sent = Ahead(lambda: world.pods, world.keys, Sent(), NAMESPACE)
    await sent.have("python-313", [world.bucket.layer_of(tiny=b"x")], MOST)
    assert world.bucket.got == []
