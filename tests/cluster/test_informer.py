"""What is kept in memory stays what the API has: when a CRD is edited, the API server restarts, or it ends a watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Namespace
from tests.cluster.control_plane import ControlPlane
from vibed.cluster.client import Client
from vibed.cluster.errors import KubeForbidden, KubeGone
from vibed.cluster.informer import Informer
from vibed.cluster.kinds import CONFIG_MAP, SANDBOX_TEMPLATE, SECRET, Kind, Object

TEMPLATE: Object = {
    "networkPolicyManagement": "Unmanaged",
    "podTemplate": {"spec": {"containers": [{"name": "app", "image": "vibed.test/none:1"}]}},
}


@pytest.fixture
async def client(cluster: Cluster, namespace: Namespace) -> AsyncIterator[Client]:
    one = Client.connect(kubeconfig=cluster.config, namespace=namespace.name)
    yield one
    await one.close()


class Counted:
    """A client that says how often it listed, how its watches began and ended, and that can be held up before one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.namespace = client.namespace
        self.lists = 0
        self.watches: list[str] = []
        self.ended = 0
        self.gone = 0
        self.may_watch = asyncio.Event()
        self.may_watch.set()

    async def objects(self, kind: Kind, **wanted: Any) -> Any:
        self.lists += 1
        return await self._client.objects(kind, **wanted)

    async def watch(self, kind: Kind, *, since: str, **wanted: Any) -> Any:
        await self.may_watch.wait()
        self.watches.append(since)
        try:
            async with contextlib.aclosing(self._client.watch(kind, since=since, **wanted)) as changes:
                async for change in changes:
                    yield change
        except KubeGone:
            self.gone += 1
            raise
        finally:
            self.ended += 1


@contextlib.asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(30):
            await informer.synced()
        yield informer
    finally:
        task.cancel()
        await asyncio.wait([task])


async def eventually(check: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.05)
    assert check(), what


async def restart(plane: ControlPlane, *, crash: bool) -> None:
    """End the API server while the loop goes on, and start it again; it is not ready yet afterwards."""
    end = plane.processes.kill if crash else plane.processes.end
    await asyncio.to_thread(end, "kube-apiserver")
    # Not in another thread: it would end with it.
    plane.processes.again("kube-apiserver")


def template(name: str) -> Object:
    return {"metadata": {"name": name}, "spec": TEMPLATE}


async def test_what_others_make_change_and_delete_is_told(client: Client, namespace: Namespace) -> None:
    told: list[tuple[str | None, str | None]] = []

    def value(item: Object | None) -> str | None:
        return item["data"]["a"] if item else None

    memory = Informer(
        client, CONFIG_MAP, labels="mine=yes", on_change=lambda old, new: told.append((value(old), value(new)))
    )
    async with running(memory):
        namespace.kubectl("create", "configmap", "one", "--from-literal=a=1")
        namespace.kubectl("label", "configmap", "one", "mine=yes")
        namespace.kubectl("patch", "configmap", "one", "--type=merge", "-p", '{"data": {"a": "2"}}')
        await eventually(lambda: len(told) == 2, "the making and the change are told")
        found = memory.get("one")
        assert found is not None and found["metadata"].keys().isdisjoint({"managedFields"})
        namespace.kubectl("label", "configmap", "one", "mine-")
        await eventually(lambda: len(told) == 3, "that it is no longer ours is told")
    assert told == [(None, "1"), ("1", "2"), ("2", None)]


async def test_a_watch_that_the_server_ends_in_time_goes_on_without_a_list(
    client: Client, namespace: Namespace
) -> None:
    counted = Counted(client)
    memory = Informer(counted, CONFIG_MAP, watch_s=1.0)
    async with running(memory):
        for number in range(4):
            namespace.kubectl("create", "configmap", f"c{number}", "--from-literal=a=1")
            watches = len(counted.watches)
            await eventually(lambda before=watches: len(counted.watches) > before, "the next watch")  # type: ignore[misc]
        await eventually(lambda: memory.get("c3"), "the last one is known")
    assert counted.lists == 1
    assert {f"c{number}" for number in range(4)} <= {item["metadata"]["name"] for item in memory.all()}


async def test_after_the_edit_of_its_crd_a_kind_is_listed_anew_and_nothing_is_missed(
    cluster: Cluster, client: Client, namespace: Namespace
) -> None:
    counted = Counted(client)
    told: list[tuple[str, bool]] = []
    memory = Informer(
        counted,
        SANDBOX_TEMPLATE,
        on_change=lambda old, new: told.append(((new or old or {})["metadata"]["name"], new is not None)),
    )
    for name in ("kept", "lost"):
        await client.create(SANDBOX_TEMPLATE, template(name))
    async with running(memory):
        await eventually(lambda: counted.watches, "it watches")
        counted.may_watch.clear()
        cluster.edit_crd(SANDBOX_TEMPLATE.resource)
        await eventually(lambda: counted.ended, "the watch ends")
        await client.delete(SANDBOX_TEMPLATE, "lost")
        await client.create(SANDBOX_TEMPLATE, template("new"))
        counted.may_watch.set()
        await eventually(lambda: counted.gone, "410")
        await eventually(lambda: memory.get("new") and not memory.get("lost"), "the memory is as the API")
        await client.create(SANDBOX_TEMPLATE, template("later"))
        await eventually(lambda: memory.get("later"), "the new watch tells")
    assert set(told) == {("kept", True), ("lost", True), ("lost", False), ("new", True), ("later", True)}
    assert told.index(("lost", False)) > told.index(("lost", True))


@pytest.mark.parametrize("crash", [False, True], ids=["ended", "killed"])
async def test_an_api_server_that_restarts_is_gone_on_with(
    crash: bool, client: Client, namespace: Namespace, own_cluster: ControlPlane
) -> None:
    counted = Counted(client)
    memory = Informer(counted, CONFIG_MAP)
    await client.create(CONFIG_MAP, {"metadata": {"name": "before"}})
    async with running(memory):
        await eventually(lambda: counted.watches, "it watches")
        await restart(own_cluster, crash=crash)
        await client.create(CONFIG_MAP, {"metadata": {"name": "after"}})
        await client.delete(CONFIG_MAP, "before")
        await eventually(lambda: memory.get("after") and not memory.get("before"), "the memory is as the API")
        assert memory.trouble is None


async def test_a_list_of_many_comes_in_pages_and_is_whole(client: Client, namespace: Namespace) -> None:
    names = {f"c{number}" for number in range(600)}  # more than two pages
    async with asyncio.TaskGroup() as tasks:
        for name in sorted(names):
            tasks.create_task(client.create(CONFIG_MAP, {"metadata": {"name": name, "labels": {"many": "yes"}}}))
    found = await client.objects(CONFIG_MAP, labels="many=yes")
    assert [item["metadata"]["name"] for item in found.items] == sorted(names)
    assert {(item["apiVersion"], item["kind"]) for item in found.items} == {("v1", "ConfigMap")}
    async with running(Informer(client, CONFIG_MAP, labels="many=yes")) as memory:
        assert {item["metadata"]["name"] for item in memory.all()} == names


async def test_a_right_that_is_missing_is_told_and_the_informer_works_once_it_is_given(
    cluster: Cluster, namespace: Namespace
) -> None:
    config = namespace.service_account("nobody")
    client = Client.connect(kubeconfig=config, namespace=namespace.name)
    memory = Informer(client, SECRET)
    task = asyncio.create_task(memory.run())
    try:
        await eventually(lambda: memory.trouble, "it is told")
        assert isinstance(memory.trouble, KubeForbidden)
        assert memory.trouble.hint is not None
        assert 'resources: ["secrets"], verbs: ["list"]' in memory.trouble.hint
        namespace.service_account(
            "nobody", rules=[{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}]
        )
        await eventually(lambda: memory.trouble is None, "it watches")
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()
