"""Database files: inspect, create and open the file of a database."""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import quote

from outfeed.errors import DatabaseChanged, DatabaseMissing, SchemaMismatch
from outfeed.store import data_values, files, instants
from outfeed.store.sqlite_errors import translate_errors

BUSY_TIMEOUT_SECS = 10.0
MAX_ATTEMPTS, SECS_BETWEEN_ATTEMPTS = 50, 0.02
JOURNAL_SIZE_LIMIT_BYTES = 64 * 2**20

# No mmap_size: before 3.51.3 it makes SQLite's rare WAL-reset race worse (sqlite.org/wal.html#walresetbug).
_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT_BYTES}",
)
_P = ParamSpec("_P")
_R = TypeVar("_R")


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


def plain(path: Path | str) -> sqlite3.Connection:
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
