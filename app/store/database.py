"""Connections: how a database is opened, shared between threads, and written to.

A `Database` is a small pool. It opens after a fork, never before; it looks at the path each time it hands a connection
out, so that a file put in its place is seen; it maps SQLite's errors to ours.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.config import settings
from app.errors import DatabaseBusy, DatabaseError, DatabaseMissing, DatabaseUnreadable, SchemaMismatch
from app.process import renew_in_children

BUSY_TIMEOUT_SECS = 10.0
MAX_IDLE_CONNECTIONS = 8
JOURNAL_SIZE_LIMIT_BYTES = 64 * 2**20

# Never an mmap_size: before 3.51.3 it makes SQLite's rare WAL-reset race worse (sqlite.org/wal.html#walresetbug).
_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT_BYTES}",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the existing database at *path*, in autocommit, usable from any thread one at a time.

    TEXT that is no UTF-8 is read with U+FFFD in its place. Raises DatabaseMissing, DatabaseUnreadable.
    """
    with explained(path):
        if not path.exists():
            raise DatabaseMissing(f"no database at {path.absolute()}; `outfeed serve` or `outfeed upgrade` makes one")
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_SECS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = _text
        try:
            for pragma in _PRAGMAS:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection


def create(path: Path) -> None:
    """Make an empty database at *path*, and the folders above it, unless there is one.

    `auto_vacuum` counts only before the first table is made (sqlite.org/pragma.html#pragma_auto_vacuum).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with explained(path):
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECS, isolation_level=None)
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors in the block into ours, naming *path*. IntegrityError passes: the caller knows its rows."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise _explain(error, path) from error


def _explain(error: sqlite3.Error, path: Path) -> DatabaseError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseBusy(f"{path} is locked by another writer; nothing was written, try again")
    if code == sqlite3.SQLITE_FULL:
        return DatabaseBusy(f"no space left to write {path}; nothing was written, free some and try again")
    if "no such table" in str(error) or "no such column" in str(error):
        return SchemaMismatch(f"{path} is not an upgraded Outfeed database ({error}); run `outfeed upgrade`")
    return DatabaseUnreadable(f"{path}: {error}")


class Database:
    """The database at one path, for all threads of this process.

    `_lock` guards the list of idle connections; a connection in use belongs to the thread that took it. `_writing` is
    held by the thread whose turn it is to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self._file: tuple[int, int] | None = None
        self._inherited: list[sqlite3.Connection] = []
        renew_in_children(self)

    def __repr__(self) -> str:
        return f"Database({str(self.path)!r})"

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit. SQLite's errors come out as ours."""
        connection, file = self._take()
        try:
            with explained(self.path):
                yield connection
        finally:
            self._give_back(connection, file)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside a read transaction: all its SELECTs see one state. Keep it short."""
        with self.connection() as connection:
            connection.execute("BEGIN")
            yield connection
            # Where the block raised, giving the connection back rolls back.
            connection.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside a write transaction; commits at the end, rolls back when the block raises.

        IMMEDIATE: a deferred transaction that turns into a write fails at once, whatever the timeout, when another
        has written meanwhile (SQLITE_BUSY_SNAPSHOT). Raises DatabaseBusy after BUSY_TIMEOUT_SECS.
        """
        with self._turn(), self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for this process's turn to write: SQLite's own wait sleeps for up to 100 ms after the lock is free."""
        writing = self._writing
        if not writing.acquire(timeout=BUSY_TIMEOUT_SECS):
            raise DatabaseBusy(f"{self.path} is being written by other threads; nothing was written, try again")
        try:
            yield
        finally:
            writing.release()

    def start_anew(self) -> None:
        """In a forked child: the locks may be held by threads that don't exist here."""
        self._lock, self._writing = threading.Lock(), threading.Lock()

    def identity(self) -> tuple[int, int] | None:
        """Return the device and inode that the path names now, or None when nothing is there."""
        return _identity(self.path)

    def close(self) -> None:
        """Close the idle connections. One in use is closed when it comes back."""
        with self._lock:
            idle, self._idle, self._file = self._idle, [], None
        for connection in idle:
            connection.close()

    def _take(self) -> tuple[sqlite3.Connection, tuple[int, int] | None]:
        file = _identity(self.path)
        stale: list[sqlite3.Connection] = []
        connection = None
        with self._lock:
            if self._pid != os.getpid():
                # Kept, not closed: a forked child that closes them would checkpoint or unlink under its parent.
                self._inherited, self._idle, self._pid = self._idle, [], os.getpid()
            if file != self._file:
                stale, self._idle, self._file = self._idle, [], file
            if self._idle:
                connection = self._idle.pop()
        for old in stale:
            old.close()
        return connection or connect(self.path), file

    def _give_back(self, connection: sqlite3.Connection, file: tuple[int, int] | None) -> None:
        if connection.in_transaction:
            connection.rollback()
        with self._lock:
            is_kept = file is not None and file == self._file and len(self._idle) < MAX_IDLE_CONNECTIONS
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@functools.cache
def at(path: Path) -> Database:
    """Return this process's Database for *path*, the same one each time."""
    return Database(path)


def default() -> Database:
    """Return the Database that OUTFEED_DATABASE names."""
    return at(settings().database)


def meta(connection: sqlite3.Connection, key: str) -> Any:
    """Return the fact stored under *key*, or None."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None
