"""Foreign SQL in a database file, which SQLite runs for every writer.

Triggers and views; in a backup also altered tables of Outfeed's, foreign indexes on them, and foreign keys to them.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from outfeed.errors import BadBackup
from outfeed.store import adoption, database_file, former_names, schema

_INDEX = re.compile(r"CREATE\s+(UNIQUE\s+)?INDEX\s", re.IGNORECASE)
# The text decides on what SQLite makes of an entry. In the column `type` a forged file may say Trigger.
_KIND = re.compile(r"CREATE (?:UNIQUE |VIRTUAL )?(TABLE|INDEX|TRIGGER|VIEW) ", re.IGNORECASE)
_QUOTED_OR_COMMENT = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL
)
_LOG = "event_log"  # a program may have made it, with columns and indexes of its own


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
    return [
        ForeignObject(kind, name, table, sql, table.lower() in tables or table.lower().startswith(adoption.PREFIX))
        for kind, name, table, sql in _entries(connection)
        if kind in ("trigger", "view")
        and not (kind == "trigger" and name in expected and expected[name] in (None, sql))
    ]


def _entries(connection: sqlite3.Connection) -> list[tuple[str, str, str, str]]:
    """Return kind, name, table and SQL of each entry of the schema."""
    rows = connection.execute("SELECT name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    kinds = ((match[1].lower() if (match := _KIND.match(row[2])) else "entry", *row) for row in rows.fetchall())
    return list(kinds)


def is_known(name: str) -> bool:
    """Return whether Outfeed has a trigger of that name.

    Its text does not matter.
    """
    with closing(schema.model(schema.migrations())) as model:
        return name in _triggers(model)


def check(connection: sqlite3.Connection, source: Path, live: Path) -> None:
    """Raise BadBackup if the file holds SQL of another program.

    A restore, or the server after it, would run that SQL. SQL that the live database has with the same text is allowed.
    """
    problems = _problems(connection)
    if problems:
        known = _problems_in(live) if live.exists() else {}
        problems = {what: sql for what, sql in problems.items() if known.get(what) != sql}
    unexpected = _unexpected_texts(connection)
    if problems or unexpected:
        raise BadBackup(
            f"{source} holds SQL that Outfeed did not make: {', '.join([*problems, *unexpected])}. It would run in the "
            "live database; nothing was restored. If you trust it, drop it in a copy of the file and restore the copy"
        )


def in_file(path: Path) -> list[str]:
    """Return the foreign objects of the file, one phrase each."""
    return [str(each) for each in _found_in(path)]


def _problems(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the foreign SQL that a write of Outfeed runs, by phrases."""
    found = {str(each): each.sql for each in find(connection) if each.is_on_own_table}
    if not adoption.is_outfeed(connection) or former_names.are_used(connection):
        return found
    expected = _model_entries(connection)
    for kind, name, table, sql in _entries(connection):
        is_ours = _is_ours(table) and table.lower() != _LOG
        if kind == "index" and is_ours and (kind, name) not in expected:
            found[f"the index {name} on {table}"] = sql
        if kind == "table" and is_ours and _bare(expected.get((kind, name), sql)) != _bare(sql):
            found[f"another definition of the table {name}"] = sql
    return found | {f"{each}, which a foreign key to Outfeed's tables runs": each.sql for each in _cascades(connection)}


@database_file.retry_if_changed
def _problems_in(path: Path) -> dict[str, str]:
    with database_file.open_read_only(path) as connection:
        return _problems(connection)


def _model_entries(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the SQL of the applied migrations, by kind and name."""
    with closing(schema.model(_applied(connection))) as model:
        return {(kind, name): sql for kind, name, _, sql in _entries(model)}


def _bare(sql: str) -> str:
    """Return *sql* without comments, quotes and spaces.

    These differ between versions of SQLite and of Outfeed, and have no effect.
    """
    plain = _QUOTED_OR_COMMENT.sub(lambda found: " " if found[0].startswith(("--", "/*")) else found[0], sql)
    return re.sub(r'["\s]', "", plain)


def _cascades(connection: sqlite3.Connection) -> list[ForeignObject]:
    """Return the foreign triggers that foreign keys run.

    They are on tables whose rows change with rows of Outfeed's.
    """
    tables = [name for kind, name, _, _ in _entries(connection) if kind == "table" and not _is_ours(name)]
    reached: set[str] = set()
    while more := {each for each in tables if each not in reached and _is_reached(connection, each, reached)}:
        reached |= more
    return [each for each in find(connection) if each.kind == "trigger" and each.table in reached]


def _is_reached(connection: sqlite3.Connection, table: str, reached: set[str]) -> bool:
    """Return whether a foreign key of *table* leads to Outfeed's.

    It leads to a table of Outfeed's, or to one of *reached*.
    """
    names = connection.execute('SELECT DISTINCT "table" FROM pragma_foreign_key_list(?)', (table,)).fetchall()
    return any(_is_ours(name) or name in reached for (name,) in names)


def _is_ours(table: str) -> bool:
    return table.lower() in (_LOG, "outbox") or table.lower().startswith(adoption.PREFIX)


@database_file.retry_if_changed
def _found_in(path: Path) -> list[ForeignObject]:
    with database_file.open_read_only(path) as connection:
        return find(connection)


def _expected(connection: sqlite3.Connection) -> dict[str, str]:
    if not adoption.is_outfeed(connection):
        return {}
    with closing(schema.model(_applied(connection))) as model:
        return _triggers(model)


def _applied(connection: sqlite3.Connection) -> list[str]:
    applied = {name for (name,) in connection.execute("SELECT name FROM outfeed_migration").fetchall()}
    return [name for name in schema.migrations() if name in applied]


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
