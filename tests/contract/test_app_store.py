"""The contract of the AppStore (vibed.apps.store), for every implementation: SQLite, the cluster with an informer."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.app_stores import ClusterPlace, Place, SqlitePlace
from vibed.apps import domains
from vibed.apps.app import Crash, Elsewhere, Install, Phase, Resources, Runtime, Start
from vibed.apps.domains import DomainTaken, TooManyDomains
from vibed.apps.errors import AlreadyExists, Conflict, IdempotencyMismatch, NameTaken, NotFound
from vibed.apps.storage import StorageLimitReached
from vibed.apps.store import IDEMPOTENCY_KEPT_S, AppStore, Idempotency, NewEvent, NewVersion, VersionOutcome

RUNTIME = Runtime(
    lane="general",
    template="python-313",
    kind="python",
    entrypoint="python3 app.py",
    why="app.py is a Flask app",
    strip="folder/",
    start=Start(
        argv=("python3", "app.py"),
        build=(("go", "build"), ("true",)),
        port=3000,
        warm=False,
        expected_ports=(3000, 8081),
    ),
    options={"env": {"A": "b"}, "list": [1, 2]},
    packages=("flask",),
    notes=("a note",),
    install=Install(
        "python", "uv", files=("requirements.txt",), wanted=("humanize>=4",), optional=("lxml",), private=True
    ),
    elsewhere=(
        Elsewhere("python-312", Install("python", "uv", wanted=("flask", "humanize>=4")), packages=("gunicorn",)),
        Elsewhere("python-311"),
    ),
    otherwise=Runtime("general", "python-313", "python", "b", "c", start=Start(("b",), build=(("x", "y"),))),
)


def source(word: str) -> str:
    """A source's digest."""
    return hashlib.sha256(word.encode()).hexdigest()


def new(app_id: str = "todo", owner: str = "alice", digest: str = source("d1"), **more: Any) -> NewVersion:
    """A version to deploy."""
    fields: dict[str, Any] = {"runtime": RUNTIME, "env": {"K": "v"}, "created_by": owner, "source_size": 10, **more}
    return NewVersion(app_id=app_id, owner=owner, source_digest=digest, **fields)


@pytest.fixture(params=["sqlite", "cluster"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "vibed.db")
    namespace = request.getfixturevalue("apps_namespace")
    return ClusterPlace(namespace.cluster.config, namespace.name, cached=True)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[AppStore]:
    async with place.opened() as made:
        yield made


# deploying


async def test_a_first_deploy_makes_an_app_and_its_version_1(store: AppStore) -> None:
    deployed = await store.deploy(new(resources=Resources(0.5, 256), timings={"receive": 1.5}))
    assert (deployed.created, deployed.replayed) == (True, False)
    app, version = deployed.app, deployed.version
    assert (app.app_id, app.owner, app.version, app.generation, app.deleted) == ("todo", "alice", 1, 1, False)
    assert (app.status.phase, app.status.reason, app.settled) == (Phase.PENDING, "Accepted", False)
    assert (version.number, version.phase, version.source_digest) == (1, Phase.PENDING, source("d1"))
    assert await store.get("todo") == app
    assert await store.version("todo", 1) == version


async def test_everything_of_a_version_comes_back_as_it_was_given(store: AppStore) -> None:
    await store.deploy(new(resources=Resources(0.5, 256), timings={"receive": 1.5}, rolled_back_from=None))
    version = await store.version("todo", 1)
    assert version.runtime == RUNTIME
    assert (await store.get("todo")).runtime == RUNTIME
    assert dict(version.env) == {"K": "v"}
    assert version.resources == Resources(0.5, 256)
    assert dict(version.timings) == {"receive": 1.5}


async def test_each_deploy_is_the_next_version_and_the_next_generation(store: AppStore) -> None:
    await store.deploy(new())
    second = await store.deploy(new(digest=source("d2")))
    assert (second.created, second.version.number, second.app.generation) == (False, 2, 2)
    assert second.app.created_at < second.app.last_deployed_at
    versions, total = await store.versions("todo")
    assert ([version.number for version in versions], total) == ([2, 1], 2)
    assert ([version.number for version in (await store.versions("todo", limit=1, offset=1))[0]]) == [1]


async def test_a_name_belongs_to_its_first_owner(store: AppStore) -> None:
    await store.deploy(new())
    with pytest.raises(NameTaken) as caught:
        await store.deploy(new(owner="bob"))
    assert "alice" not in str(caught.value.body())
    assert (await store.get("todo")).version == 1


async def test_if_exists_fail_refuses_what_is_there_and_takes_what_is_not(store: AppStore) -> None:
    assert (await store.deploy(new(), if_exists="fail")).created
    with pytest.raises(AlreadyExists):
        await store.deploy(new(), if_exists="fail")
    with pytest.raises(NameTaken):
        await store.deploy(new(owner="bob"), if_exists="fail")


async def test_a_deploy_that_names_the_generation_it_read_is_refused_when_another_was_faster(store: AppStore) -> None:
    read = (await store.deploy(new())).app
    await store.deploy(new(), expected=read)
    with pytest.raises(Conflict) as caught:
        await store.deploy(new(), expected=read)
    assert caught.value.may_retry
    assert (await store.versions("todo"))[1] == 2


async def test_a_deploy_that_builds_on_an_app_does_not_bring_it_back(store: AppStore) -> None:
    read = (await store.deploy(new())).app
    await store.request_delete("todo")
    with pytest.raises(Conflict) as caught:
        await store.deploy(new(), expected=read)
    assert caught.value.error_code == "BeingDeleted"
    await store.purge("todo")
    with pytest.raises(NotFound):
        await store.deploy(new(), expected=read)
    with pytest.raises(NotFound):
        await store.get("todo")


@pytest.mark.parametrize("owner", ["alice", "bob"])
async def test_another_app_of_the_name_is_not_the_one_that_a_deploy_builds_on(store: AppStore, owner: str) -> None:
    read = (await store.deploy(new())).app
    await store.request_delete("todo")
    await store.purge("todo")
    another = (await store.deploy(new(owner=owner))).app
    assert another.generation == read.generation
    with pytest.raises(NotFound):
        await store.deploy(new(), expected=read)
    assert await store.get("todo") == another


async def test_deploys_at_once_get_numbers_of_their_own(store: AppStore) -> None:
    done = await asyncio.gather(*(store.deploy(new(digest=source(f"d{n}"))) for n in range(20)))
    assert sorted(item.version.number for item in done) == list(range(1, 21))
    assert [item.created for item in done].count(True) == 1
    app = await store.get("todo")
    assert (app.version, app.generation) == (20, 20)


# idempotency


async def test_a_key_that_is_used_again_gives_what_it_gave_before(store: AppStore) -> None:
    key = Idempotency("k", "print")
    assert await store.replay("alice", key) is None
    first = await store.deploy(new(), idempotency=key)
    again = await store.deploy(new(digest=source("other")), idempotency=key)
    assert (again.version, again.created, again.replayed) == (first.version, True, True)
    replayed = await store.replay("alice", key)
    assert replayed is not None and replayed.version == first.version
    assert (await store.versions("todo"))[1] == 1


async def test_a_key_is_replayed_though_the_app_that_it_built_on_has_changed(store: AppStore) -> None:
    key = Idempotency("k", "print")
    read = (await store.deploy(new())).app
    first = await store.deploy(new(), idempotency=key, expected=read)
    again = await store.deploy(new(), idempotency=key, expected=read)
    assert (again.version, again.replayed) == (first.version, True)


async def test_a_key_with_another_request_is_refused(store: AppStore) -> None:
    await store.deploy(new(), idempotency=Idempotency("k", "one"))
    with pytest.raises(IdempotencyMismatch):
        await store.deploy(new(), idempotency=Idempotency("k", "two"))
    with pytest.raises(IdempotencyMismatch):
        await store.replay("alice", Idempotency("k", "two"))


async def test_keys_of_two_owners_do_not_meet(store: AppStore) -> None:
    key = Idempotency("k", "print")
    await store.deploy(new("one"), idempotency=key)
    assert await store.replay("bob", key) is None
    assert (await store.deploy(new("two", "bob"), idempotency=key)).created


async def test_one_key_at_once_is_one_deploy(store: AppStore) -> None:
    key = Idempotency("k", "print")
    done = await asyncio.gather(*(store.deploy(new(), idempotency=key) for _ in range(20)))
    assert [item.replayed for item in done].count(False) == 1
    assert (await store.versions("todo"))[1] == 1


async def test_a_refused_deploy_does_not_use_its_key_up(store: AppStore) -> None:
    await store.deploy(new(owner="bob"))
    with pytest.raises(NameTaken):
        await store.deploy(new(), idempotency=Idempotency("k", "print"))
    assert await store.replay("alice", Idempotency("k", "print")) is None


async def test_keys_are_forgotten_after_a_day(store: AppStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.deploy(new("one"), idempotency=Idempotency("k", "print"))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + IDEMPOTENCY_KEPT_S + 1)
    await store.deploy(new("two"), idempotency=Idempotency("other", "print"))
    assert await store.replay("alice", Idempotency("k", "print")) is None


# listing


async def test_lists_come_by_last_deploy_in_pages_with_a_total(store: AppStore) -> None:
    for name in ("a", "b", "c"):
        await store.deploy(new(name))
    await store.deploy(new("a"))
    apps, total = await store.list()
    assert ([app.app_id for app in apps], total) == (["a", "c", "b"], 3)
    apps, total = await store.list(limit=1, offset=1)
    assert ([app.app_id for app in apps], total) == (["c"], 3)


async def test_lists_are_filtered_by_owner_phase_and_text(store: AppStore) -> None:
    await store.deploy(new("todo-list"))
    await store.deploy(new("wiki", "bob"))
    app = await store.get("wiki")
    await store.record("wiki", replace(app.status, phase=Phase.READY, serving_version=1, observed_generation=1))
    assert [app.app_id for app in (await store.list(owner="bob"))[0]] == ["wiki"]
    assert [app.app_id for app in (await store.list(phase=Phase.READY))[0]] == ["wiki"]
    assert [app.app_id for app in (await store.list(q="list"))[0]] == ["todo-list"]
    for text in ("%", "_", "!", "'"):
        assert (await store.list(q=text))[1] == 0


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
async def test_a_number_that_no_row_can_have_is_like_any_that_none_has(store: AppStore, number: int) -> None:
    await store.deploy(new())
    with pytest.raises(NotFound):
        await store.version("todo", number)
    if number > 0:
        assert await store.list(offset=number) == ([], 1)
        assert await store.versions("todo", offset=number) == ([], 1)


async def test_unsettled_are_those_whose_status_lags_behind(store: AppStore) -> None:
    for name in ("settled", "lagging", "gone", "starting", "updating"):
        await store.deploy(new(name))
    ready = VersionOutcome(1, Phase.READY, "Running", "", {})
    for name, phase in (("settled", Phase.READY), ("gone", Phase.READY), ("starting", Phase.STARTING)):
        app = await store.get(name)
        await store.record(name, replace(app.status, phase=phase, observed_generation=1), outcomes=[ready])
    # another version of it serves, so that the app is Ready, and the wanted one is still on its way
    app = (await store.deploy(new("updating"))).app
    await store.record("updating", replace(app.status, phase=Phase.READY, observed_generation=2), outcomes=[ready])
    await store.request_delete("gone")
    assert {app.app_id for app in await store.unsettled()} == {"lagging", "gone", "starting", "updating"}


# the controller's side


async def test_a_status_is_written_by_whoever_read_the_newest(store: AppStore) -> None:
    app = (await store.deploy(new())).app
    written = await store.record(
        "todo",
        replace(
            app.status, phase=Phase.READY, reason="Running", serving_version=1, observed_generation=1,
            isolation="kernel", driver="gvisor", sandbox="s1", restarts=2,
            last_crash=Crash(1764000000.5, 1, "it exited with status 1.", error="KeyError: 'TOKEN'"),
        ),
    )  # fmt: skip
    assert written is not None and written.revision == app.status.revision + 1
    assert (await store.get("todo")).status == written
    assert (await store.get("todo")).settled
    with pytest.raises(Conflict):
        await store.record("todo", app.status)
    with pytest.raises(NotFound):
        await store.record("nothing", app.status)


async def test_a_deploy_does_not_make_a_status_writer_lose(store: AppStore) -> None:
    app = (await store.deploy(new())).app
    await store.deploy(new())
    await store.record("todo", replace(app.status, phase=Phase.READY, observed_generation=1))
    assert not (await store.get("todo")).settled


async def test_a_record_is_written_whole_or_not_at_all(store: AppStore) -> None:
    app = (await store.deploy(new())).app
    await store.record("todo", app.status)
    before = await store.events("todo")
    with pytest.raises(Conflict):
        await store.record(
            "todo",
            app.status,
            outcomes=[VersionOutcome(1, Phase.FAILED, "X", "", {})],
            events=[NewEvent("Normal", "X", "")],
        )
    assert (await store.version("todo", 1)).phase is Phase.PENDING
    assert await store.events("todo") == before


async def test_an_outcome_adds_its_timings_to_those_of_the_deploy(store: AppStore) -> None:
    await store.deploy(new(timings={"receive": 1.0}))
    await store.record("todo", None, outcomes=[VersionOutcome(1, Phase.READY, "Running", "up", {"claim": 2.0})])
    version = await store.version("todo", 1)
    assert (version.phase, version.reason, version.message) == (Phase.READY, "Running", "up")
    assert dict(version.timings) == {"receive": 1.0, "claim": 2.0}


async def test_runs_are_numbered_without_end_and_without_a_repeat(store: AppStore) -> None:
    await store.deploy(new())
    assert sorted(await asyncio.gather(*(store.next_run("todo") for _ in range(10)))) == list(range(1, 11))
    with pytest.raises(NotFound):
        await store.next_run("nothing")


# events


async def test_a_deploy_leaves_an_event_that_says_why_it_runs_so(store: AppStore) -> None:
    await store.deploy(new())
    events = await store.events("todo")
    assert [(event.seq, event.reason, event.version) for event in events] == [(1, "Accepted", 1)]
    assert RUNTIME.why in events[0].message


async def test_events_are_numbered_without_a_gap_and_read_from_anywhere(store: AppStore) -> None:
    await store.deploy(new())
    for n in range(5):
        await store.record("todo", None, events=[NewEvent("Normal", "Thing", str(n)), NewEvent("Warning", "Other", "")])
    events = await store.events("todo")
    assert [event.seq for event in events] == list(range(1, 12))
    assert [event.seq for event in await store.events("todo", after=9)] == [10, 11]
    assert [event.seq for event in await store.events("todo", after=2, limit=3)] == [3, 4, 5]
    assert await store.events("todo", after=11) == []


async def test_the_newest_events_are_kept_and_numbers_go_on(store: AppStore, place: Place) -> None:
    await store.deploy(new())
    await store.record("todo", None, events=[NewEvent("Normal", "Thing", "")] * (place.events_kept + 10))
    events = await store.events("todo", limit=place.events_kept * 2)
    assert len(events) == place.events_kept
    assert (events[0].seq, events[-1].seq) == (12, place.events_kept + 11)


# deleting


async def test_a_deleted_app_is_there_until_it_is_purged_and_in_no_list(store: AppStore) -> None:
    await store.deploy(new())
    deleted = await store.request_delete("todo")
    assert (deleted.deleted, deleted.settled, deleted.generation) == (True, False, 2)
    assert (await store.list())[1] == 0
    assert (await store.get("todo")).deleted
    with pytest.raises(Conflict) as caught:
        await store.deploy(new())
    assert caught.value.error_code == "BeingDeleted"
    assert (await store.request_delete("todo")).generation == 2
    await store.purge("todo")
    for what in (store.get("todo"), store.version("todo", 1), store.request_delete("todo")):
        with pytest.raises(NotFound):
            await what
    assert await store.events("todo") == []


async def test_a_purge_names_the_sources_that_nobody_else_uses(store: AppStore) -> None:
    await store.deploy(new("a", digest=source("shared")))
    await store.deploy(new("a", digest=source("own")))
    await store.deploy(new("b", "bob", digest=source("shared")))
    await store.request_delete("a")
    assert list(await store.purge("a")) == [source("own")]
    assert await store.digests_in_use() == {source("shared")}


async def test_an_app_that_was_not_deleted_is_not_purged(store: AppStore) -> None:
    await store.deploy(new())
    assert list(await store.purge("todo")) == []
    assert (await store.get("todo")).version == 1


async def test_a_name_that_was_purged_starts_afresh_for_anyone(store: AppStore) -> None:
    key = Idempotency("k", "print")
    await store.deploy(new(), idempotency=key)
    await store.next_run("todo")
    await store.request_delete("todo")
    await store.purge("todo")
    assert await store.replay("alice", key) is None
    again = await store.deploy(new(owner="bob"))
    assert (again.created, again.version.number, again.app.owner) == (True, 1, "bob")
    assert [event.seq for event in await store.events("todo")] == [1]


# keys


async def test_a_key_is_found_by_its_hash_until_it_is_revoked(store: AppStore) -> None:
    key = await store.create_key("alice", admin=True, label="laptop", secret_sha256="hash")
    assert await store.find_key("hash") == key
    assert list(await store.keys()) == [key]
    assert await store.find_key("other") is None
    await store.revoke_key(key.key_id)
    assert await store.find_key("hash") is None
    assert list(await store.keys()) == []
    with pytest.raises(NotFound):
        await store.revoke_key(key.key_id)


async def test_when_keys_were_last_used_is_kept_and_never_goes_back(store: AppStore) -> None:
    first = await store.create_key("alice", admin=False, label="", secret_sha256="one")
    second = await store.create_key("bob", admin=False, label="", secret_sha256="two")
    third = await store.create_key("carol", admin=False, label="", secret_sha256="three")
    assert first.last_used_at is None
    await store.keys_used({first.key_id: 200.0, second.key_id: 150.5})
    await store.keys_used({first.key_id: 100.0, second.key_id: 250.0})
    assert {key.key_id: key.last_used_at for key in await store.keys()} == {
        first.key_id: 200.0,
        second.key_id: 250.0,
        third.key_id: None,
    }
    found = await store.find_key("one")
    assert found == replace(first, last_used_at=200.0), "nothing else of the key changed"


async def test_the_use_of_a_key_that_was_revoked_meanwhile_is_forgotten(store: AppStore) -> None:
    key = await store.create_key("alice", admin=False, label="", secret_sha256="one")
    other = await store.create_key("alice", admin=False, label="", secret_sha256="two")
    await store.revoke_key(key.key_id)
    await store.keys_used({key.key_id: 1.0, other.key_id: 2.0, "key-nobody": 3.0})
    assert await store.keys() == [replace(other, last_used_at=2.0)]
    await store.keys_used({})


# other processes


async def test_what_is_there_survives_closing(place: Place) -> None:
    async with place.opened() as store:
        deployed = await store.deploy(new())
    async with place.opened() as again:
        assert await again.get("todo") == deployed.app


async def test_two_processes_share_it(store: AppStore, place: Place) -> None:
    await store.deploy(new())
    async with place.opened() as other:
        done = await asyncio.gather(*(where.deploy(new()) for where in (store, other) for _ in range(10)))
        assert sorted(item.version.number for item in done) == list(range(2, 22))
        assert await other.get("todo") == await store.get("todo")


def _deploy_for_ever(place: Place, pipe: Any) -> None:
    async def go() -> None:
        async with place.opened() as store:
            while True:
                deployed = await store.deploy(new())
                pipe.send_bytes(str(deployed.version.number).encode())

    asyncio.run(go())


async def test_whatever_was_acknowledged_survives_kill_9(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_deploy_for_ever, args=(place, writer))
        process.start()
        writer.close()
        acknowledged = 0
        for _ in range(10):
            acknowledged = int(reader.recv_bytes())
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        while reader.poll():
            try:
                acknowledged = int(reader.recv_bytes())
            except EOFError:
                break
        async with place.opened() as store:
            app = await store.get("todo")
            assert app.version >= acknowledged
            versions, total = await store.versions("todo", limit=200)
            assert [version.number for version in versions] == list(range(app.version, 0, -1))
            assert total == app.version


async def test_how_the_versions_went_is_what_the_versions_say(store: AppStore) -> None:
    for digest in ("d1", "d2", "d3"):
        await store.deploy(new(digest=source(digest), timings={"receive": 1.0}))
    went = VersionOutcome(2, Phase.FAILED, "StartFailed", "no port", {"start": 7.0})
    await store.record("todo", None, outcomes=[went])
    versions, total = await store.versions("todo")
    results, as_many = await store.results("todo")
    assert [(one.number, one.created_at, one.phase, one.reason, one.message, dict(one.timings)) for one in results] == [
        (one.number, one.created_at, one.phase, one.reason, one.message, dict(one.timings)) for one in versions
    ]
    assert (as_many, total) == (3, 3)
    assert [one.number for one in (await store.results("todo", limit=1, offset=1))[0]] == [2]
    assert await store.results("nobody") == ([], 0)


async def test_whether_a_source_is_named_by_any_version(store: AppStore) -> None:
    await store.deploy(new(digest=source("d1")))
    await store.deploy(new(digest=source("d2")))
    await store.deploy(new("other", digest=source("d3")))
    assert [await store.names_source(source(digest)) for digest in ("d1", "d2", "d3", "d4")] == [
        True,
        True,
        True,
        False,
    ]


async def test_an_app_and_the_version_that_is_wanted_are_read_together(store: AppStore) -> None:
    for digest in ("d1", "d2"):
        await store.deploy(new(digest=source(digest), env={"N": digest}, timings={"receive": 1.0}))
    app, version = await store.wanted("todo")
    assert app == await store.get("todo")
    assert version == await store.version("todo", 2)
    with pytest.raises(NotFound):
        await store.wanted("nobody")


async def test_a_caller_that_gives_up_does_not_leave_half_a_deploy(store: AppStore) -> None:
    for n in range(20):
        task = asyncio.create_task(store.deploy(new(f"app-{n}")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    # One more of our own goes behind all of theirs.
    await store.deploy(new("last"))
    for n in range(20):
        try:
            app = await store.get(f"app-{n}")
        except NotFound:
            continue
        assert (await store.version(app.app_id, 1)).number == 1
        assert len(await store.events(app.app_id)) == 1


async def site(store: AppStore, name: str, digest: str, size: int, unpacked: int = 0, **more: Any) -> Any:
    runtime = replace(RUNTIME, unpacked=unpacked)
    return await store.deploy(new(name, digest=digest, source_size=size, runtime=runtime, **more), storage_limit=1_000)


async def serves(store: AppStore, name: str, number: int) -> None:
    app = await store.get(name)
    status = replace(app.status, phase=Phase.READY, serving_version=number, observed_generation=app.generation)
    await store.record(name, status, outcomes=[VersionOutcome(number, Phase.READY, "Running", "", {})])


async def test_an_owners_apps_take_no_more_than_they_may(store: AppStore) -> None:
    await site(store, "one", "a" * 64, 100, 500)
    with pytest.raises(StorageLimitReached, match="'two' would take"):
        await site(store, "two", "b" * 64, 100, 500)
    with pytest.raises(NotFound):
        await store.get("two")
    await site(store, "two", "b" * 64, 100, 300)
    await site(store, "other", "c" * 64, 100, 900, owner="bob")
    assert await store.storage_of(["one", "two", "other", "none"]) == {"one": 600, "two": 400, "other": 1_000}


async def test_older_sources_make_way_for_a_new_version_and_are_nobodys_then(store: AppStore) -> None:
    for number in range(1, 5):
        assert not (await site(store, "one", str(number) * 64, 250)).dropped
        await serves(store, "one", number)
    assert list((await site(store, "one", "5" * 64, 400)).dropped) == ["1" * 64, "2" * 64]
    assert [version.source_kept for version in (await store.versions("one"))[0]] == [True, True, True, False, False]
    assert await store.digests_in_use() == {str(number) * 64 for number in (3, 4, 5)}
    assert not await store.names_source("1" * 64)


async def test_a_source_that_another_owner_has_too_is_not_told_to_be_nobodys(store: AppStore) -> None:
    await site(store, "theirs", "a" * 64, 600, owner="bob")
    await site(store, "mine", "a" * 64, 600)
    await site(store, "mine", "b" * 64, 300)
    await serves(store, "mine", 2)
    assert (await site(store, "mine", "c" * 64, 500)).dropped == []
    assert await store.names_source("a" * 64)
    assert not (await store.version("mine", 1)).source_kept


async def test_the_source_of_the_last_good_version_stays_while_its_successors_fail(store: AppStore) -> None:
    await site(store, "one", "a" * 64, 300)
    await serves(store, "one", 1)
    for digit in "bc":
        await site(store, "one", digit * 64, 300)
    assert [k.needed for k in sorted(await store.storage("alice"), key=lambda k: k.number)] == [True, False, True]
    assert list((await site(store, "one", "d" * 64, 300)).dropped) == ["b" * 64]
    assert (await store.version("one", 1)).source_kept


async def test_an_app_that_is_being_deleted_counts_no_more(store: AppStore) -> None:
    await site(store, "one", "a" * 64, 100, 800)
    await store.request_delete("one")
    await site(store, "two", "b" * 64, 100, 800)


async def test_of_two_deploys_at_once_that_would_take_too_much_one_is_refused(store: AppStore) -> None:
    results = await asyncio.gather(
        *(site(store, f"app-{n}", str(n) * 64, 100, 500) for n in range(3)), return_exceptions=True
    )
    assert sorted(isinstance(result, StorageLimitReached) for result in results) == [False, True, True]


# domains


async def verified(store: AppStore, app_id: str, name: str) -> domains.Domain:
    """A domain whose record was seen."""
    wanted = await store.add_domain(app_id, name, by="alice")
    return await store.verify_domain(app_id, name, wanted.token)


async def test_a_domain_leads_nowhere_before_it_is_verified(store: AppStore) -> None:
    await store.deploy(new())
    wanted = await store.add_domain("todo", "www.example.com", by="alice")
    assert (wanted.name, wanted.app_id, wanted.created_by, wanted.verified_at) == (
        "www.example.com",
        "todo",
        "alice",
        None,
    )
    assert await store.domains("todo") == [wanted]
    assert await store.domain("www.example.com") is None
    assert await store.verified_domains() == {}
    seen = await store.verify_domain("todo", "www.example.com", wanted.token)
    assert seen.verified_at is not None
    assert await store.domain("www.example.com") == seen
    assert await store.domains("todo") == [seen]
    assert await store.verified_domains() == {"www.example.com": "todo"}


async def test_a_domain_that_is_added_again_keeps_its_token_and_its_state(store: AppStore) -> None:
    await store.deploy(new())
    first = await store.add_domain("todo", "example.com", by="alice")
    assert await store.add_domain("todo", "example.com", by="alice") == first
    seen = await store.verify_domain("todo", "example.com", first.token)
    assert await store.add_domain("todo", "example.com", by="alice") == seen
    assert await store.verify_domain("todo", "example.com", first.token) == seen


async def test_who_wants_a_domain_first_cannot_keep_its_owner_from_it(store: AppStore) -> None:
    await store.deploy(new("squatter", "mallory"))
    await store.deploy(new("todo", "alice"))
    squatted = await store.add_domain("squatter", "example.com", by="mallory")
    wanted = await store.add_domain("todo", "example.com", by="alice")
    assert squatted.token != wanted.token
    await store.verify_domain("todo", "example.com", wanted.token)
    assert await store.domains("squatter") == [], "what it wanted is forgotten"
    with pytest.raises((NotFound, DomainTaken)):
        await store.verify_domain("squatter", "example.com", squatted.token)


async def test_a_verified_domain_is_one_apps_alone(store: AppStore) -> None:
    await store.deploy(new("todo"))
    await store.deploy(new("other"))
    await verified(store, "todo", "example.com")
    with pytest.raises(DomainTaken) as refused:
        await store.add_domain("other", "example.com", by="bob")
    assert "todo" not in refused.value.message, "nothing is told about whose it is"
    await store.remove_domain("todo", "example.com")
    assert (await verified(store, "other", "example.com")).app_id == "other"


async def test_a_token_is_good_for_the_domain_of_one_app_as_it_was_added(store: AppStore) -> None:
    await store.deploy(new("todo"))
    await store.deploy(new("other"))
    wanted = await store.add_domain("todo", "example.com", by="alice")
    await store.add_domain("other", "example.com", by="bob")
    with pytest.raises(NotFound):
        await store.verify_domain("other", "example.com", wanted.token)
    await store.remove_domain("todo", "example.com")
    again = await store.add_domain("todo", "example.com", by="alice")
    assert again.token != wanted.token
    with pytest.raises(NotFound):
        await store.verify_domain("todo", "example.com", wanted.token)


async def test_two_who_show_the_same_domain_at_once_do_not_both_get_it(store: AppStore) -> None:
    await store.deploy(new("todo"))
    await store.deploy(new("other"))
    both = [await store.add_domain(app_id, "example.com", by="alice") for app_id in ("todo", "other")]
    outcomes = await asyncio.gather(
        *(store.verify_domain(domain.app_id, domain.name, domain.token) for domain in both), return_exceptions=True
    )
    assert sorted(isinstance(outcome, (NotFound, DomainTaken)) for outcome in outcomes) == [False, True]
    assert len(await store.verified_domains()) == 1


async def test_a_deleted_app_frees_its_domains_at_once_and_gets_no_new_ones(store: AppStore) -> None:
    await store.deploy(new("todo"))
    await store.deploy(new("other"))
    await verified(store, "todo", "example.com")
    await store.request_delete("todo")
    assert await store.domain("example.com") is None
    assert await store.verified_domains() == {}
    assert await store.domains("todo") == []
    with pytest.raises(NotFound):
        await store.add_domain("todo", "example.org", by="alice")
    await verified(store, "other", "example.com")
    await store.purge("todo")
    await store.deploy(new("todo", "bob"))
    assert await store.domains("todo") == [], "another app of that name has none of its domains"


async def test_an_app_has_no_more_than_so_many_domains(store: AppStore) -> None:
    await store.deploy(new())
    for number in range(domains.MOST):
        await store.add_domain("todo", f"n{number}.example.com", by="alice")
    with pytest.raises(TooManyDomains):
        await store.add_domain("todo", "more.example.com", by="alice")
    await store.remove_domain("todo", "n0.example.com")
    await store.add_domain("todo", "more.example.com", by="alice")


async def test_what_is_no_domain_of_an_app_is_not_found(store: AppStore) -> None:
    with pytest.raises(NotFound):
        await store.add_domain("nobody", "example.com", by="alice")
    assert await store.domains("nobody") == []
    await store.deploy(new())
    with pytest.raises(NotFound):
        await store.remove_domain("todo", "example.com")
    with pytest.raises(NotFound):
        await store.verify_domain("todo", "example.com", "token")


async def test_a_redeploy_keeps_the_domains(store: AppStore) -> None:
    await store.deploy(new())
    seen = await verified(store, "todo", "example.com")
    await store.deploy(new(digest=source("d2")))
    assert await store.domains("todo") == [seen]
