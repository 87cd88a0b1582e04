"""Layers that several apps have are fetched and unpacked by pods that wait in their pool, before an app gets them.

A pod that is told so stays nobody's: what it is told is signed as a claim is, and says nothing but which layers. Who
claims it takes those that the app has, and the agent removes the others before anything of the app runs (agent/pod).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from vibed import records, wire
from vibed.apps.errors import VibedError
from vibed.cluster.kinds import Object, is_ready
from vibed.drivers.agent_sandbox.claims import POD_APP
from vibed.drivers.agent_sandbox.line import Where, prefetch
from vibed.drivers.agent_sandbox.shelf import Shelf
from vibed.drivers.agent_sandbox.signing import ClaimKeys
from vibed.drivers.agent_sandbox.templates import POOL, TEMPLATE
from vibed.sandboxes.driver import Mount

log = records.logger("vibed.drivers.agent_sandbox")

AT_ONCE = 4
"""Pods of a template that fetch at the same time: the bucket and the nodes have visitors to serve, too."""


class Ahead:
    """Remembers what it has told which pod; one that comes after it asks again, which costs a pod nothing."""

    def __init__(self, pods: Callable[[], Iterable[Object]], keys: ClaimKeys, shelf: Shelf, namespace: str) -> None:
        """`pods`: those of the namespace that no claim has."""
        self._pods = pods
        self._keys = keys
        self._shelf = shelf
        self._namespace = namespace
        self._settled: dict[str, tuple[str, ...]] = {}
        """By a pod's UID, the layers that it has been told of and need not be told of again."""
        self._told_at: dict[str, float] = {}
        """By a pod's UID, when it was told last."""

    async def have(self, template: str, layers: Sequence[Mount], most_bytes: int) -> None:
        """Tell pods that wait in the template's pool to have these layers, and no others; a few at a time, so it is to
        be called again and again. `most_bytes` bounds the files of all of them in one pod.
        """
        waiting = self._waiting(template)
        wanted = tuple(sorted(str(mount.source.name) for mount in layers))
        unsettled = [where for where in waiting if self._settled.get(where.pod_uid, ()) != wanted]
        if not unsettled:
            return
        # those first that were told longest ago: one that never has them keeps no other from its turn
        unsettled = sorted(unsettled, key=lambda where: self._told_at.get(where.pod_uid, 0.0))[:AT_ONCE]
        self._told_at |= dict.fromkeys((where.pod_uid for where in unsettled), time.monotonic())
        remotes = [remote for mount in layers if (remote := await self._shelf.layer(mount)) is not None]
        if len(remotes) < len(layers):
            return  # it is the controller that sends layers here
        # one whose object is gone has no bytes
        told = [{"url": one.url, "sha256": one.sha256, "size": one.size} for one in remotes if one.size]
        await asyncio.gather(*(self._tell(where, wanted, told, most_bytes) for where in unsettled))

    def forget_others(self) -> None:
        """Keep in mind those pods alone that are there."""
        there = {pod["metadata"]["uid"] for pod in self._pods()}
        self._settled = {uid: layers for uid, layers in self._settled.items() if uid in there}
        self._told_at = {uid: at for uid, at in self._told_at.items() if uid in there}

    async def _tell(
        self, where: Where, wanted: tuple[str, ...], layers: Sequence[Mapping[str, object]], most_bytes: int
    ) -> None:
        try:
            answer = await prefetch(where, self._keys, layers, most_bytes)
        except wire.WireError as error:
            # claimed meanwhile, or its agent knows no such thing: it is not asked again, or it would refuse to hear us
            log.info("a pod fetches no layers ahead", pod=where.pod, error=error.message)
            self._settled[where.pod_uid] = wanted
            return
        except (VibedError, TimeoutError, OSError) as error:
            log.info("a pod could not be told of layers", pod=where.pod, error=str(error))
            return
        if refused := answer.get("refused"):
            log.warning("a pod takes no such layer ahead", pod=where.pod, layers=refused)
        if not answer.get("coming"):
            self._settled[where.pod_uid] = wanted

    def _waiting(self, template: str) -> list[Where]:
        """Pods of the template's pool that are ready and nobody's."""
        return [
            Where("", "", self._namespace, pod["metadata"]["name"], pod["metadata"]["uid"], pod["status"]["podIP"])
            for pod in self._pods()
            if _waits(pod, template)
        ]


def _waits(pod: Object, template: str) -> bool:
    metadata, labels = pod["metadata"], pod["metadata"].get("labels") or {}
    return (
        labels.get(TEMPLATE) == template
        and labels.get(POOL) == "apps"
        and POD_APP not in labels
        and "deletionTimestamp" not in metadata
        and bool((pod.get("status") or {}).get("podIP"))
        and is_ready(pod)
    )
