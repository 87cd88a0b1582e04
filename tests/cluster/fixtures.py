"""What tests ask for: `cluster`, `namespace`, `kubectl`. Any test may: tests/conftest.py has them for all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from secrets import token_hex

import pytest

from tests.cluster import binaries
from tests.cluster.cluster import Cluster, Namespace
from tests.cluster.control_plane import ControlPlane
from tests.prepare import home

GIVEN = "VIBED_TEST_KUBECONFIG"

_numbers = count(1)
_run = token_hex(3)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with a fake node (each process of pytest-xdist has its own), or the cluster that
    VIBED_TEST_KUBECONFIG names.
    """
    folder = tmp_path_factory.mktemp("cluster")
    try:
        programs = binaries.programs(binaries.CONTROL_PLANE, home())
    except binaries.NotBuilt as missing:
        pytest.skip(str(missing))
    kubectl = (str(programs / "kube"), "kubectl")
    if GIVEN in os.environ:
        yield Cluster(Path(os.environ[GIVEN]), kubectl, folder)
        return
    plane = ControlPlane(folder, programs)
    try:
        plane.start()
        plane.start_fake_node()
        yield Cluster(plane.kubeconfig(), kubectl, folder, plane)
    finally:
        plane.stop()
        shutil.rmtree(folder / "etcd", ignore_errors=True)  # 130 MB that tell nobody anything


@pytest.fixture
def own_cluster(cluster: Cluster) -> ControlPlane:
    """The control plane of `cluster`, for what is done to it: a restart, a log read."""
    if cluster.own is None:
        pytest.skip(f"{GIVEN} names a cluster that tests do not own")
    return cluster.own


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A fresh namespace, which goes after the test, in the background."""
    word = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")[:30].strip("-")
    made = cluster.namespace(f"t-{_run}-{next(_numbers)}-{word}")
    yield made
    with suppress(subprocess.TimeoutExpired):
        _forget(made)


@pytest.fixture
def kubectl(namespace: Namespace) -> Callable[..., str]:
    """kubectl in the test's namespace, as admin: `kubectl("get", "pods")`."""
    return namespace.kubectl


def _forget(namespace: Namespace) -> None:
    cluster, name = namespace.cluster, namespace.name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
    roles = cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name").split()
    mine = [role for role in roles if role.partition("/")[2].startswith(f"{name}-")]
    if mine:
        cluster.kubectl("delete", *mine, "--wait=false")
