"""What tests ask for: `cluster`, `namespace`, `kubectl`. Any test may: tests/conftest.py has them for all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from secrets import token_hex

import pytest

from tests.cluster import binaries, box
from tests.cluster.box import Box
from tests.cluster.cluster import Cluster, Namespace, Refused
from tests.cluster.control_plane import ControlPlane
from tests.cluster.small_images import small_images
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
    made = cluster.namespace(_name(request))
    yield made
    with suppress(Refused):  # a test may have left the cluster in a state in which nothing works
        _forget(made)


@pytest.fixture
def kubectl(namespace: Namespace) -> Callable[..., str]:
    """kubectl in the test's namespace, as admin: `kubectl("get", "pods")`."""
    return namespace.kubectl


def _name(request: pytest.FixtureRequest) -> str:
    word = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")[:30].strip("-")
    return f"t-{_run}-{next(_numbers)}-{word}"


def _forget(namespace: Namespace) -> None:
    cluster, name = namespace.cluster, namespace.name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
    roles = cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name").split()
    mine = [role for role in roles if role.partition("/")[2].startswith(f"{name}-")]
    if mine:
        cluster.kubectl("delete", *mine, "--wait=false")


@dataclass(frozen=True)
class RealCluster(Cluster):
    """A cluster with a real node, in a box: kubectl runs in there."""

    box: Box = field(kw_only=True)


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """A control plane with a real node that has the images of tests.cluster.small_images. Needs root."""
    if reason := box.cannot():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("real")
    try:
        made = Box(folder)
    except binaries.NotBuilt as missing:
        pytest.skip(str(missing))
    try:
        made.start(small_images(folder))
        program = made.command(str(made.programs / "kube"), "kubectl")
        yield RealCluster(made.kubeconfig, program, folder, box=made)
    finally:
        made.end()


@pytest.fixture
def real_namespace(real_cluster: RealCluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A fresh namespace on the cluster with the real node; its pods are gone when the test is over."""
    made = real_cluster.namespace(_name(request))
    yield made
    with suppress(Refused):
        _forget(made)
