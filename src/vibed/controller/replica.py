"""One of several controllers on Kubernetes: it stands for election, and leads while it is elected."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from vibed import records
from vibed.apps.errors import VibedError
from vibed.apps.store import AppStore
from vibed.cluster.client import Client
from vibed.cluster.election import Election
from vibed.cluster.memory import Memory
from vibed.config import Config
from vibed.controller.leading import NAME, WIRE
from vibed.controller.on_cluster import ClusterService, PodsDriver
from vibed.health import Health
from vibed.serving import listening_at, run_all, server
from vibed.wire import address

log = records.logger("vibed.controller")


class Replica:
    """See the module's docstring. `service` is what it does while it leads; `apps` is the memory of all VibedApps,
    which `store` and `service` read, too.
    """

    def __init__(
        self,
        config: Config,
        client: Client,
        store: AppStore,
        apps: Memory,
        driver: PodsDriver,
        service: ClusterService,
    ) -> None:
        self._config = config
        self._store = store
        self._apps = apps
        self._driver = driver
        self._service = service
        self._stop: Callable[[], None] = lambda: None
        self._election = Election(
            client,
            NAME,
            namespace=config.namespace,
            identity=config.pod_name,
            annotations={WIRE: address(config.pod_ip, config.wire_port)},
        )

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT; the lead is then given back, so that another need not wait for its end."""
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._store.close)
            probes = server(Health(self._ready, self._metrics))
            listener = stack.enter_context(listening_at(self._config.pod_ip, self._config.health_port))
            working = asyncio.ensure_future(self._work())

            def stop() -> None:
                working.cancel()

            self._stop = stop

            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            answering = asyncio.ensure_future(run_all([(probes, listener)], stop))
            try:
                await working
            except asyncio.CancelledError:
                log.info("the controller stops; apps go on")
            finally:
                probes.should_exit = True
                await answering
                await self._driver.close()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            # what is watched is watched by those who do not lead, too: they take over in a moment
            tasks.create_task(self._apps.run())
            tasks.create_task(self._driver.run())
            await self._election.run(self._lead)
            raise VibedError("it neither leads nor stands for election any more", code="Internal")

    async def _lead(self) -> None:
        try:
            await self._service.lead()
        finally:
            # Whoever has lost the lead keeps nothing: connections of those who ask, memories of apps. It starts anew.
            self._stop()

    def _ready(self) -> str:
        if self._election.leading or self._election.leader is not None:
            return ""
        return "nobody leads" if self._apps.trouble is None else self._apps.trouble.message

    async def _metrics(self) -> str:
        return await self._service.metrics() if self._election.leading else ""
