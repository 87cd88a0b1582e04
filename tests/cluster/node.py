"""A real node: kubelet, containerd with runc and gVisor, routed pods, Services, DNS and enforced NetworkPolicies.

It runs inside tests.cluster.box and nowhere else: it takes port 53, routes, and the machine's cgroups for itself.
RuntimeClass `gvisor` runs pods in gVisor. There is no registry: images are imported, and pods say
`imagePullPolicy: Never`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.control_plane import NODE, ControlPlane
from tests.cluster.processes import ClusterFailed

ADDRESS = "10.245.0.1"
"""Of the node, in its box: the kubelet refuses a loopback address."""
API_SERVER, TOWARDS_API_SERVER = "10.245.1.2", "10.245.1.1"
"""Of the API server, in a network of its own, and of the node on the way there."""
POD_CIDR = "10.244.0.0/16"
DOMAIN = "cluster.local"
PAUSE = "vibed.test/pause:1"
SHELL = "vibed.test/busybox:1"

RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "gvisor"},
    "handler": "runsc",
}


@dataclass(frozen=True, slots=True)
class NodePrograms:
    """Where its programs are: the folders that tests.cluster.binaries built."""

    node: Path
    gvisor: Path


class RealNode:
    """The node of a control plane that runs in the same box."""

    def __init__(self, plane: ControlPlane, programs: NodePrograms, *, cgroup: str) -> None:
        self._plane = plane
        self._programs = programs
        self._folder = plane.folder
        self._cgroup = cgroup
        # containerd looks for its shims, runc and runsc here
        self._path = f"{programs.node}:{programs.gvisor}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

    def start(self, images: Sequence[Path], *, deadline_s: float = 90.0) -> None:
        """Start everything and return when pods can be scheduled. Raises ClusterFailed."""
        ends = time.monotonic() + deadline_s
        self._configure()
        make_cgroup(self._cgroup)
        self._start_containerd(ends)
        for image in images:
            import_image(self._programs.node, self._folder, image)
        self._start_kubelet_and_proxy()
        self._start_policies()
        self._start_dns()
        self._plane.kubectl("apply", "-f", "-", given=json.dumps(RUNTIME_CLASS))
        left = max(1, int(ends - time.monotonic()))
        for condition in ("create", "condition=Ready"):
            self._plane.kubectl("wait", f"--for={condition}", f"node/{NODE}", f"--timeout={left}s", deadline_s=left + 5)
        processes = self._plane.processes
        processes.wait_for("http://127.0.0.1:10256/healthz", ends=ends, what="kube-proxy")
        processes.wait_for("http://127.0.0.1:8181/ready", ends=ends, what="CoreDNS")

    def _start_containerd(self, ends: float) -> None:
        containerd = self._programs.node / "containerd"
        config = self._folder / "containerd.toml"
        processes = self._plane.processes
        processes.start("containerd", [containerd, "--config", config], env={"PATH": self._path})
        asked = [*_ctr(self._programs.node, self._folder), "version"]
        while subprocess.run(asked, capture_output=True).returncode != 0:
            processes.check()
            if time.monotonic() > ends:
                raise ClusterFailed(f"containerd was not ready in time\n{processes.last_lines('containerd')}")
            time.sleep(0.05)

    def _start_kubelet_and_proxy(self) -> None:
        kube, folder = self._plane.programs / "kube", self._folder
        self._plane.processes.start(
            "kubelet",
            [
                *(kube, "kubelet", "--config", folder / "kubelet.json", "--root-dir", folder / "kubelet"),
                *("--kubeconfig", self._plane.kubeconfig("node"), "--cert-dir", folder / "kubelet-pki"),
                *("--hostname-override", NODE, "--node-ip", ADDRESS, "--node-labels", "vibed.test/real=yes"),
            ],
            env={"PATH": self._path},
        )
        self._plane.processes.start(
            "kube-proxy", [kube, "kube-proxy", "--config", folder / "proxy.json"], env={"PATH": self._path}
        )

    def _start_policies(self) -> None:
        """SIG Network's agent decides each new connection that the kernel hands it. It makes nftables rules of its own
        for that, which need CONFIG_NFT_QUEUE; where the kernel lacks it, it says so and goes on, and this rule does
        instead. --queue-bypass: until it is up, all pass.
        """
        rule = "-A FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100 --queue-bypass"
        subprocess.run(["iptables", *rule.split()], check=True, env={**os.environ, "PATH": self._path})
        self._plane.processes.start(
            "network-policies",
            [
                *(self._programs.node / "kube-network-policies", "--kubeconfig", self._plane.kubeconfig()),
                *("--hostname-override", NODE, "--disable-nri", "--fail-open=false"),
                *("--metrics-bind-address", "127.0.0.1:9080"),
            ],
            env={"PATH": self._path},
        )

    def _start_dns(self) -> None:
        zone = f"kubernetes {DOMAIN} {{\n    kubeconfig {self._plane.kubeconfig()}\n    ttl 1\n  }}"
        config = self._folder / "Corefile"
        config.write_text(f".:53 {{\n  errors\n  ready 127.0.0.1:8181\n  {zone}\n}}\n")
        self._plane.processes.start("coredns", [self._programs.node / "coredns", "-conf", config])

    # what it is configured with

    def _configure(self) -> None:
        folder = self._folder
        (folder / "containerd.toml").write_text(self._containerd())
        shim_log = folder / "logs" / "runsc-shim.log"
        (folder / "runsc.toml").write_text(
            f'log_path = "{shim_log}"\nlog_level = "info"\n'
            '[runsc_config]\n  platform = "systrap"\n  overlay2 = "root:memory"\n'
        )
        (folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            # routed, not bridged: from pod to pod then passes FORWARD, where policies act
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "dataDir": f"{folder}/ipam",
                        "ranges": [[{"subnet": POD_CIDR}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
        (folder / "cni").mkdir(exist_ok=True)
        (folder / "cni" / "10-pods.conflist").write_text(json.dumps(network))
        (folder / "kubelet.json").write_text(json.dumps(self._kubelet()))
        (folder / "proxy.json").write_text(json.dumps(self._proxy()))

    def _containerd(self) -> str:
        folder = self._folder
        return f"""version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  # without CAP_SYS_RESOURCE a process cannot be made less likely to be killed than its parent
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{self._programs.node}"]
    conf_dir = "{folder}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc]
    runtime_type = "io.containerd.runsc.v1"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc.options]
      TypeUrl = "io.containerd.runsc.v1.options"
      ConfigPath = "{folder}/runsc.toml"
"""

    def _kubelet(self) -> dict[str, object]:
        folder = self._folder
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupRoot": f"/{self._cgroup}",
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "address": ADDRESS,
            "port": 10250,
            "healthzPort": 0,
            "readOnlyPort": 0,
            "staticPodPath": "",
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": str(self._plane.ca)},
                "webhook": {"enabled": True},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
            "resolvConf": f"{folder}/resolv.conf",
            "clusterDNS": [ADDRESS],
            "clusterDomain": DOMAIN,
            "makeIPTablesUtilChains": False,
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
            "nodeStatusUpdateFrequency": "10s",
            "syncFrequency": "1m",
            "maxPods": 200,
            "registerNode": True,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 200,
            "eventRecordQPS": 0,
            "podLogsDir": f"{folder}/pod-logs",
        }

    def _proxy(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(self._plane.kubeconfig("proxy"))},
            "hostnameOverride": NODE,
            "clusterCIDR": POD_CIDR,
            "bindAddress": "127.0.0.1",
            # neither port may be 0
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            # these are the machine's own, not the box's
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "nftables": {"minSyncPeriod": "50ms"},
        }


def import_image(programs: Path, folder: Path, archive: Path) -> None:
    """Give the node whose folder this is an image. Works from outside of its box too. Raises ClusterFailed."""
    argv = [*_ctr(programs, folder), "-n", "k8s.io", "images", "import", str(archive)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterFailed(f"{archive.name} could not be imported: {done.stderr.strip()}")


def _ctr(programs: Path, folder: Path) -> list[str]:
    return [str(programs / "ctr"), "-a", f"{folder}/containerd.sock"]


# cgroups of the machine, below one name


def make_cgroup(name: str) -> None:
    """Make the node's cgroup in each hierarchy: the kubelet wants it to be there."""
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)


def remove_cgroup(name: str, *, within_s: float = 10.0) -> None:
    """Remove it and all below it, as soon as the kernel has let the last process go. Raises OSError."""
    ends = time.monotonic() + within_s
    # runc has one in each hierarchy, also where the kubelet has none
    for hierarchy in {*_hierarchies(), *(path.parent for path in Path("/sys/fs/cgroup").glob(f"*/{name}"))}:
        for folder in sorted((hierarchy / name).glob("**/"), reverse=True):
            while folder.is_dir():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > ends:
                        raise
                    time.sleep(0.05)


def sweep_cgroups(prefix: str) -> None:
    """Remove those of boxes whose process was killed: they are named after it. Raises OSError."""
    root = Path("/sys/fs/cgroup")
    for name in {path.name for pattern in (f"{prefix}*", f"*/{prefix}*") for path in root.glob(pattern)}:
        if not Path("/proc", name.removeprefix(prefix).partition("-")[0]).exists():
            remove_cgroup(name)


def _hierarchies() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [folder for folder in root.iterdir() if (folder / "tasks").exists() and not folder.is_symlink()]
