"""Triggers and views that Outfeed did not make.

They are SQL in a database file, which SQLite runs for every writer.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from outfeed.errors import BadBackup
from outfeed.store import adoption, former_names, schema
from outfeed.store import database as db

_INDEX = re.compile(r"CREATE\s+(UNIQUE\s+)?INDEX\s", re.IGNORECASE)


class ForeignObject(NamedTuple):
    """A trigger or a view.

    *is_on_own_table*: it is on a table of Outfeed's, or replaces one.
    """

    kind: str
    name: str
    table: str
    sql: str
    is_on_own_table: bool

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}" + (f" on {self.table}" if self.kind == "trigger" else "")


def find(connection: sqlite3.Connection) -> list[ForeignObject]:
    """Return the foreign triggers and views, sorted by name.

    An own trigger with another text is also foreign. The schema is read and none of its SQL runs.
    """
    is_former = former_names.are_used(connection)
    tables = {*former_names.TABLES, "event_log", "outbox"} if is_former else {"event_log", "outbox"}
    expected = dict.fromkeys(former_names.TRIGGERS) if is_former else _expected(connection)
    rows = connection.execute(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master WHERE type IN ('trigger', 'view')"
        " ORDER BY name"
    ).fetchall()
    return [
        ForeignObject(kind, name, table, sql, table.lower() in tables or table.lower().startswith(adoption.PREFIX))
        for kind, name, table, sql in rows
        if not (kind == "trigger" and name in expected and expected[name] in (None, sql))
    ]


def is_known(name: str) -> bool:
    """Return whether Outfeed has a trigger of that name.

    Its text does not matter.
    """
    with closing(schema.model(schema.migrations())) as model:
        return name in _triggers(model)


def check(connection: sqlite3.Connection, source: Path, live: Path) -> None:
    """Raise BadBackup if the file holds SQL of another program.

    A restore, or the server after it, would run that SQL. A trigger that the live database has with the same text is
    allowed.
    """
    found = [each for each in find(connection) if each.is_on_own_table]
    if found:
        known = set(_found_in(live)) if live.exists() else set()
        found = [each for each in found if each not in known]
    problems = [str(each) for each in found] + _unexpected_texts(connection)
    if problems:
        raise BadBackup(
            f"{source} holds SQL that Outfeed did not make: {', '.join(problems)}. It would run in the live database; "
            "nothing was restored. If you trust it, drop it in a copy of the file and restore the copy"
        )


def in_file(path: Path) -> list[str]:
    """Return the foreign objects of the file, one phrase each."""
    return [str(each) for each in _found_in(path)]


@db.retry_if_changed
def _found_in(path: Path) -> list[ForeignObject]:
    with db.open_read_only(path) as connection:
        return find(connection)


def _expected(connection: sqlite3.Connection) -> dict[str, str]:
    if not adoption.is_outfeed(connection):
        return {}
    applied = {name for (name,) in connection.execute("SELECT name FROM outfeed_migration").fetchall()}
    with closing(schema.model([name for name in schema.migrations() if name in applied])) as model:
        return _triggers(model)


def _triggers(model: sqlite3.Connection) -> dict[str, str]:
    return dict(model.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall())


def _unexpected_texts(connection: sqlite3.Connection) -> list[str]:
    """Return the keys of stored texts that Outfeed did not write.

    A repair would run these texts.
    """
    if not adoption.is_outfeed(connection):
        return []
    expected = _expected(connection)
    rows = connection.execute(
        "SELECT key, value FROM outfeed_meta WHERE key LIKE 'trigger:%' OR key LIKE 'index:%'"
    ).fetchall()
    return [
        f"{key} in outfeed_meta"
        for key, text in rows
        if not (_INDEX.match(str(text)) if key.startswith("index:") else expected.get(key[8:]) == text)
    ]
