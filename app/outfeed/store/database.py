"""Connections: open a database, share it between threads, write to it.

A `Database` is a small pool. It opens connections after a fork, never before. It checks the path each time it provides
a connection, so that a replaced file is noticed. It translates SQLite's errors to Outfeed's.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

from outfeed import clock
from outfeed.config import settings
from outfeed.errors import (
    DatabaseBusy,
    DatabaseChanged,
    DatabaseDamaged,
    DatabaseError,
    DatabaseFull,
    DatabaseMissing,
    DatabaseReadOnly,
    DatabaseUnreadable,
    QueryCancelled,
    SchemaMismatch,
)
from outfeed.process import reset_after_fork
from outfeed.store import data_values, deadline, files, instants

BUSY_TIMEOUT_SECS = 10.0
MAX_ATTEMPTS, SECS_BETWEEN_ATTEMPTS = 50, 0.02
MAX_IDLE_CONNECTIONS = 8
# A damaged database is checked again after this long, or after ten times as long as a check took.
RECHECK_SECS = 5.0
JOURNAL_SIZE_LIMIT_BYTES = 64 * 2**20
# Steps of SQLite's virtual machine. A check of 280 MiB ended 70 ms after it was interrupted (2026).
_STEPS_BETWEEN_CHECKS = 1000

# No mmap_size: before 3.51.3 it makes SQLite's rare WAL-reset race worse (sqlite.org/wal.html#walresetbug).
_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT_BYTES}",
)
# The beginnings of SQLite's messages that quote a damaged name. If the name is not UTF-8, sqlite3 can't decode them.
_DAMAGED_NAMES = (b"malformed database schema", b"vtable constructor failed")
_P = ParamSpec("_P")
_R = TypeVar("_R")
# Names of sqlite3 for the features: only store/ imports sqlite3.
Connection = sqlite3.Connection
IntegrityError, OperationalError = sqlite3.IntegrityError, sqlite3.OperationalError
SQLITE_VERSION = sqlite3.sqlite_version_info
BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect(path: Path) -> sqlite3.Connection:
    """Open the existing database at *path*, in autocommit.

    Any thread may use the connection, one at a time. TEXT that is not UTF-8 is read with U+FFFD in place of the invalid
    bytes. Raises DatabaseMissing, DatabaseUnreadable.
    """
    with translate_errors(path):
        if not path.exists():
            raise DatabaseMissing(f"no database at {path.absolute()}; `outfeed serve` or `outfeed upgrade` creates one")
        connection = sqlite3.connect(
            _uri(path, "mode=rw"), uri=True, timeout=BUSY_TIMEOUT_SECS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = _text
        instants.register(connection)
        data_values.register(connection)
        with ExitStack() as undo:
            undo.callback(connection.close)
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            undo.pop_all()
        return connection


def _uri(path: Path, options: str) -> str:
    # Bytes, since a path may not be UTF-8. An empty authority, since a path may begin with two slashes.
    return f"file://{quote(os.fsencode(path.absolute()))}?{options}"


def is_new(path: Path) -> bool:
    """Return whether the file at *path* is missing or empty."""
    return not path.exists() or path.stat().st_size == 0


def retry_if_changed(read: Callable[_P, _R]) -> Callable[_P, _R]:
    """Repeat *read* if another process changes the file during it.

    *read* inspects a file and changes nothing.
    """

    @functools.wraps(read)
    def repeated(*arguments: _P.args, **named: _P.kwargs) -> _R:
        for _ in range(MAX_ATTEMPTS):
            with suppress(DatabaseChanged):
                return read(*arguments, **named)
            time.sleep(SECS_BETWEEN_ATTEMPTS)
        return read(*arguments, **named)

    return repeated


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection that changes nothing on disk.

    The file, its journal mode and its folder stay as they are. With a `-wal` beside the file, only `-shm` may change.
    Raises SchemaMismatch if a rollback journal must be replayed first, since that would change the file;
    DatabaseUnreadable; DatabaseChanged, after which `retry_if_changed` repeats the read.
    """
    path = path.resolve()  # SQLite keeps its journals beside the target of a link
    has_journal = any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-journal"))
    # With mode=ro, SQLite would create the `-wal` of a file in WAL mode that has none. An immutable read takes no lock,
    # so it may see a half-written state of another process that starts. The file is read through SQLite only: closing a
    # descriptor of it drops every lock of this process (sqlite.org/howtocorrupt.html, section 2.2).
    mode = "mode=ro" if has_journal else "immutable=1"
    before = _signature(path)
    try:
        with translate_errors(path):
            uri = _uri(path, mode)
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECS, isolation_level=None)) as connection:
                connection.text_factory = _text
                _refuse_hot_journal(connection, path)
                yield connection
    finally:
        if not has_journal and _signature(path) != before:
            raise DatabaseChanged(f"{path} is being changed by another process; nothing was changed, try again")


def _signature(path: Path) -> tuple[object, ...]:
    """Return a value that changes if another process writes to *path*."""
    try:
        found = path.stat()
    except OSError:
        return ()
    journals = [Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-journal")]
    return found.st_ino, found.st_size, found.st_mtime_ns, *journals


def _refuse_hot_journal(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        if not Path(f"{path}-journal").exists() or error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise
        raise SchemaMismatch(
            f"{path}-journal belongs to a transaction that was interrupted. Nothing was changed. Open the database "
            "once with its own program, which rolls the transaction back, and try again"
        ) from error


def plain(path: Path | str) -> Connection:
    """Open any SQLite file, or `:memory:`, in autocommit.

    The connection has none of Outfeed's settings and functions.
    """
    return sqlite3.connect(path, isolation_level=None)


def create(path: Path) -> None:
    """Create an empty database at *path*, readable by its owner only.

    Missing folders above it are created in the same way. An existing file keeps its mode. SQLite gives `-wal` and
    `-shm` the mode of the database. `auto_vacuum` has an effect only before the first table is created
    (sqlite.org/pragma.html#pragma_auto_vacuum).
    """
    files.make_folder(path.parent)
    with suppress(OSError):  # the file exists, or SQLite reports below why it can't be created
        files.make_private(path)
    with (
        translate_errors(path),
        closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECS, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")


def use_wal(path: Path) -> None:
    """Set the journal mode to WAL if it is another.

    Raises DatabaseBusy while another program reads the file.
    """
    with translate_errors(path), closing(connect(path)) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode = WAL")


def refuse_foreign(connection: sqlite3.Connection) -> None:
    """Raise SchemaMismatch unless the database is an upgraded one.

    The `event_log` in it may be another program's.
    """
    cursor = connection.cursor()
    cursor.row_factory = None  # a caller's own connection may have another
    try:
        cursor.execute("SELECT key, value, (SELECT applied_at FROM outfeed_migration) FROM outfeed_meta LIMIT 0")
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error) and "no such column" not in str(error):
            raise
        (path,) = cursor.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
        raise SchemaMismatch(
            f"{path} is not an upgraded Outfeed database; run `outfeed upgrade`, "
            "or `outfeed upgrade --adopt` if another program made it"
        ) from error


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Translate SQLite's errors in the block to Outfeed's, with *path*.

    IntegrityError is not translated, because the caller knows its rows. A message that sqlite3 can't decode is
    translated like the error that it belongs to.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            raise QueryCancelled("this query took too long and was cancelled; narrow your filters") from error
        raise _explain(error, path) from error
    except UnicodeDecodeError as error:
        if not error.object.startswith(_DAMAGED_NAMES):
            raise
        raise _damaged(path, "its schema has a name that is not UTF-8") from error


def _explain(error: sqlite3.Error, path: Path) -> DatabaseError:
    code = getattr(error, "sqlite_errorcode", 0)
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseBusy(f"{path} is locked by another writer; nothing was written, try again")
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_READONLY:
            return DatabaseReadOnly(
                f"{path} is read-only: check the mode of the file and its folder, and the mount options"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _damaged(path, str(error))
        case sqlite3.SQLITE_IOERR if code == sqlite3.SQLITE_IOERR_SHMSIZE:
            return _full(path)
        case sqlite3.SQLITE_CANTOPEN:
            advice = f"check its permissions and the limit of open files (ulimit -n){files.owner_advice(path)}"
            return DatabaseUnreadable(f"{path}: {error}: {advice}")
    if "no such table" in str(error) or "no such column" in str(error):
        return SchemaMismatch(f"{path} is not an upgraded Outfeed database ({error}); run `outfeed upgrade`")
    return DatabaseUnreadable(f"{path}: {error}")


def _full(path: Path) -> DatabaseFull:
    return DatabaseFull(f"no space left to write {path}; nothing was written, free some space and try again")


def _damaged(path: Path, what: str) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"{path} is damaged ({what}); move it, {path.name}-wal and {path.name}-shm away, and `outfeed restore FILE`"
    )


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
            with open_read_only(self.path) as connection:
                refuse_foreign(connection)
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
        with self._recorded_result(), self._write_turn(), self.connection(is_limited=False) as connection:
            connection.execute("BEGIN IMMEDIATE")
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
    def _write_turn(self) -> Iterator[None]:
        """Wait for this process's turn to write.

        SQLite's own wait sleeps for up to 100 ms after the lock is free.
        """
        writing = self._writing
        if not writing.acquire(timeout=BUSY_TIMEOUT_SECS):
            raise DatabaseBusy(f"{self.path} is being written by other threads; nothing was written, try again")
        try:
            yield
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
        with closing(connect(self.path)) as connection, translate_errors(self.path):
            connection.set_progress_handler(self._interrupted.is_set, _STEPS_BETWEEN_CHECKS)
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            error = _damaged(self.path, " ".join(said.split()))
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
        return connection or connect(self.path)

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
