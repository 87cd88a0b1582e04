"""Where names lead on a cluster: written once in an app's status, followed by all routers, waited for by who writes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from tests.cluster.cluster import Namespace
from tests.contract.app_stores import ClusterPlace
from tests.contract.test_app_store import new
from vibed import mutual
from vibed.apps.app import Phase, Route, Status
from vibed.apps.store import AppStore
from vibed.cluster import names
from vibed.cluster.client import Client
from vibed.controller.routers import Routers
from vibed.controller.routes import RoutedNames
from vibed.router.addressed import AddressedMarkers
from vibed.router.following import Following
from vibed.sandboxes.driver import Endpoint
from vibed.wire import Remote, serve_remote

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from certificates import authority, signed


@dataclass
class Router:
    """One router as it is in a pod, without its Caddy."""

    apps: Path
    markers: AddressedMarkers
    remote: Remote

    def found(self, app_id: str) -> str | None:
        """What Caddy finds: run and address."""
        names = sorted(path.name for path in (self.apps / app_id).glob("*_*"))
        return names[0].split("_", 2)[2] if names else None


@dataclass
class World:
    store: AppStore
    names: RoutedNames
    routers: list[Router] = field(default_factory=list)


@pytest.fixture
async def world(apps_namespace: Namespace, tmp_path: Path) -> AsyncIterator[World]:
    certificates = signed(authority(tmp_path / "ca"), tmp_path / "wire")
    async with AsyncExitStack() as stack:
        place = ClusterPlace(apps_namespace.cluster.config, apps_namespace.name, cached=False)
        store = await stack.enter_async_context(place.opened())
        routers: list[Router] = []

        def remote(where: str) -> Remote:
            return next(router.remote for router in routers if str(router.remote) == where)

        asking = Routers(lambda: [str(router.remote) for router in routers], remote)
        stack.push_async_callback(asking.close)
        for number in range(2):
            client = Client.connect(kubeconfig=apps_namespace.cluster.config, namespace=apps_namespace.name)
            stack.push_async_callback(client.close)
            markers = AddressedMarkers(tmp_path / f"apps-{number}")
            markers.begin()
            following = Following(client, apps_namespace.name, apps_namespace.name, markers)
            task = asyncio.ensure_future(following.run())
            stack.callback(task.cancel)
            wire = await serve_remote("127.0.0.1", 0, mutual.server_side(certificates), following.answer)
            stack.callback(wire.close)
            port = wire.sockets[0].getsockname()[1]
            remote = Remote("127.0.0.1", port, mutual.client_side(certificates), mutual.NAME)
            routers.append(Router(tmp_path / f"apps-{number}", markers, remote))
            async with asyncio.timeout(20):
                while following.ready():
                    await asyncio.sleep(0.02)
        yield World(store, RoutedNames(store, asking.applied), routers)


async def test_what_was_published_is_where_every_router_leads_when_the_publisher_goes_on(world: World) -> None:
    await world.store.deploy(new("todo"))
    for run in range(1, 6):
        await world.names.publish("todo", run, 1, Endpoint(address=f"10.0.0.{run}:20080"))
        assert [router.found("todo") for router in world.routers] == [f"{run}_10.0.0.{run}:20080"] * 2
    assert (await world.store.get("todo")).status.route == Route(5, 1, "10.0.0.5:20080")


class Slow:
    """Routers that follow a run when the test says so."""

    def __init__(self) -> None:
        self.follow: dict[int, asyncio.Event] = {}

    async def applied(self, app_id: str, route: Route) -> None:
        await self.follow.setdefault(route.run, asyncio.Event()).wait()


async def test_who_published_what_is_meant_no_more_waits_for_no_router(world: World) -> None:
    await world.store.deploy(new("todo"))
    slow = Slow()
    names = RoutedNames(world.store, slow.applied)
    first = asyncio.ensure_future(names.publish("todo", 1, 1, Endpoint(address="10.0.0.1:20080")))
    async with asyncio.timeout(20):
        while 1 not in slow.follow:
            await asyncio.sleep(0.01)
    second = asyncio.ensure_future(names.publish("todo", 2, 1, Endpoint(address="10.0.0.2:20080")))
    await asyncio.wait_for(first, 20)
    assert not second.done()
    await names.retire("todo", 2)
    await asyncio.wait_for(second, 20)
    assert (await world.store.get("todo")).status.route is None


async def test_a_name_that_is_led_back_is_not_reached_while_a_router_leads_to_the_later_run(world: World) -> None:
    await world.store.deploy(new("todo"))
    await world.names.publish("todo", 5, 1, Endpoint(address="10.0.0.5:20080"))
    await world.names.publish("todo", 4, 1, Endpoint(address="10.0.0.4:20080"))
    assert [router.found("todo") for router in world.routers] == ["4_10.0.0.4:20080"] * 2


def led(router: Router) -> dict[str, str]:
    """The domains of apps' own that a router knows, and the app that each leads to."""
    return {path.name: str(path.readlink()) for path in router.apps.iterdir() if path.is_symlink()}


async def until_led(world: World, domains: dict[str, str]) -> None:
    async with asyncio.timeout(20):
        while any(led(router) != domains for router in world.routers):
            await asyncio.sleep(0.02)


async def test_a_domain_leads_to_the_app_that_has_shown_it_and_not_to_one_that_says_so(
    world: World, apps_namespace: Namespace
) -> None:
    await world.store.deploy(new("todo"))
    await world.store.deploy(new("mallory"))
    mine, other = "www.example.com", "shop.example.com"
    wanted = await world.store.add_domain("todo", mine, by="alice")
    seen = await world.store.verify_domain("todo", mine, wanted.token)
    await until_led(world, {mine: "todo"})
    # whoever may write VibedApps, and has looked at that of somebody else
    lies = [asdict(replace(seen, app_id="mallory")), asdict(replace(seen, app_id="mallory", name=other))]
    apps_namespace.kubectl("annotate", "vapp/mallory", f"{names.DOMAINS}={json.dumps(lies)}")
    also = await world.store.add_domain("todo", "also.example.com", by="alice")
    await world.store.verify_domain("todo", also.name, also.token)
    await until_led(world, {mine: "todo", also.name: "todo"})  # what was written after the lies was heard
    assert await world.store.domains("mallory") == []
    await world.store.remove_domain("todo", mine)
    await until_led(world, {also.name: "todo"})


_SEES_APPS = {"apiGroups": ["vibed.dev"], "resources": ["vibedapps"], "verbs": ["get", "list", "watch"]}
_SEES_CLAIMS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}


@asynccontextmanager
async def without_claims(namespace: Namespace, folder: Path) -> AsyncIterator[Following]:
    """A router's process that may not see whose domains are whose; `folder`: its markers, which an earlier may have
    left.
    """
    config = namespace.service_account("half-blind", rules=[_SEES_APPS])
    client = Client.connect(kubeconfig=config, namespace=namespace.name)
    markers = AddressedMarkers(folder)
    markers.begin()
    following = Following(client, namespace.name, namespace.name, markers)
    task = asyncio.ensure_future(following.run())
    try:
        yield following
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()


async def test_a_router_is_ready_without_knowing_whose_domains_are_whose_where_no_app_has_any(
    world: World, apps_namespace: Namespace, tmp_path: Path
) -> None:
    await world.store.deploy(new("todo"))
    await world.names.publish("todo", 1, 1, Endpoint(address="10.0.0.1:20080"))
    async with without_claims(apps_namespace, tmp_path / "blind") as following:
        async with asyncio.timeout(20):
            while following.ready():
                await asyncio.sleep(0.02)
        assert sorted(path.name for path in (tmp_path / "blind/todo").iterdir()) == [
            path.name for path in (world.routers[0].apps / "todo").iterdir()
        ]


async def test_domains_that_were_led_lead_on_while_it_is_not_known_whose_they_are_and_the_router_is_not_ready(
    world: World, apps_namespace: Namespace
) -> None:
    await world.store.deploy(new("todo"))
    await world.names.publish("todo", 1, 1, Endpoint(address="10.0.0.1:20080"))
    wanted = await world.store.add_domain("todo", "www.example.com", by="alice")
    await world.store.verify_domain("todo", "www.example.com", wanted.token)
    await until_led(world, {"www.example.com": "todo"})
    router = world.routers[0]
    async with without_claims(apps_namespace, router.apps) as following:
        async with asyncio.timeout(20):
            while "domains of their own" not in following.ready():
                await asyncio.sleep(0.02)
        assert "configmaps" in following.ready()
        assert led(router) == {"www.example.com": "todo"}
        apps_namespace.service_account("half-blind", rules=[_SEES_APPS, _SEES_CLAIMS])
        async with asyncio.timeout(40):
            while following.ready():
                await asyncio.sleep(0.02)
        assert led(router) == {"www.example.com": "todo"}


async def test_a_status_that_is_told_beside_it_neither_loses_the_route_nor_is_lost(world: World) -> None:
    await world.store.deploy(new("todo"))

    async def tell(number: int) -> None:
        for _ in range(3):
            app = await world.store.get("todo")
            told = replace(app.status, restarts=number, route=world.names.route("todo"))
            try:
                await world.store.record("todo", told)
                return
            except Exception as error:
                assert "Conflict" in type(error).__name__
        raise AssertionError("it was never told")

    await asyncio.gather(
        world.names.publish("todo", 1, 1, Endpoint(address="10.0.0.1:20080")), tell(7), return_exceptions=False
    )
    status = (await world.store.get("todo")).status
    assert (status.route, status.restarts) == (Route(1, 1, "10.0.0.1:20080"), 7)


async def test_a_status_that_is_told_before_the_answer_to_a_switch_has_come_keeps_the_route(world: World) -> None:
    await world.store.deploy(new("todo"))
    written, answered = asyncio.Event(), asyncio.Event()

    class Late:
        """The store, from which the answer to a write is on its way for long."""

        get = world.store.get

        async def record(self, app_id: str, status: Status) -> None:
            await world.store.record(app_id, status)
            written.set()
            await answered.wait()

    names = RoutedNames(cast(AppStore, Late()), _nobody)
    publishing = asyncio.ensure_future(names.publish("todo", 1, 1, Endpoint(address="10.0.0.1:20080")))
    await written.wait()
    app = await world.store.get("todo")
    await world.store.record("todo", replace(app.status, restarts=7, route=names.route("todo")))
    answered.set()
    await publishing
    status = (await world.store.get("todo")).status
    assert (status.route, status.restarts) == (Route(1, 1, "10.0.0.1:20080"), 7)


async def test_a_run_that_is_retired_is_led_to_no_more_and_another_one_still_is(world: World) -> None:
    await world.store.deploy(new("todo"))
    await world.names.publish("todo", 2, 1, Endpoint(address="10.0.0.2:20080"))
    await world.names.retire("todo", 1)
    assert world.routers[0].found("todo") == "2_10.0.0.2:20080"
    await world.names.retire("todo", 2)
    async with asyncio.timeout(20):
        while any(router.found("todo") for router in world.routers):
            await asyncio.sleep(0.02)
    assert (await world.store.get("todo")).status.route is None


async def test_a_deleted_app_leads_nowhere(world: World) -> None:
    await world.store.deploy(new("todo"))
    await world.names.publish("todo", 1, 1, Endpoint(address="10.0.0.1:20080"))
    await world.store.request_delete("todo")
    await world.names.clear("todo")
    await world.store.purge("todo")
    async with asyncio.timeout(20):
        while any(router.found("todo") for router in world.routers):
            await asyncio.sleep(0.02)
    assert world.names.published("todo") == []


async def test_a_router_that_does_not_answer_holds_up_a_switch_and_does_not_prevent_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibed.controller.routers.WAIT_S", 0.2)
    await world.store.deploy(new("todo"))
    dead = world.routers[0].remote
    world.routers.append(Router(Path("nowhere"), world.routers[0].markers, replace(dead, port=1)))
    await world.names.publish("todo", 1, 1, Endpoint(address="10.0.0.1:20080"))
    assert [router.found("todo") for router in world.routers[:2]] == ["1_10.0.0.1:20080"] * 2


async def test_the_next_controller_knows_where_names_lead(world: World) -> None:
    await world.store.deploy(new("todo"))
    await world.store.deploy(new("other"))
    await world.names.publish("todo", 3, 1, Endpoint(address="10.0.0.1:20080"))
    following = RoutedNames(world.store, _nobody)
    apps, _ = await world.store.list()
    following.learn({app.app_id: app.status.route for app in apps if app.status.route is not None})
    assert list(following.leading()) == ["todo"]
    assert [(one.run, one.endpoint.address) for one in following.published("todo")] == [(3, "10.0.0.1:20080")]
    assert all(app.status.phase is Phase.PENDING for app in apps)


async def test_an_address_where_nobody_listens_is_known_not_to_answer(world: World) -> None:
    await world.store.deploy(new("todo"))
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await world.names.publish("todo", 1, 1, Endpoint(address=f"127.0.0.1:{port}"))
    (published,) = world.names.published("todo")
    assert await world.names.answers(published)
    server.close()
    await server.wait_closed()
    assert not await world.names.answers(published)


async def _nobody(app_id: str, route: Route) -> None:
    return
