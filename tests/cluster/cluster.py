"""A cluster as tests see it: through kubectl, in namespaces of their own, with the rights of a ServiceAccount.

It is the control plane that this run started, or any cluster that VIBED_TEST_KUBECONFIG names; what only the former can
have done to it (a restart of its API server) is asked of `own`.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane, kubeconfig

Rule = Mapping[str, Sequence[str]]
"""One rule of a Role, as the API has it: apiGroups, resources, verbs."""


class Refused(RuntimeError):
    """kubectl ended with an error; its words."""


@dataclass(frozen=True)
class Cluster:
    """One cluster and the program to talk to it with."""

    config: Path
    """A kubeconfig with the rights of an admin."""
    program: Sequence[str]
    """The beginning of a kubectl command."""
    folder: Path
    """Where files about it may be put."""
    own: ControlPlane | None = None
    """None where it is somebody else's cluster."""

    def kubectl(self, *arguments: str, given: Any = None, config: Path | None = None, deadline_s: float = 60.0) -> str:
        """What kubectl prints. `given` is what `-f -` reads: text, or objects that become JSON. `config` is another's
        kubeconfig. Raises Refused.
        """
        text = given if given is None or isinstance(given, str) else json.dumps(given)
        argv = [*self.program, "--kubeconfig", str(config or self.config), *arguments]
        try:
            done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise Refused(f"kubectl {' '.join(arguments)}: not done within {deadline_s:g} s") from None
        if done.returncode != 0:
            raise Refused(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str, config: Path | None = None) -> Any:
        """What `kubectl get ARGUMENTS -o json` prints, as data. Raises Refused."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json", config=config))

    def apply(self, objects: Any, *, namespace: str = "default") -> None:
        """Server-side apply of text, one object or a list of objects. Raises Refused."""
        given = {"apiVersion": "v1", "kind": "List", "items": objects} if isinstance(objects, list) else objects
        self.kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-", given=given)

    def edit_crd(self, name: str) -> None:
        """Change the schema of a CRD without effect, as an upgrade does: the API server ends all its watches, and what
        goes on from an older resourceVersion is told 410 Gone.
        """
        place = "/spec/versions/0/schema/openAPIV3Schema/description"
        change = [{"op": "add", "path": place, "value": f"edited {secrets.token_hex(4)}"}]
        self.kubectl("patch", "crd", name, "--type=json", "-p", json.dumps(change))

    def namespace(self, name: str, *, labels: Mapping[str, str] | None = None) -> Namespace:
        """Make a namespace, with the ServiceAccount that pods in it need."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}
        self.kubectl("create", "-f", "-", given=body)
        self.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
        return Namespace(self, name)

    @cached_property
    def server(self) -> tuple[str, Path]:
        """The API server's URL and the certificate to trust for it."""
        view = json.loads(self.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        found = view["clusters"][0]["cluster"]
        if "certificate-authority" in found:
            return found["server"], Path(found["certificate-authority"])
        ca = self.folder / "ca.crt"
        ca.write_bytes(base64.b64decode(found["certificate-authority-data"]))
        return found["server"], ca


@dataclass(frozen=True)
class Namespace:
    """A namespace that one test has for itself."""

    cluster: Cluster
    name: str

    def __str__(self) -> str:
        return self.name

    def kubectl(self, *arguments: str, given: Any = None, config: Path | None = None, deadline_s: float = 60.0) -> str:
        """As `Cluster.kubectl`, in this namespace."""
        return self.cluster.kubectl("-n", self.name, *arguments, given=given, config=config, deadline_s=deadline_s)

    def get(self, *arguments: str, config: Path | None = None) -> Any:
        """As `Cluster.get`, in this namespace."""
        return self.cluster.get("-n", self.name, *arguments, config=config)

    def apply(self, objects: Any) -> None:
        """As `Cluster.apply`, in this namespace."""
        self.cluster.apply(objects, namespace=self.name)

    def wait(self, what: str, condition: str, *, deadline_s: float = 30.0) -> None:
        """Wait until an object (`sandboxclaim/a`) meets `kubectl wait`'s condition. Raises Refused."""
        arguments = ("wait", what, f"--for={condition}", f"--timeout={deadline_s:g}s")
        self.kubectl(*arguments, deadline_s=deadline_s + 10)

    def unready(self, pod: str) -> None:
        """Say of a pod what Kubernetes says when its node is not heard of any more."""
        condition = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
        self.kubectl(
            *("patch", "pod", pod, "--subresource=status", "-p", json.dumps({"status": {"conditions": [condition]}}))
        )

    def evict(self, pod: str) -> None:
        """As a node is drained."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.name}}
        self.kubectl("create", "--raw", f"/api/v1/namespaces/{self.name}/pods/{pod}/eviction", "-f", "-", given=body)

    def killed_for_memory(self, pod: str) -> None:
        """Say of a pod what the kubelet says when the kernel has killed its container."""
        terminated = {"exitCode": 137, "reason": "OOMKilled"}
        status = {"name": "app", "image": "", "imageID": "", "ready": False, "restartCount": 0}
        patch = {"status": {"phase": "Failed", "containerStatuses": [{**status, "state": {"terminated": terminated}}]}}
        self.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", json.dumps(patch))

    def service_account(self, name: str, *, rules: Sequence[Rule] = (), cluster_rules: Sequence[Rule] = ()) -> Path:
        """Make a ServiceAccount that may do in this namespace what `rules` say, and everywhere what `cluster_rules`
        say; returns a kubeconfig with a token of it (an hour).
        """
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.name}
        objects: list[Any] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}]
        for kind, role, given in (("Role", name, rules), ("ClusterRole", f"{self.name}-{name}", cluster_rules)):
            api, metadata = "rbac.authorization.k8s.io", {"name": role}
            if given:
                reference = {"apiGroup": api, "kind": kind, "name": role}
                binding = {"roleRef": reference, "subjects": [subject], "metadata": metadata}
                objects += [
                    {"apiVersion": f"{api}/v1", "kind": kind, "metadata": metadata, "rules": list(given)},
                    {"apiVersion": f"{api}/v1", "kind": f"{kind}Binding", **binding},
                ]
        self.apply(objects)
        return self.token_of(name)

    def token_of(self, service_account: str) -> Path:
        """A kubeconfig with a fresh token of a ServiceAccount that is there already."""
        server, ca = self.cluster.server
        token = self.kubectl("create", "token", service_account).strip()
        path = self.cluster.folder / f"{self.name}-{service_account}-{secrets.token_hex(4)}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(kubeconfig(server, ca, token, namespace=self.name)))
        return path
