"""Domains in the database: rows of the table `domains`, of which one a name may be verified."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence

from vibed.apps.domains import MOST, Domain, absent, taken, too_many
from vibed.apps.sqlite import rows

_ALL = "SELECT name, app_id, token, created_at, created_by, verified_at FROM domains"


def add(db: sqlite3.Connection, app_id: str, name: str, by: str) -> Domain:
    if rows.get(db, app_id).deleted:
        raise rows.no_app(app_id)
    there = of_app(db, app_id)
    for domain in there:
        if domain.name == name:
            return domain
    if verified(db, name) is not None:
        raise taken(name)
    if len(there) >= MOST:
        raise too_many(app_id)
    made = Domain.wanted(name, app_id, by, time.time())
    db.execute(
        "INSERT INTO domains VALUES (?, ?, ?, ?, ?, NULL)", [name, app_id, made.token, made.created_at, made.created_by]
    )
    return made


def verify(db: sqlite3.Connection, app_id: str, name: str, token: str) -> Domain:
    wanted = next((domain for domain in of_app(db, app_id) if domain.name == name and domain.token == token), None)
    if wanted is None:
        raise absent(app_id, name)
    if wanted.verified_at is not None:
        return wanted
    if verified(db, name) is not None:
        raise taken(name)
    db.execute("DELETE FROM domains WHERE name = ? AND app_id <> ?", [name, app_id])
    db.execute("UPDATE domains SET verified_at = ? WHERE app_id = ? AND name = ?", [time.time(), app_id, name])
    return next(domain for domain in of_app(db, app_id) if domain.name == name)


def remove(db: sqlite3.Connection, app_id: str, name: str) -> None:
    if not db.execute("DELETE FROM domains WHERE app_id = ? AND name = ?", [app_id, name]).rowcount:
        raise absent(app_id, name)


def of_app(db: sqlite3.Connection, app_id: str) -> Sequence[Domain]:
    found = db.execute(f"{_ALL} WHERE app_id = ? ORDER BY created_at, name", [app_id])
    return [Domain(*row) for row in found]


def verified(db: sqlite3.Connection, name: str) -> Domain | None:
    row = db.execute(f"{_ALL} WHERE name = ? AND verified_at IS NOT NULL", [name]).fetchone()
    return None if row is None else Domain(*row)


def all_verified(db: sqlite3.Connection) -> Mapping[str, str]:
    return dict(db.execute("SELECT name, app_id FROM domains WHERE verified_at IS NOT NULL"))
