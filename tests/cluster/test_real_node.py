"""The real node runs pods as a cluster's would, in gVisor where they ask for it, and ends without a trace."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster.binaries import NotBuilt
from tests.cluster.box import Box, cannot
from tests.cluster.cluster import Namespace, Refused
from tests.cluster.fixtures import RealCluster
from tests.cluster.node import SHELL
from tests.cluster.small_images import small_images
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.root

SERVICE = "10.96.0.1"
"""Of the API server, the first of the Services' addresses."""
SERVES = "mkdir -p /tmp/www && uname -r > /tmp/www/kernel && exec httpd -f -p 8080 -h /tmp/www"


def pod(name: str, script: str = SERVES, **spec: Any) -> dict[str, Any]:
    """A pod of busybox as vibeD's are: not root, restricted, and written to in /tmp alone."""
    confined = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "app",
        "image": SHELL,
        "imagePullPolicy": "Never",
        "args": [script],
        "securityContext": confined,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            **spec,
        },
    }


def service(name: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def fetch(namespace: Namespace, pod: str, host: str, port: int = 80) -> str:
    """The body of what `pod` gets from /kernel of `host`. Raises Refused when it does not answer within a second.

    Not by wget: of Debian's static busybox it ends by a signal where there is no libc.
    """
    script = f"printf 'GET /kernel HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {host} {port}"
    return namespace.kubectl("exec", pod, "--", "sh", "-c", script).rpartition("\n\n")[2].strip()


def test_a_pod_answers_by_its_services_name_from_a_pod_and_from_the_node(
    real_cluster: RealCluster, real_namespace: Namespace
) -> None:
    real_namespace.apply([pod("web"), service("web"), pod("visitor", "exec sleep 1000")])
    for name in ("web", "visitor"):
        real_namespace.wait(f"pod/{name}", "condition=Ready")
    kernel = platform.release()
    assert eventually(lambda: fetch(real_namespace, "visitor", "web"), "it answers") == kernel
    address = f"http://web.{real_namespace}.svc.cluster.local/kernel"
    fetching = f"import urllib.request as u; print(u.urlopen({address!r}, timeout=10).read().decode())"
    assert real_cluster.box.run(sys.executable, "-c", fetching).strip() == kernel


def test_this_process_reaches_a_pod_by_its_address_while_it_is_in_the_network_of_the_box(
    real_cluster: RealCluster, real_namespace: Namespace
) -> None:
    real_namespace.apply(pod("web"))
    real_namespace.wait("pod/web", "condition=Ready")
    url = f"http://{real_namespace.get('pod', 'web')['status']['podIP']}:8080/kernel"

    def get() -> str:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return str(answer.read().decode())

    before = Path("/proc/thread-self/ns/net").readlink()
    with real_cluster.box.network():
        assert eventually(get, "the pod answers").strip() == platform.release()
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_a_pod_of_the_runtime_class_gvisor_sees_gvisors_kernel(real_namespace: Namespace) -> None:
    real_namespace.apply([pod("web", runtimeClassName="gvisor"), service("web"), pod("visitor", "exec sleep 1000")])
    for name in ("web", "visitor"):
        real_namespace.wait(f"pod/{name}", "condition=Ready", deadline_s=60)
    assert real_namespace.kubectl("exec", "web", "--", "uname", "-r").strip() == "4.19.0-gvisor"
    answer = eventually(lambda: fetch(real_namespace, "visitor", "web"), "it answers")
    assert answer == "4.19.0-gvisor"


def test_a_network_policy_is_enforced_for_pods_of_either_runtime(real_namespace: Namespace) -> None:
    real_namespace.apply([pod("plain"), pod("kernel", runtimeClassName="gvisor"), pod("visitor", "exec sleep 1000")])
    for name in ("plain", "kernel", "visitor"):
        real_namespace.wait(f"pod/{name}", "condition=Ready", deadline_s=60)
    addresses = {one["metadata"]["name"]: one["status"]["podIP"] for one in real_namespace.get("pods")["items"]}

    def reached() -> set[str]:
        found = set()
        for name in ("plain", "kernel"):
            try:
                fetch(real_namespace, "visitor", addresses[name], 8080)
            except Refused:
                continue
            found.add(name)
        return found

    eventually(lambda: reached() == {"plain", "kernel"}, "both answer while there is no policy")
    policy: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    real_namespace.apply(policy)
    eventually(lambda: reached() == set(), "no policy lets anybody in")
    policy["spec"]["ingress"] = [{"from": [{"podSelector": {"matchLabels": {"app": "visitor"}}}]}]
    real_namespace.apply(policy)
    eventually(lambda: reached() == {"plain", "kernel"}, "the visitor is let in")


def test_a_network_policy_stands_before_the_api_server_too(real_namespace: Namespace) -> None:
    real_namespace.apply([pod("visitor", "exec sleep 1000")])
    real_namespace.wait("pod/visitor", "condition=Ready", deadline_s=60)
    own = urlsplit(real_namespace.cluster.server[0])
    assert own.hostname is not None and own.port is not None
    places = ((SERVICE, 443), (own.hostname, own.port))

    def answer(host: str, port: int) -> str:
        with suppress(Refused):
            return fetch(real_namespace, "visitor", host, port)
        return ""

    for host, port in places:
        assert "HTTPS server" in answer(host, port), "it answers while there is no policy"
    closed = {"podSelector": {}, "policyTypes": ["Egress"]}
    real_namespace.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "closed"},
            "spec": closed,
        }
    )
    for host, port in places:
        eventually(lambda host=host, port=port: not answer(host, port), "nobody gets out to it")


def test_a_sandboxs_pod_that_is_deleted_comes_back_under_its_name(real_namespace: Namespace) -> None:
    api = "extensions.agents.x-k8s.io/v1beta1"
    spec = pod("any")["spec"]
    real_namespace.apply(
        [
            {
                "apiVersion": api,
                "kind": "SandboxTemplate",
                "metadata": {"name": "small"},
                "spec": {"networkPolicyManagement": "Unmanaged", "podTemplate": {"spec": spec}},
            },
            {
                "apiVersion": api,
                "kind": "SandboxWarmPool",
                "metadata": {"name": "small"},
                "spec": {"replicas": 1, "sandboxTemplateRef": {"name": "small"}},
            },
        ]
    )
    real_namespace.wait("sandboxwarmpool/small", "jsonpath={.status.readyReplicas}=1")
    metadata, warm = {"name": "one"}, {"warmPoolRef": {"name": "small"}}
    real_namespace.apply({"apiVersion": api, "kind": "SandboxClaim", "metadata": metadata, "spec": warm})
    real_namespace.wait("sandboxclaim/one", "condition=Ready")
    name = real_namespace.get("sandboxclaim", "one")["status"]["sandbox"]["name"]
    before = real_namespace.get("pod", name)["metadata"]["uid"]
    real_namespace.kubectl("delete", "pod", name)
    eventually(lambda: real_namespace.get("pod", name)["metadata"]["uid"] != before, "another pod of that name")
    real_namespace.wait(f"pod/{name}", "condition=Ready")


def test_what_exceeds_its_memory_is_killed_and_says_so(real_namespace: Namespace) -> None:
    hungry = pod("hungry", "exec sh -c 'a=x; while :; do a=$a$a; done'", restartPolicy="Never")
    hungry["spec"]["containers"][0]["resources"] = {"limits": {"memory": "32Mi"}}
    real_namespace.apply(hungry)
    real_namespace.wait("pod/hungry", "jsonpath={.status.phase}=Failed", deadline_s=60)
    ended = real_namespace.get("pod", "hungry")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["reason"] == "OOMKilled"


def test_a_box_leaves_no_process_no_mount_and_no_cgroup(tmp_path: Path) -> None:
    if reason := cannot():
        pytest.skip(reason)
    mounts, sysctls = Path("/proc/self/mounts").read_text(), _sysctls()
    try:
        box = Box(tmp_path)
    except NotBuilt as missing:
        pytest.skip(str(missing))
    box.start(small_images(tmp_path))
    try:
        network = str(Path(f"/proc/{box.pid}/ns/net").readlink())
        assert len(_in_network(network)) > 8
        kubectl = box.command(str(box.programs / "kube"), "kubectl", "--kubeconfig", str(box.kubeconfig))
        subprocess.run([*kubectl, "create", "-f", "-"], input=json.dumps(pod("web")), text=True, check=True)
        ready = ("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        subprocess.run([*kubectl, *ready], check=True, timeout=70)
    finally:
        box.end()
    assert _in_network(network) == []
    assert Path("/proc/self/mounts").read_text() == mounts
    assert list(Path("/sys/fs/cgroup").glob(f"**/{box.cgroup}")) == []
    assert _sysctls() == sysctls


def _in_network(network: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if str((entry / "ns/net").readlink()) == network:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _sysctls() -> dict[str, str]:
    names = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
    return {name: Path("/proc/sys", name).read_text() for name in names}
