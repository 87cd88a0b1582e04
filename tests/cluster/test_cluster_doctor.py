"""`vibed doctor --kubernetes`: what a cluster lacks is told with its cure, by an account that may see it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.releases import Helm, Release
from tests.contract.app_stores import ClusterPlace
from tests.contract.s3_server import REGION, S3Server
from tests.prepare import home
from vibed.apps.app import Resources, Runtime, Start
from vibed.apps.store import NewVersion

SOURCE = Path(__file__).resolve().parents[2] / "src"


def doctor(config: Path, namespace: str, *arguments: str, **more: str) -> tuple[int, dict[str, Any]]:
    """The command's exit status, and its findings by name."""
    env = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "KUBECONFIG": str(config),
        "VIBED_NAMESPACE": namespace,
        "VIBED_APPS_NAMESPACE": f"{namespace}-apps",
        **more,
    }
    argv = [sys.executable, "-m", "vibed.cli.main", "doctor", "--kubernetes", "--json", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, env=env)
    assert done.stdout, done.stderr
    return done.returncode, {found["name"]: found for found in json.loads(done.stdout)["findings"]}


def test_a_cluster_that_has_everything_is_well(cluster: Cluster, namespace: Namespace) -> None:
    status, found = doctor(cluster.config, namespace.name)
    assert status == 0
    assert [name for name, one in found.items() if one["needed"] and not one["ok"]] == []
    assert found["agent-sandbox"]["detail"] == "its controller answers (WarmPoolNotFound)"
    assert found["kubernetes"]["detail"].startswith("v1.")
    assert namespace.get("sandboxclaims")["items"] == []


def test_a_namespace_without_pod_security_is_a_note_with_the_command_that_labels_it(
    cluster: Cluster, namespace: Namespace
) -> None:
    _, found = doctor(cluster.config, namespace.name)
    told = found[f"namespace {namespace}"]
    assert (told["ok"], told["needed"]) == (False, False)
    assert told["cure"] == (
        f"kubectl label namespace {namespace} --overwrite pod-security.kubernetes.io/enforce=restricted"
    )
    cluster.kubectl(*told["cure"].split()[1:])
    _, found = doctor(cluster.config, namespace.name)
    assert found[f"namespace {namespace}"]["ok"]


def test_a_runtime_class_that_is_not_there_is_missed(cluster: Cluster, namespace: Namespace) -> None:
    status, found = doctor(cluster.config, namespace.name, "--runtime-class", "kata-no-such")
    assert status == 1
    assert not found["runtime class kata-no-such"]["ok"]
    assert "sandboxes.runtimeClass" in found["runtime class kata-no-such"]["cure"]


def test_nodes_are_looked_for_by_the_labels_of_the_runtime_class_and_those_that_are_asked_for(
    cluster: Cluster, namespace: Namespace, runtime_class: str
) -> None:
    status, found = doctor(
        cluster.config, namespace.name, "--runtime-class", runtime_class, "--node-label", "pool=apps"
    )
    assert status == 1
    assert found[f"runtime class {runtime_class}"]["ok"]
    assert found["nodes"]["detail"] == f"none with pool=apps,runs={runtime_class}"
    assert found["nodes"]["cure"].endswith(f"kubectl label node NAME pool=apps runs={runtime_class}")


@pytest.fixture
def runtime_class(cluster: Cluster) -> Iterator[str]:
    """One that no node has."""
    name = f"kata-{token_hex(3)}"
    body = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": "kata",
        "scheduling": {"nodeSelector": {"runs": name}},
    }
    cluster.apply(body)
    yield name
    cluster.kubectl("delete", "runtimeclass", name)


def test_a_name_that_leads_nowhere_is_a_note(cluster: Cluster, namespace: Namespace) -> None:
    status, found = doctor(cluster.config, namespace.name, VIBED_DOMAIN="apps.nowhere.invalid")
    told = found["names below apps.nowhere.invalid"]
    assert (status, told["ok"], told["needed"]) == (0, False, False)
    assert "*.apps.nowhere.invalid" in told["cure"]


def test_the_bucket_is_written_to_and_read_and_one_that_is_not_there_is_missed(
    cluster: Cluster, namespace: Namespace
) -> None:
    with S3Server(home()) as server:
        settings = {
            **server.environment,
            "VIBED_SOURCE_STORE": "s3",
            "VIBED_S3_ENDPOINT": server.endpoint,
            "VIBED_S3_REGION": REGION,
        }
        status, found = doctor(cluster.config, namespace.name, **settings, VIBED_S3_BUCKET=server.bucket)
        assert (status, found["source store"]["ok"]) == (0, True), found["source store"]
        status, found = doctor(cluster.config, namespace.name, **settings, VIBED_S3_BUCKET="no-such-bucket")
        assert (status, found["source store"]["ok"]) == (1, False)
        assert "no-such-bucket" in found["source store"]["detail"]


def test_an_agent_sandbox_whose_controller_is_silent_is_missed(
    own_cluster: ControlPlane, cluster: Cluster, namespace: Namespace
) -> None:
    own_cluster.processes.end("agent-sandbox-controller")
    try:
        status, found = doctor(cluster.config, namespace.name)
    finally:
        own_cluster.processes.again("agent-sandbox-controller")
    assert status == 1
    assert "says nothing of a claim" in found["agent-sandbox"]["detail"]
    assert namespace.get("sandboxclaims")["items"] == []


def test_the_hooks_account_may_look_at_everything_that_decides(
    helm: Helm, cluster: Cluster, namespace: Namespace
) -> None:
    values = {"sandboxes": {"namespace": f"{namespace}-apps"}}
    hooks = [made for made in helm.template(values, namespace=namespace.name) if _comes_before_an_installation(made)]
    namespace.apply([made for made in hooks if made["kind"] != "Job"])
    try:
        status, found = doctor(namespace.token_of("vibed-hook"), namespace.name)
    finally:
        for made in hooks:
            if made["kind"].startswith("Cluster"):
                cluster.kubectl("delete", made["kind"], made["metadata"]["name"])
    assert status == 0
    assert [name for name, one in found.items() if "could not be looked at" in one["detail"]] == []
    assert found["permissions"]["detail"] == "vibed-hook may do what it has to"


def _comes_before_an_installation(made: Any) -> bool:
    return "pre-install" in made["metadata"].get("annotations", {}).get("helm.sh/hook", "")


async def test_apps_that_ask_for_more_than_their_sandboxes_have_are_named(apps_namespace: Namespace) -> None:
    place = ClusterPlace(apps_namespace.cluster.config, apps_namespace.name, cached=False)
    async with place.opened() as store:
        runtime = Runtime("general", "python-313", "python", "app.py", "", start=Start(("python3", "app.py")))
        for name, resources in (("modest", Resources()), ("greedy", Resources(memory_mb=4096))):
            await store.deploy(NewVersion(name, "ann", "ann", "a" * 64, 10, runtime, {}, resources))
    config, name = apps_namespace.cluster.config, apps_namespace.name
    status, found = await asyncio.to_thread(doctor, config, name, VIBED_APPS_NAMESPACE=name)
    told = found["resources of apps"]
    assert (status, told["ok"], told["needed"]) == (0, False, False)
    assert told["detail"].startswith("1 ask for more than their sandboxes have: greedy (1 CPUs and 4096 MB; python-313")
    assert "ResourcesTooLarge" in told["cure"]


def test_somebody_who_may_nothing_is_told_what_could_not_be_looked_at(namespace: Namespace) -> None:
    status, found = doctor(namespace.service_account("nobody"), namespace.name)
    assert status == 1
    assert "nobody may not create customresourcedefinitions.apiextensions.k8s.io" in found["permissions"]["detail"]
    assert "could not be looked at" in found["nodes"]["detail"]
    assert "a ClusterRole with the rule" in found["nodes"]["cure"]


@pytest.mark.parametrize("account", ["vibed", "vibed-controller", "vibed-router"])
def test_the_charts_roles_grant_what_each_process_has_to_be_allowed(release: Release, account: str) -> None:
    config = Namespace(release.cluster, release.namespace).token_of(account)
    # as the chart tells its processes
    _, found = doctor(config, release.namespace, VIBED_KEYS_NAMESPACE=release.keys)
    assert found["permissions"]["detail"] == f"{account} may do what it has to"
