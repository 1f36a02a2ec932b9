"""Databases with the former names of Outfeed's tables.

Their tables lack the prefix `outfeed_`, and yoyo recorded their migrations.

`replace` moves such a database to the present names within the caller's transaction. The rows are copied into tables
made by the present SQL, rather than renamed: `ALTER TABLE … RENAME` fails if the schema has a broken view, and with
`legacy_alter_table` it leaves the triggers with the former names.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from outfeed import clock
from outfeed.store import schema

STEP = "0000.former-names"
# Parents before children, so that the copies and the drops keep the foreign keys.
TABLES = (
    "meta", "user", "token", "sign_in_code", "session", "ticket", "checkpoint", "webhook", "agent", "task", "bid",
    "arrival", "search_stale",
)  # fmt: skip
TRIGGERS = (
    "event_log_guard_insert", "event_log_guard_update", "event_log_outbox", "event_log_stale", "token_removed",
    "token_changed", "session_removed", "session_changed", "user_removed", "user_changed",
)  # fmt: skip
_YOYO_TABLES = ("_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock")


def are_used(connection: sqlite3.Connection) -> bool:
    """Return whether Outfeed made this database under the former names."""
    return (
        {"_yoyo_migration", "meta", "outbox"} <= _tables(connection)
        and _columns(connection, "meta") == ["key", "value"]
        and bool(connection.execute("SELECT 1 FROM meta WHERE key = 'epoch'").fetchone())
    )


def applied(connection: sqlite3.Connection) -> set[str]:
    """Return the names of Outfeed's migrations that yoyo recorded.

    The same table may also have migrations of another program.
    """
    known = set(schema.migrations())
    return {name for (name,) in connection.execute("SELECT migration_id FROM _yoyo_migration")} & known


def replace(connection: sqlite3.Connection) -> None:
    """Give Outfeed's tables, indexes and triggers their present names.

    The caller's transaction does all of it.
    """
    names = applied(connection)
    for trigger in TRIGGERS:
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    with closing(schema.model(sorted(names))) as model:
        _make(connection, model, "table")
        tables = [table for table in TABLES if table in _tables(connection)]
        for table in tables:
            _copy(connection, table)
        for table in reversed(tables):
            connection.execute(f"DROP TABLE {table}")
        _make(connection, model, "index")
        _make(connection, model, "trigger")
        connection.execute("DELETE FROM outfeed_meta WHERE key LIKE 'trigger:%'")
        texts = model.execute("SELECT key, value FROM outfeed_meta WHERE key LIKE 'trigger:%'").fetchall()
        connection.executemany("INSERT INTO outfeed_meta (key, value) VALUES (?, ?)", texts)
    connection.executemany(
        "INSERT INTO outfeed_migration (name, applied_at) VALUES (?, ?)",
        [(name, clock.timestamp()) for name in sorted(names)],
    )
    _forget_yoyo(connection, names)


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _make(connection: sqlite3.Connection, model: sqlite3.Connection, kind: str) -> None:
    query = "SELECT name, sql FROM sqlite_master WHERE type = ? AND sql IS NOT NULL ORDER BY rowid"
    for name, sql in model.execute(query, (kind,)).fetchall():
        if name.startswith("outfeed_") or kind == "trigger":
            connection.execute(sql)


def _copy(connection: sqlite3.Connection, table: str) -> None:
    names = ", ".join(f'"{name}"' for name in _columns(connection, table))
    connection.execute(f"INSERT INTO outfeed_{table} ({names}) SELECT {names} FROM {table}")  # noqa: S608


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def _forget_yoyo(connection: sqlite3.Connection, names: set[str]) -> None:
    """Remove Outfeed's rows from yoyo's tables.

    The tables are dropped unless another program's yoyo uses them.
    """
    for table in _YOYO_TABLES[:2]:
        if table in _tables(connection):
            connection.executemany(f"DELETE FROM {table} WHERE migration_id = ?", [(name,) for name in names])  # noqa: S608
    if not connection.execute("SELECT 1 FROM _yoyo_migration").fetchone():
        for table in _YOYO_TABLES:
            connection.execute(f"DROP TABLE IF EXISTS {table}")
