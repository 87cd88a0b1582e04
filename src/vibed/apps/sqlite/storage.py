"""What apps take on the disk, read from their versions; and forgetting old sources (`vibed.apps.storage` decides)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from vibed.apps.storage import Kept, make_room

_UNPACKED = "coalesce(json_extract(v.runtime, '$.unpacked'), 0)"
# A start that failed may go back to the version that serves, and a version that fails later to the newest good one.
_VERSIONS = f"""
    WITH some AS (
        SELECT app_id, version AS wanted, coalesce(serving_version, version) AS serving,
            (SELECT max(number) FROM versions g WHERE g.app_id = apps.app_id AND g.phase = 'Ready') AS good
        FROM apps WHERE %s
    )
    SELECT v.app_id, v.number, v.source_digest, v.source_size * v.source_kept,
        iif(v.number IN (wanted, serving), {_UNPACKED}, 0), v.number IN (wanted, serving, good), v.created_at
    FROM some CROSS JOIN versions v ON v.app_id = some.app_id
    WHERE v.source_kept OR v.number IN (wanted, serving)
"""


def of_owner(db: sqlite3.Connection, owner: str) -> list[Kept]:
    """Every version of an owner's apps that takes room, those left out that are being deleted."""
    return [_kept(row) for row in db.execute(_VERSIONS % "owner = ? AND deleted = 0", [owner])]


def of_apps(db: sqlite3.Connection, app_ids: Sequence[str]) -> list[Kept]:
    """Every version of these apps that takes room."""
    marks = ", ".join("?" * len(app_ids))
    return [_kept(row) for row in db.execute(_VERSIONS % f"app_id IN ({marks})", list(app_ids))]


def claim(db: sqlite3.Connection, owner: str, new: Kept, limit: int) -> list[str]:
    """Have the owner's older versions forget their sources until `new` fits; returns the digests that are nobody's now.

    Raises `StorageLimitReached`.
    """
    if _at_most(db, owner) + new.source + new.unpacked <= limit:
        return []
    gone = make_room(of_owner(db, owner), new, limit)
    for digest in gone:
        db.execute(
            "UPDATE versions SET source_kept = 0 WHERE source_digest = ?"
            " AND app_id IN (SELECT app_id FROM apps WHERE owner = ? AND deleted = 0)",
            [digest, owner],
        )
    return [digest for digest in gone if not is_named(db, digest)]


def is_named(db: sqlite3.Connection, digest: str) -> bool:
    """Whether any version keeps this source."""
    row = db.execute("SELECT 1 FROM versions WHERE source_digest = ? AND source_kept LIMIT 1", [digest]).fetchone()
    return row is not None


def _at_most(db: sqlite3.Connection, owner: str) -> int:
    """No less than the owner's apps take, and quickly: sources that versions share count for each."""
    row = db.execute(
        "SELECT coalesce(sum("
        " coalesce((SELECT sum(source_size) FROM versions v WHERE v.app_id = a.app_id AND source_kept), 0)"
        f" + (SELECT sum({_UNPACKED}) FROM versions v"
        " WHERE v.app_id = a.app_id AND v.number IN (a.version, coalesce(a.serving_version, a.version)))), 0)"
        " FROM apps a WHERE owner = ? AND deleted = 0",
        [owner],
    ).fetchone()
    return int(row[0])


def _kept(row: Sequence[Any]) -> Kept:
    return Kept(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6])
