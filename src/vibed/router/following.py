"""What a router follows: the route in the status of each app, from one watch, into markers for its Caddy.

Nothing is asked on the way of a request, and nothing but this has to be up for apps that serve: when the API server or
vibeD is away, the markers stay as they were told last.
"""

from __future__ import annotations

import asyncio

from vibed import records
from vibed.apps.app import Route
from vibed.apps.errors import NotFound
from vibed.cluster import domains, names
from vibed.cluster.client import Client
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import CONFIG_MAP, VIBED_APP, Object
from vibed.router.addressed import AddressedMarkers
from vibed.wire import Message

log = records.logger("vibed.router")


class Following:
    """See the module's docstring. `namespace` is the one of the apps, `claims` that of what says whose a domain is."""

    def __init__(self, client: Client, namespace: str, claims: str, markers: AddressedMarkers) -> None:
        self._markers = markers
        self._apps = Informer(client, VIBED_APP, namespace=namespace, trim=_what_is_followed, on_change=self._changed)
        self._claims = Informer(client, CONFIG_MAP, namespace=claims, labels=names.DOMAIN, on_change=self._claimed)
        self._listed = False
        """Whether every route that there was has its marker."""
        self._owners_known = False
        """Whether it is known whose domains are whose. Until then those that an earlier process has led stay."""
        self._complete = False

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._claims.run())
            tasks.create_task(self._apps.run())
            await self._apps.synced()
            # what an earlier process left and nobody leads to any more
            led = frozenset(app["metadata"]["name"] for app in self._apps.all() if _route(app) is not None)
            self._markers.keep_only(led)
            self._listed = True
            # where no app has a domain of its own, nobody has to say whose it is, and none leads anywhere
            self._complete = not any(
                domain.verified_at is not None for app in self._apps.all() for domain in domains.read(app)
            )
            if self._complete:
                self._markers.name_only(frozenset())
            await self._claims.synced()
            self._owners_known = True
            for app in self._apps.all():
                self._name(app)
            self._markers.name_only(frozenset(app["metadata"]["name"] for app in self._apps.all()))
            self._complete = True

    def ready(self) -> str:
        """Why requests cannot be taken yet; empty once every route that there was has its marker, and every domain.
        That stays so when the API server goes away: a router that goes on as it was told last is better than none.
        """
        if self._complete:
            return ""
        what, trouble = "the apps were", self._apps.trouble
        if self._listed:
            what, trouble = "apps have domains of their own, and whose these are was", self._claims.trouble
        return f"{what} not listed yet{f': {trouble.message}' if trouble is not None else ''}"

    async def answer(self, op: str, message: Message) -> Message:
        """What the controller asks: `applied {app_id, run, address, timeout_s}`."""
        if op != "applied":
            raise NotFound(f"a router has no operation {op!r}")
        app_id, run, address = str(message["app_id"]), int(message["run"]), str(message["address"])
        reached = await self._markers.reached(app_id, run, address, min(float(message["timeout_s"]), 10.0))
        return {"applied": reached}

    def _changed(self, old: Object | None, new: Object | None) -> None:
        app = new or old
        assert app is not None
        app_id = app["metadata"]["name"]
        route = _route(new) if new is not None else None
        if new is None:
            self._markers.name(app_id, ())
        elif self._owners_known:
            self._name(new)
        if route is None:
            self._markers.drop(app_id)
            return
        try:
            self._markers.lead(app_id, route)
        except ValueError as error:
            log.error("a route cannot be followed", app=app_id, error=str(error))

    def _claimed(self, old: Object | None, new: Object | None) -> None:
        claim = new or old
        assert claim is not None
        app = self._apps.get(domains.app_of(claim))
        if app is not None and self._owners_known:
            self._name(app)

    def _name(self, app: Object) -> None:
        self._markers.name(app["metadata"]["name"], domains.led_to(app, self._claims.get))


def _what_is_followed(app: Object) -> Object:
    metadata = app["metadata"]
    kept = {name: metadata[name] for name in ("name", "uid", "resourceVersion") if name in metadata}
    own = (metadata.get("annotations") or {}).get(names.DOMAINS)
    if own is not None:
        kept["annotations"] = {names.DOMAINS: own}
    return {"metadata": kept, "status": {"route": (app.get("status") or {}).get("route")}}


def _route(app: Object) -> Route | None:
    said = (app.get("status") or {}).get("route")
    return Route(said["run"], said["version"], said["address"]) if said else None
