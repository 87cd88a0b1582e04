"""Where names lead on Kubernetes: the route in each app's status, which every router follows.

Writing it is the switch for all routers, one write whatever their number. Each of them takes a moment to hear of it, so
who publishes waits until those that are there have applied it (`vibed.controller.routers`): what is then told to be
Ready is what the next request reaches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

from vibed import records
from vibed.apps.app import Route
from vibed.apps.errors import Conflict, NotFound, VibedError
from vibed.apps.store import AppStore
from vibed.controller.names import Published
from vibed.sandboxes.driver import Endpoint

log = records.logger("vibed.controller")

_DIAL_S = 2.0
_TRIES = 8


@dataclass(frozen=True, slots=True)
class _Lead:
    """A route as what is published."""

    route: Route

    @property
    def run(self) -> int:
        return self.route.run

    @property
    def version(self) -> int:
        return self.route.version

    @property
    def site(self) -> bool:
        """Sites have a pod, too."""
        return False

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(address=self.route.address)


class RoutedNames:
    """See the module's docstring; implements `vibed.controller.names.Names`. `applied` returns when the routers that
    are there have heard of a route, or do not answer.
    """

    def __init__(self, store: AppStore, applied: Callable[[str, Route], Awaitable[None]]) -> None:
        self._store = store
        self._applied = applied
        self._routes: dict[str, Route] = {}
        self._asking: dict[str, asyncio.Future[None]] = {}
        """By app: whether the routers follow where its name leads now."""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def learn(self, routes: Mapping[str, Route]) -> None:
        """What an earlier controller has published, by app."""
        self._routes = dict(routes)

    def route(self, app_id: str) -> Route | None:
        """Where the name leads."""
        return self._routes.get(app_id)

    def published(self, app_id: str) -> Sequence[Published]:
        route = self._routes.get(app_id)
        return [] if route is None else [_Lead(route)]

    def leading(self) -> Sequence[str]:
        return list(self._routes)

    def room(self, app_id: str, run: int, version: int) -> Path:
        """Nowhere: a pod has its own address."""
        return Path()

    async def publish(self, app_id: str, run: int, version: int, endpoint: Endpoint) -> None:
        route = Route(run, version, endpoint.address)
        async with self._turn(app_id):
            if self._routes.get(app_id) == route:
                return
            before = self._routes.get(app_id)
            # known first: a status that is told before the answer to this has come would take it back
            self._routes[app_id] = route
            try:
                await self._write(app_id, route)
            except BaseException:
                if self._routes.get(app_id) is not route:
                    pass  # the app has gone meanwhile, and everything of it
                elif before is None:
                    del self._routes[app_id]
                else:
                    self._routes[app_id] = before
                raise
            asking = asyncio.ensure_future(self._applied(app_id, route))
            # nobody will say any more that he has reached what this one follows
            self._supersede(app_id, asking)
        try:
            await asyncio.wait((asking,))
        finally:
            asking.cancel()
        if not asking.cancelled():
            asking.result()

    async def retire(self, app_id: str, run: int) -> None:
        async with self._turn(app_id):
            route = self._routes.get(app_id)
            if route is None or route.run != run:
                return
            self._supersede(app_id)
            # forgotten first: where it cannot be written now, it is told with the app's next status
            del self._routes[app_id]
            try:
                await self._write(app_id, None, only=route)
            except NotFound:
                return
            except VibedError as error:
                log.warning("a route could not be taken back; it is told with the status", app=app_id, error=str(error))

    async def forget(self, app_id: str, run: int, *, last: bool = True) -> None:
        await self.retire(app_id, run)

    async def clear(self, app_id: str) -> None:
        # it goes with the app, whose end the routers see
        self._routes.pop(app_id, None)

    def _supersede(self, app_id: str, asking: asyncio.Future[None] | None = None) -> None:
        """Ask no more whether the routers follow where the name led before this."""
        before = self._asking.pop(app_id, None)
        if before is not None:
            before.cancel()
        if asking is not None:
            self._asking[app_id] = asking
            asking.add_done_callback(lambda _: self._forget_asking(app_id, asking))

    def _forget_asking(self, app_id: str, asking: asyncio.Future[None]) -> None:
        if self._asking.get(app_id) is asking:
            del self._asking[app_id]

    async def answers(self, published: Published) -> bool:
        host, _, port = published.endpoint.address.rpartition(":")
        try:
            async with asyncio.timeout(_DIAL_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.close()
        except TimeoutError:
            return True  # a pod that is gone refuses, or its network does: what is silent may be busy
        except OSError:
            return False
        return True

    async def lead(self, domains: Mapping[str, str]) -> None:
        """Nothing: routers see an app's domains where they see its route."""

    async def _write(self, app_id: str, route: Route | None, *, only: Route | None = None) -> None:
        """`only`: nothing is written unless this is the route that is there."""
        for attempt in range(_TRIES):
            app = await self._store.get(app_id)
            if only is not None and app.status.route != only:
                return
            try:
                await self._store.record(app_id, replace(app.status, route=route))
                return
            except Conflict:
                # the status was told meanwhile, by this controller's keeper of the app
                if attempt == _TRIES - 1:
                    raise

    def _turn(self, app_id: str) -> asyncio.Lock:
        turn = self._turns.get(app_id)
        if turn is None:
            turn = self._turns[app_id] = asyncio.Lock()
        return turn
