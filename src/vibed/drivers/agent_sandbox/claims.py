"""Claims and the pods that they get: made, watched and deleted through the Kubernetes API.

One watch sees all claims, and one all pods of the namespace. Of a claim everything that another controller needs to go
on with it is in its labels and annotations; it belongs to its VibedApp, so that it goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vibed import records
from vibed.cluster.client import Client
from vibed.cluster.errors import KubeError, KubeExists, KubeNotFound, KubeUnavailable
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import POD, SANDBOX_CLAIM, VIBED_APP, Object
from vibed.drivers.agent_sandbox.line import Where
from vibed.sandboxes.driver import Claimed, SandboxLost

log = records.logger("vibed.drivers.agent_sandbox")

MANAGED = "app.kubernetes.io/managed-by"
BY = "vibed"
APP = "vibed.dev/app"
RUN = "vibed.dev/run"
VERSION = "vibed.dev/version"
APP_KEY = "vibed.dev/app-key"
LAYER = "vibed.dev/layer"
SANDBOX_ID = "vibed.dev/sandbox"
ATTEMPT = "vibed.dev/attempt"
POD_APP = "sandbox.users.io/app"
POD_RUN = "sandbox.users.io/run"
"""Labels that a claim gives its pod; agent-sandbox takes only those of a domain that the cluster allows."""

SITES = "vibed.sites"
"""Stands for an app's id where a pod is claimed for the sites of many; no app's id has a dot."""
BUILDER_APP = "vibed-builder"
"""What the claims of builders have in the place of an app's name."""

_NAME_BYTES = 63
CLAIM_S = 120.0
"""How long a claim may take: without a warm pod one is made, and its image may have to be pulled."""
_TRIES = 3
"""How often a claim is made anew because it was given a pod that had failed."""
_FREE_S = 30.0
"""How long a claim of an earlier app of that name may take to go."""
_HOPELESS = frozenset(
    {
        "InvalidMetadata",
        "EnvVarsInjectionRejected",
        "VolumeClaimTemplatesError",
        "ClaimExpired",
        "SandboxExpired",
        "InvalidConfiguration",
        "PodSucceeded",
    }
)
"""Reasons of a claim that no waiting changes; and `PodFailed`, after which another claim may get another pod."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a claim is for."""

    app_id: str
    run: int
    version: int
    app_key: str
    layer: str
    pool: str
    sandbox: str
    """Id of the sandbox that it becomes."""


@dataclass(frozen=True, slots=True)
class Got:
    """A claim that has a pod."""

    name: str
    uid: str
    where: Where


class ClaimFailed(SandboxLost):
    """The cluster gave no sandbox for a claim; says why, and whether waiting helps."""

    code = "ClaimFailed"


def claim_name(app_id: str, run: int, attempt: int = 1) -> str:
    """`<app>-<run>`, and with a hash in the place of the end of a name for which that is too long; of a pod of sites a
    name that no app's can be.
    """
    if app_id == SITES:
        return f"sites-{run}-{attempt}-shared"
    end = f"-{run}" + (f"-r{attempt}" if attempt > 1 else "")
    if len(app_id) + len(end) <= _NAME_BYTES:
        return app_id + end
    told = hashlib.sha256(app_id.encode()).hexdigest()[:8]
    return f"{app_id[: _NAME_BYTES - len(end) - 9].rstrip('-')}-{told}{end}"


def builders_of(template: str) -> str:
    """The pool of a template's builders."""
    return f"{template}-builder"


def claimed_of(claim: Object) -> Claimed:
    """The run that a claim was made for. Raises KeyError, ValueError for one that is not ours."""
    labels, notes = claim["metadata"]["labels"], claim["metadata"].get("annotations") or {}
    return Claimed(labels[APP], int(labels[VERSION]), int(labels[RUN]), notes.get(APP_KEY, ""), notes.get(LAYER, ""))


class Claims:
    """See the module's docstring. `owner_of` finds the UID of an app's VibedApp; None: it has none."""

    def __init__(self, client: Client, namespace: str, owner_of: Callable[[str], str | None]) -> None:
        self._client = client
        self._namespace = namespace
        self._owner_of = owner_of
        self._claims = Informer(
            client,
            SANDBOX_CLAIM,
            namespace=namespace,
            labels=f"{MANAGED}={BY}",
            on_change=lambda old, new: self._tell((old or new or {})["metadata"]["name"]),
        )
        self._pods = Informer(client, POD, namespace=namespace, on_change=self._pod_changed, trim=_trimmed)
        self._heard: dict[str, set[asyncio.Event]] = {}
        self._claims_by_pod: dict[str, str] = {}
        self._leaving: dict[str, str | None] = {}
        self._going = asyncio.Event()

    async def run(self) -> None:
        """Watch, and delete what could not be deleted at once, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._claims.run())
            tasks.create_task(self._pods.run())
            tasks.create_task(self._clear())

    async def synced(self) -> None:
        await self._claims.synced()
        await self._pods.synced()

    def all(self) -> list[Object]:
        """Every claim of ours that is not being deleted."""
        return [one for one in self._claims.all() if "deletionTimestamp" not in one["metadata"]]

    def get(self, name: str) -> Object | None:
        return self._claims.get(name)

    def pod(self, name: str) -> Object | None:
        return self._pods.get(name)

    def unclaimed(self) -> list[Object]:
        """All pods of the namespace that no claim has, as far as it is known here: whoever runs an app in one has heard
        of its claim here first.
        """
        taken = {((claim.get("status") or {}).get("sandbox") or {}).get("name") for claim in self._claims.all()}
        return [pod for pod in self._pods.all() if pod["metadata"]["name"] not in taken]

    async def get_one(self, wanted: Wanted) -> Got:
        """Claim a sandbox; returns when it has a pod that is ready. Nothing is left of a claim that fails. Raises
        `ClaimFailed`.
        """
        for attempt in range(1, _TRIES + 1):
            name = claim_name(wanted.app_id, wanted.run, attempt)
            made = await self._make(name, wanted)
            uid = made["metadata"]["uid"]
            try:
                async with asyncio.timeout(CLAIM_S):
                    where = await self._ready(name, uid)
                if where is not None:
                    return Got(name, uid, where)
            except TimeoutError:
                await self.remove(name, uid)
                raise ClaimFailed(
                    f"no sandbox of {wanted.pool} was ready within {CLAIM_S:g} s: {self._told(name)}",
                    hint="the pool's pods say why they are not ready: kubectl get pods, kubectl describe pod",
                ) from None
            except BaseException:
                await asyncio.shield(self.remove(name, uid))
                raise
            log.warning("a claim was given a pod that had failed", claim=name, attempt=attempt)
            await self.remove(name, uid)
        raise ClaimFailed(
            f"{_TRIES} claims of {wanted.pool} were given pods that had failed",
            hint="look at why pods of this pool fail: kubectl get pods, kubectl logs",
        )

    async def remove(self, name: str, uid: str | None) -> None:
        """Have a claim deleted, and its pod with it; tried again until it is, when the API does not answer."""
        self._leaving[name] = uid
        try:
            await self._client.delete(SANDBOX_CLAIM, name, namespace=self._namespace, uid=uid)
            self._leaving.pop(name, None)
        except KubeError as error:
            log.warning("a claim could not be deleted; it is tried again", claim=name, error=error.message)
            self._going.set()

    @contextlib.contextmanager
    def listening(self, *names: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change of these claims, or of pods of these names."""
        event = asyncio.Event()
        different = frozenset(names)  # a pod that was made for a claim has its name
        for name in different:
            self._heard.setdefault(name, set()).add(event)
        try:
            yield event
        finally:
            for name in different:
                self._heard[name].discard(event)
                if not self._heard[name]:
                    del self._heard[name]

    def where(self, claim: Object) -> Where | None:
        """The pod that a claim has, if it is there and has an address."""
        name = ((claim.get("status") or {}).get("sandbox") or {}).get("name")
        pod = self._pods.get(str(name)) if name else None
        if name is None or pod is None or not (pod.get("status") or {}).get("podIP"):
            return None
        metadata = claim["metadata"]
        return Where(
            metadata["name"],
            metadata["uid"],
            self._namespace,
            name,
            pod["metadata"]["uid"],
            pod["status"]["podIP"],
        )

    async def _make(self, name: str, wanted: Wanted) -> Object:
        body = self._body(name, wanted)
        end = asyncio.get_running_loop().time() + _FREE_S
        while True:
            try:
                made = await self._created(name, body)
                self._claims.learn(made)
                return made
            except KubeExists:
                there = await self._there(name)
                if there is None:
                    continue
                if there["metadata"].get("annotations", {}).get(ATTEMPT) == body["metadata"]["annotations"][ATTEMPT]:
                    return there  # an answer was lost
                if asyncio.get_running_loop().time() > end:
                    raise ClaimFailed(f"there is a claim {name} already that does not go") from None
                if "deletionTimestamp" not in there["metadata"]:
                    # runs are numbered, so it is of an earlier app of this name, or of a run that nobody knows of
                    await self.remove(name, there["metadata"]["uid"])
                await asyncio.sleep(0.2)
            except KubeUnavailable as error:
                # if it was made after all, it may not stay
                self._leaving[name] = None
                self._going.set()
                raise ClaimFailed(f"no sandbox could be claimed: {error.message}") from error
            except KubeError as error:
                raise ClaimFailed(
                    f"no sandbox could be claimed: {error.message}", hint=error.hint, retryable=error.may_retry
                ) from error

    async def _created(self, name: str, body: Object) -> Object:
        """Create a claim; one that is made although nobody waits for it any more goes again."""
        creating = asyncio.ensure_future(self._client.create(SANDBOX_CLAIM, body, namespace=self._namespace))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            creating.add_done_callback(lambda done: self._unwanted(name, done))
            raise

    def _unwanted(self, name: str, creating: asyncio.Future[Object]) -> None:
        if creating.cancelled():
            self._leaving[name] = None
        elif creating.exception() is None:
            self._leaving[name] = creating.result()["metadata"]["uid"]
        elif not isinstance(creating.exception(), KubeExists):
            self._leaving[name] = None  # it may be there all the same
        self._going.set()

    async def _there(self, name: str) -> Object | None:
        try:
            return await self._client.get(SANDBOX_CLAIM, name, namespace=self._namespace)
        except KubeNotFound:
            return None
        except KubeError as error:
            raise ClaimFailed(f"no sandbox could be claimed: {error.message}") from error

    def _body(self, name: str, wanted: Wanted) -> Object:
        # `kubectl` can apply an app of any name: what is nobody's does not go with it
        owner = None if wanted.app_id in (BUILDER_APP, SITES) else self._owner_of(wanted.app_id)
        metadata: dict[str, Any] = {
            "name": name,
            "labels": {
                MANAGED: BY,
                APP: wanted.app_id,
                RUN: str(wanted.run),
                VERSION: str(wanted.version),
            },
            "annotations": {
                APP_KEY: wanted.app_key,
                LAYER: wanted.layer,
                SANDBOX_ID: wanted.sandbox,
                ATTEMPT: secrets.token_hex(8),
            },
        }
        if owner is not None:
            metadata["ownerReferences"] = [
                {
                    "apiVersion": VIBED_APP.api_version,
                    "kind": VIBED_APP.kind,
                    "name": wanted.app_id,
                    "uid": owner,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ]
        return {
            "metadata": metadata,
            "spec": {
                "warmPoolRef": {"name": wanted.pool},
                "additionalPodMetadata": {"labels": {POD_APP: wanted.app_id, POD_RUN: str(wanted.run)}},
            },
        }

    async def _ready(self, name: str, uid: str) -> Where | None:
        """Wait for the claim's pod; None: it was given one that had failed. Raises `ClaimFailed`."""
        with self.listening(name) as changed:
            while True:
                changed.clear()
                claim = self._claims.get(name)
                if claim is None:
                    claim = await self._there(name)  # the watch may be about to begin anew
                if claim is None or claim["metadata"]["uid"] != uid or "deletionTimestamp" in claim["metadata"]:
                    raise ClaimFailed(f"the claim {name} was deleted before it had a sandbox")
                status, reason, message = _condition(claim)
                if status == "True" and (where := self.where(claim)) is not None:
                    return where
                if reason == "PodFailed":
                    return None
                if reason in _HOPELESS:
                    raise ClaimFailed(f"the claim {name} cannot be met: {reason}: {message}", retryable=False)
                # its pod may become known a moment after it, and tells nobody who waits for a claim
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05 if status == "True" else 5.0):
                        await changed.wait()

    def _told(self, name: str) -> str:
        claim = self._claims.get(name)
        _, reason, message = _condition(claim) if claim is not None else ("", "", "")
        return f"{reason}: {message}" if reason else "the cluster says nothing of it"

    def _tell(self, name: str) -> None:
        for event in self._heard.get(name, ()):
            event.set()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        self._tell(pod["metadata"]["name"])

    async def _clear(self) -> None:
        pause = 1.0
        while True:
            if not self._leaving:
                self._going.clear()
                await self._going.wait()
            await asyncio.sleep(pause)
            for name, uid in list(self._leaving.items()):
                await self.remove(name, uid)
            pause = min(2 * pause, 30.0) if self._leaving else 1.0


def _condition(claim: Object) -> tuple[str, str, str]:
    """Status, reason and message of whether it is ready."""
    for one in (claim.get("status") or {}).get("conditions") or ():
        if one.get("type") == "Ready":
            return str(one.get("status")), str(one.get("reason") or ""), str(one.get("message") or "")
    return "", "", ""


def killed_for_memory(pod: Mapping[str, Any]) -> bool:
    """Whether a container of it was."""
    for one in (pod.get("status") or {}).get("containerStatuses") or ():
        for state in (one.get("state") or {}, one.get("lastState") or {}):
            if (state.get("terminated") or {}).get("reason") == "OOMKilled":
                return True
    return False


def _trimmed(pod: Object) -> Object:
    """What is looked at of a pod: there are as many as sandboxes."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp", "labels")
    return {
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "status": {
            "phase": status.get("phase"),
            "reason": status.get("reason"),
            "message": status.get("message"),
            "podIP": status.get("podIP"),
            "conditions": [one for one in status.get("conditions") or () if one.get("type") == "Ready"],
            "containerStatuses": [
                {key: one.get(key) for key in ("name", "state", "lastState")}
                for one in status.get("containerStatuses") or ()
            ],
        },
    }
