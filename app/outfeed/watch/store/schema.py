"""The schema of a program's table, read from the file.

A table that can't be watched is refused with the reason.
"""

from __future__ import annotations

import re

from outfeed.errors import InvalidWatch
from outfeed.store.database import Connection
from outfeed.watch.table import ROWID_NAMES, UniqueIndex, WatchedColumn, WatchedTable, folded

_OWN = ("outfeed_", "sqlite_")
_OWN_TABLES = ("event_log", "outbox")
_SHADOWS = re.compile(r"(.+)_[a-z0-9]+")
_WHERE = re.compile(r"\bWHERE\b", re.IGNORECASE)
# Comments, texts and quoted names: a WHERE in them has no meaning.
_SKIPPED = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]", re.DOTALL)
_GENERATED = {2: "virtual", 3: "stored"}


def read(connection: Connection, name: str) -> WatchedTable | None:
    """Return the table of that name, without case, or None if there is none.

    Raises InvalidWatch for what can't be watched: a view, a virtual table, a table of SQLite's or Outfeed's own.
    """
    if (refusal := _refused_name(name)) is not None:
        raise InvalidWatch(f"{name}: {refusal}")
    row = connection.execute(
        "SELECT type, name, sql FROM main.sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE",
        (name,),
    ).fetchone()
    if row is None:
        _refuse_elsewhere(connection, name)
        return None
    kind, name, sql = row
    if kind == "view":
        raise InvalidWatch(f"{name}: is a view, and SQLite has no AFTER trigger on views; watch its tables")
    if _is_virtual(sql):
        raise InvalidWatch(f"{name}: is a virtual table, and SQLite has no triggers on those")
    if (owner := _owner_of_shadow(connection, name)) is not None:
        raise InvalidWatch(f"{name}: belongs to the virtual table {owner}; its rows mean nothing by themselves")
    return _table(connection, name)


def required(connection: Connection, name: str) -> WatchedTable:
    """Return the table of that name.

    Raises InvalidWatch if there is none or it can't be watched.
    """
    table = read(connection, name)
    if table is None:
        raise InvalidWatch(f"{name}: there is no such table in the database")
    return table


def _refused_name(name: str) -> str | None:
    lower = folded(name)
    if lower.startswith(_OWN[1]):
        return "is a table of SQLite's own"
    if lower.startswith(_OWN[0]) or lower in _OWN_TABLES:
        return "is a table of Outfeed's own"
    return None


def _refuse_elsewhere(connection: Connection, name: str) -> None:
    """Refuse a table of another schema of this connection.

    Its triggers could not write into this file.
    """
    for (schema,) in connection.execute("SELECT name FROM pragma_database_list").fetchall():
        if schema == "main":
            continue
        master = "sqlite_temp_master" if schema == "temp" else f'"{schema.replace(chr(34), chr(34) * 2)}".sqlite_master'
        query = f"SELECT 1 FROM {master} WHERE type = 'table' AND name = ? COLLATE NOCASE"
        if connection.execute(query, (name,)).fetchone():
            what = "is a TEMP table" if schema == "temp" else f"is in the attached database {schema}"
            raise InvalidWatch(f"{name}: {what}; only tables of the database itself can be watched")


def _is_virtual(sql: str | None) -> bool:
    return re.match(r"\s*CREATE\s+VIRTUAL\b", sql or "", re.IGNORECASE) is not None


def _owner_of_shadow(connection: Connection, name: str) -> str | None:
    match = _SHADOWS.fullmatch(folded(name))
    if match is None:
        return None
    rows = connection.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'table'").fetchall()
    return next((str(each) for each, sql in rows if folded(str(each)) == match[1] and _is_virtual(sql)), None)


def _table(connection: Connection, name: str) -> WatchedTable:
    rows = connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)', (name,)
    ).fetchall()
    columns = tuple(
        WatchedColumn(column, declared or "", bool(not_null), default, _GENERATED.get(hidden))
        for column, declared, not_null, default, _, hidden in rows
    )
    key = tuple(column for _, column in sorted((place, column) for column, _, _, _, place, _ in rows if place))
    indexes = _indexes(connection, name, columns)
    has_rowid = _has_rowid(connection, name)
    rowid = _rowid_name(connection, name, columns, key) if has_rowid else None
    return WatchedTable(
        name=name,
        columns=columns,
        primary_key=key,
        rowid=rowid,
        has_rowid=has_rowid,
        uniques=tuple(each for each in indexes.values() if each is not None),
        uncovered=tuple(index for index, each in indexes.items() if each is None),
    )


def _indexes(connection: Connection, table: str, columns: tuple[WatchedColumn, ...]) -> dict[str, UniqueIndex | None]:
    """Return the UNIQUE indexes by name.

    None is one on an expression or a generated column.
    """
    generated = {column.name for column in columns if column.generated}
    rows = connection.execute(
        'SELECT name, partial FROM pragma_index_list(?) WHERE "unique" ORDER BY seq DESC', (table,)
    ).fetchall()
    found: dict[str, UniqueIndex | None] = {}
    for index, is_partial in rows:
        parts = connection.execute(
            "SELECT name, coll FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno", (index,)
        ).fetchall()
        is_plain = all(name is not None and name not in generated for name, _ in parts)
        where = _condition_of(connection, index) if is_partial else None
        found[index] = UniqueIndex(tuple((str(name), str(coll)) for name, coll in parts), where) if is_plain else None
    return found


def _condition_of(connection: Connection, index: str) -> str:
    (sql,) = connection.execute(
        "SELECT sql FROM main.sqlite_master WHERE type = 'index' AND name = ?", (index,)
    ).fetchone()
    # Comments go: one to the end of the line would swallow what follows it in a trigger.
    sql = _SKIPPED.sub(lambda match: " " if match[0].startswith(("--", "/*")) else match[0], sql)
    match = _WHERE.search(_SKIPPED.sub(lambda match: " " * len(match[0]), sql))
    return sql[match.end() :].strip().rstrip(";") if match else "1"


def _has_rowid(connection: Connection, table: str) -> bool:
    """Return whether the table has a rowid.

    If not, its PRIMARY KEY index holds the rows, and refers to no rowid.
    """
    rows = connection.execute("SELECT name FROM pragma_index_list(?) WHERE origin = 'pk'", (table,)).fetchall()
    if not rows:
        return True
    query = "SELECT 1 FROM pragma_index_xinfo(?) WHERE cid = -1"
    return connection.execute(query, rows[0]).fetchone() is not None


def _rowid_name(
    connection: Connection, table: str, columns: tuple[WatchedColumn, ...], key: tuple[str, ...]
) -> str | None:
    has_key_index = connection.execute("SELECT 1 FROM pragma_index_list(?) WHERE origin = 'pk'", (table,)).fetchone()
    if len(key) == 1 and not has_key_index:
        return key[0]
    taken = {folded(column.name) for column in columns}
    return next((name for name in ROWID_NAMES if name not in taken), None)
