"""Which controller leads on Kubernetes, and where it answers: a Lease says both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from vibed import mutual
from vibed.cluster.client import Client
from vibed.cluster.election import Leader
from vibed.cluster.errors import KubeError
from vibed.cluster.kinds import LEASE
from vibed.wire import Disconnected, Remote

NAME = "vibed-controller"
"""Of the Lease."""
WIRE = "vibed.dev/wire"
"""Annotation of the Lease: `host:port` where who leads answers."""


def remote(address: str, certificates: Path) -> Remote:
    """One of vibeD's own processes at `host:port`. Raises `CertificatesUnusable`."""
    host, _, port = address.rpartition(":")
    return Remote(host.strip("[]"), int(port), mutual.client_side(certificates), mutual.NAME)


def finder(client: Client, namespace: str, certificates: Path) -> Callable[[], Awaitable[Path | Remote]]:
    """What finds who leads now, for `vibed.controller.link.ControllerLink`."""

    async def where() -> Path | Remote:
        try:
            lease = await client.get(LEASE, NAME, namespace=namespace)
        except KubeError as error:
            raise Disconnected(f"it is not known which controller leads: {error.message}") from error
        leader = Leader.of(lease)
        if leader is None or WIRE not in leader.annotations:
            raise Disconnected("no controller leads at this moment")
        return remote(leader.annotations[WIRE], certificates)

    return where
