"""A cluster that knows VibedApps, and namespaces for them that can go although nobody tears apps down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vibed.cluster
from tests.cluster.cluster import Cluster, Namespace
from tests.cluster.crds import until_established

CRD = Path(vibed.cluster.__file__).parent / "crds" / "vibedapps.yaml"


@pytest.fixture(scope="session")
def vibed_cluster(cluster: Cluster) -> Cluster:
    """The cluster, with vibeD's CRD."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    until_established(cluster.kubectl, "crd/vibedapps.vibed.dev")
    return cluster


@pytest.fixture
def apps_namespace(vibed_cluster: Cluster, namespace: Namespace) -> Iterator[Namespace]:
    """A fresh namespace for VibedApps."""
    yield namespace
    apps = namespace.get("vibedapps")["items"]
    for app in apps:
        app["metadata"].pop("finalizers", None)
    if apps:
        namespace.kubectl("replace", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": apps})
