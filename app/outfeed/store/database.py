"""Databases: share connections between threads, and write in transactions.

A `Database` is a small pool. It opens connections after a fork, never before. It checks the path each time it provides
a connection, so that a replaced file is noticed. It translates SQLite's errors to Outfeed's.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outfeed import clock
from outfeed.config import settings
from outfeed.errors import DatabaseBusy, DatabaseDamaged, DatabaseError, DatabaseFull
from outfeed.process import reset_after_fork
from outfeed.store import database_file, deadline, files
from outfeed.store.sqlite_errors import damaged, translate_errors

_SHORT_WAIT_SECS = 0.1  # too short to be taken off BUSY_TIMEOUT_SECS
MAX_IDLE_CONNECTIONS = 8
# A damaged database is checked again after this long, or after ten times as long as a check took.
RECHECK_SECS = 5.0
# Steps of SQLite's virtual machine. A check of 280 MiB ended 70 ms after it was interrupted (2026).
_STEPS_BETWEEN_CHECKS = 1000

# Names of sqlite3 for the features: only store/ imports sqlite3.
Connection = sqlite3.Connection
IntegrityError, OperationalError = sqlite3.IntegrityError, sqlite3.OperationalError
SQLITE_VERSION = sqlite3.sqlite_version_info


def _begin(connection: sqlite3.Connection, waited_secs: float) -> None:
    """Begin a write transaction, within the rest of BUSY_TIMEOUT_SECS.

    The writer has waited for the threads of its own process already.
    """
    if waited_secs < _SHORT_WAIT_SECS:
        connection.execute("BEGIN IMMEDIATE")
        return
    _wait_at_most(connection, max(_SHORT_WAIT_SECS, database_file.BUSY_TIMEOUT_SECS - waited_secs))
    try:
        connection.execute("BEGIN IMMEDIATE")
    finally:
        _wait_at_most(connection, database_file.BUSY_TIMEOUT_SECS)


def _wait_at_most(connection: sqlite3.Connection, secs: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {round(secs * 1000)}")


@dataclass
class _Damage:
    """The error of a damaged file, and when to check the file again.

    *check_at* is on the monotonic clock.
    """

    error: DatabaseDamaged
    file: tuple[int, int] | None
    check_at: float


class Database:
    """The database at one path, for all threads of this process.

    `_lock` guards the list of idle connections. A connection in use belongs to the thread that took it. The thread
    whose turn it is to write holds `_writing`. The thread that checks whether a damaged file is repaired holds
    `_checking`.

    *failure* is the error of the last write, or None if that succeeded. A DatabaseFull stays until the probe has found
    free space, because a write that needs no space succeeds all the same. After SQLite has reported the file as
    damaged, every write is refused until the path names another file or this one passes a check.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self._file: tuple[int, int] | None = None
        self._inherited: list[sqlite3.Connection] = []
        self._upgraded: tuple[int, int] | None = None
        self.failure: DatabaseError | None = None
        self._checking = threading.Lock()
        self._damage: _Damage | None = None
        self._interrupted = threading.Event()
        reset_after_fork(self)

    def __repr__(self) -> str:
        return f"Database({str(self.path)!r})"

    @contextmanager
    def connection(self, *, is_limited: bool = True) -> Iterator[sqlite3.Connection]:
        """Provide a connection in autocommit, with translated errors.

        Unless *is_limited* is False, the thread's deadline applies, if it has one. Raises QueryCancelled after it.
        """
        file = self.identity()
        try:
            connection = self._take(file)
            try:
                with translate_errors(self.path), deadline.enforced(connection) if is_limited else nullcontext():
                    yield connection
            finally:
                self._give_back(connection, file)
        except DatabaseDamaged as error:
            self.note_damage(error, file)
            raise

    def refuse_foreign(self) -> None:
        """Raise SchemaMismatch unless the file is an upgraded database.

        The check leaves no trace: a connection that can write would roll back a journal of the other program, or leave
        a `-wal`. Each file is checked once.
        """
        file = self.identity()
        if file is not None and file != self._upgraded:
            with database_file.open_read_only(self.path) as connection:
                database_file.refuse_foreign(connection)
            self._upgraded = file

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Provide a connection inside a read transaction.

        All SELECTs of the block see one state. Keep the block short.
        """
        with self.connection() as connection:
            connection.execute("BEGIN")
            yield connection
            # If the block raises, `_give_back` rolls back.
            connection.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Provide a connection inside a write transaction.

        The transaction commits at the end of the block, and rolls back if the block raises.

        IMMEDIATE: a deferred transaction that turns into a write fails at once, regardless of the timeout, if another
        connection has written since it began (SQLITE_BUSY_SNAPSHOT). Raises DatabaseBusy after BUSY_TIMEOUT_SECS, and
        other subclasses of DatabaseError. After an error nothing was written.
        """
        with (
            self._recorded_result(),
            self._write_turn() as waited_secs,
            self.connection(is_limited=False) as connection,
        ):
            _begin(connection, waited_secs)
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def one_write(self) -> Iterator[sqlite3.Connection]:
        """Provide a connection in autocommit for one write statement.

        It costs less than a transaction.
        """
        with self._recorded_result(), self.connection(is_limited=False) as connection:
            yield connection

    @contextmanager
    def _recorded_result(self) -> Iterator[None]:
        """Refuse to write to a damaged file, and record the write's result."""
        try:
            self._refuse_if_damaged()
            yield
        except DatabaseError as error:
            self.failure = error
            raise
        if not isinstance(self.failure, DatabaseFull):
            self.failure = None

    @contextmanager
    def _write_turn(self) -> Iterator[float]:
        """Wait for this process's turn to write; yield how many seconds it took.

        SQLite's own wait sleeps for up to 100 ms after the lock is free.
        """
        writing, began = self._writing, clock.monotonic()
        if not writing.acquire(timeout=database_file.BUSY_TIMEOUT_SECS):
            raise DatabaseBusy(f"{self.path} is being written by other threads; nothing was written, try again")
        try:
            yield clock.monotonic() - began
        finally:
            writing.release()

    def after_fork(self) -> None:
        """Replace the locks in a forked child.

        Threads that do not exist in the child may hold them.
        """
        self._lock, self._writing, self._checking = threading.Lock(), threading.Lock(), threading.Lock()
        self._interrupted = threading.Event()

    @property
    def damage(self) -> DatabaseDamaged | None:
        """Error that SQLite raised for the file at the path, or None.

        It is set if SQLite found the file damaged.
        """
        damage = self._damage
        return damage.error if damage is not None and damage.file == self.identity() else None

    def check(self) -> None:
        """Read every page and record a contradiction as damage.

        Raises DatabaseError, QueryCancelled.
        """
        file = self.identity()
        with closing(database_file.connect(self.path)) as connection, translate_errors(self.path):
            connection.set_progress_handler(self._interrupted.is_set, _STEPS_BETWEEN_CHECKS)
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            error = damaged(self.path, " ".join(said.split()))
            self.note_damage(error, file)
            raise error

    def interrupt_checks(self) -> None:
        """Make running and new checks raise QueryCancelled, until `close`."""
        self._interrupted.set()

    @property
    def is_interrupted(self) -> bool:
        """Whether checks are interrupted."""
        return self._interrupted.is_set()

    def recheck(self) -> None:
        """Check a damaged file again, if the time for it has come.

        One thread does so at a time.
        """
        damage = self._damage
        if damage is None or clock.monotonic() < damage.check_at or not self._checking.acquire(blocking=False):
            return
        began = clock.monotonic()
        try:
            self.check()
        except DatabaseError:
            damage.check_at = clock.monotonic() + max(RECHECK_SECS, 10 * (clock.monotonic() - began))
        else:
            self._damage = None
            self.close()  # the page caches of the idle connections were read from the damaged file
        finally:
            self._checking.release()

    def _refuse_if_damaged(self) -> None:
        self.recheck()
        if damage := self.damage:
            raise DatabaseDamaged(str(damage)) from damage.__cause__

    def note_damage(self, error: DatabaseDamaged, file: tuple[int, int] | None) -> None:
        if self._damage is None or self._damage.file != file:
            self._damage = _Damage(error, file, clock.monotonic() + RECHECK_SECS)

    def identity(self) -> tuple[int, int] | None:
        """Return the device and inode that the path names now.

        Returns None if the file does not exist.
        """
        return files.identity(self.path)

    def close(self) -> None:
        """Close the idle connections.

        A connection in use is closed when it is returned.
        """
        self._interrupted.clear()
        with self._lock:
            idle, self._idle, self._file = self._idle, [], None
        for connection in idle:
            connection.close()

    def _take(self, file: tuple[int, int] | None) -> sqlite3.Connection:
        stale: list[sqlite3.Connection] = []
        connection = None
        with self._lock:
            if self._pid != os.getpid():
                # Kept open: a forked child that closes them would checkpoint or unlink files of its parent.
                self._inherited, self._idle, self._pid = self._idle, [], os.getpid()
            if file != self._file:
                stale, self._idle, self._file = self._idle, [], file
            if self._idle:
                connection = self._idle.pop()
        for old in stale:
            old.close()
        return connection or database_file.connect(self.path)

    def _give_back(self, connection: sqlite3.Connection, file: tuple[int, int] | None) -> None:
        try:
            if connection.in_transaction:
                connection.rollback()
            is_sound = True
        except sqlite3.Error:
            is_sound = False  # closing the connection rolls back, too
        with self._lock:
            is_kept = is_sound and file is not None and file == self._file and len(self._idle) < MAX_IDLE_CONNECTIONS
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            connection.close()


@functools.cache
def at(path: Path) -> Database:
    """Return this process's Database for *path*, the same each time."""
    return Database(path)


def default() -> Database:
    """Return the Database that OUTFEED_DATABASE names."""
    return at(settings().database)


def meta(connection: sqlite3.Connection, key: str) -> Any:
    """Return the value stored under *key* in outfeed_meta, or None."""
    row = connection.execute("SELECT value FROM outfeed_meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None
