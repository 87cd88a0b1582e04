"""What the cluster is asked for: a SandboxTemplate and a SandboxWarmPool for each template, as data.

Nothing but what a template says and how the operator has set vibeD up decides them (`manifests` is a pure function).
Pods keep to the restricted Pod Security Standard, and to what it leaves open: no root even in a user namespace, a root
file system that nobody writes, no token of a ServiceAccount. NetworkPolicies are the chart's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vibed.cluster.kinds import SANDBOX_TEMPLATE, SANDBOX_WARM_POOL, Object
from vibed.drivers.agent_sandbox import sites, workers
from vibed.drivers.agent_sandbox.claims import BY, MANAGED, builders_of
from vibed.drivers.agent_sandbox.line import CONTROL_PORT, INGRESS_PORT, PROBES_PORT

AGENT = "/usr/lib/vibed/vibed-agent"
"""In every template's image."""
UID = 1000
TEMPLATE = "vibed.dev/template"
DIGEST = "vibed.dev/template-digest"
POOL = "vibed.dev/pool"
"""Label of pods by what their pool is for; the chart's NetworkPolicies look at it."""
BUILDERS = frozenset({"python", "node", "go"})
"""Kinds of templates on which something is installed or built."""

VOLUME = 2
"""How many times what a pod of sites may have fits into its volume: some files go while others come."""
_OVERHEAD_MB = 96
"""The agent, its supervisor, and what the shared part of warm processes takes."""
_PARTS_MB = 64
"""Of objects for a pod of sites beside what all its sites may take: their archives are no smaller than they are."""
_GONE_S = 30
_REQUESTED_CPUS = "50m"
_NOTHING: Mapping[str, str] = {}


class Resources(Protocol):
    @property
    def memory_mb(self) -> int: ...
    @property
    def cpus(self) -> float: ...
    @property
    def disk_mb(self) -> int: ...


class Template(Protocol):
    """What is read of a template (`vibed.runtimes.templates.Template`)."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def resources(self) -> Resources: ...
    @property
    def unavailable(self) -> str | None: ...
    @property
    def definition_digest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PodSettings:
    """How the operator has set up what pods are made of."""

    image_repository: str
    """Images are `<repository>/vibed-template-<template>:<tag>` (deploy/images)."""
    image_tag: str
    image_pull_policy: str = "IfNotPresent"
    runtime_class: str = ""
    """Empty: the cluster's own."""
    node_selector: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    tolerations: Sequence[Mapping[str, Any]] = ()
    pull_secrets: Sequence[str] = ()
    sites_per_pod: int = 200
    """How many static sites one pod serves."""
    site_pod_mb: int = 512
    """What the files of all of them may take."""


def manifests(
    template: Template, settings: PodSettings, claim_keys: str, size: int, builder: Resources | None = None
) -> tuple[Object, Object]:
    """The SandboxTemplate and the SandboxWarmPool of a template; `claim_keys` are the public keys by which its pods
    know the controller. With `builder`: of its builders, which are so large.
    """
    labels = {MANAGED: BY, TEMPLATE: template.name}
    name = template.name if builder is None else builders_of(template.name)
    metadata = {"name": name, "labels": labels, "annotations": {DIGEST: template.definition_digest}}
    made: Object = {
        "apiVersion": SANDBOX_TEMPLATE.api_version,
        "kind": SANDBOX_TEMPLATE.kind,
        "metadata": metadata,
        "spec": {
            "networkPolicyManagement": "Unmanaged",
            "podTemplate": {
                "metadata": {"labels": {POOL: "apps" if builder is None else "builder", TEMPLATE: template.name}},
                "spec": _pod(template, settings, claim_keys, builder),
            },
        },
    }
    pool: Object = {
        "apiVersion": SANDBOX_WARM_POOL.api_version,
        "kind": SANDBOX_WARM_POOL.kind,
        "metadata": metadata,
        "spec": {
            "replicas": size,
            "sandboxTemplateRef": {"name": name},
            # a member of an older template would run the app on another runtime than the one that is recorded
            "updateStrategy": {"type": "Recreate"},
        },
    }
    return made, pool


def _pod(template: Template, settings: PodSettings, claim_keys: str, builder: Resources | None) -> Object:
    limits = builder or template.resources
    disk = limits.disk_mb
    of_sites = template.kind == sites.KIND
    volumes = {
        "app": ("/app", VOLUME * settings.site_pod_mb if of_sites else disk),
        "home": ("/home/app", disk if builder else max(disk // 4, 1)),
        "tmp": ("/tmp", disk if builder else max(disk // 2, 1)),
        # beside what may be unpacked there: what lies there ahead, of a builder the installers, and small files' blocks
        "layers": ("/layers", 2 * disk if builder else 6 * disk),
        "agent": ("/run/vibed", max(packed_mb(limits), settings.site_pod_mb + _PARTS_MB if of_sites else 0)),
    }
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # a second start would be another sandbox under the same name
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "app",
                "image": f"{settings.image_repository}/vibed-template-{template.name}:{settings.image_tag}",
                "imagePullPolicy": settings.image_pull_policy,
                "command": [AGENT, "pod", *_flags(template, builder)],
                "workingDir": "/",
                "env": [
                    {"name": "VIBED_CLAIM_KEYS", "value": claim_keys},
                    {"name": "VIBED_TEMPLATE", "value": template.name},
                    {"name": "VIBED_TEMPLATE_DIGEST", "value": template.definition_digest},
                    _of_pod("VIBED_POD_UID", "metadata.uid"),
                    _of_pod("VIBED_POD_NAMESPACE", "metadata.namespace"),
                ],
                "ports": [
                    {"name": "app", "containerPort": INGRESS_PORT},
                    {"name": "control", "containerPort": CONTROL_PORT},
                    {"name": "probes", "containerPort": PROBES_PORT},
                ],
                "readinessProbe": {
                    "httpGet": {"path": "/readyz", "port": "probes"},
                    "periodSeconds": 1,
                    "timeoutSeconds": 2,
                    "failureThreshold": 3,
                },
                "resources": {
                    "requests": {
                        "cpu": _REQUESTED_CPUS,
                        "memory": f"{(limits.memory_mb + _OVERHEAD_MB) // 4}Mi",
                        # without one, all of the limit is asked for, and a node of 100 GB has room for a few pods
                        "ephemeral-storage": f"{max(volumes['app'][1] // 4, 1)}Mi",
                    },
                    "limits": {
                        "cpu": f"{round(limits.cpus * 1000)}m",
                        "memory": f"{limits.memory_mb + _OVERHEAD_MB}Mi",
                        "ephemeral-storage": f"{sum(size for _, size in volumes.values())}Mi",
                    },
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "runAsNonRoot": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": name, "mountPath": path} for name, (path, _) in volumes.items()],
            }
        ],
        "volumes": [{"name": name, "emptyDir": {"sizeLimit": f"{size}Mi"}} for name, (_, size) in volumes.items()],
    }
    if settings.runtime_class:
        pod["runtimeClassName"] = settings.runtime_class
    if settings.node_selector:
        pod["nodeSelector"] = dict(settings.node_selector)
    pod["tolerations"] = [*(dict(one) for one in settings.tolerations), *_leaving(settings.tolerations)]
    if settings.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    return pod


def packed_mb(limits: Resources) -> int:
    """What may be on its way into a pod that has these limits, or a builder's: its source and layers, packed."""
    return 2 * limits.disk_mb


def layer_mb(limits: Resources, *, builder: bool) -> int:
    """What a layer may be there, unpacked; what is installed for an app is often larger than the app."""
    return limits.disk_mb if builder else 4 * limits.disk_mb


def _leaving(tolerations: Sequence[Mapping[str, Any]]) -> list[Object]:
    """How long a pod stays on a node that is gone, where the operator does not say it: Kubernetes would leave it there,
    and in its pool, for five minutes.
    """
    said = {str(one.get("key", "")) for one in tolerations}
    return [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _GONE_S}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        if not said & {key, ""}
    ]


def _flags(template: Template, builder: Resources | None) -> list[str]:
    if builder is not None:
        return ["-builder"]
    return ["--", *workers.command()] if template.kind == workers.KIND else []


def _of_pod(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
