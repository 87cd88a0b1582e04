"""vibeD's container images: the same sources are the same digests, and they run on a real node as they are meant to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vibed
from tests.cluster import box
from tests.cluster.cluster import Namespace
from tests.cluster.development import REGISTRY, REPOSITORY, images
from tests.cluster.fixtures import RealCluster
from tests.e2e.waiting import eventually
from tests.prepare import home

pytestmark = pytest.mark.root

SMALL = ("vibed", "vibed-caddy", "static-nginx")


def build(out: Path, *names: str) -> dict[str, str]:
    """Image -> digest, as the script says."""
    script = REPOSITORY / "deploy" / "images" / "build.py"
    argv = [sys.executable, str(script), "--home", str(home()), "--out", str(out), *names]
    said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(line.split() for line in said.splitlines())


def pod(name: str, image: str, *args: str) -> dict[str, Any]:
    """A pod that keeps to Pod Security `restricted`, with a root that is read-only."""
    confined = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": f"{REGISTRY}/{image}:{vibed.__version__}",
        "imagePullPolicy": "Never",
        "args": list(args),
        "securityContext": confined,
    }
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def node_with_images(real_cluster: RealCluster) -> RealCluster:
    for archive in images(SMALL).values():
        real_cluster.box.import_image(archive)
    return real_cluster


def test_the_same_sources_are_the_same_digests_with_vibeds_version_for_a_tag_and_a_list_of_what_is_in_them(
    tmp_path: Path,
) -> None:
    if reason := box.cannot():
        pytest.skip(reason)
    first, second = (build(tmp_path / name, *SMALL) for name in ("first", "second"))
    assert first == second
    names = ("vibed", "vibed-caddy", "vibed-template-static-nginx")
    assert set(first) == {f"{REGISTRY}/{name}:{vibed.__version__}" for name in names}
    components = json.loads((tmp_path / "first" / "vibed.cdx.json").read_text())["components"]
    assert {"vibed", "fastapi", "python3.13", "vibed-agent"} <= {component["name"] for component in components}


@pytest.mark.parametrize(
    ("image", "args", "says"),
    [
        ("vibed", ("--version",), vibed.__version__),
        ("vibed-caddy", ("version",), "v2."),
    ],
)
def test_an_image_runs_without_root_on_a_root_that_is_read_only(
    node_with_images: RealCluster, real_namespace: Namespace, image: str, args: tuple[str, ...], says: str
) -> None:
    real_namespace.apply(pod("once", image, *args))
    real_namespace.wait("pod/once", "jsonpath={.status.phase}=Succeeded", deadline_s=60)
    assert says in real_namespace.kubectl("logs", "once")


def test_caddy_has_the_dns_provider_that_every_name_server_knows(
    node_with_images: RealCluster, real_namespace: Namespace
) -> None:
    real_namespace.apply(pod("once", "vibed-caddy", "list-modules"))
    real_namespace.wait("pod/once", "jsonpath={.status.phase}=Succeeded", deadline_s=60)
    assert "dns.providers.rfc2136" in real_namespace.kubectl("logs", "once").split()


def test_a_templates_image_runs_the_agent_and_an_agent_without_a_claims_key_says_so(
    node_with_images: RealCluster, real_namespace: Namespace
) -> None:
    real_namespace.apply(pod("once", "vibed-template-static-nginx"))
    real_namespace.wait("pod/once", "jsonpath={.status.phase}=Failed", deadline_s=60)
    assert "VIBED_CLAIM_KEYS" in eventually(lambda: real_namespace.kubectl("logs", "once"), "it says why")
