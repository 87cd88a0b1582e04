"""The controller on Kubernetes: the same fleet of keepers as on one machine, among other neighbours.

Of several replicas one leads (`vibed.controller.leading`); this is what it does while it does. It has no state: apps
are in the API, sandboxes are claims there, and where names lead is in the apps' statuses. Who leads next finds all.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from vibed import mutual, records, tracing
from vibed.apps.errors import NotFound, VibedError
from vibed.apps.store import AppStore
from vibed.cluster import seen
from vibed.cluster.client import Client
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import POD, SANDBOX_WARM_POOL, Object, is_ready
from vibed.cluster.memory import Memory
from vibed.config import Config
from vibed.controller.answers import Answers
from vibed.controller.claims import ClusterPools
from vibed.controller.fleet import Fleet
from vibed.controller.layering import OnCluster
from vibed.controller.leading import remote
from vibed.controller.means import Means
from vibed.controller.memory import Elsewhere
from vibed.controller.metrics import Metrics
from vibed.controller.placement import Placements
from vibed.controller.routers import Routers
from vibed.controller.routes import RoutedNames
from vibed.layout import Layout
from vibed.runtimes.layers.provider import Layers
from vibed.runtimes.templates import Template, load_templates
from vibed.sandboxes.driver import Claimed, Driver, Mount, Sandbox
from vibed.sandboxes.pool import Figures, Key
from vibed.sources.store import SourceStore
from vibed.wire import address, serve_remote

log = records.logger("vibed.controller")

ROUTERS = "app.kubernetes.io/component=router"
"""Label of the routers' pods."""
LEAST_POOL = 1
"""How many sandboxes of a template are kept warm where neither it nor the operator says more."""
_LOOK_EVERY_S = 10.0
_PROBE_AGAIN_S = 60.0
_AHEAD_EVERY_S = 5.0
"""So often is looked which layers pods should have ahead, and which pods have not."""
_AT_ONCE = 64
"""Starts: the processors on which they happen are not this machine's."""
_QUIET_S = 2.0
"""A status is a write to the API server, and a claim takes some tenths of a second: a start that takes less than this
costs none for its steps.
"""


class NoRouter(VibedError):
    """Nobody is there who takes visitors' requests."""

    code = "NoRouter"
    status = 503
    retryable = True


class PodsDriver(Driver, Protocol):
    """The driver `agent-sandbox` (`vibed.drivers.agent_sandbox`), as far as the Driver port does not say it."""

    async def ensure_pools(self, templates: Mapping[str, Template], sizes: Mapping[str, int]) -> None:
        """Have the cluster keep a pool of each template. Raises `VibedError`."""
        ...

    async def prefetch(self, layers: Mapping[str, Sequence[Mount]]) -> None:
        """Have pods that wait have layers ahead, by template, and no others; a few pods a time. Raises `VibedError`,
        OSError.
        """
        ...

    def count_sites(self) -> int:
        """How many static sites there are."""
        ...

    def to_move(self) -> Sequence[Claimed]:
        """Runs whose place is to be given up: others of the same versions are to take over."""
        ...

    async def run(self) -> None:
        """Watch what it needs to watch until cancelled."""
        ...

    async def synced(self) -> None:
        """Return once all that is there is known."""
        ...


class NoSites:
    """On Kubernetes sites are in pods, as every app, and adopted with them."""

    def find(self, app_id: str, version: int, *, index: str = "", spa: bool = False) -> Sandbox | None:
        return None

    async def remove_app(self, app_id: str) -> None:
        return


class ClusterService:
    """All parts of a controller that leads; a process leads once. `apps` is the memory of all VibedApps, which
    `store` reads too, and which tells `changed`; `driver`'s watches and `apps` are the caller's to run.
    """

    def __init__(
        self,
        config: Config,
        layout: Layout,
        client: Client,
        store: AppStore,
        apps: Memory,
        sources: SourceStore,
        driver: PodsDriver,
        making: Callable[[Mapping[str, Template]], OnCluster | None] = lambda templates: None,
    ) -> None:
        """`making`: what installs and builds for apps of these templates; None: nothing does."""
        self._config = config
        self._store = store
        self._apps = apps
        self._driver = driver
        templates = load_templates(extra=config.template_dir, big_packages=config.big_packages)
        wanted = config.templates or tuple(templates)
        self._templates = {name: template for name, template in templates.items() if name in wanted}
        self._placements = Placements(config, self._templates, {driver.name: driver}, only=driver.name, fixed=True)
        makes = making(self._templates)
        self._layers = makes.layers if makes is not None else None
        self._builds = makes.builds if makes is not None else None
        self._metrics = Metrics()
        self._tracer = tracing.from_environment()
        self._pools = Informer(
            client, SANDBOX_WARM_POOL, namespace=config.apps_namespace, on_change=lambda old, new: self._pool(new)
        )
        self._router_pods = Informer(client, POD, namespace=config.namespace, labels=ROUTERS)
        self._routers = Routers(self._routers_here, partial(remote, certificates=config.wire_certificates))
        self._names = RoutedNames(store, self._routers.applied)
        self._means = Means(
            config=config,
            layout=layout,
            store=store,
            pools=ClusterPools(driver, self._figures),
            sites=NoSites(),
            placements=self._placements,
            names=self._names,
            metrics=self._metrics,
            tracer=self._tracer,
            sources=sources,
            memory=Elsewhere(),
            quiet_s=_QUIET_S,
            at_once=_AT_ONCE,
            layers=self._layers,
            builds=self._builds,
        )
        self._fleet = Fleet(self._means)
        if self._layers is not None:
            self._layers.in_use = lambda: frozenset(self._fleet.layers_in_use())
        self._adopted = False
        self._answers = Answers(
            self._means,
            self._fleet,
            templates=self._templates,
            drivers={driver.name: driver},
            packages=lambda template: self._templates[template].packages,
            front=self._front,
            count_sites=driver.count_sites,
            limitations=(),
        )

    async def lead(self) -> None:
        """Work until cancelled; sandboxes and routes stay."""
        ready = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fleet.run(ready))
                await ready.wait()
                tasks.create_task(self._router_pods.run())
                for informer in (self._apps, self._router_pods):
                    await informer.synced()
                await self._driver.synced()
                self._names.learn(
                    {
                        app["metadata"]["name"]: route
                        for app in self._apps.all()
                        if (route := seen.route(app)) is not None
                    }
                )
                await self._find_layers()
                # what an earlier lead of this process' container has copied may be of apps that are others by now
                await asyncio.to_thread(shutil.rmtree, self._means.layout.logs, ignore_errors=True)
                await self._adopt()
                self._adopted = True
                certificates = mutual.server_side(self._config.wire_certificates)
                wire = await serve_remote(
                    self._config.pod_ip, self._config.wire_port, certificates, self._answers.answer
                )
                log.info("leads", answers=address(self._config.pod_ip, self._config.wire_port))
                tasks.create_task(self._offer())
                tasks.create_task(self._recover())
                tasks.create_task(self._move())
                if self._layers is not None and self._config.prefetch_from_apps:
                    tasks.create_task(self._keep_ahead(self._layers))
                try:
                    async with wire:
                        await asyncio.Event().wait()
                finally:
                    self._adopted = False  # no keeper can be begun any more
        finally:
            for making in (self._layers, self._builds):
                if making is not None:
                    await making.close()
            await self._routers.close()
            await asyncio.to_thread(self._tracer.close)

    def changed(self, old: Object | None, new: Object | None) -> None:
        """An app was changed, by whoever it was. Before this leads and has taken over what was there, a keeper would
        begin without it; those changes are found among what is unsettled.
        """
        if not self._adopted:
            return
        app = new or old
        assert app is not None
        metadata = app["metadata"]
        if old is not None and new is not None and _asked_for(old) == _asked_for(new):
            return  # a status: this controller's own word
        with contextlib.suppress(NotFound):
            self._fleet.wake(metadata["name"])

    async def metrics(self) -> str:
        """In Prometheus' text format."""
        return str((await self._answers.answer("metrics", {}))["text"])

    async def _find_layers(self) -> None:
        """What an earlier leader has made. A bucket that does not answer keeps nobody from leading: what is not found
        is made again.
        """
        for making in (self._layers, self._builds):
            if making is not None:
                try:
                    await asyncio.to_thread(making.prepare)
                except OSError as error:
                    log.warning("it is not known what was installed and built before", error=str(error))

    async def _adopt(self) -> None:
        adopted = [sandbox for sandbox in await self._driver.adopt() if sandbox.claimed is not None]
        self._fleet.adopt(adopted)
        log.info("took over", serving=len(adopted))

    async def _offer(self) -> None:
        """Have the pools kept, and say which templates can be had."""
        pause = 1.0
        while True:
            try:
                sizes = {
                    # what needs nothing warm on one machine, a site, is a pod here
                    name: self._config.pools.get(name, template.pool.size or LEAST_POOL)
                    for name, template in self._templates.items()
                }
                await self._driver.ensure_pools(self._templates, sizes)
                break
            except VibedError as error:
                log.error("the pools could not be made; it is tried again", error=error.message)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 60.0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pools.run())
            while True:
                probe = await self._driver.probe()
                self._placements.probed(self._driver.name, probe)
                self._fleet.wake_waiting()
                if probe.ok:
                    log.info("sandboxes work", isolation=probe.isolation.value, detail=probe.detail)
                else:
                    log.error("sandboxes do not work; it is tried again", detail=probe.detail)
                if self._placements.suffices(probe):
                    return
                # one node may be as others are not: what is refused for it is not refused for good
                await asyncio.sleep(_PROBE_AGAIN_S if probe.ok else _LOOK_EVERY_S)

    async def _keep_ahead(self, layers: Layers) -> None:
        """Have pods that wait have the layers that several apps have."""
        while True:
            await asyncio.sleep(_AHEAD_EVERY_S)
            try:
                used, apps = self._fleet.layers_in_use(), self._fleet.in_use()
                found = await asyncio.to_thread(layers.popular, used, apps, self._config.prefetch_from_apps)
                mounts = {template: [layer.mount for layer in some] for template, some in found.items()}
                await self._driver.prefetch(mounts)
            except (VibedError, OSError) as error:
                log.warning("pods could not be told which layers to have ahead; it is tried again", error=str(error))
            except Exception:
                log.exception("pods could not be told which layers to have ahead; it is tried again")

    def _pool(self, pool: Object | None) -> None:
        """A pool has changed: its template can be had from the first sandbox that was ever ready in it."""
        if pool is None:
            return
        name = pool["spec"]["sandboxTemplateRef"]["name"]
        template = self._templates.get(name)
        if template is None:
            return
        if not self._placements.is_ready(name):
            self._placements.built(name, template.packages)
            self._fleet.wake_waiting()

    def _figures(self) -> Mapping[Key, Figures]:
        found: dict[Key, Figures] = {}
        for pool in self._pools.all():
            name, status = pool["spec"]["sandboxTemplateRef"]["name"], pool.get("status") or {}
            size, ready = pool["spec"].get("replicas", 0), status.get("readyReplicas", 0)
            have = status.get("replicas", 0)
            error = "" if ready or not size else "none of its sandboxes is ready"
            found[self._driver.name, name] = Figures(size, ready, max(0, have - ready), 0, 0, error)
        return found

    def _routers_here(self) -> Sequence[str]:
        return [
            address(pod["status"]["podIP"], self._config.wire_port)
            for pod in self._router_pods.all()
            if is_ready(pod) and pod["status"].get("podIP") and "deletionTimestamp" not in pod["metadata"]
        ]

    async def _front(self) -> str:
        here = len(self._routers_here())
        if not here:
            raise NoRouter("no router is ready, so no visitor gets in", hint="kubectl get pods says why")
        return f"{here} routers are ready"

    async def _recover(self) -> None:
        """Look at what an earlier controller did not finish, and at apps that lost their sandbox meanwhile."""
        for app_id in self._names.leading():
            with contextlib.suppress(NotFound):
                self._fleet.wake(app_id)
        while True:
            try:
                for app in await self._store.unsettled():
                    with contextlib.suppress(NotFound):
                        self._fleet.wake(app.app_id)
            except Exception:
                log.exception("apps could not be looked through; it is tried again")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _move(self) -> None:
        """Have what runs where little else does run elsewhere."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            for claimed in self._driver.to_move():
                self._fleet.move(claimed.app_id, claimed.number)


def _asked_for(app: Object) -> tuple[object, ...]:
    metadata = app["metadata"]
    annotations = metadata.get("annotations") or {}
    return metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp"), annotations
