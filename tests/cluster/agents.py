"""Real agents at fake pods' addresses: for each pod of a namespace that kwok says is running, `vibed-agent pod` runs
where that pod would, as a user of its own, until the pod goes.

What kwok does not do is done here: a pod that is deleted has its agent told to end, as the kubelet would.

A rooted agent is in more of a container: the root of its template, processes and a network of its own, which has only
the loopback interface. What comes to its pod's address is carried into that, and out of it what goes to the ways out
that there are: NetworkPolicies, as it were.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.contract.driver_kit import TestRoots, programs
from tests.prepare import home
from vibed.cluster.client import Client
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import POD, Kind, Object
from vibed.drivers.agent_sandbox import workers
from vibed.drivers.agent_sandbox.line import CONTROL_PORT, INGRESS_PORT, PROBES_PORT
from vibed.drivers.workerd import code
from vibed.supervision.mounts import mount_image

_NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
_FIRST_UID = 3_900_000_000
_uids = itertools.count(_FIRST_UID + os.getpid() % 10_000 * 1_000)


class Agents:
    """The agents of a namespace's pods."""

    def __init__(self, client: Client, namespace: str, *, rooted: bool = False, ways_out: Sequence[int] = ()) -> None:
        """`ways_out`: ports of this machine's loopback interface that rooted agents reach."""
        self._ways_out = ways_out
        self._roots: dict[str, Path] = {}
        self._rooted = rooted
        self._carrying: dict[str, asyncio.Task[None]] = {}
        self._pods = Informer(client, POD, namespace=namespace, on_change=self._changed)
        self._namespace = namespace
        self._agents: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        # where any user may run it
        self._stopped = False
        self._folder = Path(tempfile.mkdtemp(prefix="agents-", dir="/tmp"))
        self._folder.chmod(0o755)
        self._program = shutil.copy(programs().path("vibed-agent"), self._folder / "vibed-agent")

    def process(self, pod: str) -> subprocess.Popen[bytes]:
        return next(agent for uid, (agent, folder) in self._agents.items() if folder.name.endswith(pod))

    def folder(self, pod: str) -> Path:
        """What the pod's volumes would be."""
        return next(folder for _, folder in self._agents.values() if folder.name.endswith(pod))

    def said(self, pod: str) -> str:
        return (self.folder(pod) / "said").read_text()

    async def run(self) -> None:
        await self._pods.run()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        uid = pod["metadata"]["uid"]
        if "vibed-agent" not in "".join(pod["spec"]["containers"][0].get("command") or ()):
            return  # no sandbox
        if new is None or "deletionTimestamp" in pod["metadata"]:
            self.end(uid)
        elif not self._stopped and uid not in self._agents and pod.get("status", {}).get("podIP"):
            self._start(pod)

    def _start(self, pod: Object) -> None:
        folder = Path(tempfile.mkdtemp(prefix="p-", suffix=f"-{pod['metadata']['name']}", dir="/tmp"))
        user = next(_uids)
        for name in ("app", "home", "layers", "run"):
            (folder / name).mkdir()
        for place in (folder, *folder.iterdir()):
            os.chown(place, user, user)
        container = pod["spec"]["containers"][0]
        template = next(one["value"] for one in container["env"] if one["name"] == "VIBED_TEMPLATE")
        env = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        env |= {"VIBED_POD_UID": pod["metadata"]["uid"], "VIBED_POD_NAMESPACE": self._namespace}
        argv = [str(self._program), "pod", "-host", pod["status"]["podIP"]]
        for flag, name in (("-app", "app"), ("-home", "home"), ("-layers", "layers"), ("-dir", "run")):
            argv += [flag, str(folder / name)]
        argv += ["-zygotes", "/nowhere", "-env", "/nowhere"]
        if "--" in container["command"]:
            argv += self._for_a_worker(folder, container["command"])
        elif self._rooted and template != "static-nginx":
            argv = self._in_root(folder, self._root(template), user, container["command"], env, pod["status"]["podIP"])
        with (folder / "said").open("wb") as said:
            agent = subprocess.Popen(
                argv,
                env={"PATH": os.environ["PATH"], **env},
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                # who is in a root is made another user on the way there
                user=None if argv[1] == "confine" else user,
                group=None if argv[1] == "confine" else user,
                extra_groups=[],
                start_new_session=True,
            )
        if argv[1] == "confine":
            carrying = asyncio.create_task(_carried(agent, pod["status"]["podIP"], self._ways_out))
            self._carrying[pod["metadata"]["uid"]] = carrying
        self._agents[pod["metadata"]["uid"]] = (agent, folder)

    def freeze(self, pod: str) -> None:
        """Have it do nothing any more, and close nothing: as on a node without power."""
        self.process(pod).send_signal(signal.SIGSTOP)

    def thaw(self, pod: str) -> None:
        self.process(pod).send_signal(signal.SIGCONT)

    def _for_a_worker(self, folder: Path, command: list[str]) -> list[str]:
        """What its image would have, wherever this machine has it."""
        shim = folder / "shim"
        shim.mkdir()
        for name, text in code.shim(str(folder / "app")).items():
            (shim / name).write_text(text)
        there = {workers.PROGRAM: str(self._tool("workerd")), f"{workers.SHIM}/shim.capnp": str(shim / "shim.capnp")}
        argv = ["-bundler", str(self._tool("esbuild")), "-modules", str(self._modules())]
        return [*argv, "--", *(there.get(one, one) for one in command[command.index("--") + 1 :])]

    def _tool(self, name: str) -> Path:
        """A program where any user may run it."""
        mine = self._folder / name
        if not mine.exists():
            try:
                mine.hardlink_to(programs().path(name))
            except OSError:
                shutil.copy(programs().path(name), mine)
        return mine

    def _modules(self) -> Path:
        mine = self._folder / "modules"
        known = TestRoots(home()).root("workerd").modules
        if known is not None and not mine.exists():
            shutil.copytree(known, mine)
        return mine

    def _root(self, template: str) -> Path:
        """Where the image of a template is mounted."""
        if template not in self._roots:
            target = self._folder / f"root-{template}"
            target.mkdir()
            mount_image(home() / "templates" / template / "current" / "rootfs.erofs", target)
            self._roots[template] = target
        return self._roots[template]

    def _in_root(
        self, folder: Path, root: Path, user: int, command: list[str], env: Mapping[str, str], address: str
    ) -> list[str]:
        binds = {"/app": "app", "/home/app": "home", "/layers": "layers", "/run/vibed": "run"}
        entries: list[dict[str, object]] = [
            {"type": "bind", "source": str(root), "target": "/", "ro": True},
            {"type": "bind", "source": str(self._program), "target": command[0], "ro": True},
            {"type": "proc", "target": "/proc"},
            {"type": "dev", "target": "/dev"},
            {"type": "tmpfs", "target": "/tmp", "size": 1 << 30, "mode": "1777"},
            *({"type": "bind", "source": str(folder / name), "target": at} for at, name in binds.items()),
        ]
        spec = {
            "uid": user,
            "gid": user,
            "namespaces": ["mount", "pid", "net", "ipc", "uts"],
            "hostname": "pod",
            "root": entries,
            "cwd": "/",
            "env": {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **env},
            "capabilities": [],
            "seccomp": "default",
            "rlimits": {"core": 0},
            "die_with_parent": True,
        }
        (folder / "confine.json").write_text(json.dumps(spec))
        return [str(self._program), "confine", str(folder / "confine.json"), "--", *command, "-host", address]

    def end(self, uid: str) -> None:
        if uid in self._agents:
            agent, folder = self._agents[uid]
            agent.send_signal(signal.SIGCONT)
            # what is between us and who is in a root tells it nothing, and takes it with it
            (agent.kill if (folder / "confine.json").exists() else agent.terminate)()
        if uid in self._carrying:
            self._carrying.pop(uid).cancel()

    def stop(self) -> None:
        """End all, and begin no more. Blocking."""
        self._stopped = True
        for uid in list(self._agents):
            self.end(uid)
        for agent, folder in self._agents.values():
            try:
                agent.wait(20)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
            shutil.rmtree(folder, ignore_errors=True)
        for root in self._roots.values():
            subprocess.run(["umount", "-l", str(root)], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


async def _carried(agent: subprocess.Popen[bytes], address: str, ways_out: Sequence[int]) -> None:
    """Have connections to a pod's address be ones to that in the network of its agent, and those in it to a way out be
    ones to that, until cancelled.
    """

    async def carry(
        to: Callable[[], socket.socket], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async def passed(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                to.write(data)
                await to.drain()
            to.write_eof()

        try:
            ours, to_it = await asyncio.open_connection(sock=await asyncio.to_thread(to))
            try:
                await asyncio.gather(passed(reader, to_it), passed(ours, writer))
            finally:
                to_it.close()
        except OSError:
            pass
        finally:
            writer.close()

    while not await asyncio.to_thread(_is_ready, agent.pid, address):
        await asyncio.sleep(0.05)
    async with AsyncExitStack() as stack:
        for port in ways_out:
            to = partial(socket.create_connection, ("127.0.0.1", port), 5)
            inside = await asyncio.to_thread(_listening_inside, agent.pid, port)
            server = await asyncio.start_server(partial(carry, to), sock=inside)
            stack.callback(server.close)
        for port in (INGRESS_PORT, CONTROL_PORT, PROBES_PORT):
            to = partial(_connected_inside, agent.pid, address, port)
            server = await asyncio.start_server(partial(carry, to), address, port)
            stack.callback(server.close)
        await asyncio.Event().wait()


_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def _enter(network: int) -> None:
    """Have this thread be in a network namespace. Raises OSError."""
    if _LIBC.setns(network, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _connected_inside(pid: int, address: str, port: int) -> socket.socket:
    """A connection in the network of a process' child. Blocking; to be called in a thread. Raises OSError."""
    with _inside(pid):
        made = socket.create_connection((address, port), timeout=5)
    made.setblocking(False)
    return made


def _listening_inside(pid: int, port: int) -> socket.socket:
    """So too."""
    with _inside(pid):
        return socket.create_server(("127.0.0.1", port))


@contextlib.contextmanager
def _inside(pid: int) -> Iterator[None]:
    child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{child[0] if child else pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(theirs)
        try:
            yield
        finally:
            _enter(ours)
    finally:
        os.close(ours)
        os.close(theirs)


def _is_ready(pid: int, address: str) -> bool:
    """As the kubelet asks, whom kwok does not wait for."""
    try:
        with _connected_inside(pid, address, PROBES_PORT) as asked:
            asked.settimeout(5)
            asked.sendall(b"GET /readyz HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
            return b" 200 " in asked.recv(100)
    except OSError:
        return False


@asynccontextmanager
async def agents(
    client: Client, namespace: str, *, rooted: bool = False, ways_out: Sequence[int] = ()
) -> AsyncIterator[Agents]:
    """Agents for all pods of the namespace. Skips where pods are not fake: their addresses are not this machine's."""
    if not (await client.objects(_NODE, labels="type=kwok")).items:
        pytest.skip("agents that are processes of this machine need the fake node of `python -m tests.cluster fake`")
    found = Agents(client, namespace, rooted=rooted, ways_out=ways_out)
    running = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await asyncio.to_thread(found.stop)
