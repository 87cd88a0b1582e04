"""The AppStore on SQLite (WAL), shared by the API's process and the controller's.

One connection writes and one reads, each on a thread of its own, so that a list never waits for a sync; a third does
on the event loop what takes less time than a thread takes to be asked: single rows, and small writes that promise no
durability yet. What promises it is written with `synchronous` FULL; the rest with NORMAL, which in WAL mode syncs
nothing but the log's header, at the first write after a checkpoint. All that FULL does more is to sync the log after a
commit. `sync` does the same later, once for all deploys that wait for it, while the controller is at work already.
Source: https://www.sqlite.org/pragma.html#pragma_synchronous and sqlite3WalFrames in wal.c
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from vibed.apps.app import App, Event, Key, Phase, Resources, Runtime, Start, Status, Version
from vibed.apps.errors import (
    AlreadyExists,
    Conflict,
    IdempotencyMismatch,
    NameTaken,
    NotFound,
    StoreUnavailable,
)
from vibed.apps.store import Deployed, Idempotency, NewEvent, NewVersion, VersionOutcome

T = TypeVar("T")

BUSY_TIMEOUT_S = 10.0
EVENTS_KEPT = 1_000
_CHECKPOINT_AFTER = 250
"""Small writes; each is a few pages of the log."""
IDEMPOTENCY_KEPT_S = 24 * 3600.0

MIGRATIONS: tuple[str, ...] = (
    """
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
    """,
)

_APP = """
    a.app_id, a.owner, a.generation, a.version, a.created_at, a.last_deployed_at, a.deleted, a.phase, a.reason,
    a.message, a.serving_version, a.observed_generation, a.isolation, a.driver, a.sandbox, a.restarts, a.updated_at,
    a.revision, v.runtime, a.runs
"""
_APP_COLUMNS = _APP.count(",") + 1
_OF = "FROM apps a JOIN versions v ON v.app_id = a.app_id AND v.number = a.version"


class SqliteStore:
    """See `vibed.apps.store.AppStore`; one instance a process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._write_db: sqlite3.Connection | None = None
        self._read_db: sqlite3.Connection | None = None
        self._loop_db: sqlite3.Connection | None = None
        self._since_checkpoint = 0
        self._log: int | None = None
        self._deploys = 0
        """Written by this process so far."""
        self._synced = 0
        """How many of them are known to be durable."""
        self._syncing: asyncio.Future[None] | None = None
        self._log_is_suspect = False

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open, create or migrate the database at `path`. Raises `StoreUnavailable`."""
        store = cls(path)
        loop = asyncio.get_running_loop()
        try:
            _create(path)
            store._write_db = await loop.run_in_executor(store._writer, store._connect)
            await loop.run_in_executor(store._writer, _write_ahead, store._write_db)
            await loop.run_in_executor(store._writer, _migrate, store._write_db)
            store._read_db = await loop.run_in_executor(store._reader, store._connect)
            store._loop_db = await loop.run_in_executor(store._reader, store._connect)
            store._loop_db.execute("PRAGMA busy_timeout = 0")
            store._loop_db.execute("PRAGMA synchronous = NORMAL")
            # a checkpoint syncs: the writer's thread makes them
            store._loop_db.execute("PRAGMA wal_autocheckpoint = 0")
        except (sqlite3.Error, OSError) as error:
            await store.close()
            raise StoreUnavailable(
                f"the app store at {path} cannot be opened: {error}",
                hint="check that the disk is not full and that the file belongs to vibeD's user",
            ) from error
        return store

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        opened = db.execute("PRAGMA database_list").fetchone()[2]
        if opened != str(self._path.parent.resolve() / self._path.name):
            db.close()
            raise sqlite3.OperationalError(f"it is a link to {opened}")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA cache_size = -1024")  # KiB: the kernel has the file in its cache once for all connections
        return db

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for pool, db in ((self._writer, self._write_db), (self._reader, self._read_db)):
            if db is not None:
                await loop.run_in_executor(pool, db.close)
            pool.shutdown(wait=False)
        if self._log is not None:
            os.close(self._log)
            self._log = None
        if self._loop_db is not None:
            self._loop_db.close()
        self._write_db = self._read_db = self._loop_db = None

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        def transaction() -> T:
            assert self._write_db is not None, "the store is closed"
            self._write_db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            return _transaction(self._write_db, work)

        return await self._on(self._writer, transaction)

    async def _write_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """For a few rows that need no sync; while another connection writes, the thread waits for it."""
        assert self._loop_db is not None, "the store is closed"
        try:
            result = _transaction(self._loop_db, work)
        except sqlite3.Error:
            return await self._write(work)
        self._since_checkpoint += 1
        if self._since_checkpoint >= _CHECKPOINT_AFTER:
            self._since_checkpoint = 0
            self._writer.submit(self._checkpoint)
        return result

    def _checkpoint(self) -> None:
        assert self._write_db is not None
        with contextlib.suppress(sqlite3.Error):  # the next one will do more
            self._write_db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def query() -> T:
            assert self._read_db is not None, "the store is closed"
            return work(self._read_db)

        return await self._on(self._reader, query)

    async def _read_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """For a few rows by their key: SQLite has them in less time than handing the question to a thread takes, and
        in WAL mode a reader waits for no writer. What does not go at once goes through the thread.
        """
        assert self._loop_db is not None, "the store is closed"
        try:
            return work(self._loop_db)
        except sqlite3.Error:
            return await self._read(work)

    async def _on(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            # A transaction that has begun is finished even if the caller was cancelled: half a write is worse.
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(pool, work))
        except sqlite3.Error as error:
            raise StoreUnavailable(
                f"the app store cannot be used right now: {error}",
                hint="free disk space if the disk is full, then try again",
            ) from error

    async def deploy(
        self,
        new: NewVersion,
        *,
        if_exists: Literal["update", "fail"] = "update",
        idempotency: Idempotency | None = None,
        expected: App | None = None,
    ) -> Deployed:
        deployed = await self._write_now(lambda db: _deploy(db, new, if_exists, idempotency, expected))
        self._deploys += 1
        return deployed

    async def sync(self) -> None:
        wanted = self._deploys
        while self._synced < wanted:
            if self._syncing is None or self._syncing.done():
                self._syncing = asyncio.ensure_future(self._sync(self._deploys))
                self._syncing.add_done_callback(_seen)
            # One for all who wait. It may have begun before the last deploy was written: then there is another.
            await asyncio.shield(self._syncing)

    async def _sync(self, deploys: int) -> None:
        try:
            await self._on(self._writer, self._sync_log)
        except OSError as error:
            raise StoreUnavailable(
                f"the disk did not confirm a write of the app store: {error}",
                hint="the version may be live, and may go with the machine's power; check the disk, then deploy again",
            ) from error
        self._synced = max(self._synced, deploys)

    def _sync_log(self) -> None:
        assert self._write_db is not None, "the store is closed"
        if self._log_is_suspect:
            # After a failed sync the kernel may drop pages and still call them clean. All of the log goes to the
            # database itself, which syncs that, and the next writer begins the log anew.
            busy, _, _ = self._write_db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise OSError(errno.EAGAIN, "it is being read and cannot be written afresh")
            self._log_is_suspect = False
            return
        try:
            if self._log is None:
                self._log = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.fdatasync(self._log)
        except OSError:
            self._log_is_suspect = True
            raise

    async def replay(self, owner: str, idempotency: Idempotency) -> Deployed | None:
        return await self._read_now(lambda db: _replay(db, owner, idempotency))

    async def get(self, app_id: str) -> App:
        return await self._read_now(lambda db: _get(db, app_id))

    async def wanted(self, app_id: str) -> tuple[App, Version]:
        return await self._read_now(lambda db: _wanted(db, app_id))

    async def list(
        self,
        *,
        owner: str | None = None,
        phase: Phase | None = None,
        q: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[App], int]:
        where, values = ["a.deleted = 0"], list[object]()
        if owner is not None:
            where.append("a.owner = ?")
            values.append(owner)
        if phase is not None:
            where.append("a.phase = ?")
            values.append(phase.value)
        if q:
            where.append("a.app_id LIKE ? ESCAPE '!'")
            values.append("%" + q.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%")
        condition = " AND ".join(where)

        def work(db: sqlite3.Connection) -> tuple[Sequence[App], int]:
            total: int = db.execute(f"SELECT count(*) FROM apps a WHERE {condition}", values).fetchone()[0]
            rows = db.execute(
                f"SELECT {_APP} {_OF} WHERE {condition} ORDER BY a.last_deployed_at DESC, a.app_id LIMIT ? OFFSET ?",
                [*values, limit, _int64(offset)],
            ).fetchall()
            return [_app(row) for row in rows], total

        return await self._read(work)

    async def unsettled(self) -> Sequence[App]:
        return await self._read(
            lambda db: [
                _app(row)
                for row in db.execute(
                    f"SELECT {_APP} {_OF} WHERE a.deleted OR a.observed_generation <> a.generation"
                    " OR a.phase IN ('Pending', 'Claiming', 'Starting') ORDER BY a.last_deployed_at"
                )
            ]
        )

    async def version(self, app_id: str, number: int) -> Version:
        return await self._read_now(lambda db: _get_version(db, app_id, number))

    async def versions(self, app_id: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[Version], int]:
        def work(db: sqlite3.Connection) -> tuple[Sequence[Version], int]:
            total: int = db.execute("SELECT count(*) FROM versions WHERE app_id = ?", [app_id]).fetchone()[0]
            rows = db.execute(
                "SELECT * FROM versions WHERE app_id = ? ORDER BY number DESC LIMIT ? OFFSET ?",
                [app_id, limit, _int64(offset)],
            ).fetchall()
            return [_version(row) for row in rows], total

        return await self._read(work)

    async def record(
        self,
        app_id: str,
        status: Status | None,
        *,
        outcomes: Sequence[VersionOutcome] = (),
        events: Sequence[NewEvent] = (),
    ) -> Status | None:
        def work(db: sqlite3.Connection) -> Status | None:
            written = None if status is None else _set_status(db, app_id, status)
            for outcome in outcomes:
                db.execute(
                    "UPDATE versions SET phase = ?, reason = ?, message = ?, timings = json_patch(timings, ?)"
                    " WHERE app_id = ? AND number = ?",
                    [
                        outcome.phase.value, outcome.reason, outcome.message, json.dumps(dict(outcome.timings)),
                        app_id, outcome.number,
                    ],
                )  # fmt: skip
            for event in events:
                _add_event(db, app_id, event)
            return written

        return await self._write_now(work)

    async def next_run(self, app_id: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            row = db.execute("UPDATE apps SET runs = runs + 1 WHERE app_id = ? RETURNING runs", [app_id]).fetchone()
            if row is None:
                raise _no_app(app_id)
            return int(row[0])

        return await self._write_now(work)

    async def request_delete(self, app_id: str) -> App:
        def work(db: sqlite3.Connection) -> App:
            db.execute(
                "UPDATE apps SET deleted = 1, generation = generation + 1 WHERE app_id = ? AND deleted = 0",
                [app_id],
            )
            return _get(db, app_id)

        return await self._write(work, durable=True)

    async def purge(self, app_id: str) -> Sequence[str]:
        def work(db: sqlite3.Connection) -> Sequence[str]:
            digests = [
                row[0] for row in db.execute("SELECT DISTINCT source_digest FROM versions WHERE app_id = ?", [app_id])
            ]
            db.execute("DELETE FROM apps WHERE app_id = ? AND deleted = 1", [app_id])
            db.execute("DELETE FROM idempotency WHERE app_id = ?", [app_id])
            return [
                digest
                for digest in digests
                if db.execute("SELECT 1 FROM versions WHERE source_digest = ? LIMIT 1", [digest]).fetchone() is None
            ]

        return await self._write(work, durable=True)

    async def names_source(self, digest: str) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT 1 FROM versions WHERE source_digest = ? LIMIT 1", [digest]).fetchone()
            return row is not None

        return await self._read_now(work)

    async def digests_in_use(self) -> frozenset[str]:
        return await self._read(
            lambda db: frozenset(row[0] for row in db.execute("SELECT DISTINCT source_digest FROM versions"))
        )

    async def events(self, app_id: str, *, after: int = 0, limit: int = 500) -> Sequence[Event]:
        return await self._read(
            lambda db: [
                Event(*row)
                for row in db.execute(
                    "SELECT app_id, seq, at, kind, reason, message, version FROM events"
                    " WHERE app_id = ? AND seq > ? ORDER BY seq LIMIT ?",
                    [app_id, after, limit],
                )
            ]
        )

    async def create_key(self, owner: str, *, admin: bool, label: str, secret_sha256: str) -> Key:
        key = Key(f"key-{uuid.uuid4().hex[:12]}", owner, admin, label, time.time())

        def work(db: sqlite3.Connection) -> Key:
            db.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL)",
                [key.key_id, owner, int(admin), label, secret_sha256, key.created_at],
            )
            return key

        return await self._write(work, durable=True)

    async def find_key(self, secret_sha256: str) -> Key | None:
        def work(db: sqlite3.Connection) -> Key | None:
            row = db.execute(f"{_KEY} WHERE secret_sha256 = ?", [secret_sha256]).fetchone()
            return None if row is None else _key(row)

        return await self._read_now(work)

    async def keys(self) -> Sequence[Key]:
        return await self._read(lambda db: [_key(row) for row in db.execute(f"{_KEY} ORDER BY created_at")])

    async def keys_used(self, used: Mapping[str, float]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.executemany(
                "UPDATE keys SET last_used_at = ?2 WHERE key_id = ?1 AND coalesce(last_used_at, 0) < ?2",
                list(used.items()),
            )

        await self._write(work)

    async def revoke_key(self, key_id: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM keys WHERE key_id = ?", [key_id]).rowcount:
                raise NotFound(f"there is no key {key_id!r}")

        await self._write(work, durable=True)


_KEY = "SELECT key_id, owner, admin, label, created_at, last_used_at FROM keys"


def _seen(syncing: asyncio.Future[None]) -> None:
    """Whoever waited may be gone; asyncio would log the error as lost."""
    if not syncing.cancelled():
        syncing.exception()


def _transaction(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result


def _create(path: Path) -> None:
    """Make the file, if it is not there.

    The controller, which is root, shares the folder with the API's process, which is not: a link that this puts there
    must not lead SQLite elsewhere. It would follow one, so that `_connect` asks it what it has opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(path, flags, 0o600))


def _write_ahead(db: sqlite3.Connection) -> None:
    """Put the file in WAL mode, which stays with it.

    While another process does the same, SQLite answers SQLITE_BUSY at once instead of waiting: both hold the lock that
    the other needs, and it sees the deadlock (sqlite3_busy_handler). So the waiting is done here.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _migrate(db: sqlite3.Connection) -> None:
    db.execute("BEGIN EXCLUSIVE")
    done: int = db.execute("PRAGMA user_version").fetchone()[0]
    if done > len(MIGRATIONS):
        db.execute("ROLLBACK")
        raise sqlite3.DatabaseError(
            f"it has schema {done}, this vibeD knows {len(MIGRATIONS)}: start the newer vibeD that wrote it"
        )
    for number, script in enumerate(MIGRATIONS[done:], done + 1):
        for statement in script.split(";"):
            if statement.strip():
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {number}")
    db.execute("COMMIT")


def _deploy(
    db: sqlite3.Connection,
    new: NewVersion,
    if_exists: str,
    idempotency: Idempotency | None,
    expected: App | None,
) -> Deployed:
    if idempotency is not None:
        earlier = _replay(db, new.owner, idempotency)
        if earlier is not None:
            return earlier
    now = time.time()
    row = db.execute(
        "SELECT owner, deleted, generation, created_at FROM apps WHERE app_id = ?", [new.app_id]
    ).fetchone()
    if expected is not None and (row is None or row[3] != expected.created_at):
        raise _no_app(new.app_id)
    if row is not None:
        owner, deleted, generation, _ = row
        if owner != new.owner:
            raise NameTaken(f"the name {new.app_id!r} is taken", hint="choose another name")
        if deleted:
            raise Conflict(f"{new.app_id!r} is being deleted", hint="try again in a few seconds", code="BeingDeleted")
        if if_exists == "fail":
            raise AlreadyExists(
                f"you already have an app {new.app_id!r}",
                hint="deploy with if_exists=update to make this its next version, or choose another name",
            )
        if expected is not None and generation != expected.generation:
            raise Conflict(f"{new.app_id!r} was changed by another deploy", hint="read it again, then retry")
        number = 1 + int(db.execute("SELECT max(number) FROM versions WHERE app_id = ?", [new.app_id]).fetchone()[0])
        db.execute(
            "UPDATE apps SET generation = generation + 1, version = ?, last_deployed_at = ? WHERE app_id = ?",
            [number, now, new.app_id],
        )
    else:
        number = 1
        db.execute(
            "INSERT INTO apps (app_id, owner, generation, version, created_at, last_deployed_at, phase, reason,"
            " message, updated_at) VALUES (?, ?, 1, 1, ?, ?, 'Pending', 'Accepted', '', ?)",
            [new.app_id, new.owner, now, now, now],
        )
    db.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'Pending', 'Accepted', '', ?)",
        [
            new.app_id, number, new.source_digest, new.source_size, json.dumps(asdict(new.runtime)),
            json.dumps(dict(new.env)), json.dumps(asdict(new.resources)), now, new.created_by, new.rolled_back_from,
            json.dumps(dict(new.timings or {})),
        ],
    )  # fmt: skip
    if idempotency is not None:
        db.execute("DELETE FROM idempotency WHERE at < ?", [now - IDEMPOTENCY_KEPT_S])
        db.execute(
            "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?, ?, ?)",
            [new.owner, idempotency.key, idempotency.fingerprint, new.app_id, number, int(row is None), now],
        )
    what = (
        f"version {number} accepted: {new.runtime.why}"
        if new.rolled_back_from is None
        else f"version {number} accepted: back to version {new.rolled_back_from}"
    )
    _add_event(db, new.app_id, NewEvent("Normal", "Accepted", what, number))
    return Deployed(*_wanted(db, new.app_id), created=row is None, replayed=False)


def _replay(db: sqlite3.Connection, owner: str, idempotency: Idempotency) -> Deployed | None:
    row = db.execute(
        "SELECT fingerprint, app_id, version, created FROM idempotency WHERE owner = ? AND key = ?",
        [owner, idempotency.key],
    ).fetchone()
    if row is None:
        return None
    fingerprint, app_id, number, created = row
    if fingerprint != idempotency.fingerprint:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used before with a different request",
            hint="use a new key for a new request; repeat a key only to retry the very same one",
        )
    return Deployed(_get(db, app_id), _get_version(db, app_id, number), bool(created), True)


def _get(db: sqlite3.Connection, app_id: str) -> App:
    row = db.execute(f"SELECT {_APP} {_OF} WHERE a.app_id = ?", [app_id]).fetchone()
    if row is None:
        raise _no_app(app_id)
    return _app(row)


def _wanted(db: sqlite3.Connection, app_id: str) -> tuple[App, Version]:
    row = db.execute(f"SELECT {_APP}, v.* {_OF} WHERE a.app_id = ?", [app_id]).fetchone()
    if row is None:
        raise _no_app(app_id)
    return _app(row), _version(row[_APP_COLUMNS:])


def _get_version(db: sqlite3.Connection, app_id: str, number: int) -> Version:
    row = db.execute("SELECT * FROM versions WHERE app_id = ? AND number = ?", [app_id, _int64(number)]).fetchone()
    if row is None:
        raise NotFound(f"{app_id!r} has no version {number}")
    return _version(row)


def _set_status(db: sqlite3.Connection, app_id: str, status: Status) -> Status:
    now = time.time()
    changed = db.execute(
        "UPDATE apps SET phase = ?, reason = ?, message = ?, serving_version = ?, observed_generation = ?,"
        " isolation = ?, driver = ?, sandbox = ?, restarts = ?, updated_at = ?, revision = revision + 1"
        " WHERE app_id = ? AND revision = ?",
        [
            status.phase.value, status.reason, status.message, status.serving_version, status.observed_generation,
            status.isolation, status.driver, status.sandbox, status.restarts, now, app_id, status.revision,
        ],
    ).rowcount  # fmt: skip
    if not changed:
        _get(db, app_id)
        raise Conflict(f"the status of {app_id!r} was changed by another writer")
    return replace(status, updated_at=now, revision=status.revision + 1)


def _add_event(db: sqlite3.Connection, app_id: str, new: NewEvent) -> None:
    row = db.execute("UPDATE apps SET events = events + 1 WHERE app_id = ? RETURNING events", [app_id]).fetchone()
    if row is None:
        raise _no_app(app_id)
    seq = int(row[0])
    db.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        [app_id, seq, time.time(), new.kind, new.reason, new.message, new.version],
    )
    if seq > EVENTS_KEPT:
        db.execute("DELETE FROM events WHERE app_id = ? AND seq <= ?", [app_id, seq - EVENTS_KEPT])


def _int64(number: int) -> int:
    """The nearest integer that SQLite has: nothing is numbered as high, and Python's are without end."""
    return max(-(2**63), min(number, 2**63 - 1))


def _no_app(app_id: str) -> NotFound:
    return NotFound(f"there is no app {app_id!r}", hint="list your apps to see their names")


def _app(row: Sequence[Any]) -> App:
    return App(
        app_id=row[0], owner=row[1], generation=row[2], version=row[3], created_at=row[4], last_deployed_at=row[5],
        deleted=bool(row[6]),
        status=Status(
            phase=Phase(row[7]), reason=row[8], message=row[9], serving_version=row[10], observed_generation=row[11],
            isolation=row[12], driver=row[13], sandbox=row[14], restarts=row[15], updated_at=row[16],
            revision=row[17],
        ),
        runtime=_runtime(row[18]),
        runs=row[19],
    )  # fmt: skip


def _version(row: Sequence[Any]) -> Version:
    return Version(
        app_id=row[0], number=row[1], source_digest=row[2], source_size=row[3], runtime=_runtime(row[4]),
        env=json.loads(row[5]), resources=Resources(**json.loads(row[6])), created_at=row[7], created_by=row[8],
        rolled_back_from=row[9], phase=Phase(row[10]), reason=row[11], message=row[12], timings=json.loads(row[13]),
    )  # fmt: skip


def _runtime(text: str) -> Runtime:
    raw = json.loads(text)
    start = raw.pop("start")
    return Runtime(
        # versions of 0.4 and before were kept without packages
        **{**raw, "notes": tuple(raw["notes"]), "packages": tuple(raw.get("packages", ()))},
        start=Start(
            argv=tuple(start["argv"]),
            shell=start["shell"],
            build=tuple(tuple(step) for step in start["build"]),
            port=start["port"],
            warm=start["warm"],
        ),
    )


def _key(row: Sequence[Any]) -> Key:
    return Key(row[0], row[1], bool(row[2]), row[3], row[4], row[5])
