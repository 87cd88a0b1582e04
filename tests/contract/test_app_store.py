"""The AppStore's contract (vibed.apps.store), against every implementation: SQLite so far."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vibed.apps.app import Crash, Elsewhere, Install, Phase, Resources, Runtime, Start
from vibed.apps.errors import (
    AlreadyExists,
    Conflict,
    IdempotencyMismatch,
    NameTaken,
    NotFound,
    StoreUnavailable,
)
from vibed.apps.sqlite import schema, writing
from vibed.apps.sqlite.connections import Connections
from vibed.apps.sqlite.store import SqliteStore
from vibed.apps.sqlite.writing import EVENTS_KEPT
from vibed.apps.storage import StorageLimitReached
from vibed.apps.store import AppStore, Idempotency, NewEvent, NewVersion, VersionOutcome

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


def new(app_id: str = "todo", owner: str = "alice", digest: str = "d1", **more: Any) -> NewVersion:
    """A version to deploy."""
    fields: dict[str, Any] = {"runtime": RUNTIME, "env": {"K": "v"}, "created_by": owner, "source_size": 10, **more}
    return NewVersion(app_id=app_id, owner=owner, source_digest=digest, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vibed.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[AppStore]:
    made = await SqliteStore.open(path)
    yield made
    await made.close()


# deploying


async def test_a_first_deploy_makes_an_app_and_its_version_1(store: AppStore) -> None:
    deployed = await store.deploy(new(resources=Resources(0.5, 256), timings={"receive": 1.5}))
    assert (deployed.created, deployed.replayed) == (True, False)
    app, version = deployed.app, deployed.version
    assert (app.app_id, app.owner, app.version, app.generation, app.deleted) == ("todo", "alice", 1, 1, False)
    assert (app.status.phase, app.status.reason, app.settled) == (Phase.PENDING, "Accepted", False)
    assert (version.number, version.phase, version.source_digest) == (1, Phase.PENDING, "d1")
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
    second = await store.deploy(new(digest="d2"))
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
    done = await asyncio.gather(*(store.deploy(new(digest=f"d{n}")) for n in range(20)))
    assert sorted(item.version.number for item in done) == list(range(1, 21))
    assert [item.created for item in done].count(True) == 1
    app = await store.get("todo")
    assert (app.version, app.generation) == (20, 20)


# idempotency


async def test_a_key_that_is_used_again_gives_what_it_gave_before(store: AppStore) -> None:
    key = Idempotency("k", "print")
    assert await store.replay("alice", key) is None
    first = await store.deploy(new(), idempotency=key)
    again = await store.deploy(new(digest="other"), idempotency=key)
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
    now = writing.time.time()
    monkeypatch.setattr(writing.time, "time", lambda: now + writing.IDEMPOTENCY_KEPT_S + 1)
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


async def test_the_newest_thousand_events_are_kept_and_numbers_go_on(store: AppStore) -> None:
    await store.deploy(new())
    await store.record("todo", None, events=[NewEvent("Normal", "Thing", "")] * (EVENTS_KEPT + 10))
    events = await store.events("todo", limit=EVENTS_KEPT * 2)
    assert len(events) == EVENTS_KEPT
    assert (events[0].seq, events[-1].seq) == (12, EVENTS_KEPT + 11)


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
    await store.deploy(new("a", digest="shared"))
    await store.deploy(new("a", digest="own"))
    await store.deploy(new("b", "bob", digest="shared"))
    await store.request_delete("a")
    assert list(await store.purge("a")) == ["own"]
    assert await store.digests_in_use() == {"shared"}


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


# durability, other processes, and what disks do


async def test_what_is_there_survives_closing(path: Path) -> None:
    store = await SqliteStore.open(path)
    deployed = await store.deploy(new())
    await store.close()
    again = await SqliteStore.open(path)
    assert await again.get("todo") == deployed.app
    await again.close()


async def test_two_processes_share_it(store: AppStore, path: Path) -> None:
    await store.deploy(new())
    other = await SqliteStore.open(path)
    try:
        done = await asyncio.gather(*(where.deploy(new()) for where in (store, other) for _ in range(10)))
        assert sorted(item.version.number for item in done) == list(range(2, 22))
        assert await other.get("todo") == await store.get("todo")
    finally:
        await other.close()


def _deploy_for_ever(path: str, pipe: Any) -> None:
    async def go() -> None:
        store = await SqliteStore.open(Path(path))
        while True:
            deployed = await store.deploy(new())
            pipe.send_bytes(str(deployed.version.number).encode())

    asyncio.run(go())


async def test_whatever_was_acknowledged_survives_kill_9(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_deploy_for_ever, args=(str(path), writer))
        process.start()
        writer.close()
        acknowledged = 0
        for _ in range(20):
            acknowledged = int(reader.recv_bytes())
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        while reader.poll():
            try:
                acknowledged = int(reader.recv_bytes())
            except EOFError:
                break
        store = await SqliteStore.open(path)
        app = await store.get("todo")
        assert app.version >= acknowledged
        assert (await store.versions("todo"))[1] == app.version
        await store.close()


async def test_what_promises_durability_is_committed_with_a_sync_and_what_does_not_is_not(path: Path) -> None:
    """In WAL mode SQLite syncs at a commit under synchronous = FULL and does not under NORMAL."""
    store = await SqliteStore.open(path)
    assert store._db._write_db is not None
    assert store._db._loop_db is not None
    assert store._db._write_db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    said: list[str] = []
    store._db._write_db.set_trace_callback(said.append)
    at_once: list[str] = []
    store._db._loop_db.set_trace_callback(at_once.append)

    async def level(work: Awaitable[object]) -> str:
        said.clear()
        await work
        before = said[: said.index("BEGIN IMMEDIATE")]
        assert said.count("COMMIT") == 1
        return [statement for statement in before if "synchronous" in statement][-1].rpartition(" ")[2]

    assert await level(store.create_key("a", admin=False, label="", secret_sha256="x")) == "FULL"
    for small in (
        store.deploy(new()),
        store.record("todo", None, events=[NewEvent("Normal", "X", "")]),
        store.next_run("todo"),
    ):
        said.clear()
        at_once.clear()
        await small
        assert (said, at_once.count("COMMIT")) == ([], 1), "it has no thread to wait in"
    assert store._db._loop_db.execute("PRAGMA synchronous").fetchone() == (1,), "NORMAL"
    assert store._db._loop_db.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,), "a checkpoint would sync"
    assert await level(store.keys_used({"key-1": 1.0})) == "NORMAL"
    assert await level(store.request_delete("todo")) == "FULL"
    assert await level(store.purge("todo")) == "FULL"
    await store.close()


async def test_a_deploy_is_durable_when_the_log_was_synced_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def noting(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", noting)
    store = await SqliteStore.open(path)
    await store.sync()
    assert synced == [], "there was nothing to sync"
    await store.deploy(new())
    assert synced == []
    await store.sync()
    assert synced == [f"{path}-wal"]
    await store.sync()
    assert len(synced) == 1, "it was synced already"
    await store.close()


async def test_one_sync_is_for_all_who_wait_and_not_for_who_comes_while_it_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def slow(descriptor: int) -> None:
        begun.release()
        go_on.acquire()

    monkeypatch.setattr(os, "fdatasync", slow)
    store = await SqliteStore.open(path)
    await store.deploy(new("first"))
    await store.deploy(new("second"))
    both = [asyncio.create_task(store.sync()) for _ in range(2)]
    await asyncio.to_thread(begun.acquire)
    await store.deploy(new("third"))
    later = asyncio.create_task(store.sync())
    go_on.release()
    await asyncio.gather(*both)
    await asyncio.to_thread(begun.acquire)
    assert not later.done(), "its deploy was written after that sync had begun"
    go_on.release()
    await later
    await store.close()


async def test_after_a_failed_sync_nothing_is_durable_until_the_log_was_written_afresh(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may drop the pages of a failed sync and call them clean: the next sync of them proves nothing."""
    store = await SqliteStore.open(path)
    await store.deploy(new("first"))
    with monkeypatch.context() as patch:

        def broken(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(StoreUnavailable, match="did not confirm"):
            await store.sync()
    await store.deploy(new("second"))
    assert Path(f"{path}-wal").stat().st_size > 0
    await store.sync()
    assert Path(f"{path}-wal").stat().st_size == 0, "all of it is in the database, which SQLite has synced"
    assert {app.app_id for app in (await store.list())[0]} == {"first", "second"}
    await store.close()


async def test_while_somebody_reads_the_log_it_cannot_be_written_afresh_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(path)
    store._db._log_is_suspect = True
    assert store._db._write_db is not None
    store._db._write_db.execute("PRAGMA busy_timeout = 10")
    await store.deploy(new("first"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM apps").fetchall()
        await store.deploy(new("second"))
        with pytest.raises(StoreUnavailable):
            await store.sync()
        other.execute("COMMIT")
    await store.sync()
    await store.close()


async def test_a_list_is_read_where_nobody_waits_for_it(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.deploy(new())
    assert store._db._loop_db is not None
    at_once: list[str] = []
    store._db._loop_db.set_trace_callback(at_once.append)
    for read in (
        store.list(), store.unsettled(), store.versions("todo"), store.events("todo"), store.keys(),
        store.digests_in_use(),
    ):  # fmt: skip
        await read
    assert at_once == []
    await store.close()


async def test_a_small_write_waits_for_another_writer_and_nothing_else_waits_with_it(
    store: AppStore, path: Path
) -> None:
    await store.deploy(new())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        numbered = asyncio.create_task(store.next_run("todo"))
        await asyncio.sleep(0.05)
        assert not numbered.done()
        assert (await store.get("todo")).runs == 0
        other.execute("COMMIT")
    assert await numbered == 1
    assert (await store.get("todo")).runs == 1


async def test_the_log_of_many_small_writes_stays_small(store: AppStore, path: Path) -> None:
    await store.deploy(new())
    for number in range(2_000):
        await store.next_run("todo")
        if number % 100 == 0:
            await asyncio.sleep(0.01)
    assert path.with_name(f"{path.name}-wal").stat().st_size < 8 << 20


async def test_whether_a_source_is_named_by_any_version(store: AppStore) -> None:
    await store.deploy(new(digest="d1"))
    await store.deploy(new(digest="d2"))
    await store.deploy(new("other", digest="d3"))
    assert [await store.names_source(digest) for digest in ("d1", "d2", "d3", "d4")] == [True, True, True, False]


async def test_an_app_and_the_version_that_is_wanted_are_read_together(store: AppStore) -> None:
    for digest in ("d1", "d2"):
        await store.deploy(new(digest=digest, env={"N": digest}, timings={"receive": 1.0}))
    app, version = await store.wanted("todo")
    assert app == await store.get("todo")
    assert version == await store.version("todo", 2)
    with pytest.raises(NotFound):
        await store.wanted("nobody")


async def test_an_old_database_is_migrated_and_keeps_what_it_has(path: Path) -> None:
    """From the first release on: this is its schema, as it was."""
    with sqlite3.connect(path) as db:
        db.executescript(FIRST_SCHEMA)
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO apps VALUES ('old', 'alice', 1, 1, 1.0, 1.0, 0, 0, 0, 'Ready', 'Running', '', 1, 1, 'kernel',"
            " 'gvisor', 's1', 0, 1.0, 3)"
        )
        db.execute(
            "INSERT INTO versions VALUES ('old', 1, 'd', 1, ?, '{}', '{\"cpu\": null, \"memory_mb\": null}', 1.0,"
            " 'alice', NULL, 'Ready', 'Running', '', '{}')",
            [json.dumps({**_runtime_of_the_first_release()})],
        )
    db.close()
    store = await SqliteStore.open(path)
    app = await store.get("old")
    assert (app.owner, app.status.phase, app.runtime.template) == ("alice", Phase.READY, "python-313")
    assert (await store.deploy(new("old"))).version.number == 2
    await store.close()


def _runtime_of_the_first_release() -> dict[str, Any]:
    return {
        "lane": "general", "template": "python-313", "kind": "python", "entrypoint": "python3 app.py", "why": "because",
        "strip": "", "root": "", "index": "index.html", "spa": False,
        "start": {"argv": ["python3", "app.py"], "shell": None, "build": [], "port": 8080, "warm": True},
        "bundle": False, "options": {}, "notes": [],
    }  # fmt: skip


FIRST_SCHEMA = """
CREATE TABLE apps (
    app_id TEXT PRIMARY KEY, owner TEXT NOT NULL, generation INTEGER NOT NULL, version INTEGER NOT NULL,
    created_at REAL NOT NULL, last_deployed_at REAL NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
    runs INTEGER NOT NULL DEFAULT 0, events INTEGER NOT NULL DEFAULT 0,
    phase TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, serving_version INTEGER,
    observed_generation INTEGER NOT NULL DEFAULT 0, isolation TEXT NOT NULL DEFAULT '',
    driver TEXT NOT NULL DEFAULT '', sandbox TEXT NOT NULL DEFAULT '', restarts INTEGER NOT NULL DEFAULT 0,
    updated_at REAL NOT NULL, revision INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX apps_by_deploy ON apps (deleted, last_deployed_at DESC);
CREATE INDEX apps_by_owner ON apps (owner, deleted, last_deployed_at DESC);
CREATE INDEX apps_unsettled ON apps (app_id) WHERE deleted OR observed_generation <> generation
    OR phase IN ('Pending', 'Claiming', 'Starting');
CREATE TABLE versions (
    app_id TEXT NOT NULL REFERENCES apps ON DELETE CASCADE, number INTEGER NOT NULL,
    source_digest TEXT NOT NULL, source_size INTEGER NOT NULL, runtime TEXT NOT NULL, env TEXT NOT NULL,
    resources TEXT NOT NULL, created_at REAL NOT NULL, created_by TEXT NOT NULL, rolled_back_from INTEGER,
    phase TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, timings TEXT NOT NULL,
    PRIMARY KEY (app_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX versions_by_source ON versions (source_digest);
CREATE TABLE events (
    app_id TEXT NOT NULL REFERENCES apps ON DELETE CASCADE, seq INTEGER NOT NULL, at REAL NOT NULL,
    kind TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, version INTEGER,
    PRIMARY KEY (app_id, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency (
    owner TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, app_id TEXT NOT NULL,
    version INTEGER NOT NULL, created INTEGER NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY, owner TEXT NOT NULL, admin INTEGER NOT NULL, label TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, last_used_at REAL
) STRICT, WITHOUT ROWID;
"""


async def test_a_fresh_database_has_the_newest_schema(path: Path) -> None:
    await (await SqliteStore.open(path)).close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone()[0] == len(schema.MIGRATIONS)
    db.close()


async def test_all_who_open_it_first_at_once_can(tmp_path: Path) -> None:
    for attempt in range(40):  # without the waiting of `_write_ahead` one in twenty fails
        path = tmp_path / f"{attempt}.db"
        stores = await asyncio.gather(*(SqliteStore.open(path) for _ in range(5)))
        await asyncio.gather(*(store.deploy(new(f"app-{n}")) for n, store in enumerate(stores)))
        assert (await stores[0].list())[1] == 5
        for store in stores:
            await store.close()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(path)
    await store.deploy(new())
    await store.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE more (a TEXT) STRICT; NONSENSE"))
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(path)
    monkeypatch.undo()
    store = await SqliteStore.open(path)
    assert (await store.get("todo")).version == 1
    await store.close()


async def test_the_database_of_a_newer_vibed_is_not_touched(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreUnavailable, match="newer"):
        await SqliteStore.open(path)


@pytest.mark.parametrize("there", [True, False])
async def test_a_link_in_the_place_of_the_database_leads_nowhere(path: Path, tmp_path: Path, there: bool) -> None:
    victim = tmp_path / "elsewhere"
    if there:
        victim.touch()
    path.symlink_to(victim)
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(path)
    assert [p.name for p in tmp_path.iterdir() if p != path] == (["elsewhere"] if there else [])
    assert not there or not victim.read_bytes()


async def test_a_link_that_comes_between_leads_nowhere(path: Path, tmp_path: Path) -> None:
    await (await SqliteStore.open(path)).close()
    other = tmp_path / "other.db"
    path.rename(other)
    path.symlink_to(other)
    with pytest.raises(sqlite3.OperationalError, match="link"):
        Connections(path)._connect()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "other.db"])


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"this is not a database, " * 100)
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(path)
    assert path.read_bytes() == b"this is not a database, " * 100


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(tmp_path / "nothing" / "vibed.db")


async def test_a_database_that_is_locked_for_too_long_is_unavailable_and_usable_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_TIMEOUT_S", 0.1)
    store = await SqliteStore.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as caught:
        await store.deploy(new())
    assert caught.value.may_retry
    assert (await store.list())[1] == 0
    other.execute("ROLLBACK")
    other.close()
    assert (await store.deploy(new())).created
    await store.close()


def _fill(path: str, pipe: Any) -> None:
    """Deploys with a limit on the size of files, until it is refused; then goes on without the limit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    async def go() -> None:
        store = await SqliteStore.open(Path(path))
        await store.deploy(new("first"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        acknowledged = 0
        error = ""
        try:
            for n in range(1_000):
                await store.deploy(new(f"app-{n}", env={"A": "x" * 20_000}))
                acknowledged += 1
        except StoreUnavailable as refused:
            error = refused.error_code
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.deploy(new("after"))
        total = (await store.list(limit=1))[1]
        await store.close()
        pipe.send((error, acknowledged, total))

    asyncio.run(go())


async def test_a_full_disk_refuses_a_deploy_whole_and_is_survived(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_fill, args=(str(path), writer))
    process.start()
    writer.close()
    error, acknowledged, total = await asyncio.to_thread(reader.recv)
    process.join()
    assert error == "StoreUnavailable"
    assert 0 < acknowledged < 1_000
    assert total == acknowledged + 2
    store = await SqliteStore.open(path)
    assert (await store.list(limit=1))[1] == acknowledged + 2
    await store.close()


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
