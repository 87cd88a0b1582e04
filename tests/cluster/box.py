"""Where a real node runs: network, processes and mounts of its own, so that nothing of it is left when it ends.

Nothing in the box reaches the outside. From outside, `Box.command` runs a program in it, and `Box.network` has the
calling thread see its network. `python -m tests.cluster.box` is the first process in it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster import node
from tests.cluster.binaries import CONTROL_PLANE, GVISOR, NODE, programs
from tests.cluster.control_plane import SERVICE_CIDR, ControlPlane
from tests.cluster.processes import ClusterFailed
from tests.prepare import NODE_PACKAGES, home, missing_packages

REPOSITORY = Path(__file__).parents[2]
READY = "ready"
_NAMESPACES = ("--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
_START_S = 120.0
_CGROUP = "vibed-test-"
_BEYOND = "control"
"""The network of the API server, in the box."""
_CLONE_NEWNET = 0x40000000
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What the kubelet sets for the whole machine unless it finds it so: in the box it finds it so."""


def cannot(euid: int | None = None) -> str:
    """Why there can be no box here; empty where there can."""
    if sys.platform != "linux":
        return "a real node needs Linux"
    if (os.geteuid() if euid is None else euid) != 0:
        return "a real node needs root: it makes namespaces, mounts and cgroups"
    if missing := missing_packages(NODE_PACKAGES):
        return f"missing for a real node: {', '.join(missing)}: python -m tests.prepare cluster-node"
    return ""


class Box:
    """A control plane and its real node, in a box. `start` before all else, `end` after."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds all that it writes. Raises tests.cluster.binaries.NotBuilt."""
        self.folder = folder.absolute()
        self.programs = programs(CONTROL_PLANE, home())
        self._node_programs = programs(NODE, home())
        programs(GVISOR, home())
        self._process: subprocess.Popen[str] | None = None
        self._first = 0
        self.cgroup = ""

    @property
    def kubeconfig(self) -> Path:
        """The admin's. It is of use in the box alone."""
        return self.folder / "kubeconfig"

    @property
    def pid(self) -> int:
        """The first process in the box, as the machine knows it."""
        return self._first

    def start(self, images: Sequence[Path]) -> None:
        """Return when pods can be scheduled. Raises ClusterFailed, and then nothing is left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        node.sweep_cgroups(_CGROUP)
        self.cgroup = f"{_CGROUP}{os.getpid()}-{time.monotonic_ns() % 10**9}"
        setpriv = shutil.which("setpriv")
        mortal = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        inside = [sys.executable, "-m", "tests.cluster.box", self.cgroup, str(self.folder), *map(str, images)]
        with (self.folder / "box.log").open("w") as log:
            self._process = subprocess.Popen(
                [*mortal, "unshare", *_NAMESPACES, *inside],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "VIBED_TEST_HOME": str(home())},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        late = threading.Timer(_START_S, self._process.kill)
        late.start()
        try:
            said = self._process.stdout.readline().strip()
        finally:
            late.cancel()
        if said != READY:
            self.end()
            raise ClusterFailed(f"the real node did not start: {(self.folder / 'box.log').read_text()[-6000:]}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._first = int(children[0])

    def end(self) -> None:
        """End everything in the box and remove what it had of the machine. Of its folder the logs stay."""
        if self._process is None:
            return
        # the first process of a PID namespace takes all others with it
        with suppress(ProcessLookupError):
            os.kill(self._first or self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None
        node.remove_cgroup(self.cgroup)
        for big in ("etcd", "containerd", "kubelet"):
            shutil.rmtree(self.folder / big, ignore_errors=True)

    def command(self, *argv: str) -> list[str]:
        """A command that runs `argv` in the box: there names of Services are names, and all of it is reachable."""
        return ["nsenter", f"--net=/proc/{self._first}/ns/net", f"--mount=/proc/{self._first}/ns/mnt", "--", *argv]

    def run(self, *argv: str, deadline_s: float = 60.0) -> str:
        """Run a program in the box; what it prints. Raises subprocess.CalledProcessError, TimeoutExpired."""
        done = subprocess.run(self.command(*argv), check=True, capture_output=True, text=True, timeout=deadline_s)
        return done.stdout

    @contextmanager
    def network(self) -> Iterator[None]:
        """The calling thread sees the box's network, and so do threads and programs that it starts: sockets that are
        made here reach pods and Services by address. Names are still looked up as outside.
        """
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self._first}/ns/net", os.O_RDONLY)
        try:
            enter_network(there)
            yield
        finally:
            enter_network(here)
            os.close(here)
            os.close(there)

    def import_image(self, archive: Path) -> None:
        """Give the node an image. Raises ClusterFailed."""
        node.import_image(self._node_programs, self.folder, archive)


def enter_network(namespace: int) -> None:
    """Have the calling thread, and what it starts from now on, see another network. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# inside


def _furnish() -> None:
    """Make the box a machine that a node can live on. Run as its first process."""
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/netns").mkdir()
    # the kubelet and the network plug-ins write below both, wherever they are told to
    _mount("-t", "tmpfs", "tmpfs", "/var/log")
    for part in ("upper", "work"):
        Path(f"/run/var-lib/{part}").mkdir(parents=True)
    layers = "lowerdir=/var/lib,upperdir=/run/var-lib/upper,workdir=/run/var-lib/work"
    _mount("-t", "overlay", "-o", layers, "overlay", "/var/lib")
    _run("ip", "link", "set", "lo", "up")
    # only to hold the node's address: not every kernel has the dummy device
    _run("ip", "link", "add", "node0", "type", "bridge")
    _run("ip", "address", "add", f"{node.ADDRESS}/24", "dev", "node0")
    _run("ip", "link", "set", "node0", "up")
    # The API server is beyond the node, as in a cluster: what a pod sends it passes FORWARD, where policies act. At
    # INPUT they would stand before whatever else the node itself listens on.
    _run("ip", "netns", "add", _BEYOND)
    _run("ip", "link", "add", "beyond0", "type", "veth", "peer", "name", "eth0", "netns", _BEYOND)
    _run("ip", "address", "add", f"{node.TOWARDS_API_SERVER}/24", "dev", "beyond0")
    _run("ip", "link", "set", "beyond0", "up")
    for argv in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{node.API_SERVER}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "default", "via", node.TOWARDS_API_SERVER),
    ):
        _run("ip", "-n", _BEYOND, *argv)
    # routing comes before kube-proxy's rewriting: without a route there is nothing to rewrite
    _run("ip", "route", "add", SERVICE_CIDR, "dev", "node0")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    search = f"default.svc.{node.DOMAIN} svc.{node.DOMAIN} {node.DOMAIN}"
    _bind("/etc/resolv.conf", f"nameserver {node.ADDRESS}\nsearch {search}\n")
    for name, value in _SYSCTLS.items():
        _bind(f"/proc/sys/{name}", f"{value}\n")


def _bind(path: str, content: str) -> None:
    target = Path(path).resolve()
    if target.is_relative_to("/run"):  # it was elsewhere on the machine; here /run is empty
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        return
    source = Path("/run/bound") / target.relative_to("/")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(content)
    _mount("--bind", str(source), str(target))


def _mount(*arguments: str) -> None:
    _run("mount", *arguments)


def _run(*argv: str) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode != 0:
        raise ClusterFailed(f"{' '.join(argv)}: {done.stderr.strip()}")


def _reap(plane: ControlPlane) -> None:
    """As the first process it inherits what others leave. Raises ClusterFailed when a program of the cluster ends."""
    while True:
        time.sleep(0.5)
        mine = set(plane.processes.pids().values())
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid in mine:
                plane.processes.check()
            os.waitpid(found.si_pid, 0)


def main(cgroup: str, folder: str, *images: str) -> int:
    """The first process in the box: starts everything, says so, and stays."""
    try:
        _furnish()
        beyond = Path("/run/netns") / _BEYOND
        plane = ControlPlane(Path(folder), programs(CONTROL_PLANE, home()), host=node.API_SERVER, network=beyond)
        plane.start()
        node_programs = node.NodePrograms(programs(NODE, home()), programs(GVISOR, home()))
        node.RealNode(plane, node_programs, cgroup=cgroup).start([Path(image) for image in images])
        print(READY, flush=True)
        _reap(plane)
    except ClusterFailed as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
