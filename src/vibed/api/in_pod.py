"""`vibed serve` in a pod of a cluster: the same API, of which there are several, each at a port of its own.

Apart from `vibed.api.serve`, which on one machine need not know of clusters: that would be memory for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from vibed import tracing
from vibed.api.app import Beside, create_app
from vibed.api.background import in_background
from vibed.api.by_hand import ByHand
from vibed.api.classifying import decider, installable_on_cluster
from vibed.api.context import Context
from vibed.api.identity import digest
from vibed.api.logs import ControllersLogs
from vibed.api.serve import run_until_told
from vibed.api.sse import Stopping
from vibed.cluster.store import ClusterStore
from vibed.config import Config, InvalidConfiguration
from vibed.controller.link import ControllerLink
from vibed.layout import Layout
from vibed.runtimes.templates import load_templates
from vibed.serving import listening_at, server
from vibed.sources.choice import source_store


async def serve_in_pod(
    config: Config,
    layout: Layout,
    store: ClusterStore,
    link: ControllerLink,
    *,
    on_change: Callable[[Callable[[], None]], None],
    alone: Callable[[Callable[[], Awaitable[None]]], Coroutine[Any, Any, None]],
    beside: Sequence[Beside] = (),
) -> None:
    """Answer until SIGTERM or SIGINT. What is passed in is the caller's to close;
    `alone` does something in one of them, for as long as it lives; `on_change` calls what it is given when an app has
    changed.
    """
    if not config.admin_key:
        raise InvalidConfiguration("there is no admin key to check calls against", hint="VIBED_ADMIN_KEY has it")
    stopping = Stopping()
    async with AsyncExitStack() as stack:
        tracer = tracing.from_environment()
        stack.callback(tracer.close)
        sources = source_store(config, layout)
        sources.prepare()
        templates = load_templates(extra=config.template_dir, big_packages=config.big_packages)
        app = create_app(
            config,
            layout,
            store,
            sources,
            link,
            templates,
            decide=decider(templates, installable_on_cluster(config)),
            admin_digest=digest(config.admin_key),
            logs=ControllersLogs(link),
            door=(config.router_host or f"vibed-router.{config.namespace}.svc", config.router_port),
            stopping=stopping,
            tracer=tracer,
            beside=beside,
        )
        context: Context = app.state.context
        servers = [(server(app), stack.enter_context(listening_at(config.pod_ip, config.api_port)))]

        by_hand = ByHand(
            store, context.intake, hosts=config.source_hosts, storage_limit=config.owner_storage_mb * 1_000_000
        )
        on_change(by_hand.wake)

        async def what_one_does() -> None:
            async with in_background(by_hand.run()):
                # Not after each deletion: a round reads all apps of the cluster, and finds nothing of the last hour
                # (vibed.sources.s3). Nobody waits for room in a bucket.
                await context.housekeeping.run(stopping, _nothing_is_reserved, after_deleting=False)

        await stack.enter_async_context(in_background(alone(what_one_does)))
        await run_until_told(servers, stopping)


async def _nothing_is_reserved() -> bool:
    return True
