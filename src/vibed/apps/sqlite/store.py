"""The port's methods, each a transaction or a query."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from vibed.apps.app import App, Event, Key, Phase, Status, Version
from vibed.apps.domains import Domain
from vibed.apps.errors import NotFound
from vibed.apps.restoring import KeptKey, Restored
from vibed.apps.sqlite import naming, rows, storage, writing
from vibed.apps.sqlite.connections import Connections
from vibed.apps.storage import Kept, by_app
from vibed.apps.store import Deployed, Idempotency, NewEvent, NewVersion, VersionOutcome, VersionResult


class SqliteStore:
    """See `vibed.apps.store.AppStore`; one instance a process."""

    def __init__(self, db: Connections) -> None:
        self._db = db

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open, create or migrate the database at `path`. Raises `StoreUnavailable`."""
        return cls(await Connections.open(path))

    async def close(self) -> None:
        await self._db.close()

    async def deploy(
        self,
        new: NewVersion,
        *,
        if_exists: Literal["update", "fail"] = "update",
        idempotency: Idempotency | None = None,
        expected: App | None = None,
        storage_limit: int | None = None,
    ) -> Deployed:
        deployed = await self._db.write_now(
            lambda db: writing.deploy(db, new, if_exists, idempotency, expected, storage_limit)
        )
        self._db.owe_a_sync()
        return deployed

    async def keep_reserve(self) -> bool:
        """See `vibed.apps.sqlite.reserve`; returns whether it is there."""
        return await self._db.keep_reserve()

    async def sync(self) -> None:
        await self._db.sync()

    async def replay(self, owner: str, idempotency: Idempotency) -> Deployed | None:
        return await self._db.read_now(lambda db: writing.replay(db, owner, idempotency))

    async def get(self, app_id: str) -> App:
        return await self._db.read_now(lambda db: rows.get(db, app_id))

    async def catch_up(self, app_id: str, version: int | None = None) -> None:
        return

    async def wanted(self, app_id: str) -> tuple[App, Version]:
        return await self._db.read_now(lambda db: rows.wanted(db, app_id))

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
            where.append(f"{rows.PHASE} = ?")
            values.append(phase.value)
        if q:
            where.append("a.app_id LIKE ? ESCAPE '!'")
            values.append("%" + q.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%")
        condition = " AND ".join(where)

        def work(db: sqlite3.Connection) -> tuple[Sequence[App], int]:
            total: int = db.execute(f"SELECT count(*) {rows.OF} WHERE {condition}", values).fetchone()[0]
            found = db.execute(
                f"SELECT {rows.APP} {rows.OF} WHERE {condition} ORDER BY a.last_deployed_at DESC, a.app_id"
                " LIMIT ? OFFSET ?",
                [*values, limit, rows.int64(offset)],
            ).fetchall()
            return [rows.app(row) for row in found], total

        return await self._db.read(work)

    async def unsettled(self) -> Sequence[App]:
        return await self._db.read(
            lambda db: [
                rows.app(row)
                for row in db.execute(
                    f"SELECT {rows.APP} {rows.OF} WHERE a.deleted OR a.observed_generation <> a.generation"
                    " OR a.phase IN ('Pending', 'Claiming', 'Starting') OR v.phase NOT IN ('Ready', 'Failed')"
                    " ORDER BY a.last_deployed_at"
                )
            ]
        )

    async def version(self, app_id: str, number: int) -> Version:
        return await self._db.read_now(lambda db: rows.get_version(db, app_id, number))

    async def versions(self, app_id: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[Version], int]:
        def work(db: sqlite3.Connection) -> tuple[Sequence[Version], int]:
            total: int = db.execute("SELECT count(*) FROM versions WHERE app_id = ?", [app_id]).fetchone()[0]
            found = db.execute(
                "SELECT * FROM versions WHERE app_id = ? ORDER BY number DESC LIMIT ? OFFSET ?",
                [app_id, limit, rows.int64(offset)],
            ).fetchall()
            return [rows.version(row) for row in found], total

        return await self._db.read(work)

    async def results(self, app_id: str, *, limit: int = 50, offset: int = 0) -> tuple[Sequence[VersionResult], int]:
        found, total = await self.versions(app_id, limit=limit, offset=offset)
        return [VersionResult(v.number, v.created_at, v.phase, v.reason, v.message, v.timings) for v in found], total

    async def record(
        self,
        app_id: str,
        status: Status | None,
        *,
        outcomes: Sequence[VersionOutcome] = (),
        events: Sequence[NewEvent] = (),
    ) -> Status | None:
        def work(db: sqlite3.Connection) -> Status | None:
            written = None if status is None else writing.set_status(db, app_id, status)
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
                writing.add_event(db, app_id, event)
            return written

        return await self._db.write_now(work)

    async def next_run(self, app_id: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            row = db.execute("UPDATE apps SET runs = runs + 1 WHERE app_id = ? RETURNING runs", [app_id]).fetchone()
            if row is None:
                raise rows.no_app(app_id)
            return int(row[0])

        return await self._db.write_now(work)

    async def request_delete(self, app_id: str) -> App:
        def work(db: sqlite3.Connection) -> App:
            db.execute(
                "UPDATE apps SET deleted = 1, generation = generation + 1 WHERE app_id = ? AND deleted = 0",
                [app_id],
            )
            db.execute("DELETE FROM domains WHERE app_id = ?", [app_id])
            return rows.get(db, app_id)

        return await self._db.write(work, durable=True, frees=True)

    async def purge(self, app_id: str) -> Sequence[str]:
        def work(db: sqlite3.Connection) -> Sequence[str]:
            digests = [
                row[0] for row in db.execute("SELECT DISTINCT source_digest FROM versions WHERE app_id = ?", [app_id])
            ]
            db.execute("DELETE FROM apps WHERE app_id = ? AND deleted = 1", [app_id])
            db.execute("DELETE FROM idempotency WHERE app_id = ?", [app_id])
            return [digest for digest in digests if not storage.is_named(db, digest)]

        return await self._db.write(work, durable=True, frees=True)

    async def storage(self, owner: str) -> Sequence[Kept]:
        return await self._db.read(lambda db: storage.of_owner(db, owner))

    async def storage_of(self, app_ids: Sequence[str]) -> Mapping[str, int]:
        return await self._db.read_now(lambda db: by_app(storage.of_apps(db, app_ids)))

    async def prove(self) -> None:
        await self._db.write(writing.nothing)

    async def names_source(self, digest: str) -> bool:
        return await self._db.read_now(lambda db: storage.is_named(db, digest))

    async def digests_in_use(self) -> frozenset[str]:
        return await self._db.read(
            lambda db: frozenset(
                row[0] for row in db.execute("SELECT DISTINCT source_digest FROM versions WHERE source_kept")
            )
        )

    async def events(self, app_id: str, *, after: int = 0, limit: int = 500) -> Sequence[Event]:
        return await self._db.read(
            lambda db: [
                Event(*row)
                for row in db.execute(
                    "SELECT app_id, seq, at, kind, reason, message, version FROM events"
                    " WHERE app_id = ? AND seq > ? ORDER BY seq LIMIT ?",
                    [app_id, after, limit],
                )
            ]
        )

    async def add_domain(self, app_id: str, name: str, *, by: str) -> Domain:
        return await self._db.write(lambda db: naming.add(db, app_id, name, by), durable=True)

    async def verify_domain(self, app_id: str, name: str, token: str) -> Domain:
        return await self._db.write(lambda db: naming.verify(db, app_id, name, token), durable=True)

    async def remove_domain(self, app_id: str, name: str) -> None:
        await self._db.write(lambda db: naming.remove(db, app_id, name), durable=True, frees=True)

    async def domains(self, app_id: str) -> Sequence[Domain]:
        return await self._db.read_now(lambda db: naming.of_app(db, app_id))

    async def domain(self, name: str) -> Domain | None:
        return await self._db.read_now(lambda db: naming.verified(db, name))

    async def verified_domains(self) -> Mapping[str, str]:
        return await self._db.read(naming.all_verified)

    async def create_key(self, owner: str, *, admin: bool, label: str, secret_sha256: str) -> Key:
        key = Key(f"key-{uuid.uuid4().hex[:12]}", owner, admin, label, time.time())

        def work(db: sqlite3.Connection) -> Key:
            db.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL)",
                [key.key_id, owner, int(admin), label, secret_sha256, key.created_at],
            )
            return key

        return await self._db.write(work, durable=True)

    async def find_key(self, secret_sha256: str) -> Key | None:
        def work(db: sqlite3.Connection) -> Key | None:
            row = db.execute(f"{rows.KEY} WHERE secret_sha256 = ?", [secret_sha256]).fetchone()
            return None if row is None else rows.key(row)

        return await self._db.read_now(work)

    async def keys(self) -> Sequence[Key]:
        return await self._db.read(lambda db: [rows.key(row) for row in db.execute(f"{rows.KEY} ORDER BY created_at")])

    async def keys_used(self, used: Mapping[str, float]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.executemany(
                "UPDATE keys SET last_used_at = ?2 WHERE key_id = ?1 AND coalesce(last_used_at, 0) < ?2",
                list(used.items()),
            )

        await self._db.write(work)

    async def revoke_key(self, key_id: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM keys WHERE key_id = ?", [key_id]).rowcount:
                raise NotFound(f"there is no key {key_id!r}")

        await self._db.write(work, durable=True, frees=True)

    async def restore(self, app: Restored) -> App:
        return await self._db.write(lambda db: writing.restore(db, app), durable=True)

    async def kept_keys(self) -> Sequence[KeptKey]:
        return await self._db.read(
            lambda db: [
                KeptKey(rows.key(row), row[-1])
                for row in db.execute(f"{rows.KEY.replace(' FROM', ', secret_sha256 FROM')} ORDER BY created_at")
            ]
        )

    async def restore_key(self, kept: KeptKey) -> bool:
        key = kept.key

        def work(db: sqlite3.Connection) -> bool:
            done = db.execute(
                "INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    key.key_id, key.owner, int(key.admin), key.label, kept.secret_sha256, key.created_at,
                    key.last_used_at,
                ],
            )  # fmt: skip
            return done.rowcount == 1

        return await self._db.write(work, durable=True)
