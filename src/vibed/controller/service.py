"""`vibed controller`: the process with the privileges that drivers need. It never faces the network.

It answers the API's process over one Unix socket (`vibed.controller.link`) and may be killed at any moment: sandboxes
have supervisors of their own, and the next controller finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Mapping
from typing import IO

from vibed import records, tracing
from vibed.apps.errors import NotFound, VibedError
from vibed.apps.sqlite.store import SqliteStore
from vibed.config import Config
from vibed.controller import layering
from vibed.controller.answers import Answers
from vibed.controller.fleet import Fleet
from vibed.controller.leftovers import Leftovers
from vibed.controller.means import Means
from vibed.controller.metrics import Metrics
from vibed.controller.placement import Placements
from vibed.controller.preparation import Preparation
from vibed.controller.roots import BuiltRoots
from vibed.drivers.gvisor import GVisorDriver
from vibed.drivers.process import ProcessDriver
from vibed.drivers.static import StaticDriver
from vibed.drivers.workerd.driver import WorkerdDriver
from vibed.layout import Layout
from vibed.router.marked import MarkedNames
from vibed.router.markers import Markers
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.templates import load_templates
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Driver, Sandbox
from vibed.sandboxes.pool import WarmPools
from vibed.sources.choice import source_store
from vibed.sources.limits import TAKEN
from vibed.supervision.host import Host
from vibed.supervision.limitations import limitations
from vibed.wire import serve

log = records.logger("vibed.controller")

_LOOK_EVERY_S = 10.0
_DESCRIPTORS = 65_536


class AnotherController(VibedError):
    """A controller is running for this VIBED_HOME already."""

    code = "AnotherController"


class Service:
    """All parts of the controller, put together once."""

    def __init__(self, config: Config, layout: Layout, store: SqliteStore) -> None:
        self._config = config
        self._layout = layout
        self._store = store
        self._templates = load_templates(extra=config.template_dir, big_packages=config.big_packages)
        tools = self._tools = Tools(config.home)
        self._builder = TemplateBuilder(config.home, self._templates, tools, on_progress=self._progress)
        roots = BuiltRoots(self._builder, self._templates)
        host = Host(layout, tools, roots, limits=TAKEN)
        self._static = StaticDriver(layout, limits=TAKEN)
        drivers: list[Driver] = [self._static, WorkerdDriver(host)]
        drivers.append(ProcessDriver(host) if config.general_driver == "process" else GVisorDriver(host))
        self._drivers = {driver.name: driver for driver in drivers}
        self._placements = Placements(config, self._templates, self._drivers)
        self._metrics = Metrics()
        self._tracer = tracing.from_environment()
        # A pool is filled when its template is ready; until then it has a place and no size.
        shelves = {(self._placements.driver_of(t), t.name): 0 for t in self._templates.values()}
        self._pools = WarmPools(
            self._drivers,
            {key: size for key, size in shelves.items() if key[0] != "static"},
            digest=lambda template: roots.root(template).digest,
            boots_at_once=config.refill_concurrency,
        )
        self._names = MarkedNames(Markers(layout.apps, layout.ingress, gid=layout.uids.caddy))
        self._layers, self._builds = layering.makers(
            config, host, self._drivers[config.general_driver], self._builder, self._templates, tools
        )
        means = Means(
            config=config,
            layout=layout,
            store=store,
            pools=self._pools,
            sites=self._static,
            placements=self._placements,
            names=self._names,
            metrics=self._metrics,
            tracer=self._tracer,
            sources=source_store(config, layout),
            layers=self._layers,
            builds=self._builds,
        )
        self._fleet = Fleet(means)
        if self._layers is not None:
            self._layers.in_use = lambda: frozenset(self._fleet.layers_in_use())
        self._answers = Answers(
            means,
            self._fleet,
            templates=self._templates,
            drivers=self._drivers,
            packages=self._packages,
            front=self._caddy,
            count_sites=self._static.count,
            limitations=limitations(host.cgroups, privileged=host.privileged),
        )
        self._preparation = Preparation(
            config=config,
            tools=tools,
            templates=self._templates,
            builder=self._builder,
            roots=roots,
            drivers=self._drivers,
            placements=self._placements,
            pools=self._pools,
            memory=layout.controller_socket.parent / "probes.json",
            on_ready=self._fleet.wake_waiting,
        )

        def needed(template: str) -> None:
            means.tasks.spawn(self._preparation.need(template))

        self._placements.on_need = needed
        self._leftovers = Leftovers(
            layout=layout, templates=self._templates, builder=self._builder, roots=roots, tools=tools
        )

    async def run(self) -> None:
        """Work until cancelled."""
        ready = asyncio.Event()
        self._preparation.take_stock()
        if self._layers is not None:
            await asyncio.to_thread(self._layers.prepare)
        if self._builds is not None:
            await asyncio.to_thread(self._builds.prepare)
        self._placements.probed("static", await self._static.probe())
        self._placements.built("static-nginx")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fleet.run(ready))
            await ready.wait()
            await self._adopt()
            self._pools.start()
            gid = -1 if self._layout.uids.rootless else self._layout.uids.serve
            server = await serve(self._layout.controller_socket, self._answers.answer, mode=0o660, gid=gid)
            log.info("the controller answers", socket=str(self._layout.controller_socket))
            tasks.create_task(self._prepare())
            tasks.create_task(self._recover())
            tasks.create_task(self._leftovers.run())
            async with server:
                await server.serve_forever()

    async def close(self) -> None:
        """Let go; sandboxes and sites stay."""
        if self._layers is not None:
            await self._layers.close()
        if self._builds is not None:
            await self._builds.close()
        await self._pools.close()
        for driver in self._drivers.values():
            await driver.close()
        await asyncio.to_thread(self._tracer.close)

    async def _prepare(self) -> None:
        await self._preparation.run()
        if self._layers is not None:
            await layering.fetch_installers(self._config, self._tools)
        await self._answers.bakes.resume()

    async def _adopt(self) -> None:
        found: list[Sandbox] = []
        for driver in self._drivers.values():
            try:
                found.extend(await driver.adopt())
            except (OSError, VibedError) as error:
                log.error("sandboxes could not be taken over", driver=driver.name, error=str(error))
        claimed = [sandbox for sandbox in found if sandbox.claimed is not None]
        await self._pools.adopt([sandbox for sandbox in found if sandbox.claimed is None])
        self._fleet.adopt(claimed)
        log.info("took over", serving=len(claimed), warm=len(found) - len(claimed))

    async def _recover(self) -> None:
        """Look at what an earlier controller did not finish, and at apps that lost their sandbox with it.

        Apps that were not serving when the machine or vibeD went down come back by being asked for.
        """
        for app_id in await asyncio.to_thread(self._names.leading):
            with contextlib.suppress(NotFound):
                self._fleet.wake(app_id)
        led: Mapping[str, str] | None = None
        while True:
            # and again from time to time: whoever wrote a spec may not have come to say so
            try:
                for app in await self._store.unsettled():
                    with contextlib.suppress(NotFound):
                        self._fleet.wake(app.app_id)
                domains = await self._store.verified_domains()
                if domains != led:
                    await self._names.lead(domains)
                    led = domains
            except Exception:
                log.exception("apps could not be looked through; it is tried again")
            await asyncio.sleep(_LOOK_EVERY_S)

    def _packages(self, template: str) -> Mapping[str, str] | None:
        built = self._builder.ready(template)
        return built.packages if built is not None else None

    async def _caddy(self) -> str:
        try:
            _, writer = await asyncio.open_connection(self._config.host.strip("[]"), self._config.port)
        except OSError as error:
            raise OSError(f"{self._config.listen} does not answer: {error}") from error
        writer.close()
        return f"listens on {self._config.listen}"

    def _progress(self, template: str, step: str, fraction: float | None) -> None:
        self._placements.building(template, step, fraction)
        log.info("building", template=template, step=step, fraction=fraction)


async def run(config: Config, layout: Layout) -> None:
    """Run a controller until SIGTERM or SIGINT. Raises `AnotherController`, `StoreUnavailable`."""
    records.set_up(config.log_level)
    _take_descriptors()
    lock = _lock(layout)
    store = await SqliteStore.open(layout.database)
    service = Service(config, layout, store)
    working = asyncio.ensure_future(service.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        log.info("the controller stops; apps go on")
    finally:
        await service.close()
        await store.close()
        lock.close()


def _take_descriptors() -> None:
    """Each sandbox that lives takes two, to hear of its supervisor's end and to talk to it. A shell's usual bound (for
    programs that use select(2)) would be reached with 500 of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _lock(layout: Layout) -> IO[str]:
    layout.controller_socket.parent.mkdir(parents=True, exist_ok=True)
    handle = (layout.controller_socket.parent / "lock").open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        raise AnotherController(f"a controller runs for {layout.home} already (pid {handle.read().strip()})") from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
