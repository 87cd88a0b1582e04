"""vibeD's processes on Kubernetes, put together: each is a container of the chart (deploy/helm/vibed)."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from vibed import __version__, records
from vibed.cli.credentials import hand_to_caddy
from vibed.cluster import seen
from vibed.cluster.client import Client
from vibed.cluster.election import Election
from vibed.cluster.kinds import Object
from vibed.cluster.memory import Memory
from vibed.cluster.objects import decided
from vibed.cluster.store import ClusterStore
from vibed.config import Config
from vibed.controller.layering import OnCluster, makers_on_cluster
from vibed.controller.leading import finder
from vibed.controller.link import ControllerLink
from vibed.controller.on_cluster import ClusterService
from vibed.controller.replica import Replica
from vibed.controller.run import app_key
from vibed.drivers.agent_sandbox.driver import AgentSandboxDriver, Place
from vibed.drivers.agent_sandbox.log_room import LogRoom
from vibed.drivers.agent_sandbox.shelf import Sent, Signed
from vibed.drivers.agent_sandbox.signing import ClaimKeys
from vibed.drivers.agent_sandbox.templates import PodSettings
from vibed.layout import Layout
from vibed.router.caddyfile import caddyfile
from vibed.router.process import serve_names
from vibed.runtimes.layers.shared import SharedLayerStore
from vibed.runtimes.templates import Template
from vibed.sandboxes.driver import Builder, Claimed
from vibed.sources.choice import objects, source_store
from vibed.sources.limits import ArchiveLimits


def run(work: Callable[[Config], Awaitable[None]], config: Config) -> None:
    """Run one of the processes below until it is told to end."""
    import uvloop

    from vibed.heap import map_what_is_large
    from vibed.turns import take_quick_turns

    take_quick_turns()
    map_what_is_large()
    records.set_up(config.log_level)

    async def main() -> None:
        await work(config)

    uvloop.run(main())


def take_scratch(home: Path) -> None:
    """Have this process' temporary files be in a folder of its own, empty: the volume outlives a process that was
    killed, and what that one had there counts against the same bound. Blocking; once a process.
    """
    told = hashlib.sha256(str(home).encode()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"vibed-scratch-{os.getuid()}-{told}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    tempfile.tempdir = str(folder)


async def control(config: Config) -> None:
    """A controller."""
    layout = Layout.in_pod(config.home)
    take_scratch(config.home)
    async with AsyncExitStack() as stack:
        client = Client.connect(namespace=config.apps_namespace)
        stack.push_async_callback(client.close)
        sources = source_store(config, layout)

        def changed(old: Object | None, new: Object | None) -> None:
            service.changed(old, new)

        apps = Memory(client, config.apps_namespace, changed)

        def owner_of(app_id: str) -> str | None:
            app = apps.get(app_id)
            return None if app is None else str(app["metadata"]["uid"])

        def led_to(address: str) -> list[Claimed]:
            there = (app for app in apps.all() if (route := seen.route(app)) is not None and route.address == address)
            return [
                Claimed(one.app_id, route.version, route.run, app_key(one.ledger.created_at))
                for one in decided(there)
                if (route := seen.route(one.object)) is not None
            ]

        kept = objects(config, layout)
        layers = SharedLayerStore(config.home, kept) if kept is not None and config.layers else None
        driver = AgentSandboxDriver(
            client,
            Place(
                config.apps_namespace,
                owner_of,
                layout.run_log,
                LogRoom(layout.logs, config.copied_logs_mb * 1_000_000),
                led_to,
            ),
            ClaimKeys.load(config.claim_key),
            PodSettings(
                config.image_repository,
                config.image_tag or __version__,
                image_pull_policy=config.image_pull_policy,
                runtime_class=config.runtime_class,
                sites_per_pod=config.sites_per_pod,
                site_pod_mb=config.site_pod_mb,
                **cast(Any, config.sandbox_pods),
            ),
            # who serves from files has them where no pod gets at them
            shelf=Signed(sources, layers) if kept is not None and config.source_urls else Sent(layers),
            limits=ArchiveLimits.of(config),
            builder=Builder() if layers is not None else None,
        )

        def making(templates: Mapping[str, Template]) -> OnCluster | None:
            if kept is None or layers is None:
                return None
            return makers_on_cluster(config, layout, driver, templates, layers, kept)

        store = _store(config, client, apps, remembers=True)
        service = ClusterService(config, layout, client, store, apps, sources, driver, making)
        await Replica(config, client, store, apps, driver, service).run()


async def route(config: Config) -> None:
    """A router, beside its Caddy."""
    async with AsyncExitStack() as stack:
        client = Client.connect(namespace=config.apps_namespace)
        stack.push_async_callback(client.close)
        link = ControllerLink(finder(client, config.namespace, config.wire_certificates))
        stack.push_async_callback(link.close)
        store = _store(config, client, None)
        await serve_names(config, Layout.in_pod(config.home), client, store, link)


def prepare_router(config: Config) -> None:
    """What Caddy needs before it starts: its configuration, and the folders that it looks into."""
    layout = Layout.in_pod(config.home)
    sockets = (layout.activator_socket.parent, layout.front_socket.parent)
    for folder in (layout.apps, layout.acme, layout.runtime / "caddy", *sockets):
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    handed = hand_to_caddy(config, layout)
    (layout.runtime / "caddy" / "Caddyfile").write_text(caddyfile(config, layout, handed.names))


async def serve(config: Config) -> None:
    """The API."""
    from vibed.api.background import in_background
    from vibed.api.in_pod import serve_in_pod
    from vibed.mcp.http import McpOverHttp

    async with AsyncExitStack() as stack:
        client = Client.connect(namespace=config.apps_namespace)
        stack.push_async_callback(client.close)
        listeners: list[Callable[[], None]] = []

        def changed(old: Object | None, new: Object | None) -> None:
            if old is not None and new is not None and _generation(old) == _generation(new):
                return  # a status
            for told in listeners:
                told()

        apps = Memory(client, config.apps_namespace, changed)
        await stack.enter_async_context(in_background(apps.run()))
        link = ControllerLink(finder(client, config.namespace, config.wire_certificates))
        stack.push_async_callback(link.close)
        await serve_in_pod(
            config,
            Layout.in_pod(config.home),
            _store(config, client, apps),
            link,
            on_change=listeners.append,
            alone=_alone(client, config, "vibed-housekeeping"),
            beside=[McpOverHttp],
        )


def _generation(app: Object) -> tuple[object, object]:
    return app["metadata"]["uid"], app["metadata"].get("generation")


def _store(config: Config, client: Client, memory: Memory | None, *, remembers: bool = False) -> ClusterStore:
    keys = config.keys_namespace or config.namespace
    return ClusterStore(
        client,
        namespace=config.apps_namespace,
        own_namespace=keys,
        url=config.app_url,
        memory=memory,
        remembers=remembers,
    )


def _alone(
    client: Client, config: Config, name: str
) -> Callable[[Callable[[], Awaitable[None]]], Coroutine[Any, Any, None]]:
    """What has something done in one of several processes, by a Lease of that name."""

    async def alone(work: Callable[[], Awaitable[None]]) -> None:
        await Election(client, name, namespace=config.namespace, identity=config.pod_name).run(work)

    return alone
