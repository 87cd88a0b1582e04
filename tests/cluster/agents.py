"""Real agents at fake pods' addresses: for each pod of a namespace that kwok says is running, `vibed-agent pod` runs
where that pod would, as a user of its own, until the pod goes.

What kwok does not do is done here: a pod that is deleted has its agent told to end, as the kubelet would.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.driver_kit import TestRoots, programs
from tests.prepare import home
from vibed.cluster.client import Client
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import POD, Kind, Object
from vibed.drivers.agent_sandbox import workers
from vibed.drivers.workerd import code

_NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
_FIRST_UID = 3_900_000_000
_uids = itertools.count(_FIRST_UID + os.getpid() % 10_000 * 1_000)


class Agents:
    """The agents of a namespace's pods."""

    def __init__(self, client: Client, namespace: str) -> None:
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
        env = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        env |= {"VIBED_POD_UID": pod["metadata"]["uid"], "VIBED_POD_NAMESPACE": self._namespace}
        argv = [str(self._program), "pod", "-host", pod["status"]["podIP"]]
        for flag, name in (("-app", "app"), ("-home", "home"), ("-layers", "layers"), ("-dir", "run")):
            argv += [flag, str(folder / name)]
        argv += ["-zygotes", "/nowhere", "-env", "/nowhere"]
        if "--" in container["command"]:
            argv += self._for_a_worker(folder, container["command"])
        with (folder / "said").open("wb") as said:
            agent = subprocess.Popen(
                argv,
                env={"PATH": os.environ["PATH"], **env},
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                user=user,
                group=user,
                extra_groups=[],
                start_new_session=True,
            )
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

    def end(self, uid: str) -> None:
        if uid in self._agents:
            agent, _ = self._agents[uid]
            agent.send_signal(signal.SIGCONT)
            agent.terminate()

    def stop(self) -> None:
        """End all, and begin no more. Blocking."""
        self._stopped = True
        for uid in self._agents:
            self.end(uid)
        for agent, folder in self._agents.values():
            try:
                agent.wait(20)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self._folder, ignore_errors=True)


@asynccontextmanager
async def agents(client: Client, namespace: str) -> AsyncIterator[Agents]:
    """Agents for all pods of the namespace. Skips where pods are not fake: their addresses are not this machine's."""
    if not (await client.objects(_NODE, labels="type=kwok")).items:
        pytest.skip("agents that are processes of this machine need the fake node of `python -m tests.cluster fake`")
    found = Agents(client, namespace)
    running = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await asyncio.to_thread(found.stop)
