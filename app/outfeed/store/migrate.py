"""Migrations: bring a database to the schema of this code, completely or not at all.

The SQL in migrations/ is the truth, yoyo applies it. One transaction holds all that is pending and yoyo's own books,
and `<database>.lock` keeps other upgrades out, so a process killed in the middle leaves the database as it was.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from outfeed.errors import DatabaseError, DatabaseUnreadable, OutfeedError, SchemaMismatch
from outfeed.log_message import LogMessage
from outfeed.store import database, lease

DISTRIBUTION = "outfeed"
EVENT_LOG_COLUMNS = ("id", "event_type", "source", "task_id", "agent_id", "data", "timestamp")
log = logging.getLogger(__name__)


def upgrade(path: Path) -> list[str]:
    """Make or upgrade the database at *path* and return the names of the migrations that were applied, in order.

    May be called by many processes at once; one does the work and the others wait for it. Raises SchemaMismatch,
    with nothing changed, when newer code made the database or it holds a table that doesn't fit; DatabaseBusy when a
    writer keeps the lock; DatabaseError when the folder can't be written.
    """
    _make_folder(path.parent)
    lock_file = lease.lock_file(path)
    with lease.hold(lock_file, wait=False) as is_held:
        if is_held:
            return _upgrade_alone(path)
    log.info(LogMessage("waiting for another upgrade", database=path))
    with lease.hold(lock_file, wait=True):
        return _upgrade_alone(path)


def pending(path: Path) -> list[str]:
    """Return the names of the migrations that the database at *path* lacks, in order: all of them when it is missing.

    Cheap: yoyo is not loaded. Raises SchemaMismatch when the database has migrations that this code doesn't know.
    """
    known = [file.stem for file in sorted(migrations_dir().glob("*.sql"))]
    applied = _applied(path)
    if unknown := sorted(applied.difference(known)):
        raise SchemaMismatch(
            f"{path} was upgraded by newer code; this one doesn't know {', '.join(unknown)}. "
            "Run the newer code, or restore a backup made before the upgrade"
        )
    return [name for name in known if name not in applied]


def migrations_dir() -> Path:
    """Return the folder with the numbered SQL files, which the package holds."""
    folder = Path(__file__).parents[1] / "migrations"
    if not folder.is_dir():
        raise OutfeedError(f"{folder} is missing; install {DISTRIBUTION} again")
    return folder


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseError(f"can't make the folder {folder}: {error.strerror}") from error


def _upgrade_alone(path: Path) -> list[str]:
    names = pending(path)
    if names and path.exists():
        _check_fit(path)
    if names or not _is_wal(path):
        # Before yoyo makes its tables, since `auto_vacuum` counts only in an empty file. A copy put back may lack WAL.
        database.create(path)
    if not names:
        return []
    applied = _apply(path)
    log.info(LogMessage("upgraded", database=path, migrations=",".join(applied)))
    return applied


def _applied(path: Path) -> set[str]:
    if not path.exists():
        return set()
    with database.explained(path), closing(database.connect(path)) as connection:
        if not _type_of(connection, "_yoyo_migration"):
            return set()
        return {row[0] for row in connection.execute("SELECT migration_id FROM _yoyo_migration")}


def _is_wal(path: Path) -> bool:
    with database.explained(path), closing(database.connect(path)) as connection:
        return bool(connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def _check_fit(path: Path) -> None:
    with database.explained(path), closing(database.connect(path)) as connection:
        (encoding,) = connection.execute("PRAGMA encoding").fetchone()
        if encoding != "UTF-8":
            raise SchemaMismatch(
                f"{path} keeps its texts in {encoding}, and the feed reads UTF-8. Nothing was changed; "
                f"`sqlite3 {path} .dump | sqlite3 NEW` makes a copy that can be used"
            )
        if problem := _misfit(connection):
            raise SchemaMismatch(f"{path}: event_log can't be adopted: {problem}. Nothing was changed")


def _misfit(connection: sqlite3.Connection) -> str | None:
    """Return why an `event_log` that is there already can't carry the feed, or None."""
    kind = _type_of(connection, "event_log")
    if kind is None:
        return None
    if kind != "table":
        return f"it is a {kind}, not a table"
    rows = connection.execute(
        'SELECT lower(name), lower(type), "notnull", dflt_value, pk FROM pragma_table_info(?)', ("event_log",)
    )
    columns = {name: (declared, not_null, default, key) for name, declared, not_null, default, key in rows}
    if missing := [name for name in EVENT_LOG_COLUMNS if name not in columns]:
        return f"it has no column {', '.join(missing)}"
    if not _has_rowid(connection):
        return "it is a WITHOUT ROWID table, and the log is ordered by rowid"
    keys = [name for name, column in columns.items() if column[3]]
    if keys != ["id"] or columns["id"][0] == "integer":
        return "id must be its primary key, as text"
    for name, (_, not_null, default, _) in columns.items():
        if name not in EVENT_LOG_COLUMNS and not_null and default is None:
            return f"its column {name} is NOT NULL without a default, so no event could be written"
    return None


def _type_of(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute(
        "SELECT type FROM sqlite_master WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')", (name,)
    ).fetchone()
    return row[0] if row else None


def _has_rowid(connection: sqlite3.Connection) -> bool:
    # `PRAGMA table_list` would say, from SQLite 3.37 on.
    try:
        connection.execute("SELECT rowid FROM event_log LIMIT 0")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return False
    return True


def _apply(path: Path) -> list[str]:
    # yoyo takes a tenth of a second to load, and is needed once a release.
    from outfeed.store.yoyo_backend import apply_all

    try:
        with database.explained(path):
            return apply_all(path, migrations_dir())
    except DatabaseUnreadable as error:
        # What SQLite itself refuses is the statement: a table or trigger of that name is there already.
        if getattr(error.__cause__, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
            raise
        raise SchemaMismatch(
            f"{path} holds something that is in the way: {error.__cause__}. Nothing was changed"
        ) from error
