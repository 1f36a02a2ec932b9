"""A database with watched tables, as the program that owns them sees it."""

from __future__ import annotations

import functools
import json
import sqlite3
from contextlib import closing
from typing import Any, NamedTuple

from outfeed.config import settings
from outfeed.store import schema
from outfeed.watch import definition
from outfeed.watch.store import watches

Key = tuple[tuple[str, Any], ...]


class Logged(NamedTuple):
    """A row of `event_log`, its data parsed."""

    id: str
    type: str
    source: str
    task_id: str | None
    agent_id: str | None
    data: Any


@functools.cache
def _upgraded() -> bytes:
    with closing(schema.model(schema.migrations())) as model:
        model.execute("CREATE TABLE outfeed_migration (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL)")
        return model.serialize()


def new_database(*statements: str) -> sqlite3.Connection:
    """Return an upgraded database in memory, on which *statements* were run.

    The caller closes it.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(_upgraded())
    for statement in statements:
        connection.execute(statement)
    return connection


def watch(connection: sqlite3.Connection, table: str, **options: Any) -> watches.Watch:
    """Watch *table* as `outfeed watch add` does.

    *options* are the keys of `[[watch]]`, with a `_` after a keyword.
    """
    values = {"table": table} | {name.rstrip("_"): value for name, value in options.items()}
    return watches.put(connection, definition.from_values(values), made_by=watches.COMMAND, settings=settings())


def events(connection: sqlite3.Connection) -> list[Logged]:
    """Return the events of the log in their order."""
    rows = connection.execute(
        "SELECT id, event_type, source, task_id, agent_id, data FROM event_log ORDER BY rowid"
    ).fetchall()
    return [Logged(*row[:5], json.loads(row[5])) for row in rows]


def take_events(connection: sqlite3.Connection) -> list[Logged]:
    """Return the events of the log in their order, and empty it."""
    found = events(connection)
    connection.execute("DELETE FROM event_log")
    return found


def types(events: list[Logged]) -> list[str]:
    return [event.type for event in events]


def run(connection: sqlite3.Connection, statement: str, *values: Any) -> list[Logged]:
    """Run one statement of the program and return its events."""
    connection.execute(statement, values)
    return take_events(connection)
