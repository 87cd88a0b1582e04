"""A Kubernetes control plane as any user: etcd, API server, controller manager, scheduler, agent-sandbox's controller.

It listens on loopback (or on `host`), holds all it writes in one folder, has RBAC on, and ends with who started it.
What a flag is here for, and what it costs to leave it out, was measured; each comment says which.
"""

from __future__ import annotations

import csv
import json
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.crds import until_established
from tests.cluster.pki import Authority
from tests.cluster.ports import PodNetwork, free_port
from tests.cluster.processes import ClusterFailed, Processes

NODE = "node-1"
"""The name under which a real node may join."""
FAKE_NODE = "fake-1"
SERVICE_CIDR = "10.96.0.0/16"
_PORT = 6443
"""Of the API server in a network that is its own."""

_USERS = {  # whose kubeconfig -> (user, group)
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "node": (f"system:node:{NODE}", "system:nodes"),
}
_CONTROLLERS = (
    *("namespace-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller"),
    *("garbage-collector-controller", "endpointslice-controller", "deployment-controller", "replicaset-controller"),
    *("job-controller", "statefulset-controller", "daemonset-controller", "resourcequota-controller"),
    *("persistentvolume-protection-controller", "disruption-controller"),
)
_STAGES = Path(__file__).parents[2] / "deploy" / "cluster" / "fake-node.yaml"


class ControlPlane:
    """One control plane below `folder`, from the programs that tests.cluster.binaries built."""

    def __init__(
        self,
        folder: Path,
        programs: Path,
        *,
        host: str = "127.0.0.1",
        flags: Mapping[str, Sequence[str]] | None = None,
        network: Path | None = None,
    ) -> None:
        """`flags`: more of them, by program. `network`: the file of the network namespace that has `host`, in which
        etcd and the API server run; the others are where this process is.
        """
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.programs = programs
        self.host = host
        self.processes = Processes(self.folder / "logs")
        self.pods: PodNetwork | None = None
        self._flags = flags or {}
        self._network = network
        self._port = free_port(host) if network is None else _PORT
        self._tokens = {name: secrets.token_hex(16) for name in _USERS}
        self._pki = Authority(self.folder / "pki")

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self._port}"

    @property
    def ca(self) -> Path:
        """The certificate that the API server's was signed with."""
        return self._pki.certificate

    def kubeconfig(self, user: str = "admin") -> Path:
        """The file with which a program is `user`: admin, controller-manager, scheduler, proxy or node."""
        return self.folder / ("kubeconfig" if user == "admin" else f"{user}.kubeconfig")

    def start(self, *, deadline_s: float = 90.0) -> None:
        """Start all but nodes, and return when it is ready. Raises ClusterFailed, and then nothing runs."""
        ends = time.monotonic() + deadline_s
        try:
            self._write_identities()
            self._start_store_and_api_server(ends)
            # Before the controller manager: its garbage collector looks for new types every 30 s only.
            self.kubectl("apply", "--server-side", "-f", str(self.programs / "crds.yaml"))
            until_established(self.kubectl, "crd", "--all")
            self._start_controllers()
            self._start_agent_sandbox(ends)
        except BaseException:
            self.stop()
            raise

    def start_fake_node(self, *, deadline_s: float = 30.0) -> None:
        """A node whose pods are Ready at once and run nothing. Their addresses are loopback's, where a test may have a
        real agent listen. A pod with the annotation `vibed.test/fail` fails instead. Raises ClusterFailed.
        """
        self.pods = PodNetwork()
        self._run(
            "kwok",
            *("--kubeconfig", self.kubeconfig(), "--config", _STAGES, "--server-address", ""),
            *("--manage-all-nodes=false", "--manage-nodes-with-annotation-selector", "kwok.x-k8s.io/node=fake"),
            *("--cidr", self.pods.cidr, "--node-ip", "10.0.0.1"),
        )
        capacity = {"cpu": "1000", "memory": "4Ti", "pods": "10000", "ephemeral-storage": "4Ti"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": FAKE_NODE,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": FAKE_NODE, "type": "kwok"},
            },
            "status": {"capacity": capacity, "allocatable": capacity},
        }
        self.kubectl("create", "-f", "-", given=json.dumps(node))
        self.kubectl("wait", "--for=condition=Ready", f"node/{FAKE_NODE}", f"--timeout={deadline_s:g}s")
        self.processes.check()

    def restart_api_server(self, *, crash: bool = False, deadline_s: float = 60.0) -> None:
        """End the API server, as an upgrade does or as a crash, start it again and wait until it is ready.

        It would wait a minute for the watches of its controllers to end; after 5 s it is killed.
        """
        if crash:
            self.processes.kill("kube-apiserver")
        else:
            self.processes.end("kube-apiserver")
        self.processes.again("kube-apiserver")
        self._wait_for_api_server(time.monotonic() + deadline_s)

    @contextmanager
    def api_server_away(self, *, deadline_s: float = 60.0) -> Iterator[None]:
        """Nothing answers at the API server's address meanwhile."""
        self.processes.kill("kube-apiserver")
        try:
            yield
        finally:
            self.processes.again("kube-apiserver")
            self._wait_for_api_server(time.monotonic() + deadline_s)

    def stop(self) -> None:
        """Nothing of it runs afterwards. What it wrote stays, for who looks into the logs."""
        self.processes.kill_all()
        if self.pods:
            self.pods.release()
            self.pods = None

    def kubectl(self, *arguments: str, given: str | None = None, deadline_s: float = 60.0) -> str:
        """What kubectl prints, as the cluster's admin. Raises ClusterFailed with what it says."""
        argv = [str(self.programs / "kube"), "kubectl", "--kubeconfig", str(self.kubeconfig()), *arguments]
        try:
            done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise ClusterFailed(f"kubectl {' '.join(arguments)}: not done within {deadline_s:g} s") from None
        if done.returncode != 0:
            self.processes.check()
            raise ClusterFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    # who is who

    def _write_identities(self) -> None:
        self._server = self._pki.server(
            "apiserver",
            [self.host, "127.0.0.1", "10.96.0.1"],
            ["localhost", "kubernetes.default.svc", "kubernetes.default"],
        )
        self._to_kubelets = self._pki.client("kubelet-client", user="kube-apiserver", group="system:masters")
        self._service_accounts = self._pki.key("service-account")
        with (self.folder / "tokens.csv").open("w", newline="") as table:
            rows = csv.writer(table)
            for name, (user, group) in _USERS.items():
                rows.writerow([self._tokens[name], user, user, *([group] if group else [])])
        for name in _USERS:
            path = self.kubeconfig(name)
            path.touch(mode=0o600)
            path.write_text(json.dumps(kubeconfig(self.url, self.ca, self._tokens[name])))

    # processes

    def _run(self, name: str, *arguments: str | Path, program: str = "", env: Mapping[str, str] | None = None) -> None:
        argv: list[str | Path] = [self.programs / program] if program else [self.programs / "kube", name]
        if self._network is not None and name in ("etcd", "kube-apiserver"):
            argv = ["nsenter", f"--net={self._network}", "--", *argv]
        self.processes.start(name, [*argv, *arguments, *self._flags.get(name, ())], env=env)

    def _start_store_and_api_server(self, ends: float) -> None:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._run(
            "etcd",
            *("--data-dir", self.folder / "etcd", "--unsafe-no-fsync", "--log-level", "warn"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *(
                "--listen-peer-urls",
                peer,
                "--initial-advertise-peer-urls",
                peer,
                "--initial-cluster",
                f"default={peer}",
            ),
        )
        # an endpoint of the Service `kubernetes` cannot be a loopback address
        loopback = ("--endpoint-reconciler-type", "none") if self.host.startswith("127.") else ()
        self._run(
            "kube-apiserver",
            *("--etcd-servers", client, "--bind-address", self.host, "--secure-port", str(self._port), *loopback),
            *("--tls-cert-file", self._server.certificate, "--tls-private-key-file", self._server.key),
            *("--client-ca-file", self.ca, "--token-auth-file", self.folder / "tokens.csv"),
            *("--kubelet-client-certificate", self._to_kubelets.certificate),
            *("--kubelet-client-key", self._to_kubelets.key, "--kubelet-preferred-address-types", "InternalIP"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", self._service_accounts),
            *("--service-account-signing-key-file", self._service_accounts),
            *("--service-cluster-ip-range", SERVICE_CIDR, "--authorization-mode", "Node,RBAC", "--allow-privileged"),
            # nothing here would take the taint of a node that is not ready away again
            *("--disable-admission-plugins", "TaintNodesByCondition"),
            *("--profiling=false", "--http2-max-streams-per-connection", "1000"),
        )
        self._wait_for_api_server(ends)

    def _wait_for_api_server(self, ends: float) -> None:
        ready = f"{self.url}/readyz"
        self.processes.wait_for(ready, ends=ends, what="the API server", ca=self.ca, token=self._tokens["admin"])

    def _start_controllers(self) -> None:
        for name, more in (
            (
                "controller-manager",
                [
                    *("--controllers", ",".join(_CONTROLLERS), "--root-ca-file", self.ca),
                    # the controller manager itself may not write EndpointSlices
                    "--use-service-account-credentials",
                    *("--service-account-private-key-file", self._service_accounts),
                    *("--kube-api-qps", "1000", "--kube-api-burst", "1000", "--concurrent-gc-syncs", "10"),
                ],
            ),
            ("scheduler", ["--kube-api-qps", "1000", "--kube-api-burst", "1000"]),
        ):
            config = self.kubeconfig(name)
            self._run(
                f"kube-{name}",
                *("--kubeconfig", config, "--authentication-kubeconfig", config),
                *("--authorization-kubeconfig", config, "--leader-elect=false", "--profiling=false"),
                *("--bind-address", "127.0.0.1", "--secure-port", str(free_port())),
                *more,
            )

    def _start_agent_sandbox(self, ends: float) -> None:
        health = f"127.0.0.1:{free_port()}"
        self._run(
            "agent-sandbox-controller",
            *("--extensions", "--enable-webhook=false", "--leader-elect=false"),
            *("--metrics-bind-address", f"127.0.0.1:{free_port()}", "--health-probe-bind-address", health),
            program="agent-sandbox-controller",
            env={"KUBECONFIG": str(self.kubeconfig())},
        )
        self.processes.wait_for(f"http://{health}/readyz", ends=ends, what="agent-sandbox's controller")


def kubeconfig(server: str, ca: Path, token: str, *, namespace: str = "default") -> dict[str, object]:
    """A kubeconfig, as data, for a client that shows `token`."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "test", "user": {"token": token}}],
    }
