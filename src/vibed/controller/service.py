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
from dataclasses import asdict
from functools import partial
from typing import IO, Any

from vibed import records, tracing
from vibed.apps import ids
from vibed.apps.app import Phase
from vibed.apps.errors import NotFound, VibedError
from vibed.apps.sqlite.store import SqliteStore
from vibed.config import Config
from vibed.controller.leftovers import Leftovers
from vibed.controller.link import Outcome, TemplateFigures
from vibed.controller.metrics import Metrics
from vibed.controller.placement import Placements
from vibed.controller.preparation import BuiltRoots, Preparation
from vibed.controller.reconciler import Reconciler
from vibed.drivers.gvisor import GVisorDriver
from vibed.drivers.process import ProcessDriver
from vibed.drivers.static import StaticDriver
from vibed.drivers.workerd.driver import WorkerdDriver
from vibed.layout import Layout
from vibed.router.markers import Markers
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.templates import Template, load_templates
from vibed.runtimes.tools import Tools
from vibed.sandboxes.driver import Driver, Prospect, Sandbox
from vibed.sandboxes.pool import WarmPools
from vibed.sources.store import source_path
from vibed.supervision.host import Host
from vibed.supervision.limitations import limitations
from vibed.wire import Message, serve

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
        tools = Tools(config.home)
        self._builder = TemplateBuilder(config.home, self._templates, tools, on_progress=self._progress)
        roots = BuiltRoots(self._builder, self._templates)
        host = Host(layout, tools, roots, limits=config.source_limits)
        self._limitations = limitations(host.cgroups, privileged=host.privileged)
        self._static = StaticDriver(layout, limits=config.source_limits)
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
        self._markers = Markers(layout.apps, layout.ingress, gid=layout.uids.caddy)
        self._reconciler = Reconciler(
            config=config,
            layout=layout,
            store=store,
            pools=self._pools,
            sites=self._static,
            placements=self._placements,
            markers=self._markers,
            metrics=self._metrics,
            tracer=self._tracer,
            source_path=partial(source_path, layout.sources),
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
            on_ready=self._reconciler.wake_waiting,
        )
        self._leftovers = Leftovers(
            layout=layout, templates=self._templates, builder=self._builder, roots=roots, tools=tools
        )

    async def run(self) -> None:
        """Work until cancelled."""
        ready = asyncio.Event()
        self._preparation.take_stock()
        self._placements.probed("static", await self._static.probe())
        self._placements.built("static-nginx")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reconciler.run(ready))
            await ready.wait()
            await self._adopt()
            self._pools.start()
            gid = -1 if self._layout.uids.rootless else self._layout.uids.serve
            server = await serve(self._layout.controller_socket, self._answer, mode=0o660, gid=gid)
            log.info("the controller answers", socket=str(self._layout.controller_socket))
            tasks.create_task(self._preparation.run())
            tasks.create_task(self._recover())
            tasks.create_task(self._leftovers.run())
            async with server:
                await server.serve_forever()

    async def close(self) -> None:
        """Let go; sandboxes and sites stay."""
        await self._pools.close()
        for driver in self._drivers.values():
            await driver.close()
        await asyncio.to_thread(self._tracer.close)

    async def _adopt(self) -> None:
        found: list[Sandbox] = []
        for driver in self._drivers.values():
            try:
                found.extend(await driver.adopt())
            except (OSError, VibedError) as error:
                log.error("sandboxes could not be taken over", driver=driver.name, error=str(error))
        claimed = [sandbox for sandbox in found if sandbox.claimed is not None]
        await self._pools.adopt([sandbox for sandbox in found if sandbox.claimed is None])
        self._reconciler.adopt(claimed)
        log.info("took over", serving=len(claimed), warm=len(found) - len(claimed))

    async def _recover(self) -> None:
        """Look at what an earlier controller did not finish, and at apps that lost their sandbox with it.

        Apps that were not serving when the machine or vibeD went down come back by being asked for.
        """
        for app_id in await asyncio.to_thread(self._markers.with_sockets):
            with contextlib.suppress(NotFound):
                self._reconciler.wake(app_id)
        while True:
            # and again from time to time: whoever wrote a spec may not have come to say so
            try:
                for app in await self._store.unsettled():
                    with contextlib.suppress(NotFound):
                        self._reconciler.wake(app.app_id)
            except Exception:
                log.exception("apps could not be looked through; it is tried again")
            await asyncio.sleep(_LOOK_EVERY_S)

    def _progress(self, template: str, step: str, fraction: float | None) -> None:
        self._placements.building(template, step, fraction)
        log.info("building", template=template, step=step, fraction=fraction)

    # What the API's process asks

    async def _answer(self, op: str, message: Message) -> Message:
        match op:
            case "wake":
                self._reconciler.wake(str(message["app_id"]))
                return {}
            case "prepare":
                self._prepare(message)
                return {}
            case "settle":
                outcome = await self._reconciler.settle(
                    str(message["app_id"]),
                    int(message["version"]),
                    float(message["timeout_s"]),
                    trace=str(message["trace"]),
                )
                return _told(outcome)
            case "ensure":
                outcome = await self._reconciler.ensure(str(message["app_id"]), float(message["timeout_s"]))
                return _told(outcome)
            case "templates":
                in_use = self._reconciler.in_use()
                in_use["static-nginx"] = await asyncio.to_thread(self._static.count)
                return {"items": [asdict(self._figures(t, in_use[t.name])) for t in self._templates.values()]}
            case "metrics":
                in_use = self._reconciler.in_use()
                for (driver, template), pool in self._pools.figures().items():
                    self._metrics.pool(driver, template, pool, in_use=in_use[template])
                return {"text": self._metrics.text()}
            case "health":
                return await self._health()
        raise NotFound(f"the controller has no operation {op!r}")

    def _prepare(self, message: Message) -> None:
        # Unlike a spec, this has passed through no store that checked it.
        app_id = str(message["app_id"])
        if not ids.PATTERN.fullmatch(app_id):
            raise NotFound("that is no app")
        source = source_path(self._layout.sources, str(message["digest"]))
        template = self._templates.get(str(message["template"]))
        if template is None or not self._placements.is_ready(template.name):
            return
        self._drivers[self._placements.driver_of(template)].prepare(
            Prospect(
                app_id,
                source,
                strip=str(message["strip"]),
                root=str(message["root"]),
                entrypoint=str(message["entrypoint"]),
                bundle=bool(message["bundle"]),
            )
        )

    def _figures(self, template: Template, in_use: int) -> TemplateFigures:
        driver = self._placements.driver_of(template)
        pool = self._pools.figures().get((driver, template.name))
        progress = self._placements.progress(template.name)
        available = self._placements.is_ready(template.name)
        isolation = self._placements.isolation(template)
        trouble = None if available else self._placements.trouble(template.name)
        building = progress is not None and trouble is None
        if trouble is not None:
            reason = trouble
        elif available and pool is not None and pool.last_error and not pool.ready:
            reason = pool.last_error
        elif progress is not None:
            reason = progress[0]
        elif isolation is None:
            failed = self._placements.driver_trouble(driver)
            reason, building = failed or "its driver is being probed", failed is None
        else:
            reason = ""
        built = self._builder.ready(template.name) if available else None
        return TemplateFigures(
            name=template.name,
            lane=template.lane,
            description=template.description,
            kind=template.kind,
            warm_pool_size=pool.size if pool is not None else 0,
            ready=pool.ready if pool is not None else 0,
            claimed=in_use,
            isolation=isolation.value if isolation is not None and available else "",
            packages=dict(built.packages if built is not None else template.packages),
            available=available and isolation is not None,
            reason=reason,
            building=building,
            progress=progress[1] if progress is not None else None,
            # a static site has no sandbox
            limitations=() if driver == "static" else self._limitations,
        )

    async def _health(self) -> Message:
        checks: dict[str, dict[str, Any]] = {}
        try:
            await self._store.list(phase=Phase.FAILED, limit=1)
            checks["store"] = {"ok": True, "detail": "answers"}
        except VibedError as error:
            checks["store"] = {"ok": False, "detail": error.message}
        checks["caddy"] = await self._caddy()
        for name in self._drivers:
            level = self._placements.level(name)
            if level:
                checks[f"driver {name}"] = {"ok": True, "detail": level}
        return {"ok": all(check["ok"] for check in checks.values()), "checks": checks}

    async def _caddy(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(2.0):
                _, writer = await asyncio.open_connection(self._config.host.strip("[]"), self._config.port)
            writer.close()
        except (OSError, TimeoutError) as error:
            return {"ok": False, "detail": f"{self._config.listen} does not answer: {error}"}
        return {"ok": True, "detail": f"listens on {self._config.listen}"}


def _told(outcome: Outcome) -> Message:
    return {**asdict(outcome), "timings": dict(outcome.timings)}


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
