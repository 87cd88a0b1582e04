"""`vibed router`: beside each Caddy on Kubernetes, in its pod. It keeps Caddy's markers, answers for names that lead
nowhere (the activator), and tells the controller what it follows.

It has no state: killed at any moment, its markers stay where Caddy looks, and the next one goes on from them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from socket import socket

from vibed import mutual, records
from vibed.apps.store import AppStore
from vibed.cluster.client import Client
from vibed.config import Config
from vibed.health import Health
from vibed.layout import Layout
from vibed.router.activator import STORE_S, Standing, Waking, create_activator
from vibed.router.addressed import AddressedMarkers
from vibed.router.following import Following
from vibed.serving import Server, listening, listening_at, run_all, server
from vibed.wire import serve_remote

log = records.logger("vibed.router")

FOLLOWED_S = 3.0
"""How long a visitor is held whose app is up, until its name leads there from here, too."""


class _Followed:
    """Wakes an app, and returns when its name leads to it from this router as well."""

    def __init__(self, link: Waking, store: AppStore, markers: AddressedMarkers) -> None:
        self._link = link
        self._store = store
        self._markers = markers

    async def ensure(self, app_id: str, *, timeout_s: float) -> Standing:
        standing = await self._link.ensure(app_id, timeout_s=timeout_s)
        async with asyncio.timeout(STORE_S):
            route = (await self._store.get(app_id)).status.route
        if route is not None:
            await self._markers.reached(app_id, route.run, route.address, FOLLOWED_S)
        return standing


async def serve_names(config: Config, layout: Layout, client: Client, store: AppStore, link: Waking) -> None:
    """Work until SIGTERM or SIGINT. What is passed in is the caller's to close."""
    for folder in (layout.activator_socket.parent, layout.fallback_socket.parent):
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    markers = AddressedMarkers(layout.apps)
    markers.begin()
    claims = config.keys_namespace or config.namespace
    following = Following(client, config.apps_namespace, claims, markers)
    activator = create_activator(config, store, _Followed(link, store, markers))
    async with AsyncExitStack() as stack:
        servers = [
            (server(activator), stack.enter_context(listening(layout.activator_socket))),
            (server(Health(following.ready)), stack.enter_context(listening_at(config.pod_ip, config.health_port))),
        ]
        certificates = mutual.server_side(config.wire_certificates)
        wire = await serve_remote(config.pod_ip, config.wire_port, certificates, following.answer)
        stack.callback(wire.close)
        await _until_told(servers, following)


async def _until_told(servers: Sequence[tuple[Server, socket]], following: Following) -> None:
    loop = asyncio.get_running_loop()
    watching = asyncio.ensure_future(following.run())

    def stop() -> None:
        watching.cancel()
        for one, _ in servers:
            one.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    # what ends the watch is a fault of ours: the pod is started anew
    watching.add_done_callback(lambda _: stop())
    try:
        log.info("following", pid=os.getpid())
        await run_all(servers, stop)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    log.info("stopped")
