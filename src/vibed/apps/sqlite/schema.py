"""The tables, and bringing a file to them: made, put in WAL mode, migrated."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

BUSY_TIMEOUT_S = 10.0

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
    "ALTER TABLE apps ADD COLUMN last_crash TEXT NOT NULL DEFAULT ''",
    """
    ALTER TABLE versions ADD COLUMN source_kept INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX versions_by_size ON versions (app_id, source_kept, source_size);
    """,
    """
    CREATE TABLE domains (
        name TEXT NOT NULL, app_id TEXT NOT NULL REFERENCES apps ON DELETE CASCADE, token TEXT NOT NULL,
        created_at REAL NOT NULL, created_by TEXT NOT NULL, verified_at REAL,
        PRIMARY KEY (app_id, name)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX domains_verified ON domains (name) WHERE verified_at IS NOT NULL;
    """,
)


def create(path: Path) -> None:
    """Make the file, if it is not there.

    The controller, which is root, shares the folder with the API's process, which is not: a link that this puts there
    must not lead SQLite elsewhere. It would follow one, so that `_connect` asks it what it has opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(path, flags, 0o600))


def write_ahead(db: sqlite3.Connection) -> None:
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


def migrate(db: sqlite3.Connection) -> None:
    """Raises `sqlite3.DatabaseError` for the schema of a newer vibeD."""
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
