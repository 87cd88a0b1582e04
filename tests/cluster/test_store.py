"""What of the app store only a cluster has: writers that are killed between two writes, kubectl beside the API,
accounts with no more rights than they need, what one deploy costs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Namespace, Refused
from tests.cluster.test_crd import app as manifest
from tests.contract.app_stores import ClusterPlace
from tests.contract.test_app_store import RUNTIME, new, source
from vibed.apps.app import Phase, Resources, Route
from vibed.apps.errors import Conflict, NotFound, StoreUnavailable
from vibed.apps.store import AppStore, Idempotency, NewEvent, VersionOutcome
from vibed.cluster import definition, deploying, ledger, names, rights, seen
from vibed.cluster.answers import AppTooLarge
from vibed.cluster.client import Client
from vibed.cluster.errors import KubeUnavailable
from vibed.cluster.kinds import Kind
from vibed.cluster.memory import Memory
from vibed.cluster.rights import Right
from vibed.cluster.store import ClusterStore


@pytest.fixture
async def store(apps_namespace: Namespace) -> AsyncIterator[ClusterStore]:
    async with opened(apps_namespace) as made:
        yield made


def opened(namespace: Namespace, *, cached: bool = False) -> Any:
    """A store of another process."""
    return ClusterPlace(namespace.cluster.config, namespace.name, cached=cached).opened()


async def served(store: AppStore, name: str = "todo") -> None:
    """The controller has the newest version serve."""
    app = await store.get(name)
    status = replace(
        app.status, phase=Phase.READY, reason="Running", message="", serving_version=app.version,
        observed_generation=app.generation, route=Route(app.version, app.version, "10.0.0.7:8080"),
    )  # fmt: skip
    await store.record(name, status, outcomes=[VersionOutcome(app.version, Phase.READY, "Running", "", {})])


# writing


class Watched:
    """A client that counts what it writes, and can lose an answer, or be killed in the place of a write."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.writes: list[str] = []
        self.reads = 0
        self.lose: set[str] = set()
        """Writes whose answer is lost, once each."""
        self.die_at: str | None = None

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name in ("get", "objects"):
            self.reads += 1
        if name not in ("create", "replace", "patch", "apply", "delete"):
            return real

        async def call(kind: Kind, *arguments: Any, **more: Any) -> Any:
            what = f"{name} {kind.kind}{'/' + more['subresource'] if more.get('subresource') else ''}"
            if what == self.die_at:
                raise asyncio.CancelledError
            answer = await real(kind, *arguments, **more)
            self.writes.append(what)
            if what in self.lose:
                self.lose.remove(what)
                raise KubeUnavailable("the connection broke", uncertain=True)
            return answer

        return call


@asynccontextmanager
async def watched(namespace: Namespace, *, memory: Memory | None = None) -> AsyncIterator[tuple[ClusterStore, Watched]]:
    client = Client.connect(kubeconfig=namespace.cluster.config, namespace=namespace.name)
    watch = Watched(client)
    made = ClusterStore(
        watch,  # type: ignore[arg-type]
        namespace=namespace.name,
        own_namespace=namespace.name,
        url=lambda app_id: f"https://{app_id}.apps.test",
        memory=memory,
        remembers=memory is not None,
    )
    try:
        yield made, watch
    finally:
        await made.close()
        await client.close()


# what a controller remembers


class Remembering:
    """A controller's store, whose memory is kept up to date until `forget` is called."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    async def __aenter__(self) -> Remembering:
        self._stack = AsyncExitStack()
        client = Client.connect(kubeconfig=self._namespace.cluster.config, namespace=self._namespace.name)
        self._stack.push_async_callback(client.close)
        self._memory = Memory(client, self._namespace.name)
        self._running = asyncio.create_task(self._memory.run())
        self._stack.callback(self._running.cancel)
        await self._memory.synced()
        self.store, self.watch = await self._stack.enter_async_context(watched(self._namespace, memory=self._memory))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def deaf(self) -> None:
        """From now on it hears of nothing that others write."""
        self._running.cancel()
        await asyncio.wait([self._running])

    async def heard(self, app_id: str) -> None:
        while self._memory.get(app_id) is None:
            await asyncio.sleep(0.01)


async def test_an_app_that_is_remembered_is_taken_over_without_a_request_for_it(
    store: ClusterStore, apps_namespace: Namespace
) -> None:
    await store.deploy(new())
    await store.deploy(new(digest=source("d2")))
    await served(store)
    async with Remembering(apps_namespace) as controller:
        app, version = await controller.store.wanted("todo")
        results, total = await controller.store.results("todo")
        assert await controller.store.unsettled() == []
        assert (await controller.store.next_run("todo"), controller.watch.reads) == (app.runs + 1, 0)
    assert (app, version) == await store.wanted("todo")
    assert ([(one.number, one.phase) for one in results], total) == ([(2, Phase.READY), (1, Phase.PENDING)], 2)


async def test_a_version_that_was_not_heard_of_is_known_as_soon_as_somebody_tells_of_it(
    store: ClusterStore, apps_namespace: Namespace
) -> None:
    await store.deploy(new())
    async with Remembering(apps_namespace) as controller:
        await controller.deaf()
        await store.deploy(new(digest=source("d2")))
        await store.deploy(new("other"))
        assert (await controller.store.wanted("todo"))[0].version == 1
        assert (await controller.store.get("other")).version == 1  # what is not remembered is asked for
        await controller.store.catch_up("todo", 1)
        assert (await controller.store.wanted("todo"))[0].version == 1
        await controller.store.catch_up("todo", 2)
        assert (await controller.store.wanted("todo"))[0].version == 2
        with pytest.raises(NotFound):
            await controller.store.catch_up("nobody", 1)


async def test_a_status_is_not_written_upon_one_that_was_not_heard_of(
    store: ClusterStore, apps_namespace: Namespace
) -> None:
    await store.deploy(new())
    async with Remembering(apps_namespace) as controller:
        await controller.deaf()
        remembered = await controller.store.get("todo")
        await served(store)
        with pytest.raises(Conflict):
            await controller.store.record("todo", replace(remembered.status, phase=Phase.FAILED))
        # and what made it fail is known from then on
        assert (await controller.store.get("todo")).status == (await store.get("todo")).status
        await controller.store.record("todo", (await controller.store.get("todo")).status, events=[])


async def test_what_is_to_be_done_is_found_among_many_apps_that_are_at_rest(
    store: ClusterStore, apps_namespace: Namespace
) -> None:
    for name in ("rests", "waits", "goes"):
        await store.deploy(new(name))
    for name in ("rests", "goes"):
        await served(store, name)
    await store.request_delete("goes")
    apps_namespace.apply(manifest("applied"))
    async with Remembering(apps_namespace) as controller:
        await controller.heard("applied")
        assert [app.app_id for app in await controller.store.unsettled()] == ["waits", "goes"]
        assert [spec.app_id for spec in await controller.store.undecided()] == ["applied"]
        assert [app.app_id for app in (await controller.store.list())[0]] == ["waits", "rests"]
        assert controller.watch.reads == 0


# what one deploy costs


async def test_a_deploy_is_two_writes_and_what_became_of_it_is_one(apps_namespace: Namespace) -> None:
    async with watched(apps_namespace) as (store, watch):
        await store.deploy(new(), idempotency=Idempotency("k", "print"), storage_limit=10**6)
        assert watch.writes == ["create VibedApp", "create ControllerRevision"]
        watch.writes.clear()
        await store.deploy(new(), idempotency=Idempotency("l", "print"), storage_limit=10**6)
        assert watch.writes == ["replace VibedApp", "create ControllerRevision"]
        watch.writes.clear()
        await store.next_run("todo")
        assert watch.writes == []
        await store.record(
            "todo",
            (await store.get("todo")).status,
            outcomes=[VersionOutcome(2, Phase.READY, "Running", "", {"claim": 1.0})],
            events=[NewEvent("Normal", "A", ""), NewEvent("Normal", "B", "")],
        )
        assert watch.writes == ["replace VibedApp/status"]
        assert (await store.get("todo")).runs == 1


@pytest.mark.parametrize("first", [True, False])
async def test_a_writer_that_is_killed_between_its_two_writes_has_made_the_version(
    apps_namespace: Namespace, store: ClusterStore, first: bool
) -> None:
    number = 1 if first else 2
    if not first:
        await store.deploy(new())
    key = Idempotency("k", "print")
    async with watched(apps_namespace) as (killed, watch):
        watch.die_at = "create ControllerRevision"
        with pytest.raises(asyncio.CancelledError):
            await killed.deploy(new(digest=source("own"), env={"N": "killed"}), idempotency=key)
    app, version = await store.wanted("todo")
    assert (app.version, version.number, dict(version.env)) == (number, number, {"N": "killed"})
    assert await store.version("todo", number) == version
    assert [one.number for one in (await store.versions("todo"))[0]] == list(range(number, 0, -1))
    assert await store.names_source(source("own"))
    again = await store.deploy(new(digest=source("own"), env={"N": "killed"}), idempotency=key)
    assert (again.replayed, again.version.number) == (True, number)
    # the next writer leaves nothing of it behind
    await store.deploy(new())
    assert await store.version("todo", number) == version
    assert len(apps_namespace.get("controllerrevisions")["items"]) == number + 1


@pytest.mark.parametrize("what", ["create VibedApp", "replace VibedApp", "create ControllerRevision"])
async def test_a_write_whose_answer_was_lost_is_not_made_twice(apps_namespace: Namespace, what: str) -> None:
    async with watched(apps_namespace) as (store, watch):
        before = 0
        if what == "replace VibedApp":
            await store.deploy(new())
            before = 1
        watch.lose = {what}
        deployed = await store.deploy(new(digest=source("own")))
        assert (deployed.version.number, deployed.version.source_digest) == (before + 1, source("own"))
        assert (await store.get("todo")).version == before + 1
        await store.deploy(new())
        assert [one.number for one in (await store.versions("todo"))[0]] == list(range(before + 2, 0, -1))


async def test_a_revision_of_a_version_that_did_not_come_about_makes_way(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    await store.deploy(new())
    there = apps_namespace.get("controllerrevision", "todo-v1")
    there["metadata"] = {name: there["metadata"][name] for name in ("labels", "ownerReferences")} | {"name": "todo-v2"}
    said = json.loads(there["data"]["version"]) | {"write": "another", "env": {"N": "stray"}}
    there |= {"revision": 2, "data": {"version": json.dumps(said)}}
    apps_namespace.kubectl("create", "-f", "-", given=there)
    await store.deploy(new(env={"N": "mine"}))
    await store.deploy(new())
    assert dict((await store.version("todo", 2)).env) == {"N": "mine"}


async def test_a_status_that_was_written_meanwhile_does_not_make_a_deploy_lose(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    await store.deploy(new())

    async def record() -> None:
        for number in range(10):
            await store.record("todo", None, events=[NewEvent("Normal", "Thing", str(number))])

    async with opened(apps_namespace) as other:
        await asyncio.gather(record(), *(other.deploy(new()) for _ in range(5)))
    events = await store.events("todo")
    assert [event.seq for event in events] == list(range(1, 17))
    assert sum(event.reason == "Thing" for event in events) == 10
    assert sorted(event.version for event in events if event.version is not None) == [1, 2, 3, 4, 5, 6]


async def test_two_writers_of_one_status_are_told_apart(apps_namespace: Namespace, store: ClusterStore) -> None:
    app = (await store.deploy(new())).app
    async with opened(apps_namespace) as other:
        done = await asyncio.gather(*(one.record("todo", app.status) for one in (store, other)), return_exceptions=True)
    assert [isinstance(one, Conflict) for one in done].count(True) == 1


async def test_what_does_not_fit_into_one_object_is_refused_before_it_is_sent(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    large = {f"V{number}": "x" * 90_000 for number in range(16)}
    with pytest.raises(AppTooLarge, match="1,300,000"):
        await store.deploy(new(env=large))
    assert apps_namespace.get("vapp")["items"] == []
    quoted = {f"V{number}": '"' * 40_000 for number in range(14)}  # its revision would be too large
    with pytest.raises(AppTooLarge):
        await store.deploy(new(env=quoted))
    assert apps_namespace.get("vapp")["items"] == []
    fits = {f"V{number}": "x" * 90_000 for number in range(14)}
    await store.deploy(new(env=fits))
    await served(store)
    assert dict((await store.wanted("todo"))[1].env) == fits


async def test_the_newest_versions_are_kept_and_older_ones_with_their_sources_are_forgotten(
    apps_namespace: Namespace, store: ClusterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "VERSIONS_KEPT", 4)
    monkeypatch.setattr(deploying, "_FORGOTTEN_AT_ONCE", 2)
    await store.deploy(new(digest=source("1")))
    await served(store)
    dropped = [list((await store.deploy(new(digest=source(str(n))))).dropped) for n in range(2, 9)]
    assert dropped == [[], [], [], [], [source("2"), source("3")], [], [source("4"), source("5")]]
    # the first serves, and is gone back to
    assert [version.number for version in (await store.versions("todo"))[0]] == [8, 7, 6, 1]
    with pytest.raises(NotFound):
        await store.version("todo", 2)
    there = {one["metadata"]["name"] for one in apps_namespace.get("controllerrevisions")["items"]}
    assert there == {"todo-v1", "todo-v6", "todo-v7", "todo-v8"}
    assert (await store.deploy(new())).version.number == 9


async def test_a_revision_can_be_labelled_and_outlive_its_app(apps_namespace: Namespace, store: ClusterStore) -> None:
    await store.deploy(new(env={"HTML": '<a href="/?a&b">ä\u2028\n\x7f</a>'}))
    apps_namespace.kubectl("label", "controllerrevision", "todo-v1", "mark=yes")
    body = json.dumps({"metadata": {"ownerReferences": None}})  # as the garbage collector does for --cascade=orphan
    apps_namespace.kubectl("patch", "controllerrevision", "todo-v1", "--type=merge", "-p", body)
    apps_namespace.kubectl("replace", "-f", "-", given=apps_namespace.get("controllerrevision", "todo-v1"))


async def test_a_long_name_has_revisions_of_its_own(store: ClusterStore) -> None:
    one, other = "a" * 63, "a" * 62 + "b"
    for name in (one, other):
        await store.deploy(new(name, env={"N": name}))
        await store.deploy(new(name, env={}))
    for name in (one, other):
        assert dict((await store.version(name, 1)).env) == {"N": name}
    assert len(names.revision(one, 10**6)) <= 63


# what kubectl shows of it


async def test_kubectl_shows_and_waits_for_what_the_controller_recorded(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    await store.deploy(new())
    with pytest.raises(Refused):
        apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=1s")
    await served(store)
    apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=5s")
    _, row = apps_namespace.kubectl("get", "vapp").splitlines()
    assert row.split()[:-1] == ["todo", "Ready", "https://todo.apps.test", "python-313", "1"]
    there = apps_namespace.get("vapp", "todo")["status"]
    assert (there["podIP"], there["routeTarget"]) == ("10.0.0.7", "10.0.0.7:8080")
    assert (await store.get("todo")).status.route == Route(1, 1, "10.0.0.7:8080")
    await store.deploy(new())
    with pytest.raises(Refused):
        apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=1s")


async def test_a_failed_deploy_says_why_in_its_condition(apps_namespace: Namespace, store: ClusterStore) -> None:
    app = (await store.deploy(new())).app
    failed = replace(app.status, phase=Phase.FAILED, reason="StartFailed", message="it ended", observed_generation=1)
    await store.record("todo", failed, outcomes=[VersionOutcome(1, Phase.FAILED, "StartFailed", "it ended", {})])
    (ready,) = apps_namespace.get("vapp", "todo")["status"]["conditions"]
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "StartFailed", "it ended")


async def test_when_it_became_ready_stays_while_it_is(apps_namespace: Namespace, store: ClusterStore) -> None:
    await store.deploy(new())
    await served(store)
    before = apps_namespace.get("vapp", "todo")["status"]["conditions"]
    await store.record("todo", None, events=[NewEvent("Normal", "Thing", "")])
    assert apps_namespace.get("vapp", "todo")["status"]["conditions"] == before


# deleting


async def test_kubectl_delete_is_a_deletion_that_the_controller_finishes(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    await store.deploy(new(), idempotency=Idempotency("k", "print"))
    apps_namespace.kubectl("delete", "vapp", "todo", "--wait=false")
    app = await store.get("todo")
    assert (app.deleted, app.settled, app.generation) == (True, False, 2)
    assert [one.app_id for one in await store.unsettled()] == ["todo"]
    assert (await store.list())[1] == 0
    assert list(await store.purge("todo")) == [source("d1")]
    assert apps_namespace.get("vapp")["items"] == []
    assert apps_namespace.get("controllerrevisions")["items"] == []
    assert await store.replay("alice", Idempotency("k", "print")) is None


async def test_a_deletion_that_nothing_holds_is_one_all_the_same(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    await store.deploy(new())
    apps_namespace.kubectl("patch", "vapp", "todo", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    assert (await store.request_delete("todo")).deleted
    with pytest.raises(NotFound):
        await store.get("todo")
    assert list(await store.purge("todo")) == []
    assert (await store.deploy(new())).version.number == 1


async def test_an_earlier_apps_revisions_are_not_the_new_ones(apps_namespace: Namespace, store: ClusterStore) -> None:
    await store.deploy(new(env={"N": "old"}), idempotency=Idempotency("k", "print"))
    await store.deploy(new(env={"N": "old"}))
    left = apps_namespace.get("controllerrevisions")["items"]
    await store.request_delete("todo")
    await store.purge("todo")
    for revision in left:  # as if garbage collection had not come to them yet
        revision["metadata"] = {name: revision["metadata"][name] for name in ("name", "labels")}
        apps_namespace.kubectl("create", "-f", "-", given=revision)
    assert len(apps_namespace.get("controllerrevisions")["items"]) == 2
    assert await store.replay("alice", Idempotency("k", "print")) is None
    await store.deploy(new(env={"N": "new"}))
    with pytest.raises(NotFound):
        await store.version("todo", 2)
    await store.deploy(new(env={"N": "newer"}))
    assert [dict(one.env) for one in (await store.versions("todo"))[0]] == [{"N": "newer"}, {"N": "new"}]


# applying by hand


async def test_an_app_that_was_applied_by_hand_is_one_once_it_is_decided(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    given = manifest(env=[{"name": "A", "value": "1"}], runtime__env=[{"name": "A", "value": "0"}, {"name": "B"}])
    given["spec"]["resources"] = {"cpu": 1, "memory": "1Gi"}
    apps_namespace.apply(given)
    with pytest.raises(NotFound):
        await store.get("todo")
    assert (await store.list())[1] == 0
    (found,) = await store.undecided()
    assert (found.app_id, found.owner, found.tarball_ref, found.lane) == ("todo", "alice", "x", "general")
    assert (dict(found.env), found.resources, found.same) == ({"A": "1", "B": ""}, Resources(1.0, 1024), None)
    before = apps_namespace.get("vapp", "todo")
    made = await store.decide("todo", RUNTIME, source("d1"), 10, generation=found.generation)
    assert (made.created, made.version.number, made.version.runtime) == (False, 1, RUNTIME)
    assert (dict(made.version.env), made.version.resources) == ({"A": "1", "B": ""}, Resources(1.0, 1024))
    assert await store.wanted("todo") == (made.app, made.version)
    assert await store.undecided() == []
    after = apps_namespace.get("vapp", "todo")
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert names.TEARDOWN in after["metadata"]["finalizers"]
    await served(store)
    apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=5s")
    apps_namespace.apply(given)
    assert await store.undecided() == []


async def test_an_edit_by_hand_makes_a_version_and_one_that_changes_nothing_that_runs_does_not(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    apps_namespace.apply(manifest())
    await store.decide("todo", RUNTIME, source("d1"), 10, generation=1)
    await served(store)
    apps_namespace.apply(manifest(env=[{"name": "A", "value": "1"}]))
    (found,) = await store.undecided()
    assert found.same == (RUNTIME, source("d1"), 10), "its source is not looked at again"
    # what serves is told as it is, until there is a version of the edit
    app, version = await store.wanted("todo")
    assert (app.version, app.env_names, dict(version.env)) == (1, (), {})
    assert app.settled
    with pytest.raises(Refused):
        apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=1s")
    runtime, digest, size = found.same
    await store.decide("todo", runtime, digest, size, generation=found.generation)
    app, version = await store.wanted("todo")
    assert (app.version, app.generation, app.settled, dict(version.env)) == (2, 2, False, {"A": "1"})
    await served(store)
    apps_namespace.apply(manifest(env=[{"name": "A", "value": "1"}], ttl="2h"))
    assert await store.undecided() == []
    assert (await store.get("todo")).generation == 2
    with pytest.raises(Refused):
        apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=1s")
    assert await store.acknowledge("todo")
    assert not await store.acknowledge("todo")
    apps_namespace.kubectl("wait", "--for=condition=Ready", "vapp/todo", "--timeout=5s")
    apps_namespace.apply(manifest(source__tarballRef="another"))
    (found,) = await store.undecided()
    assert found.same is None


async def test_an_edit_of_an_app_that_the_api_deployed_is_a_version_of_it(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    await store.deploy(new(env={"A": "1"}, resources=Resources(2.0, None)))
    apps_namespace.kubectl(
        "patch", "vapp", "todo", "--type=merge", "-p", json.dumps({"spec": {"env": [{"name": "A", "value": "2"}]}})
    )
    (found,) = await store.undecided()
    assert found.same == (RUNTIME, source("d1"), 10)
    await store.decide("todo", RUNTIME, source("d1"), 10, generation=found.generation)
    assert dict((await store.wanted("todo"))[1].env) == {"A": "2"}
    assert dict((await store.version("todo", 1)).env) == {"A": "1"}
    deployed = await store.deploy(new(env={"A": "3"}))
    assert (deployed.version.number, dict(deployed.version.env)) == (3, {"A": "3"})
    assert await store.undecided() == []
    assert names.DECISION not in apps_namespace.get("vapp", "todo")["metadata"]["annotations"]


async def test_a_spec_that_changed_while_it_was_decided_is_decided_anew(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    apps_namespace.apply(manifest())
    (found,) = await store.undecided()
    apps_namespace.apply(manifest(env=[{"name": "A"}]))
    with pytest.raises(Conflict):
        await store.decide("todo", RUNTIME, source("d1"), 10, generation=found.generation)
    assert len(await store.undecided()) == 1


async def test_a_spec_that_no_version_can_be_made_of_says_why_and_what_serves_goes_on(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    apps_namespace.apply(manifest())
    await store.refuse("todo", "SourceUnavailable", "there is no x", generation=1)
    _, row = apps_namespace.kubectl("get", "vapp", "-o", "wide").splitlines()
    assert {"Failed", "SourceUnavailable"} <= set(row.split())
    assert await store.undecided() == []
    apps_namespace.apply(manifest(source__tarballRef="y"))
    assert [one.tarball_ref for one in await store.undecided()] == ["y"]
    await store.decide("todo", RUNTIME, source("d1"), 10, generation=2)
    await served(store)
    apps_namespace.apply(manifest(source__tarballRef="z"))
    await store.refuse("todo", "SourceUnavailable", "there is no z", generation=3)
    there = apps_namespace.get("vapp", "todo")["status"]
    assert (there["phase"], there["servingVersion"], there["refusedGeneration"]) == ("Ready", 1, 3)
    (ready,) = there["conditions"]
    assert (ready["status"], ready["message"], ready["observedGeneration"]) == ("False", "there is no z", 3)
    assert (await store.events("todo"))[-1].message == "there is no z"
    await store.refuse("todo", "SourceUnavailable", "of an older spec", generation=2)
    assert apps_namespace.get("vapp", "todo")["status"] == there


async def test_a_ledger_that_was_taken_away_is_begun_anew(apps_namespace: Namespace, store: ClusterStore) -> None:
    await store.deploy(new())
    body = apps_namespace.get("vapp", "todo")
    del body["metadata"]["annotations"], body["metadata"]["finalizers"]
    apps_namespace.kubectl("replace", "-f", "-", given=body)
    (found,) = await store.undecided()
    await store.decide("todo", RUNTIME, source("d1"), 10, generation=found.generation)
    assert (await store.wanted("todo"))[1].runtime == RUNTIME
    assert (await store.deploy(new())).version.number == 2


async def test_an_app_of_an_earlier_vibed_is_decided_like_one_that_was_applied(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    apps_namespace.apply(manifest())
    old = {"phase": "Ready", "url": "https://old", "podIP": "10.0.0.9", "snapshotRef": "s"}
    apps_namespace.kubectl(
        "patch", "vapp", "todo", "--subresource=status", "--type=merge", "-p", json.dumps({"status": old})
    )
    await store.decide("todo", RUNTIME, source("d1"), 10, generation=1)
    await served(store)
    there = apps_namespace.get("vapp", "todo")["status"]
    assert (there["snapshotRef"], there["podIP"], there["servingVersion"]) == ("s", "10.0.0.7", 1)


# what others see, and who is behind


async def test_a_cache_has_what_its_process_wrote_at_once_and_what_others_wrote_soon(
    apps_namespace: Namespace,
) -> None:
    async with opened(apps_namespace, cached=True) as store, opened(apps_namespace) as other:
        await store.deploy(new("mine"))
        assert [app.app_id for app in (await store.list())[0]] == ["mine"]
        await other.deploy(new("theirs"))
        assert {app.app_id for app in (await store.list(owner="alice"))[0]} == {"mine", "theirs"}
        assert (await store.get("theirs")).version == 1
        async with asyncio.timeout(30):
            while {app.app_id for app in (await store.list())[0]} != {"mine", "theirs"}:
                await asyncio.sleep(0.02)
        await store.request_delete("mine")
        assert [app.app_id for app in (await store.list())[0]] == ["theirs"]


async def test_owners_are_told_apart_whatever_their_names_are(store: ClusterStore) -> None:
    owners = ["a,b", "a", "a=b", "a\\,b", "spec.owner=a", "ä@example.com"]
    for number, owner in enumerate(owners):
        await store.deploy(new(f"app-{number}", owner))
    for number, owner in enumerate(owners):
        assert [app.app_id for app in (await store.list(owner=owner))[0]] == [f"app-{number}"]


async def test_keys_are_secrets_without_the_secret_and_their_use_is_rarely_written(
    apps_namespace: Namespace, store: ClusterStore
) -> None:
    key = await store.create_key("alice", admin=True, label="laptop", secret_sha256="0" * 64)
    (secret,) = apps_namespace.get("secrets", "-l", names.KEY)["items"]
    assert "0" * 64 not in json.dumps(secret["metadata"])
    assert secret["immutable"]
    await store.keys_used({key.key_id: 1_000.0})
    written = apps_namespace.get("secret", secret["metadata"]["name"])["metadata"]["resourceVersion"]
    await store.keys_used({key.key_id: 1_060.0})
    assert apps_namespace.get("secret", secret["metadata"]["name"])["metadata"]["resourceVersion"] == written
    assert [one.last_used_at for one in await store.keys()] == [1_060.0]
    async with opened(apps_namespace) as other:
        assert [one.last_used_at for one in await other.keys()] == [1_000.0]
    await store.keys_used({key.key_id: 2_000.0})
    async with opened(apps_namespace) as other:
        assert [one.last_used_at for one in await other.keys()] == [2_000.0]


async def test_a_secret_that_is_no_key_is_none(apps_namespace: Namespace, store: ClusterStore) -> None:
    given = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names.api_key("hash"), "labels": {names.KEY: "key-1"}},
        "stringData": {"secret_sha256": "hash", "owner": "mallory", "admin": "true"},
    }
    apps_namespace.apply(given)
    assert await store.find_key("hash") is None
    assert await store.keys() == []


# rights


def account(namespace: Namespace, name: str, granted: Iterable[Right]) -> Path:
    """The kubeconfig of an account with these rights and no others."""
    rules = [{"apiGroups": [one.group], "resources": [one.resource], "verbs": one.verbs} for one in granted]
    return namespace.service_account(name, rules=rules)


async def test_the_rights_that_are_written_down_are_enough_and_no_more_than_that(apps_namespace: Namespace) -> None:
    places = [
        ClusterPlace(account(apps_namespace, name, granted), apps_namespace.name, cached=True)
        for name, granted in (("api", rights.API), ("controller", rights.CONTROLLER))
    ]
    async with places[0].opened() as api, places[1].opened() as controller:
        # what `vibed serve` does
        key = await api.create_key("alice", admin=False, label="", secret_sha256="one")
        assert await api.find_key("one") == key
        await api.keys_used({key.key_id: 1.0})
        await api.revoke_key(key.key_id)
        await api.prove()
        for digest in ("d1", "d2"):
            idempotency = Idempotency(digest, "print")
            await api.deploy(new(digest=source(digest)), idempotency=idempotency, storage_limit=10**6)
        await api.replay("alice", Idempotency("d1", "print"))
        await api.versions("todo")
        await api.names_source(source("d1"))
        await api.digests_in_use()
        # what `vibed controller` does
        await served(controller)
        await controller.next_run("todo")
        await controller.version("todo", 1)
        apps_namespace.apply(manifest("by-hand"))
        async with asyncio.timeout(30):
            while not (there := await controller.undecided()):
                await asyncio.sleep(0.02)
        (found,) = there
        await controller.decide("by-hand", RUNTIME, source("d1"), 10, generation=found.generation)
        await api.request_delete("todo")
        await controller.purge("todo")
        # and what neither may
        with pytest.raises(StoreUnavailable, match="vibedapps"):
            await api.record("by-hand", (await api.get("by-hand")).status)
        with pytest.raises(StoreUnavailable, match="secrets"):
            await controller.keys()
        with pytest.raises(StoreUnavailable, match="delete"):
            await controller.request_delete("by-hand")


async def test_a_cluster_that_does_not_know_apps_says_so(apps_namespace: Namespace) -> None:
    client = Client.connect(kubeconfig=apps_namespace.cluster.config, namespace="there-is-none")
    store = ClusterStore(client, namespace="there-is-none", own_namespace="there-is-none", url=str)
    try:
        with pytest.raises(StoreUnavailable, match="there-is-none"):
            await store.deploy(new())
    finally:
        await client.close()


def test_events_are_bounded_by_what_the_definition_takes() -> None:
    status = definition.ours()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert status["events"]["maxItems"] >= seen.EVENTS_KEPT
    assert status["versions"]["maxItems"] >= ledger.VERSIONS_KEPT + deploying._FORGOTTEN_AT_ONCE
