"""The agent of a pod as process 1 of its PID namespace, which it is in a container: what others leave behind is its to
collect, and no signal has a meaning that it does not give it. The program is the one that is shipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cluster.ports import PodNetwork, free_port
from tests.contract.driver_kit import GENERAL_APP, programs
from vibed.apps.app import Runtime, Start
from vibed.drivers import general
from vibed.drivers.agent_sandbox.line import CONTROL_PORT, INGRESS_PORT, AgentLine, Where
from vibed.drivers.agent_sandbox.signing import ClaimKeys
from vibed.sandboxes.driver import Limits, Run
from vibed.wire import Disconnected

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

CLONE_NEWNET = 0x40000000
UID = 3_899_999_999
SAYS_GOODBYE = """
import signal, sys
def goodbye(number, frame):
    print("told to end", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, goodbye)
"""


@pytest.fixture(scope="module", autouse=True)
def agent() -> None:
    """The agent as its sources are now."""
    subprocess.run([sys.executable, "-m", "tests.prepare", "tools"], check=True, cwd=Path(__file__).parents[2])


@dataclass
class Init:
    """One agent that is process 1, with an app."""

    started: subprocess.Popen[bytes]
    """What unshared the namespace; it ends with it."""
    folder: Path
    ip: str
    line: AgentLine

    @property
    def pid(self) -> int:
        """Of process 1, as it is seen from outside."""
        (first,) = _children(self.started.pid)
        return first

    def processes(self) -> dict[int, str]:
        """All processes of the namespace and their states."""
        found: dict[int, str] = {}
        below = [self.pid]
        while below:
            one = below.pop()
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[one] = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[0]
                below += _children(one)
        return found

    async def ask(self, expression: str) -> str:
        """What the app makes of it."""
        reader, writer = await asyncio.open_connection(self.ip, INGRESS_PORT)
        path = "/" + urllib.parse.quote(expression, safe="")
        head = f"GET {path} HTTP/1.1\r\nHost: app\r\nX-Vibed-Run: todo/1\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        said, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert said.split()[1] == b"200", said
        return body.decode()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="init-", dir="/tmp"))
    for name in ("app", "home", "layers", "run"):
        (folder / name).mkdir()
    for one in (folder, *folder.iterdir()):
        os.chown(one, UID, UID)
    shutil.copy(programs().path("vibed-agent"), folder / "vibed-agent")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def claimed(place: Path) -> AsyncIterator[Init]:
    """Without an app as yet."""
    network, keys = PodNetwork(), ClaimKeys([Ed25519PrivateKey.generate()])
    ip = f"127.{network.number}.9.1"
    where = Where("todo-1", "uid of the claim", "vibed-apps", "pod-1", "uid of the pod", ip)
    started = _start(place, where, keys)
    within = ThreadPoolExecutor(1, initializer=_enter, initargs=(started.pid,))
    relays = [await _relay(within, ip, port) for port in (INGRESS_PORT, CONTROL_PORT)]
    line = AgentLine(where, keys, lambda event: None)
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await line.claim()
                    break
                except Disconnected:
                    assert started.poll() is None
                    await asyncio.sleep(0.05)
        yield Init(started, place, ip, line)
    finally:
        await line.close()
        with contextlib.suppress(FileNotFoundError):
            for first in _children(started.pid):
                os.kill(first, signal.SIGKILL)  # and the kernel all of the namespace
        started.wait()
        for relay in relays:
            relay.close()
        within.shutdown()
        network.release()


@pytest.fixture
async def init(claimed: Init) -> Init:
    await _run(claimed)
    return claimed


def _start(place: Path, where: Where, keys: ClaimKeys) -> subprocess.Popen[bytes]:
    argv = [
        *("unshare", "--net", "--pid", "--fork", "--mount-proc"),
        *("sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
        *("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--inh-caps=-all"),
        *(str(place / "vibed-agent"), "pod", "-host", "127.0.0.1", "-zygotes", "/nowhere", "-env", "/nowhere"),
    ]
    for flag, name in (("-app", "app"), ("-home", "home"), ("-layers", "layers"), ("-dir", "run")):
        argv += [flag, str(place / name)]
    env = {
        "PATH": os.environ["PATH"],
        "VIBED_CLAIM_KEYS": keys.public,
        "VIBED_POD_UID": where.pod_uid,
        "VIBED_POD_NAMESPACE": where.namespace,
    }
    return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL)


def _enter(pid: int) -> None:
    """Have the thread make its sockets where that process makes its own."""
    while Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        time.sleep(0.01)
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


async def _relay(within: ThreadPoolExecutor, ip: str, port: int) -> asyncio.Server:
    """What is a pod's address elsewhere: leads to loopback in its network."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.get_running_loop().run_in_executor(
                within, socket.create_connection, ("127.0.0.1", port)
            )
        except OSError:
            writer.close()
            return
        their_reader, their_writer = await asyncio.open_connection(sock=there)
        await asyncio.gather(pass_on(reader, their_writer), pass_on(their_reader, writer))

    return await asyncio.start_server(converse, ip, port)


async def _run(init: Init, first: str = "") -> None:
    """`first`: what its app does before all else."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        text = (first + SAYS_GOODBYE + GENERAL_APP).encode()
        member = tarfile.TarInfo("app.py")
        member.size, member.mode = len(text), 0o644
        tar.addfile(member, io.BytesIO(text))
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    source = init.folder / f"{digest}.tar.gz"
    source.write_bytes(out.getvalue())
    start = Start(("python3", "app.py"), port=free_port())
    run = Run("todo", 1, 1, source, Runtime("general", "python-313", "python", "app.py", "", start=start), {}, Limits())
    order = general.order(run)
    began = order["start"]
    assert isinstance(began, dict)
    del began["uid"], order["source"]
    await init.line.send(source, digest, 20)
    told = {"sha256": digest, "size": len(out.getvalue())}
    await init.line.call("run", 60, app_id="todo", app_key="", layer="", version=1, run=1, **order, source=told)
    assert await init.ask("'works'") == "works"


async def test_it_is_process_one_and_whoever_is_orphaned_is_collected(init: Init) -> None:
    assert Path(f"/proc/{init.pid}/status").read_text().split("NSpid:")[1].split()[:2][-1] == "1"
    # each leaves a process behind that ends a moment later, and nobody waits for
    orphans = "[__import__('subprocess').run(['sh', '-c', 'sleep 0.1 & sleep 0.2 & exit 0']) for _ in range(20)] and 1"
    assert await init.ask(orphans) == "1"
    # and one whose parents have gone for good, in a session of its own
    assert await init.ask("__import__('subprocess').run(['setsid', '-f', 'sleep', '0.1']).returncode") == "0"
    async with asyncio.timeout(20):
        while len(there := init.processes()) > 3 or "Z" in there.values():
            await asyncio.sleep(0.05)
    assert await init.ask("'still'") == "still"


@pytest.mark.parametrize("name", ["SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGQUIT"])
async def test_a_signal_that_it_gives_no_meaning_changes_nothing(init: Init, name: str) -> None:
    os.kill(init.pid, signal.Signals[name])
    await asyncio.sleep(0.2)
    assert await init.ask("'still'") == "still"


async def test_told_to_end_it_tells_the_app_and_ends_with_all_that_there_was(init: Init) -> None:
    assert await init.ask("__import__('subprocess').run(['setsid', '-f', 'sleep', '1000']).returncode") == "0"
    there = init.processes()
    assert len(there) >= 4
    os.kill(init.pid, signal.SIGTERM)
    assert await asyncio.to_thread(init.started.wait, 30) == 0
    assert not [pid for pid in there if Path(f"/proc/{pid}").exists()]
    log = "".join(path.read_text() for path in init.folder.rglob("log*.jsonl"))
    assert "told to end" in log


async def test_an_app_that_ends_by_itself_is_told_and_its_pod_stays_for_who_asks(init: Init) -> None:
    with contextlib.suppress(OSError, AssertionError, IndexError):
        await init.ask("os._exit(3)")
    async with asyncio.timeout(20):
        while (said := await init.line.call("status", 5))["state"] != "exited":
            await asyncio.sleep(0.05)
    assert said["exit"]["code"] == 3
    assert init.started.poll() is None
    assert "Z" not in init.processes().values()


async def test_what_others_of_the_pod_listen_on_is_not_taken_for_the_app(claimed: Init) -> None:
    """A pod's containers share its network: a service mesh's proxy in each is usual."""

    def neighbour() -> None:
        with socket.create_server(("127.0.0.1", free_port())) as listening:
            listening.settimeout(10)
            with contextlib.suppress(OSError):
                while True:
                    other, _ = listening.accept()
                    others.append(other)
                    other.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    others: list[socket.socket] = []
    # its thread of its own, since those of the relays wait for it
    with ThreadPoolExecutor(1, initializer=_enter, initargs=(claimed.started.pid,)) as there:
        there.submit(neighbour)
        await _run(claimed, "import time\ntime.sleep(2)\n")
    assert others == []
