"""Connections: how a database is opened, shared between threads, and written to.

A `Database` is a small pool. It opens after a fork, never before; it looks at the path each time it hands a connection
out, so that a file put in its place is seen; it maps SQLite's errors to ours.
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
from outfeed.store import deadline, files, instants

BUSY_TIMEOUT_SECS = 10.0
MAX_LOOKS, SECS_BETWEEN_LOOKS = 50, 0.02
MAX_IDLE_CONNECTIONS = 8
# A damaged database is looked at again after this long, or after ten times as long as a look took.
RECHECK_SECS = 5.0
JOURNAL_SIZE_LIMIT_BYTES = 64 * 2**20
# Of SQLite's virtual machine: a check of 280 MiB ended 70 ms after it was interrupted (2026).
_STEPS_BETWEEN_LOOKS = 1000

# Never an mmap_size: before 3.51.3 it makes SQLite's rare WAL-reset race worse (sqlite.org/wal.html#walresetbug).
_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT_BYTES}",
)
_P = ParamSpec("_P")
_R = TypeVar("_R")
# What features need of sqlite3, which only store/ imports.
Connection = sqlite3.Connection
IntegrityError, OperationalError = sqlite3.IntegrityError, sqlite3.OperationalError
SQLITE_VERSION = sqlite3.sqlite_version_info
BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect(path: Path) -> sqlite3.Connection:
    """Open the existing database at *path*, in autocommit, usable from any thread one at a time.

    TEXT that is no UTF-8 is read with U+FFFD in its place. Raises DatabaseMissing, DatabaseUnreadable.
    """
    with explained(path):
        if not path.exists():
            raise DatabaseMissing(f"no database at {path.absolute()}; `outfeed serve` or `outfeed upgrade` creates one")
        connection = sqlite3.connect(
            _uri(path, "mode=rw"), uri=True, timeout=BUSY_TIMEOUT_SECS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = _text
        instants.register(connection)
        with ExitStack() as undo:
            undo.callback(connection.close)
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            undo.pop_all()
        return connection


def _uri(path: Path, options: str) -> str:
    # Bytes, since a path may not be UTF-8; an empty authority, since a path may begin with two slashes.
    return f"file://{quote(os.fsencode(path.absolute()))}?{options}"


def is_new(path: Path) -> bool:
    """Return whether there is no database at *path* yet: no file, or an empty one."""
    return not path.exists() or path.stat().st_size == 0


def settled(read: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have *read*, which changes nothing and looks at a file, repeat if another process has changed it meanwhile."""

    @functools.wraps(read)
    def reading(*arguments: _P.args, **named: _P.kwargs) -> _R:
        for _ in range(MAX_LOOKS):
            with suppress(DatabaseChanged):
                return read(*arguments, **named)
            time.sleep(SECS_BETWEEN_LOOKS)
        return read(*arguments, **named)

    return reading


@contextmanager
def look(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection that leaves the file, its journal mode and its folder as they are.

    With a `-wal` beside the file, only `-shm` may change. Raises SchemaMismatch if a rollback journal must be played
    back first, since that would change the file; DatabaseUnreadable; DatabaseChanged, for which `settled` repeats.
    """
    path = path.resolve()  # SQLite keeps its journals beside the file that a link points to
    has_journal = any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-journal"))
    # Opened with mode=ro, a file in WAL mode without its `-wal` would get one. An immutable read takes no lock, so it
    # may see half of what another starter writes. The file is not read by other means: closing a descriptor of it drops
    # every lock of this process (sqlite.org/howtocorrupt.html, section 2.2).
    mode = "mode=ro" if has_journal else "immutable=1"
    before = _signature(path)
    try:
        with explained(path):
            uri = _uri(path, mode)
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECS, isolation_level=None)) as connection:
                connection.text_factory = _text
                _refuse_hot_journal(connection, path)
                yield connection
    finally:
        if not has_journal and _signature(path) != before:
            raise DatabaseChanged(f"{path} is being changed by another process; nothing was changed, try again")


def _signature(path: Path) -> tuple[object, ...]:
    """Return what changes if another process writes to the file at *path*."""
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
            f"{path}-journal belongs to a transaction that was cut off. Nothing was changed. Open the database once "
            "with its own program, which rolls the transaction back, and try again"
        ) from error


def plain(path: Path | str) -> Connection:
    """Open any SQLite file, or `:memory:`, in autocommit and without settings or functions of ours."""
    return sqlite3.connect(path, isolation_level=None)


def create(path: Path) -> None:
    """Make an empty database at *path*, and the folders above it, for their owner alone; a file there keeps its mode.

    SQLite gives `-wal` and `-shm` the mode of the database. `auto_vacuum` counts only before the first table is made
    (sqlite.org/pragma.html#pragma_auto_vacuum).
    """
    files.make_folder(path.parent)
    with suppress(OSError):  # it is there, or SQLite says why it can't be made
        files.make_private(path)
    with explained(path), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECS, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")


def use_wal(path: Path) -> None:
    """Set the journal mode to WAL unless it is. Raises DatabaseBusy while another program reads the file."""
    with explained(path), closing(connect(path)) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode = WAL")


def refuse_foreign(connection: sqlite3.Connection) -> None:
    """Raise SchemaMismatch unless the database is an upgraded one: its `event_log` may be another program's."""
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
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors in the block into ours, naming *path*. IntegrityError passes: the caller knows its rows."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            raise QueryCancelled("this query took too long and was cancelled; narrow your filters") from error
        raise _explain(error, path) from error


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
            return DatabaseUnreadable(f"{path}: {error}: check its permissions and the limit of open files (ulimit -n)")
    if "no such table" in str(error) or "no such column" in str(error):
        return SchemaMismatch(f"{path} is not an upgraded Outfeed database ({error}); run `outfeed upgrade`")
    return DatabaseUnreadable(f"{path}: {error}")


def _full(path: Path) -> DatabaseFull:
    return DatabaseFull(f"no space left to write {path}; nothing was written, free some and try again")


def _damaged(path: Path, what: str) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"{path} is damaged ({what}); move it, {path.name}-wal and {path.name}-shm away, and `outfeed restore FILE`"
    )


@dataclass
class _Damage:
    """What was found, in which file, and when to look again, on the monotonic clock."""

    error: DatabaseDamaged
    file: tuple[int, int] | None
    check_at: float


class Database:
    """The database at one path, for all threads of this process.

    `_lock` guards the list of idle connections; a connection in use belongs to the thread that took it. `_writing` is
    held by the thread whose turn it is to write; `_checking` by the one that looks whether damage has been mended.

    *failure* is what the last write failed with, None when it went well; that no space was left stands until the probe
    has found some, for a write that needs none goes well all the same. Once SQLite has called the file damaged every
    write is refused, in whichever pages it would be, until another file stands there or this one passes a check.
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
        """Lend a connection in autocommit. SQLite's errors come out as ours.

        Unless *is_limited* is False, the thread's deadline counts, if it has one: raises QueryCancelled.
        """
        file = self.identity()
        try:
            connection = self._take(file)
            try:
                with explained(self.path), deadline.kept(connection) if is_limited else nullcontext():
                    yield connection
            finally:
                self._give_back(connection, file)
        except DatabaseDamaged as error:
            self.note_damage(error, file)
            raise

    def refuse_foreign(self) -> None:
        """Raise SchemaMismatch unless the file is an upgraded database, and leave no trace of the look.

        A connection that can write would roll back a journal of the other program, or leave a `-wal`. Each file is
        looked at once.
        """
        file = self.identity()
        if file is not None and file != self._upgraded:
            with look(self.path) as connection:
                refuse_foreign(connection)
            self._upgraded = file

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
        has written meanwhile (SQLITE_BUSY_SNAPSHOT). Raises DatabaseBusy after BUSY_TIMEOUT_SECS, and what else a
        DatabaseError can be: nothing was written then.
        """
        with self._noted(), self._turn(), self.connection(is_limited=False) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def one_write(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit for one statement that writes, which costs less than a transaction."""
        with self._noted(), self.connection(is_limited=False) as connection:
            yield connection

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Refuse to write to a damaged file, and remember how it goes."""
        try:
            self._refuse_if_damaged()
            yield
        except DatabaseError as error:
            self.failure = error
            raise
        if not isinstance(self.failure, DatabaseFull):
            self.failure = None

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

    def after_fork(self) -> None:
        """In a forked child: the locks may be held by threads that don't exist here."""
        self._lock, self._writing, self._checking = threading.Lock(), threading.Lock(), threading.Lock()
        self._interrupted = threading.Event()

    @property
    def damage(self) -> DatabaseDamaged | None:
        """What SQLite said when it found the file at the path damaged; None where it hasn't."""
        damage = self._damage
        return damage.error if damage is not None and damage.file == self.identity() else None

    def check(self) -> None:
        """Read every page, and take note where they contradict each other. Raises DatabaseError, QueryCancelled."""
        file = self.identity()
        with closing(connect(self.path)) as connection, explained(self.path):
            connection.set_progress_handler(self._interrupted.is_set, _STEPS_BETWEEN_LOOKS)
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            error = _damaged(self.path, " ".join(said.split()))
            self.note_damage(error, file)
            raise error

    def interrupt_checks(self) -> None:
        """Have a check that is at work, and each that begins, raise QueryCancelled at once, until `close`."""
        self._interrupted.set()

    @property
    def is_interrupted(self) -> bool:
        """Whether checks are interrupted."""
        return self._interrupted.is_set()

    def recheck(self) -> None:
        """Where the file was found damaged, look whether it still is; not at once again, and one thread at a time."""
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
            self.close()  # what the idle connections have in mind was read from the damaged file
        finally:
            self._checking.release()

    def _refuse_if_damaged(self) -> None:
        self.recheck()
        if damage := self.damage:
            raise DatabaseDamaged(str(damage))

    def note_damage(self, error: DatabaseDamaged, file: tuple[int, int] | None) -> None:
        if self._damage is None or self._damage.file != file:
            self._damage = _Damage(error, file, clock.monotonic() + RECHECK_SECS)

    def identity(self) -> tuple[int, int] | None:
        """Return the device and inode that the path names now, or None when nothing is there."""
        return _identity(self.path)

    def close(self) -> None:
        """Close the idle connections. One in use is closed when it comes back."""
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
                # Kept, not closed: a forked child that closes them would checkpoint or unlink under its parent.
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
            is_sound = False  # closing it rolls back, too
        with self._lock:
            is_kept = is_sound and file is not None and file == self._file and len(self._idle) < MAX_IDLE_CONNECTIONS
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
    row = connection.execute("SELECT value FROM outfeed_meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None
