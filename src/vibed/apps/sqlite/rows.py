"""Rows as what they stand for: reading apps, versions and keys."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from vibed.apps.app import (
    App,
    Crash,
    Key,
    Phase,
    Resources,
    Result,
    Status,
    Version,
)
from vibed.apps.decision import of_json
from vibed.apps.errors import NotFound
from vibed.apps.standing import WAITS

APP = """
    a.app_id, a.owner, a.generation, a.version, a.created_at, a.last_deployed_at, a.deleted, a.phase, a.reason,
    a.message, a.serving_version, a.observed_generation, a.isolation, a.driver, a.sandbox, a.restarts, a.updated_at,
    a.revision, v.runtime, a.runs, a.last_crash, v.phase, v.reason, v.message, v.env
"""
_APP_COLUMNS = APP.count(",") + 1
OF = "FROM apps a JOIN versions v ON v.app_id = a.app_id AND v.number = a.version"
PHASE = f"""
    CASE WHEN a.serving_version = a.version AND a.phase <> 'Failed' THEN 'Ready' WHEN v.phase = 'Failed' THEN 'Failed'
    WHEN a.observed_generation <> a.generation THEN 'Pending' WHEN a.phase <> 'Ready' THEN a.phase
    WHEN a.reason IN {WAITS} THEN 'Pending' ELSE 'Starting' END
"""
"""The phase of the wanted version, as `vibed.apps.standing` says it."""

KEY = "SELECT key_id, owner, admin, label, created_at, last_used_at FROM keys"


def get(db: sqlite3.Connection, app_id: str) -> App:
    row = db.execute(f"SELECT {APP} {OF} WHERE a.app_id = ?", [app_id]).fetchone()
    if row is None:
        raise no_app(app_id)
    return app(row)


def wanted(db: sqlite3.Connection, app_id: str) -> tuple[App, Version]:
    row = db.execute(f"SELECT {APP}, v.* {OF} WHERE a.app_id = ?", [app_id]).fetchone()
    if row is None:
        raise no_app(app_id)
    return app(row), version(row[_APP_COLUMNS:])


def get_version(db: sqlite3.Connection, app_id: str, number: int) -> Version:
    row = db.execute("SELECT * FROM versions WHERE app_id = ? AND number = ?", [app_id, int64(number)]).fetchone()
    if row is None:
        raise NotFound(f"{app_id!r} has no version {number}")
    return version(row)


def int64(number: int) -> int:
    """The nearest integer that SQLite has: nothing is numbered as high, and Python's are without end."""
    return max(-(2**63), min(number, 2**63 - 1))


def no_app(app_id: str) -> NotFound:
    return NotFound(f"there is no app {app_id!r}", hint="list your apps to see their names")


def app(row: Sequence[Any]) -> App:
    return App(
        app_id=row[0], owner=row[1], generation=row[2], version=row[3], created_at=row[4], last_deployed_at=row[5],
        deleted=bool(row[6]),
        status=Status(
            phase=Phase(row[7]), reason=row[8], message=row[9], serving_version=row[10], observed_generation=row[11],
            isolation=row[12], driver=row[13], sandbox=row[14], restarts=row[15], updated_at=row[16],
            revision=row[17], last_crash=Crash(**json.loads(row[20])) if row[20] else None,
        ),
        runtime=of_json(json.loads(row[18])),
        runs=row[19],
        result=Result(Phase(row[21]), row[22], row[23]),
        env_names=tuple(sorted(json.loads(row[24]))),
    )  # fmt: skip


def version(row: Sequence[Any]) -> Version:
    return Version(
        app_id=row[0], number=row[1], source_digest=row[2], source_size=row[3], runtime=of_json(json.loads(row[4])),
        env=json.loads(row[5]), resources=Resources(**json.loads(row[6])), created_at=row[7], created_by=row[8],
        rolled_back_from=row[9], phase=Phase(row[10]), reason=row[11], message=row[12], timings=json.loads(row[13]),
        source_kept=bool(row[14]),
    )  # fmt: skip


def key(row: Sequence[Any]) -> Key:
    return Key(row[0], row[1], bool(row[2]), row[3], row[4], row[5])
