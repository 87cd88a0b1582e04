"""`vibed serve`: the API (with MCP beside it) and the activator in one unprivileged process, on two Unix sockets behind
Caddy.

It holds no state: killed at any moment, it loses nothing that it has acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from vibed import records, tracing
from vibed.api.app import Beside, create_app
from vibed.api.background import in_background
from vibed.api.classifying import decider, installable
from vibed.api.context import Context
from vibed.api.identity import digest, read_admin_key
from vibed.api.sse import Stopping
from vibed.apps.sqlite.store import SqliteStore
from vibed.config import Config, InvalidConfiguration
from vibed.controller.link import ControllerLink
from vibed.layout import Layout
from vibed.runtimes.templates import load_templates
from vibed.serving import Server, listening, run_all, server
from vibed.sources.choice import source_store

_THREADS = 32

log = records.logger("vibed.serve")


async def serve(config: Config, *, beside: Sequence[Beside] = (), layout: Layout | None = None) -> None:
    """Open everything, answer until SIGTERM or SIGINT, close everything. Raises `VibedError` when it cannot start."""
    layout = layout or Layout.of(config.home, uid_base=config.uid_base)
    os.umask(0o007)
    stopping = Stopping()
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(layout.database)
        stack.push_async_callback(store.close)
        link = ControllerLink(layout.controller_socket)
        stack.push_async_callback(link.close)
        tracer = tracing.from_environment()
        stack.callback(tracer.close)
        sources = source_store(config, layout)
        left = sources.prepare()
        if left:
            log.info("unfinished_uploads_removed", count=left)
        templates = load_templates(extra=config.template_dir, big_packages=config.big_packages)
        app = create_app(
            config,
            layout,
            store,
            sources,
            link,
            templates,
            decide=decider(templates, installable(config, rootless=layout.uids.rootless)),
            admin_digest=_admin_digest(config, layout),
            stopping=stopping,
            tracer=tracer,
            beside=beside,
        )
        context: Context = app.state.context
        from vibed.router.activator import create_activator

        servers = [
            (server(app), stack.enter_context(listening(layout.serve_socket))),
            (server(create_activator(config, store, link)), stack.enter_context(listening(layout.activator_socket))),
        ]
        await stack.enter_async_context(in_background(context.housekeeping.run(stopping, store.keep_reserve)))
        await run_until_told(servers, stopping)


def _admin_digest(config: Config, layout: Layout) -> str | None:
    if config.admin_key:
        return digest(config.admin_key)
    try:
        return read_admin_key(layout.admin_key)
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(
            f"there is no admin key to check calls against: {error}",
            hint="`vibed up` makes one, or set VIBED_ADMIN_KEY",
        ) from error


async def run_until_told(servers: Sequence[tuple[Server, socket.socket]], stopping: Stopping) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        for one, _ in servers:
            one.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    # Large archives that are being read must not keep others' small files from being synced; Python would make six.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="work"))
    try:
        log.info("serving", pid=os.getpid())
        await run_all(servers, stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    log.info("stopped")


def run(*, beside: Sequence[Beside] = ()) -> None:
    """`vibed serve`: configuration from the environment, logs to standard output."""
    import uvloop

    from vibed.config import load
    from vibed.turns import take_quick_turns

    take_quick_turns()
    config = load()
    records.set_up(config.log_level)
    uvloop.run(serve(config, beside=beside))
