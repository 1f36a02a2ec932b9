"""Migrations: upgrade a database to the schema of this code.

All pending files run in one BEGIN IMMEDIATE, together with the table `outfeed_migration` that records them. A process
that is killed therefore leaves the database as it was.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from outfeed import clock
from outfeed.errors import DatabaseError, SchemaMismatch
from outfeed.log_message import LogMessage
from outfeed.store import adoption, database_file, files, former_names, lease, schema
from outfeed.store.sqlite_errors import translate_errors

log = logging.getLogger(__name__)


def upgrade(path: Path, *, adopt: bool = False) -> list[str]:
    """Create or upgrade the database at *path*; return what was applied.

    The names of the applied migrations are in order. Several processes may call it at once: one does the work and the
    others wait for it. Raises AdoptionNeeded without *adopt* if the file holds tables that Outfeed did not make;
    SchemaMismatch if newer code made the database or its contents do not fit; DatabaseBusy if a writer keeps the lock;
    DatabaseError if the folder can't be written. A call that raises has changed nothing, and leaves no new lock file.
    """
    check(path, adopt=adopt)
    _make_folder(path.parent)
    lock_file = lease.lock_file(path)
    is_new = not lock_file.exists()
    with lease.hold(lock_file, wait=False) as is_held:
        if is_held:
            with _removed_if_refused(lock_file if is_new else None):
                return _upgrade_alone(path, adopt=adopt)
    log.info(LogMessage("waiting for another upgrade", database=path))
    with lease.hold(lock_file, wait=True):
        return _upgrade_alone(path, adopt=adopt)


@contextmanager
def _removed_if_refused(lock_file: Path | None) -> Iterator[None]:
    try:
        yield
    except (DatabaseError, sqlite3.Error):
        if lock_file is not None:
            lock_file.unlink(missing_ok=True)
        raise


def check(path: Path, *, adopt: bool = False) -> None:
    """Raise the errors of `upgrade` that the file already shows.

    The check leaves no trace.
    """
    pending(path)
    adoption.check(path, adopt=adopt)


@database_file.retry_if_changed
def pending(path: Path) -> list[str]:
    """Return the migrations that the database at *path* lacks, in order.

    If the file is missing, these are all migrations. Raises SchemaMismatch if the database has migrations that this
    code does not know.
    """
    if database_file.is_new(path):
        return schema.migrations()
    with database_file.open_read_only(path) as connection:
        return _pending(connection, path)


def _pending(connection: sqlite3.Connection, path: Path) -> list[str]:
    if former_names.are_used(connection):
        return [former_names.STEP, *_lacking(former_names.applied(connection), path)]
    return _lacking(_applied(connection), path)


def _applied(connection: sqlite3.Connection) -> set[str]:
    if not adoption.is_outfeed(connection):
        return set()
    return {name for (name,) in connection.execute("SELECT name FROM outfeed_migration").fetchall()}


def _lacking(applied: set[str], path: Path) -> list[str]:
    known = schema.migrations()
    if unknown := sorted(applied.difference(known)):
        raise SchemaMismatch(
            f"{path} was upgraded by newer code; this code does not know {', '.join(unknown)}. "
            "Run the newer code, or restore a backup made before the upgrade"
        )
    return [name for name in known if name not in applied]


def _make_folder(folder: Path) -> None:
    try:
        files.make_folder(folder)
    except OSError as error:
        advice = files.owner_advice(folder)
        raise DatabaseError(f"can't make the folder {folder}: {error.strerror}{advice}") from error


def _upgrade_alone(path: Path, *, adopt: bool) -> list[str]:
    if database_file.is_new(path):
        database_file.create(path)
    if not pending(path):
        database_file.use_wal(path)  # a copy from a backup may lack it
        return []
    with translate_errors(path), closing(database_file.connect(path)) as connection:
        applied = _apply(connection, path, adopt=adopt)
    log.info(LogMessage("upgraded", database=path, migrations=",".join(applied)))
    # After the commit, because a refusal must not change the journal mode.
    try:
        database_file.use_wal(path)
    except DatabaseError as error:
        # The migrations are committed, so the upgrade has succeeded. The server sets the mode as soon as it can.
        log.warning(LogMessage("journal mode is not WAL yet", database=path, reason=error))
    return applied


def _apply(connection: sqlite3.Connection, path: Path, *, adopt: bool) -> list[str]:
    connection.execute("BEGIN IMMEDIATE")
    # Again under the lock, because the file may have changed since the first check.
    adoption.check_content(connection, path, adopt=adopt)
    found = adoption.state_before(connection)
    names = _pending(connection, path)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS outfeed_migration (name TEXT PRIMARY KEY, applied_at TEXT)")
        for name in names:
            _run(connection, name)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise SchemaMismatch(f"{path} can't be upgraded: {error}. Nothing was changed") from error
    if found is not None:
        adoption.record(connection, found)
    connection.execute("COMMIT")
    return names


def _run(connection: sqlite3.Connection, name: str) -> None:
    if name == former_names.STEP:
        former_names.replace(connection)
        return
    for statement in schema.statements(name):
        connection.execute(statement)
    mark_applied(connection, name)


def mark_applied(connection: sqlite3.Connection, name: str) -> None:
    """Record in the caller's transaction that *name* was applied."""
    connection.execute("INSERT INTO outfeed_migration (name, applied_at) VALUES (?, ?)", (name, clock.timestamp()))
