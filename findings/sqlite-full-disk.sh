#!/usr/bin/env bash
# SQLite 3.46.1, WAL mode, on a full disk: `BEGIN IMMEDIATE; COMMIT` succeeds, so it is no test of whether the database can be
# written; and a DELETE, which would free pages, is refused: it has to write them to the log first.
# https://www.sqlite.org/wal.html says where writes go. For vibeD: /readyz writes a page, and the store keeps a reserve.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v" && "$work/v/bin/pip" install --quiet pysqlite3-binary==0.5.4
cat > "$work/finding.py" <<'PYTHON'
import sys

from pysqlite3 import dbapi2 as sqlite3

db = sqlite3.connect(f"{sys.argv[1]}/a.db", isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE t (a TEXT)")
db.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 1000)
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
with open(f"{sys.argv[1]}/others", "ab", buffering=0) as others:
    for size in (65536, 4096):
        try:
            while True:
                others.write(b"x" * size)
        except OSError:
            pass
db.execute("BEGIN IMMEDIATE")
db.execute("COMMIT")
try:
    db.execute("DELETE FROM t")
    deleted = "deletes"
except sqlite3.OperationalError as error:
    deleted = str(error)
print(f"SQLite {sqlite3.sqlite_version}, full disk: an empty transaction is committed; DELETE: {deleted}")
sys.exit(deleted != "database or disk is full")
PYTHON
mkdir "$work/disk"
# a file system of 16 MB that only this sees; no root where user namespaces are allowed
unshare --map-root-user --mount bash -ec 'mount -t tmpfs -o size=16m tmpfs "$0/disk"; "$0/v/bin/python" "$0/finding.py" "$0/disk"' "$work"
