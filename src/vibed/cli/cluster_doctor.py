"""`vibed doctor --kubernetes`: whether a cluster has what vibeD needs of it, and how to get what it lacks.

The chart runs it before it installs or upgrades, an operator whenever something is wrong. What can be tried is tried
rather than looked up: that agent-sandbox's controller runs shows by what it says of a claim to a pool that is not
there.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vibed.cli.doctor import Finding, landlocked, show, sources
from vibed.cluster.client import Client
from vibed.cluster.errors import KubeError, KubeForbidden, KubeNotFound
from vibed.cluster.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    CRD,
    LEASE,
    NAMESPACE,
    POD,
    SANDBOX,
    SANDBOX_CLAIM,
    SANDBOX_TEMPLATE,
    SANDBOX_WARM_POOL,
    SECRET,
    VIBED_APP,
    Kind,
    Object,
    is_ready,
)
from vibed.cluster.objects import decided
from vibed.config import Config, load
from vibed.layout import Layout
from vibed.runtimes.templates import load_templates

OLDEST = (1, 30)
"""The oldest Kubernetes that the chart installs on (`kubeVersion` in Chart.yaml)."""

NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
RUNTIME_CLASS = Kind("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
ACCESS_REVIEW = Kind(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
SELF_REVIEW = Kind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)

_CLAIM_ANSWER_S = 15.0
_LEASE_OLD_S = 60.0
_NAMED = 10
"""Of how many apps the names are told."""
_INSTALL = "install agent-sandbox v0.5.6 or newer with its extensions: docs/how-to/install-on-kubernetes.md"


_NO_LANDLOCK = (
    "this is the node of the pod that you read this from; on those of controllers it keeps what gets packages from the"
    " controller's keys, and no packages are installed without it: Linux 5.13 or newer, with landlock in its lsm= list,"
    " and no RuntimeClass for the control plane; or config.layers=false"
)


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that an account has to be allowed."""

    verb: str
    kind: Kind
    where: str = ""
    """`apps`, `keys`, `own` (the control plane's namespace), or nothing for what has no namespace."""
    name: str = ""
    subresource: str = ""


def _rights(kind: Kind, where: str, *verbs: str, subresource: str = "", name: str = "") -> list[Right]:
    return [Right(verb, kind, where, name, subresource) for verb in verbs]


_LEADER = "vibed-controller"
RIGHTS: Mapping[str, Sequence[Right]] = {
    "vibed": [
        *_rights(VIBED_APP, "apps", "get", "list", "watch", "create", "update", "patch", "delete"),
        *_rights(CONTROLLER_REVISION, "apps", "get", "list", "watch", "create"),
        *_rights(SECRET, "keys", "get", "list", "create", "patch", "delete"),
        *_rights(CONFIG_MAP, "keys", "get", "list", "create", "delete"),
        *_rights(LEASE, "keys", "patch", name="vibed-store"),
        *_rights(LEASE, "own", "list", "watch", "update", name="vibed-housekeeping"),
        *_rights(LEASE, "own", "get", name=_LEADER),
    ],
    "vibed-controller": [
        *_rights(VIBED_APP, "apps", "get", "list", "watch", "patch", "delete"),
        *_rights(VIBED_APP, "apps", "patch", subresource="status"),
        *_rights(CONTROLLER_REVISION, "apps", "get", "list", "watch", "create", "delete"),
        *_rights(SANDBOX_CLAIM, "apps", "get", "list", "watch", "create", "delete"),
        *_rights(SANDBOX_TEMPLATE, "apps", "get", "list", "watch", "create", "patch", "delete"),
        *_rights(SANDBOX_WARM_POOL, "apps", "get", "list", "watch", "create", "patch", "delete"),
        *_rights(SANDBOX, "apps", "get", "list", "watch"),
        *_rights(LEASE, "own", "get", "list", "watch", "update", name=_LEADER),
        *_rights(POD, "own", "list", "watch"),
        *_rights(POD, "apps", "list", "watch"),
    ],
    "vibed-router": [
        *_rights(VIBED_APP, "apps", "get", "list", "watch"),
        *_rights(CONTROLLER_REVISION, "apps", "get"),
        *_rights(CONFIG_MAP, "keys", "get", "list", "watch"),
        *_rights(LEASE, "own", "get", name=_LEADER),
    ],
}
"""What each ServiceAccount of the chart has to be allowed."""

_INSTALLER = [Right("create", CRD), Right("patch", CRD, name=VIBED_APP.resource)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of the cluster."""

    namespace: str
    """The control plane's."""
    apps_namespace: str
    keys_namespace: str
    domain: str
    runtime_class: str = ""
    """Empty: sandboxes run as the node's own runtime has them."""
    node_labels: Mapping[str, str] | None = None


async def examine(client: Client, wanted: Wanted) -> AsyncIterator[Finding]:
    """Look at everything, what all depends on first. Raises `KubeError` where there is no API to ask."""
    yield _version(await client.version())
    for kind in (SANDBOX, SANDBOX_CLAIM, SANDBOX_TEMPLATE, SANDBOX_WARM_POOL):
        yield await _served(client, kind)
    yield await _agent_sandbox(client, wanted.namespace)
    labels = dict(wanted.node_labels or {})
    if wanted.runtime_class:
        found = await _runtime_class(client, wanted.runtime_class)
        yield found[0]
        labels |= found[1]
    yield await _nodes(client, labels)
    for name in (wanted.namespace, wanted.apps_namespace):
        yield await _pod_security(client, name)
    yield await _permissions(client, wanted)
    async for finding in _running(client, wanted):
        yield finding
    async for finding in _apps(client, wanted):
        yield finding
    yield await _name(wanted.domain)


def _version(said: Mapping[str, Any]) -> Finding:
    # a cloud's minor version may read "33+"
    here = tuple(int("".join(filter(str.isdigit, str(said.get(part, "0")))) or 0) for part in ("major", "minor"))
    cure = f"upgrade the cluster to Kubernetes {OLDEST[0]}.{OLDEST[1]} or newer"
    return Finding("kubernetes", here >= OLDEST, str(said.get("gitVersion", "unknown version")), cure)


async def _served(client: Client, kind: Kind) -> Finding:
    name = f"crd {kind.plural}"
    try:
        crd = await client.get(CRD, kind.resource)
    except KubeNotFound:
        return Finding(name, False, "not there", _INSTALL)
    except KubeForbidden as error:
        return _unseen(name, error)
    served = [version["name"] for version in crd["spec"]["versions"] if version["served"]]
    there = kind.version in served
    return Finding(name, there, ", ".join(served) if there else f"serves {', '.join(served)}: too old", _INSTALL)


async def _agent_sandbox(client: Client, namespace: str) -> Finding:
    """A claim that cannot be met makes no pod; that somebody says so within seconds is what a deploy waits for."""
    name, title = f"vibed-doctor-{secrets.token_hex(4)}", "agent-sandbox"
    spec = {"warmPoolRef": {"name": "vibed-doctor-has-no-pool"}}
    try:
        made = await client.create(SANDBOX_CLAIM, {"metadata": {"name": name}, "spec": spec}, namespace=namespace)
    except KubeForbidden as error:
        return _unseen(title, error)
    except KubeError as error:
        return Finding(title, False, error.message, _INSTALL)
    try:
        async with asyncio.timeout(_CLAIM_ANSWER_S):
            reason = await _said_of(client, made)
    except TimeoutError:
        return Finding(
            title,
            False,
            f"its controller says nothing of a claim for {_CLAIM_ANSWER_S:.0f} s",
            "look at the pods of agent-sandbox-system; its controller has to run with --extensions",
        )
    finally:
        with suppress(KubeError):
            await client.delete(SANDBOX_CLAIM, name, namespace=namespace)
    return Finding(title, True, f"its controller answers ({reason})")


async def _said_of(client: Client, claim: Object) -> str:
    """The reason of the first condition that somebody gives the claim."""
    namespace, fields = claim["metadata"]["namespace"], f"metadata.name={claim['metadata']['name']}"
    since = claim["metadata"]["resourceVersion"]
    while True:  # a watch may end at any time, without an error
        async for change in client.watch(SANDBOX_CLAIM, since=since, namespace=namespace, fields=fields):
            since = change.resource_version
            for condition in change.object.get("status", {}).get("conditions") or ():
                return str(condition["reason"])


async def _runtime_class(client: Client, name: str) -> tuple[Finding, Mapping[str, str]]:
    """And the labels of the nodes that have it."""
    title = f"runtime class {name}"
    try:
        found = await client.get(RUNTIME_CLASS, name)
    except KubeNotFound:
        cure = (
            "install that runtime on the nodes and make its RuntimeClass "
            "(docs/how-to/run-on-kubernetes-in-production.md), or set sandboxes.runtimeClass to one that is there"
        )
        return Finding(title, False, "there is none of that name", cure), {}
    except KubeForbidden as error:
        return _unseen(title, error), {}
    labels: Mapping[str, str] = (found.get("scheduling") or {}).get("nodeSelector") or {}
    return Finding(title, True, f"handler {found['handler']}"), labels


async def _nodes(client: Client, labels: Mapping[str, str]) -> Finding:
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    try:
        found = (await client.objects(NODE, labels=selector)).items
    except KubeForbidden as error:
        return _unseen("nodes", error)
    ready = [node for node in found if is_ready(node) and not node["spec"].get("unschedulable")]
    which = f"with {selector}" if selector else "for sandboxes"
    cure = "add nodes with these labels to the cluster, or label some: kubectl label node NAME " + selector.replace(
        ",", " "
    )
    return Finding(
        "nodes",
        bool(ready),
        f"{len(ready)} ready {which}" if found else f"none {which}",
        cure if selector else "add a node to the cluster",
    )


async def _pod_security(client: Client, namespace: str) -> Finding:
    title, label = f"namespace {namespace}", "pod-security.kubernetes.io/enforce"
    try:
        found = await client.get(NAMESPACE, namespace)
    except KubeNotFound:
        return Finding(title, True, "not there yet")
    except KubeForbidden as error:
        return _unseen(title, error)
    level = (found["metadata"].get("labels") or {}).get(label, "")
    cure = f"kubectl label namespace {namespace} --overwrite {label}=restricted"
    detail = f"Pod Security is {level}" if level else "has no level of Pod Security"
    return Finding(title, level == "restricted", detail, cure, needed=False)


async def _permissions(client: Client, wanted: Wanted) -> Finding:
    """Of this account: that of one of the chart's processes, or of whoever installs."""
    whole = (await client.create(SELF_REVIEW, {})).get("status", {}).get("userInfo", {}).get("username", "")
    account = whole.removeprefix(f"system:serviceaccount:{wanted.namespace}:")
    missing = []
    for right in RIGHTS.get(account, _INSTALLER):
        if not await _allowed(client, right, wanted):
            what = f"{right.kind.resource}{'/' + right.subresource if right.subresource else ''}"
            missing.append(f"{right.verb} {what}{' ' + right.name if right.name else ''}")
    return Finding(
        "permissions",
        not missing,
        f"{account or 'this account'} may do what it has to"
        if not missing
        else f"{account} may not {', '.join(missing)}",
        "helm upgrade restores the roles"
        if account in RIGHTS
        else "install as somebody who may change CRDs, or have it applied (vibed crds apply) with hooks.crds=false",
    )


async def _allowed(client: Client, right: Right, wanted: Wanted) -> bool:
    attributes = {"verb": right.verb, "group": right.kind.group, "resource": right.kind.plural}
    if right.where:
        places = {"apps": wanted.apps_namespace, "keys": wanted.keys_namespace, "own": wanted.namespace}
        attributes["namespace"] = places[right.where]
    if right.name:
        attributes["name"] = right.name
    if right.subresource:
        attributes["subresource"] = right.subresource
    answer = await client.create(ACCESS_REVIEW, {"spec": {"resourceAttributes": attributes}})
    return bool(answer.get("status", {}).get("allowed"))


async def _running(client: Client, wanted: Wanted) -> AsyncIterator[Finding]:
    """Who leads and how full the pools are, where vibeD is installed and this account may see it."""
    with suppress(KubeNotFound, KubeForbidden):
        spec = (await client.get(LEASE, _LEADER, namespace=wanted.namespace)).get("spec") or {}
        yield _leader(spec)
    with suppress(KubeNotFound, KubeForbidden):
        for pool in (await client.objects(SANDBOX_WARM_POOL, namespace=wanted.apps_namespace)).items:
            size, ready = pool["spec"].get("replicas", 1), pool.get("status", {}).get("readyReplicas", 0)
            yield Finding(
                f"pool {pool['metadata']['name']}",
                ready >= size,
                f"{ready} of {size} ready",
                f"kubectl -n {wanted.apps_namespace} get pods; describe one that is not Ready",
                needed=False,
            )


async def _apps(client: Client, wanted: Wanted) -> AsyncIterator[Finding]:
    """Which apps ask for more than sandboxes of this vibeD have: before an upgrade, of the one that comes."""
    with suppress(KubeNotFound, KubeForbidden):
        templates = load_templates()
        beyond = []
        for app in decided((await client.objects(VIBED_APP, namespace=wanted.apps_namespace)).items):
            template = templates.get(str(app.object["spec"]["runtime"].get("template") or ""))
            asked = app.ledger.newest.resources
            if template is None or app.deleted:
                continue
            has, cpu, memory_mb = template.resources, asked.cpu or 0.0, asked.memory_mb or 0
            if cpu > has.cpus or memory_mb > has.memory_mb:
                beyond.append(
                    f"{app.app_id} ({cpu or has.cpus:g} CPUs and {memory_mb or has.memory_mb} MB; {template.name} has"
                    f" {has.cpus:g} and {has.memory_mb})"
                )
        more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
        yield Finding(
            "resources of apps",
            not beyond,
            "are what sandboxes have"
            if not beyond
            else f"{len(beyond)} ask for more than their sandboxes have: {', '.join(beyond[:_NAMED])}{more}",
            "they go on with what sandboxes have; their next deploy is refused (ResourcesTooLarge) unless it asks for"
            " less, or their template has more",
            needed=False,
        )


def _leader(spec: Mapping[str, Any]) -> Finding:
    holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
    age = (datetime.now(UTC) - datetime.fromisoformat(renewed)).total_seconds() if renewed else 0.0
    told = f"{holder} leads" if holder else "nobody leads"
    cure = "kubectl logs of deployment/vibed-controller in the control plane's namespace"
    late = f", and has not said so for {age:.0f} s" if age > _LEASE_OLD_S else ""
    return Finding("controller", bool(holder) and not late, told + late, cure, needed=False)


async def _name(domain: str) -> Finding:
    title = f"names below {domain}"
    if domain == "localhost" or domain.endswith(".localhost"):
        return Finding(title, True, "lead to whoever asks, as browsers have it")
    name = f"vibed-doctor.{domain}"
    try:
        async with asyncio.timeout(10):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        told = str(error) or "no answer"
        cure = f"a record *.{domain} (and {domain}) that leads to the Service vibed-router"
        return Finding(title, False, f"{name}: {told}", cure, needed=False)
    return Finding(title, True, f"lead to {', '.join(sorted({str(address[4][0]) for address in found}))}")


def _bucket(config: Config) -> Finding:
    """With a key for names that is nobody else's: before an installation there is none."""
    with tempfile.TemporaryDirectory(prefix="vibed-doctor-") as folder:
        layout = Layout.of(Path(folder))
        layout.signing_key.parent.mkdir(parents=True, exist_ok=True)
        return sources(replace(config, substrate="machine"), layout)


def _unseen(name: str, error: KubeForbidden) -> Finding:
    """What this account may not look at is no fault of the cluster's."""
    return Finding(name, False, f"could not be looked at: {error.message}", error.hint or "", needed=False)


def doctor(
    *,
    runtime_class: str = "",
    node_labels: Sequence[str] = (),
    as_json: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Print every finding; returns 1 when something that vibeD needs is missing. Raises `KubeError`."""
    config = load(environ)
    wanted = _wanted(config, runtime_class, node_labels)
    findings = asyncio.run(_examined(wanted))
    if config.source_store == "s3":
        findings.append(_bucket(config))
    if config.layers:
        findings.append(landlocked(_NO_LANDLOCK))
    return show(findings, as_json=as_json, about={"namespace": wanted.namespace})


def _wanted(config: Config, runtime_class: str, node_labels: Sequence[str]) -> Wanted:
    return Wanted(
        namespace=config.namespace,
        apps_namespace=config.apps_namespace,
        keys_namespace=config.keys_namespace or config.namespace,
        domain=config.domain,
        runtime_class=runtime_class,
        node_labels={key: value for key, _, value in (label.partition("=") for label in node_labels)},
    )


async def _examined(wanted: Wanted) -> list[Finding]:
    client = Client.connect(namespace=wanted.namespace)
    try:
        return [finding async for finding in examine(client, wanted)]
    finally:
        await client.close()
