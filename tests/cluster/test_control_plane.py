"""The cluster that tests run on does what they take for granted: it gives sandboxes, keeps to rights, ends watches."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Namespace, Refused
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import ClusterFailed, Processes
from tests.e2e.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
TEMPLATE: dict[str, Any] = {
    "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
    "kind": "SandboxTemplate",
    "metadata": {"name": "small"},
    "spec": {
        "networkPolicyManagement": "Unmanaged",
        "podTemplate": {
            "spec": {
                "automountServiceAccountToken": False,
                "containers": [{"name": "app", "image": "vibed.test/none:1", "ports": [{"containerPort": 8080}]}],
            }
        },
    },
}
POOL: dict[str, Any] = {
    "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
    "kind": "SandboxWarmPool",
    "metadata": {"name": "small"},
    "spec": {"replicas": 2, "sandboxTemplateRef": {"name": "small"}},
}


def claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
        "kind": "SandboxClaim",
        "metadata": {"name": name},
        "spec": {
            "warmPoolRef": {"name": "small"},
            "additionalPodMetadata": {"labels": {"sandbox.users.io/app": name}},
        },
    }


@pytest.fixture
def pool(namespace: Namespace) -> Namespace:
    """A namespace with a warm pool of two sandboxes that are ready."""
    namespace.apply([TEMPLATE, POOL])
    namespace.wait("sandboxwarmpool/small", "jsonpath={.status.readyReplicas}=2")
    return namespace


def test_a_claim_adopts_a_sandbox_that_was_warm_and_labels_its_pod(pool: Namespace) -> None:
    warm = {pod["metadata"]["name"] for pod in pool.get("pods")["items"]}
    pool.apply(claim("one"))
    pool.wait("sandboxclaim/one", "condition=Ready")
    adopted = pool.get("sandboxclaim", "one")["status"]["sandbox"]["name"]
    assert adopted in warm
    assert pool.get("pod", adopted)["metadata"]["labels"]["sandbox.users.io/app"] == "one"


def test_what_a_claim_adopted_goes_with_it(pool: Namespace) -> None:
    pool.apply(claim("one"))
    pool.wait("sandboxclaim/one", "condition=Ready")
    adopted = pool.get("sandboxclaim", "one")["status"]["sandbox"]["name"]
    pool.kubectl("delete", "sandboxclaim", "one")
    pool.kubectl("wait", "--for=delete", f"pod/{adopted}", "--timeout=20s")


def test_a_program_at_a_fake_pods_address_is_reached_there(pool: Namespace, own_cluster: ControlPlane) -> None:
    pod = pool.get("pods")["items"][0]["status"]["podIP"]
    assert own_cluster.pods is not None and pod.startswith(f"127.{own_cluster.pods.number}.")
    server = subprocess.Popen(["python3", "-m", "http.server", "--bind", pod, "8080"], stderr=subprocess.DEVNULL)
    try:
        fetch = ["python3", "-c", f"import urllib.request as u; print(u.urlopen('http://{pod}:8080/').status)"]
        eventually(lambda: subprocess.run(fetch, capture_output=True).stdout == b"200\n", "the program answers")
    finally:
        server.kill()
        server.wait()


def test_a_pod_that_is_told_to_fails(namespace: Namespace) -> None:
    spec = {"containers": [{"name": "app", "image": "vibed.test/none:1"}]}
    metadata = {"name": "bad", "annotations": {"vibed.test/fail": "true"}}
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    namespace.wait("pod/bad", "jsonpath={.status.phase}=Failed")


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(cluster: Cluster, namespace: Namespace) -> None:
    reader = namespace.service_account(
        "reader", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    )
    assert namespace.kubectl("get", "pods", config=reader) == ""
    with pytest.raises(Refused, match='cannot list resource "secrets"'):
        namespace.kubectl("get", "secrets", config=reader)
    with pytest.raises(Refused, match='cannot delete resource "pods"'):
        namespace.kubectl("delete", "pod", "any", config=reader)
    with pytest.raises(Refused, match="Forbidden"):
        cluster.kubectl("get", "pods", "-n", "default", config=reader)


def test_the_api_server_can_be_restarted_with_what_it_stored(namespace: Namespace, own_cluster: ControlPlane) -> None:
    namespace.kubectl("create", "configmap", "kept", "--from-literal=a=1")
    before = own_cluster.processes.pid("kube-apiserver")
    own_cluster.restart_api_server()
    assert own_cluster.processes.pid("kube-apiserver") != before
    assert namespace.get("configmap", "kept")["data"] == {"a": "1"}
    namespace.kubectl("create", "serviceaccount", "after")


def test_the_edit_of_a_crd_ends_its_watches(cluster: Cluster, pool: Namespace) -> None:
    path = f"/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/{pool}/sandboxclaims"
    version = json.loads(cluster.kubectl("get", "--raw", path))["metadata"]["resourceVersion"]
    watch = subprocess.Popen(
        [*cluster.program, "--kubeconfig", cluster.config, "get", "--raw", f"{path}?watch=1&resourceVersion={version}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    try:
        pool.apply(claim("seen"))
        assert json.loads(watch.stdout.readline())["object"]["metadata"]["name"] == "seen"
        cluster.edit_crd("sandboxclaims.extensions.agents.x-k8s.io")
        ended = threading.Thread(target=watch.stdout.read)
        ended.start()
        ended.join(30)
        assert not ended.is_alive()
    finally:
        watch.kill()
        watch.wait()


def test_a_cluster_that_cannot_start_says_which_program_ended_and_its_last_words(
    tmp_path: Path, own_cluster: ControlPlane
) -> None:
    plane = ControlPlane(tmp_path, own_cluster.programs, flags={"kube-apiserver": ["--no-such-flag"]})
    with pytest.raises(ClusterFailed, match=r"(?s)kube-apiserver ended with status.*no-such-flag"):
        plane.start()
    assert plane.processes.pids() == {}


def test_nothing_of_a_cluster_outlives_who_started_it_not_even_when_that_is_killed(
    tmp_path: Path, own_cluster: ControlPlane
) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "fake", tmp_path], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert starter.stdout is not None
    try:
        assert starter.stdout.readline().startswith("export KUBECONFIG=")
        started = children(starter.pid)
        assert len(started) == len(own_cluster.processes.pids())
    finally:
        starter.kill()
        starter.wait()
    eventually(lambda: not [pid for pid in started if Path(f"/proc/{pid}").exists()], "its processes end")


def test_what_a_thread_has_started_outlives_that_thread(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    starter = threading.Thread(target=processes.start, args=("sleeper", ["sleep", "60"]))
    starter.start()
    starter.join()
    try:
        eventually(lambda: not Path(f"/proc/self/task/{starter.native_id}").exists(), "the thread is gone")
        time.sleep(0.1)  # for the kernel's signal to arrive
        processes.check()
    finally:
        processes.kill_all()


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
