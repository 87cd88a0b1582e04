"""What is written inside a transaction: a deploy, a status, an event."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict, replace

from vibed.apps.app import App, Status
from vibed.apps.errors import AlreadyExists, Conflict, IdempotencyMismatch, NameTaken
from vibed.apps.restoring import Restored
from vibed.apps.sqlite import storage
from vibed.apps.sqlite.rows import get, get_version, no_app, wanted
from vibed.apps.storage import Kept
from vibed.apps.store import IDEMPOTENCY_KEPT_S, Deployed, Idempotency, NewEvent, NewVersion

EVENTS_KEPT = 1_000


def deploy(
    db: sqlite3.Connection,
    new: NewVersion,
    if_exists: str,
    idempotency: Idempotency | None,
    expected: App | None,
    storage_limit: int | None,
) -> Deployed:
    if idempotency is not None:
        earlier = replay(db, new.owner, idempotency)
        if earlier is not None:
            return earlier
    now = time.time()
    row = db.execute(
        "SELECT owner, deleted, generation, created_at FROM apps WHERE app_id = ?", [new.app_id]
    ).fetchone()
    if expected is not None and (row is None or row[3] != expected.created_at):
        raise no_app(new.app_id)
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
    dropped: list[str] = []
    if storage_limit is not None:
        kept = Kept(new.app_id, 0, new.source_digest, new.source_size, new.runtime.unpacked, True, now)
        dropped = storage.claim(db, new.owner, kept, storage_limit)
    if row is not None:
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
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'Pending', 'Accepted', '', ?, 1)",
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
    add_event(db, new.app_id, NewEvent("Normal", "Accepted", what, number))
    return Deployed(*wanted(db, new.app_id), created=row is None, replayed=False, dropped=dropped)


def restore(db: sqlite3.Connection, app: Restored) -> App:
    """As `Restoring.restore` says."""
    row = db.execute("SELECT owner, deleted FROM apps WHERE app_id = ?", [app.app_id]).fetchone()
    if row is not None:
        owner, deleted = row
        if owner != app.owner:
            raise NameTaken(f"the name {app.app_id!r} is taken", hint="choose another name")
        if deleted:
            raise Conflict(f"{app.app_id!r} is being deleted", hint="try again in a few seconds", code="BeingDeleted")
        raise AlreadyExists(f"there is an app {app.app_id!r} of {app.owner!r} already")
    newest = app.versions[-1]
    db.execute(
        "INSERT INTO apps (app_id, owner, generation, version, created_at, last_deployed_at, phase, reason, message,"
        " updated_at) VALUES (?, ?, 1, ?, ?, ?, 'Pending', 'Accepted', '', ?)",
        [app.app_id, app.owner, newest.number, app.created_at, newest.created_at, time.time()],
    )
    db.executemany(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                app.app_id, version.number, version.source_digest, version.source_size,
                json.dumps(asdict(version.runtime)), json.dumps(dict(version.env)),
                json.dumps(asdict(version.resources)), version.created_at, version.created_by,
                version.rolled_back_from, version.phase.value, version.reason, version.message,
                json.dumps(dict(version.timings)), int(version.source_kept),
            )
            for version in app.versions
        ],
    )  # fmt: skip
    what = f"brought here from another vibeD, with {len(app.versions)} versions"
    add_event(db, app.app_id, NewEvent("Normal", "Restored", what, newest.number))
    return get(db, app.app_id)


def replay(db: sqlite3.Connection, owner: str, idempotency: Idempotency) -> Deployed | None:
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
    return Deployed(get(db, app_id), get_version(db, app_id, number), bool(created), True)


def set_status(db: sqlite3.Connection, app_id: str, status: Status) -> Status:
    now = time.time()
    changed = db.execute(
        "UPDATE apps SET phase = ?, reason = ?, message = ?, serving_version = ?, observed_generation = ?,"
        " isolation = ?, driver = ?, sandbox = ?, restarts = ?, last_crash = ?, updated_at = ?, revision = revision + 1"
        " WHERE app_id = ? AND revision = ?",
        [
            status.phase.value, status.reason, status.message, status.serving_version, status.observed_generation,
            status.isolation, status.driver, status.sandbox, status.restarts,
            json.dumps(asdict(status.last_crash)) if status.last_crash is not None else "",
            now, app_id, status.revision,
        ],
    ).rowcount  # fmt: skip
    if not changed:
        get(db, app_id)
        raise Conflict(f"the status of {app_id!r} was changed by another writer")
    return replace(status, updated_at=now, revision=status.revision + 1)


def add_event(db: sqlite3.Connection, app_id: str, new: NewEvent) -> None:
    row = db.execute("UPDATE apps SET events = events + 1 WHERE app_id = ? RETURNING events", [app_id]).fetchone()
    if row is None:
        raise no_app(app_id)
    seq = int(row[0])
    db.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        [app_id, seq, time.time(), new.kind, new.reason, new.message, new.version],
    )
    if seq > EVENTS_KEPT:
        db.execute("DELETE FROM events WHERE app_id = ? AND seq <= ?", [app_id, seq - EVENTS_KEPT])


def nothing(db: sqlite3.Connection) -> None:
    """Write a page as it is: a transaction that changes nothing would commit without touching the disk."""
    done: int = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute(f"PRAGMA user_version = {done}")
