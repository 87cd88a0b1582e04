"""SQLite's own part of the AppStore (tests/contract/test_app_store.py): when it syncs, what disks do, old files."""

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
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_app_store import new
from vibed.apps.app import Phase
from vibed.apps.errors import StoreUnavailable
from vibed.apps.sqlite import schema
from vibed.apps.sqlite.connections import Connections
from vibed.apps.sqlite.store import SqliteStore
from vibed.apps.store import AppStore, NewEvent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vibed.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[AppStore]:
    made = await SqliteStore.open(path)
    yield made
    await made.close()


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
