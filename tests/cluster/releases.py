"""vibeD's chart as tests install it: Helm itself, and a release in namespaces of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import yaml

from tests.cluster import binaries
from tests.cluster.cluster import Cluster
from tests.prepare import home

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "vibed"
BASE = {"sources": {"s3": {"bucket": "vibed-sources", "endpoint": "https://s3.example.com:7070"}}}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}

Values = Mapping[str, Any]
Asked = tuple[str, str, str]
"""Verb, resource, where."""

_numbers = count(1)


class HelmFailed(Exception):
    """Helm ended with an error; its words."""


@dataclass(frozen=True)
class Helm:
    """The program, and the cluster that it is pointed at (none: it only makes text)."""

    program: Path
    folder: Path
    cluster: Cluster | None = None

    def __call__(self, *arguments: str, values: Values | None = None) -> str:
        """What Helm prints. `values` are laid over BASE. Raises HelmFailed."""
        argv = [str(self.program), *arguments]
        if values is not None:
            path = self.folder / f"values-{next(_numbers)}.json"
            path.write_text(json.dumps(laid_over(BASE, values)))
            argv += ["--values", str(path)]
        env = {"HOME": str(self.folder), "PATH": "/usr/bin:/bin"}
        if self.cluster is not None:
            env["KUBECONFIG"] = str(self.cluster.config)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100, env=env)
        if done.returncode != 0:
            raise HelmFailed(done.stderr.strip())
        return done.stdout

    def template(self, values: Values = {}, *, namespace: str = "vibed") -> list[Any]:  # noqa: B006
        """The objects that the chart makes of values, hooks too."""
        text = self("template", "vibed", str(CHART), "--namespace", namespace, "--skip-tests", values=values)
        return [found for found in yaml.safe_load_all(text) if found]


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: laid_over(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)
    }
    return {**below, **above, **both}


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    try:
        programs = binaries.programs(binaries.CONTROL_PLANE, home())
    except binaries.NotBuilt as missing:
        pytest.skip(str(missing))
    return Helm(programs / "helm", tmp_path_factory.mktemp("helm"))


@dataclass(frozen=True)
class Release:
    """vibeD as Helm installed it."""

    helm: Helm
    cluster: Cluster
    namespace: str

    @property
    def apps(self) -> str:
        return f"{self.namespace}-apps"

    @property
    def keys(self) -> str:
        return f"{self.namespace}-keys"

    def values(self, more: Values = {}) -> Values:  # noqa: B006
        return laid_over({"sandboxes": {"namespace": self.apps}}, more)

    def install(self, more: Values = {}) -> str:  # noqa: B006
        return self._helm("install", str(CHART), "--wait", "--timeout", "90s", values=self.values(more))

    def upgrade(self, more: Values = {}) -> str:  # noqa: B006
        return self._helm("upgrade", str(CHART), "--wait", "--timeout", "90s", values=self.values(more))

    def _helm(self, verb: str, *arguments: str, values: Values | None = None) -> str:
        return self.helm(verb, "vibed", *arguments, "--namespace", self.namespace, values=values)

    def rollback(self) -> str:
        return self._helm("rollback", "--wait", "--timeout", "90s")

    def uninstall(self) -> str:
        return self._helm("uninstall", "--wait", "--timeout", "90s")

    def secrets(self) -> dict[str, dict[str, str]]:
        """What vibeD's own Secrets hold."""
        found = self.cluster.get("secrets", "-n", self.namespace, "-l", "app.kubernetes.io/name=vibed")["items"]
        return {secret["metadata"]["name"]: secret["data"] for secret in found}

    def may(self, account: str, asked: Sequence[Asked]) -> dict[Asked, bool]:
        """What the API server would let a ServiceAccount of the release's namespace do."""
        user = f"system:serviceaccount:{self.namespace}:{account}"
        groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{self.namespace}"]
        places = {"apps": self.apps, "release": self.namespace, "keys": self.keys}
        reviews = []
        for verb, what, where in asked:
            resource, _, name = what.partition(" ")
            resource, _, subresource = resource.partition("/")
            plural, _, group = resource.partition(".")
            attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "name": name}
            if where:
                attributes["namespace"] = places.get(where, where)
            spec = {"user": user, "groups": groups, "resourceAttributes": attributes}
            reviews.append({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
        given = {"apiVersion": "v1", "kind": "List", "items": reviews}
        form = 'jsonpath={.status.allowed}{"\\n"}'
        answers = self.cluster.kubectl("create", "-f", "-", "-o", form, given=given).split()
        return dict(zip(asked, (answer == "true" for answer in answers), strict=True))


@pytest.fixture(scope="module")
def release(helm: Helm, cluster: Cluster) -> Iterator[Release]:
    """One installation that several tests look at; none changes it for good."""
    made = _release(helm, cluster)
    made.install()
    yield made
    made.uninstall()
    cluster.kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture
def own_release(helm: Helm, cluster: Cluster) -> Iterator[Release]:
    """A namespace in which the test itself installs."""
    made = _release(helm, cluster)
    yield made
    cluster.kubectl("delete", "namespace", made.namespace, made.apps, "--wait=false", "--ignore-not-found")


def _release(helm: Helm, cluster: Cluster) -> Release:
    name = f"vibed-{token_hex(3)}"
    cluster.namespace(name, labels=RESTRICTED)
    return Release(Helm(helm.program, helm.folder, cluster), cluster, name)
