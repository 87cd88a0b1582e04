"""What an account must be allowed for the app store, as RBAC rules: what the chart grants and tests run with.

No rule is for a whole cluster. Only the API's has Secrets, those of vibeD's own namespace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on one resource, in the namespace of the apps or in vibeD's own."""

    namespace: Literal["apps", "own"]
    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str


_READ = ("get", "list", "watch")

API: tuple[Right, ...] = (
    Right("apps", "vibed.dev", "vibedapps", (*_READ, "create", "update", "delete"), "deploys, lists, deletions"),
    Right("apps", "apps", "controllerrevisions", ("get", "list", "create", "delete"), "versions, Idempotency-Keys"),
    Right("own", "", "secrets", ("get", "list", "create", "patch", "delete"), "API keys"),
    Right("own", "", "configmaps", ("get", "list", "create", "delete"), "which app has a domain"),
    Right("own", "coordination.k8s.io", "leases", ("create", "patch"), "`/readyz`: whether writes are taken"),
)
"""`vibed serve`."""

CONTROLLER: tuple[Right, ...] = (
    Right("apps", "vibed.dev", "vibedapps", (*_READ, "update"), "specs; versions of those applied by hand; purging"),
    Right("apps", "vibed.dev", "vibedapps/status", ("update",), "what it saw"),
    Right("apps", "apps", "controllerrevisions", ("get", "list", "create", "delete"), "versions"),
)
"""`vibed controller`, as far as the store is concerned: claims, pods and the election have rules of their own."""

ROUTER: tuple[Right, ...] = (
    Right("apps", "vibed.dev", "vibedapps", _READ, "routes"),
    Right("apps", "apps", "controllerrevisions", ("get",), "an app whose spec is being edited by hand"),
    Right("own", "", "configmaps", _READ, "which app has a domain"),
)
"""`vibed router`."""

DEFINITIONS: tuple[Right, ...] = (
    Right("own", "apiextensions.k8s.io", "customresourcedefinitions", ("get", "create", "patch"), "`vibed crds apply`"),
    Right("own", "vibed.dev", "vibedapps", ("list",), "whether an app has what another definition would drop"),
)
"""`vibed crds apply`: the one that needs a ClusterRole, in a hook of the chart and not in what runs."""
