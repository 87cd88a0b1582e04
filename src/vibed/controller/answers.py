"""What the API's process asks of the controller's, and the answers (the other side of `vibed.controller.link`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vibed.apps import domains, ids
from vibed.apps.app import Install
from vibed.apps.domains import Domain
from vibed.apps.errors import NotFound, VibedError
from vibed.controller.baking import Bakes
from vibed.controller.fleet import Fleet
from vibed.controller.link import BakeFigures, LayerFigures, Outcome, TemplateFigures
from vibed.controller.means import Means
from vibed.router.ownership import texts_at
from vibed.runtimes.templates import Template
from vibed.sandboxes.diagnosis import About
from vibed.sandboxes.driver import Driver, Prospect
from vibed.sources.errors import SourceMissing
from vibed.supervision.failing import failing
from vibed.supervision.runlogs import LogReader, Position
from vibed.wire import Message

MOST_TEXT = 128 * 1024
"""Characters of a page of a log: escaped, they have to fit into a line of the wire."""
_NO_APP = "vibed"
"""A name that is reserved: that it is asked for shows that the store answers, however many apps there are."""


class Answers:
    """See the module's docstring."""

    def __init__(
        self,
        means: Means,
        fleet: Fleet,
        *,
        templates: Mapping[str, Template],
        drivers: Mapping[str, Driver],
        packages: Callable[[str], Mapping[str, str] | None],
        front: Callable[[], Awaitable[str]],
        count_sites: Callable[[], int],
        limitations: Sequence[str],
    ) -> None:
        """`packages`: what the newest image of a template has, None where there is none. `front` says how visitors get
        in, and raises `VibedError` or OSError where they do not. `count_sites` blocks.
        """
        self._means = means
        self._fleet = fleet
        self._templates = templates
        self._drivers = drivers
        self._packages = packages
        self._front = front
        self._count_sites = count_sites
        self._limitations = limitations
        self.bakes = Bakes(means)

    async def answer(self, op: str, message: Message) -> Message:
        """Do one operation. Raises `VibedError`; `NotFound` for what is not one of them."""
        match op:
            case "wake":
                self._fleet.wake(str(message["app_id"]))
                return {}
            case "prepare":
                await self._prepare(message)
                return {}
            case "settle":
                outcome = await self._fleet.settle(
                    str(message["app_id"]),
                    int(message["version"]),
                    float(message["timeout_s"]),
                    trace=str(message["trace"]),
                )
                return _told(outcome)
            case "ensure":
                outcome = await self._fleet.ensure(str(message["app_id"]), float(message["timeout_s"]))
                return _told(outcome)
            case "templates":
                in_use = self._fleet.in_use()
                in_use["static-nginx"] = await asyncio.to_thread(self._count_sites)
                return {"items": [asdict(self._figures(t, in_use[t.name])) for t in self._templates.values()]}
            case "layers":
                return {"items": [asdict(layer) for layer in await self._layers()]}
            case "bake":
                return {"bake": asdict(await self._bake(message))}
            case "baked":
                return {"bake": asdict(self.bakes.figures(str(message["bake_id"])))}
            case "pin_layer":
                await self.bakes.pin(str(message["key"]), pinned=bool(message["pinned"]))
                return {}
            case "remove_layer":
                await self.bakes.remove(str(message["key"]), self._fleet.layers_in_use())
                return {}
            case "log_page":
                return await asyncio.to_thread(self._log_page, message)
            case "failing":
                return {"told": await self._failing(str(message["app_id"]))}
            case "texts":
                return {"texts": list(await self._texts(str(message["domain"])))}
            case "lead":
                await self._means.names.lead(await self._means.store.verified_domains())
                return {}
            case "metrics":
                in_use = self._fleet.in_use()
                for (driver, template), pool in self._means.pools.figures().items():
                    self._means.metrics.pool(driver, template, pool, in_use=in_use[template])
                return {"text": self._means.metrics.text()}
            case "health":
                return await self._health()
        raise NotFound(f"the controller has no operation {op!r}")

    async def _texts(self, domain: str) -> Sequence[str]:
        config = self._means.config
        wanted = Domain.wanted(domains.check(domain, config.domain, config.reserved_names), "", "", 0.0)
        return await texts_at(wanted.record, config.dns_resolvers, uid=self._means.layout.uids.caddy)

    async def _bake(self, message: Message) -> BakeFigures:
        # as there: this has passed through nothing that checked it
        source = await self._means.sources.open_path(str(message["digest"]))
        template = self._templates.get(str(message["template"]))
        if template is None:
            raise NotFound("there is no such template")
        return await self.bakes.begin(
            Install.of(message["install"]),
            template.name,
            source,
            strip=str(message["strip"]),
            owner=str(message["owner"]),
        )

    async def _prepare(self, message: Message) -> None:
        # Unlike a spec, this has passed through no store that checked it.
        app_id = _app_id(message)
        template = self._templates.get(str(message["template"]))
        if template is None or not self._means.placements.is_ready(template.name):
            return
        try:
            source = await self._means.sources.open_path(str(message["digest"]))
        except SourceMissing:
            return  # it is being stored, by a process that this one shares no disk with
        self._drivers[self._means.placements.driver_of(template)].prepare(
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
        driver = self._means.placements.driver_of(template)
        pool = self._means.pools.figures().get((driver, template.name))
        progress = self._means.placements.progress(template.name)
        available = self._means.placements.is_ready(template.name)
        isolation = self._means.placements.isolation(template)
        trouble = None if available else self._means.placements.trouble(template.name)
        building = progress is not None and trouble is None
        resting = self._means.placements.is_resting(template.name)
        if trouble is not None:
            reason = trouble
        elif available and pool is not None and pool.last_error and not pool.ready:
            reason = pool.last_error
        elif progress is not None:
            reason = progress[0]
        elif resting:
            reason, building = "it is prepared when an app first needs it", False
        elif isolation is None:
            failed = self._means.placements.driver_trouble(driver)
            reason, building = failed or "its driver is being probed", failed is None
        else:
            reason = ""
        built = self._packages(template.name) if available else None
        return TemplateFigures(
            name=template.name,
            lane=template.lane,
            description=template.description,
            kind=template.kind,
            warm_pool_size=pool.size if pool is not None else 0,
            ready=pool.ready if pool is not None else 0,
            claimed=in_use,
            isolation=isolation.value if isolation is not None and available else "",
            packages=dict(built if built is not None else template.packages),
            available=available and isolation is not None,
            reason=reason,
            building=building,
            progress=progress[1] if progress is not None else None,
            # a static site has no sandbox
            on_need=resting,
            limitations=() if driver == "static" else self._limitations,
        )

    def _log_page(self, message: Message) -> Message:
        """Blocking."""
        app_id, tail = _app_id(message), message["tail"]
        position = str(message["position"])
        reader = LogReader(self._means.layout.logs / app_id, Position.parse(position) if position else None)
        try:
            if tail is not None:
                reader.seek_tail(int(tail))
            lines = reader.read(int(message["limit"]), MOST_TEXT)
            return {"lines": [(asdict(line), place) for line, place in lines], "position": str(reader.position)}
        finally:
            reader.close()

    async def _failing(self, app_id: str) -> str | None:
        app = await self._means.store.get(app_id)
        folder = self._means.layout.run_log(app_id, app.runs)
        return await asyncio.to_thread(failing, folder, About.of(app.runtime, app.env_names))

    async def _layers(self) -> Sequence[LayerFigures]:
        if self._means.layers is None:
            return ()
        apps = self._fleet.layers_in_use()
        return [
            LayerFigures(
                key=layer.key,
                kind=layer.kind,
                template=layer.template,
                bytes=layer.bytes,
                packages=dict(layer.packages),
                made_at=layer.made_at,
                used_at=layer.used_at,
                took_s=layer.took_s,
                builds=layer.builds,
                private=layer.private,
                apps=sorted(apps.get(layer.key, ())),
                pinned=layer.pinned,
            )
            for layer in await asyncio.to_thread(self._means.layers.listing)
        ]

    async def _health(self) -> Message:
        checks: dict[str, dict[str, Any]] = {}
        try:
            with contextlib.suppress(NotFound):
                await self._means.store.get(_NO_APP)
            checks["store"] = {"ok": True, "detail": "answers"}
        except VibedError as error:
            checks["store"] = {"ok": False, "detail": error.message}
        try:
            async with asyncio.timeout(2.0):
                checks["caddy"] = {"ok": True, "detail": await self._front()}
        except TimeoutError:
            checks["caddy"] = {"ok": False, "detail": "it does not answer"}
        except (OSError, VibedError) as error:
            checks["caddy"] = {"ok": False, "detail": str(error)}
        for name in self._drivers:
            level = self._means.placements.level(name)
            if level:
                checks[f"driver {name}"] = {"ok": True, "detail": level}
        return {"ok": all(check["ok"] for check in checks.values()), "checks": checks}


def _app_id(message: Message) -> str:
    """Ids come from processes with fewer rights and become parts of paths here. Raises `NotFound`."""
    app_id = str(message["app_id"])
    if not ids.PATTERN.fullmatch(app_id):
        raise NotFound("that is no app")
    return app_id


def _told(outcome: Outcome) -> Message:
    return {**asdict(outcome), "timings": dict(outcome.timings)}
