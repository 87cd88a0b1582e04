"""The kinds of Kubernetes objects that vibeD reads or writes, and where the API has them.

An object is a plain dict, as the API's JSON has it: what we do not know of it passes through unharmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
"""One object of the API, without `metadata.managedFields`."""

ALL = "*"
"""Stands for every namespace, where objects are listed or watched."""


def is_ready(item: Mapping[str, Any]) -> bool:
    """Whether its condition Ready is true: of a pod, a node, a claim."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version; `group` is empty for the core's."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What an object's `apiVersion` says."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The name that RBAC rules and kubectl use: `vibedapps.vibed.dev`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The path of one object, or of all in the namespace. Raises ValueError for a name that no object can have:
        an empty one would be taken for all of them, and "." and ".." for another path.
        """
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace != ALL:
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        if name:
            parts.append(_segment(name))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def _segment(name: str) -> str:
    # apimachinery, api/validation/path: what a name may never be or hold, whatever the kind
    if name in ("", ".", "..", ALL) or "/" in name or "%" in name:
        raise ValueError(f"{name!r} cannot be the name of an object")
    return quote(name, safe="")


VIBED_APP = Kind("vibed.dev", "v1alpha1", "vibedapps", "VibedApp")
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
CONTROLLER_REVISION = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
SECRET = Kind("", "v1", "secrets", "Secret")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
POD = Kind("", "v1", "pods", "Pod")
SERVICE = Kind("", "v1", "services", "Service")

# agent-sandbox: v1beta1 is what v0.5 stores and v1.0 alone serves
SANDBOX = Kind("agents.x-k8s.io", "v1beta1", "sandboxes", "Sandbox")
SANDBOX_CLAIM = Kind("extensions.agents.x-k8s.io", "v1beta1", "sandboxclaims", "SandboxClaim")
SANDBOX_TEMPLATE = Kind("extensions.agents.x-k8s.io", "v1beta1", "sandboxtemplates", "SandboxTemplate")
SANDBOX_WARM_POOL = Kind("extensions.agents.x-k8s.io", "v1beta1", "sandboxwarmpools", "SandboxWarmPool")
