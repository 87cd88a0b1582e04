"""Three connections to one SQLite file, and when what they wrote is on the disk.

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
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from vibed.apps.errors import StoreUnavailable
from vibed.apps.sqlite import schema
from vibed.apps.sqlite.reserve import Reserve, wants_room
from vibed.apps.sqlite.schema import create, migrate, write_ahead

T = TypeVar("T")

_RESERVE_EVERY_S = 1.0
_CHECKPOINT_AFTER = 250
"""Small writes; each is a few pages of the log."""


class Connections:
    """See the module's docstring; one instance a process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reserve = Reserve(path)
        self._reserve_missing = False
        self._reserve_tried = 0.0
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
    async def open(cls, path: Path) -> Connections:
        """Open, create or migrate the database at `path`. Raises `StoreUnavailable`."""
        db = cls(path)
        loop = asyncio.get_running_loop()
        try:
            create(path)
            db._write_db = await loop.run_in_executor(db._writer, db._freeing, db._connect_to_write)
            db._read_db = await loop.run_in_executor(db._reader, db._connect)
            db._loop_db = await loop.run_in_executor(db._reader, db._connect)
            db._loop_db.execute("PRAGMA busy_timeout = 0")
            db._loop_db.execute("PRAGMA synchronous = NORMAL")
            # a checkpoint syncs: the writer's thread makes them
            db._loop_db.execute("PRAGMA wal_autocheckpoint = 0")
        except (sqlite3.Error, OSError) as error:
            await db.close()
            raise StoreUnavailable(
                f"the app store at {path} cannot be opened: {error}",
                hint="check that the disk is not full and that the file belongs to vibeD's user",
            ) from error
        return db

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=schema.BUSY_TIMEOUT_S,
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

    def _connect_to_write(self) -> sqlite3.Connection:
        db = self._connect()
        try:
            write_ahead(db)
            migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _freeing(self, work: Callable[[], T]) -> T:
        """Work that has to be possible on a full disk: with the reserve's room, where there is no other."""
        try:
            return work()
        except sqlite3.Error as error:
            if not (wants_room(error) and self._reserve.give_up()):
                raise
            self._reserve_missing = True
            return work()

    def _keep_reserve(self) -> None:
        self._reserve_missing = not self._reserve.keep()

    def _look_after_reserve(self) -> None:
        """After a write: there may be room again for what was given up."""
        if self._reserve_missing and time.monotonic() > self._reserve_tried + _RESERVE_EVERY_S:
            self._reserve_tried = time.monotonic()
            self._writer.submit(self._keep_reserve)

    async def keep_reserve(self) -> bool:
        """Make the reserve, if the disk has room for it; returns whether it is there. One that was given up is made
        again by itself.
        """
        await asyncio.get_running_loop().run_in_executor(self._writer, self._keep_reserve)
        return not self._reserve_missing

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

    async def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False, frees: bool = False) -> T:
        """`frees`: in the end there is more room than before, so that it may use the reserve (`reserve.py`)."""

        def transaction() -> T:
            db = self._write_db
            assert db is not None, "the store is closed"
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            if frees:
                return self._freeing(lambda: _transaction(db, work))
            return _transaction(db, work)

        try:
            return await self._on(self._writer, transaction)
        finally:
            self._look_after_reserve()

    async def write_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """For a few rows that need no sync; while another connection writes, the thread waits for it."""
        assert self._loop_db is not None, "the store is closed"
        try:
            result = _transaction(self._loop_db, work)
        except sqlite3.Error:
            return await self.write(work)
        self._look_after_reserve()
        self._since_checkpoint += 1
        if self._since_checkpoint >= _CHECKPOINT_AFTER:
            self._since_checkpoint = 0
            self._writer.submit(self._checkpoint)
        return result

    def _checkpoint(self) -> None:
        assert self._write_db is not None
        with contextlib.suppress(sqlite3.Error):  # the next one will do more
            self._write_db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def query() -> T:
            assert self._read_db is not None, "the store is closed"
            return work(self._read_db)

        return await self._on(self._reader, query)

    async def read_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """For a few rows by their key: SQLite has them in less time than handing the question to a thread takes, and
        in WAL mode a reader waits for no writer. What does not go at once goes through the thread.
        """
        assert self._loop_db is not None, "the store is closed"
        try:
            return work(self._loop_db)
        except sqlite3.Error:
            return await self.read(work)

    async def _on(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            # A transaction that has begun is finished even if the caller was cancelled: half a write is worse.
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(pool, work))
        except sqlite3.Error as error:
            raise StoreUnavailable(
                f"the app store cannot be used right now: {error}",
                hint="if the disk is full, delete apps (that works on a full disk too) or free space, then try again",
            ) from error

    def owe_a_sync(self) -> None:
        """Something was written by `write_now` that `sync` has to make durable."""
        self._deploys += 1

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
