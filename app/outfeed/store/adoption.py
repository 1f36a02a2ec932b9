"""Adoption: Outfeed in the database of another program.

Outfeed's tables stand beside the program's own tables. The checks run on a read-only connection before anything is
touched, and again inside the transaction that does the work. A refusal changes no page and no journal mode, and leaves
no file.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from outfeed.errors import AdoptionNeeded, SchemaMismatch
from outfeed.store import database, database_file, files, former_names, schema

PREFIX = "outfeed_"
EVENT_LOG_COLUMNS = ("id", "event_type", "source", "task_id", "agent_id", "data", "timestamp")
OPTIONAL_COLUMNS = ("task_id", "agent_id", "data")
# Indexes that a program may have made itself. Outfeed uses such an index as it is.
LOG_INDEXES = {f"event_log_{column}": column for column in ("task_id", "agent_id", "timestamp", "event_type", "source")}
TRIGGERS = ("event_log_guard_insert", "event_log_guard_update", "event_log_outbox", "event_log_stale")
# Litestream keeps its own state in the replicated database.
LITESTREAM_TABLES = ("_litestream_lock", "_litestream_seq")
KEY = "adoption"
_MAX_NAMED = 12


class PriorState(NamedTuple):
    """The state that a release restores.

    It is the journal mode, and the indexes of the program's own `event_log` (None: the program had no `event_log`).
    """

    journal_mode: str
    log_indexes: list[str] | None


class _Object(NamedTuple):
    """A row of sqlite_master, the name in lower case."""

    type: str
    name: str
    table: str
    sql: str


# --- ownership of tables ----------------------------------------------------------------------------------------------


def is_outfeed(connection: sqlite3.Connection) -> bool:
    """Return whether Outfeed made or adopted this database.

    A database with the former names gives False.
    """
    columns = connection.execute("SELECT lower(name) FROM pragma_table_info('outfeed_migration')").fetchall()
    return columns == [("name",), ("applied_at",)]


def is_foreign(connection: sqlite3.Connection) -> bool:
    """Return whether the database holds objects, but none of Outfeed's."""
    return not is_outfeed(connection) and not former_names.are_used(connection) and bool(_objects(connection))


def foreign_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the tables that Outfeed did not make, sorted.

    `event_log` is left out, and so are the tables of Litestream, which continues without them.
    """
    ours = {"event_log", "outbox", *LITESTREAM_TABLES}
    if former_names.are_used(connection):
        ours |= {*former_names.TABLES, "_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock"}
    return sorted(
        each.name
        for each in _objects(connection)
        if each.type == "table" and each.name not in ours and not each.name.startswith(PREFIX)
    )


def own_names(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the names of Outfeed's objects that exist.

    The keys are `table`, `trigger`, `index` and `view`; the names are sorted.
    """
    reserved = {"event_log", "outbox", "outbox_event_id", *TRIGGERS, *LOG_INDEXES}
    names: dict[str, list[str]] = {"table": [], "trigger": [], "index": [], "view": []}
    for each in _objects(connection):
        if each.name.startswith(PREFIX) or each.name in reserved:
            names[each.type].append(each.name)
    return names


def _objects(connection: sqlite3.Connection) -> list[_Object]:
    rows = connection.execute(
        "SELECT type, lower(name), lower(tbl_name), coalesce(sql, '') FROM sqlite_master"
        " WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [_Object(*row) for row in rows.fetchall()]


# --- checks -----------------------------------------------------------------------------------------------------------


@database_file.retry_if_changed
def check(path: Path, *, adopt: bool) -> None:
    """Refuse a file that cannot be upgraded or adopted.

    A file of another program is also refused without *adopt*. The check leaves no trace. Raises AdoptionNeeded,
    SchemaMismatch.
    """
    if database_file.is_new(path):
        return
    with database_file.open_read_only(path) as connection:
        if is_foreign(connection) and (problems := list(_file_problems(path))):
            raise _refusal(path, problems)
        check_content(connection, path, adopt=adopt)


def check_content(connection: sqlite3.Connection, path: Path, *, adopt: bool) -> None:
    """Check the content that *connection* shows, as `check` does.

    The file itself is not checked.
    """
    if not is_foreign(connection):
        if former_names.are_used(connection) and (taken := [name for name in _taken(connection) if _is_ours(name)]):
            raise SchemaMismatch(f"{path} can't be upgraded: {', '.join(taken)} already exist. Nothing was changed")
        return
    if problems := list(_content_problems(connection)):
        raise _refusal(path, problems)
    if not adopt:
        raise AdoptionNeeded(
            f"{path} holds {_named(foreign_tables(connection) or ['an event_log'])}, which Outfeed did not make. "
            "Nothing was changed. `outfeed upgrade` shows the plan, `outfeed upgrade --adopt` carries it out"
        )


def _refusal(path: Path, problems: list[str]) -> SchemaMismatch:
    return SchemaMismatch(f"{path} can't be adopted: {'; '.join(problems)}. Nothing was changed")


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX)


def _file_problems(path: Path) -> Iterator[str]:
    path = path.resolve()
    kind = files.filesystem_of(path)
    if kind and files.is_remote(kind):
        yield f"it is on {kind}, and SQLite's write-ahead log needs a local filesystem"
    is_read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    if is_read_only or not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield "the file or its folder is read-only"


def _content_problems(connection: sqlite3.Connection) -> Iterator[str]:
    (encoding,) = connection.execute("PRAGMA encoding").fetchone()
    if encoding != "UTF-8":
        yield (
            f"it stores text as {encoding}, and Outfeed needs UTF-8 "
            "(`sqlite3 FILE .dump | sqlite3 NEW` makes a copy that can be adopted)"
        )
    if taken := _taken(connection):
        yield f"{_named(taken)}: Outfeed needs {'this name' if len(taken) == 1 else 'these names'}"
    if problem := _incompatibility(connection):
        yield f"event_log: {problem}"
    yield from _broken_views(connection)


def _taken(connection: sqlite3.Connection) -> list[str]:
    """Return the names that Outfeed needs and that exist already."""
    reserved = {"outbox", "outbox_event_id", *TRIGGERS}
    taken = []
    for each in _objects(connection):
        is_index = each.name in LOG_INDEXES and not _is_log_index(connection, each)
        if each.name.startswith(PREFIX) or each.name in reserved or is_index:
            taken.append(each.name)
    return taken


def _is_log_index(connection: sqlite3.Connection, each: _Object) -> bool:
    columns = connection.execute("SELECT lower(name) FROM pragma_index_info(?)", (each.name,)).fetchall()
    query = "SELECT 1 FROM pragma_index_list('event_log') WHERE lower(name) = ? AND NOT \"unique\" AND NOT partial"
    return bool(connection.execute(query, (each.name,)).fetchone()) and columns == [(LOG_INDEXES[each.name],)]


def _incompatibility(connection: sqlite3.Connection) -> str | None:
    """Return why the existing `event_log` cannot carry the feed, or None."""
    found = next((each for each in _objects(connection) if each.name == "event_log"), None)
    if found is None:
        return None
    if found.type != "table" or found.sql.upper().startswith("CREATE VIRTUAL"):
        return f"it is a {'virtual table' if found.type == 'table' else found.type}, not a table"
    rows = connection.execute(
        'SELECT lower(name), lower(type), "notnull", dflt_value, pk FROM pragma_table_info(?)', ("event_log",)
    )
    columns = {name: (declared, not_null, default, key) for name, declared, not_null, default, key in rows}
    if missing := [name for name in EVENT_LOG_COLUMNS if name not in columns]:
        return f"it has no column {', '.join(missing)}"
    if not _has_rowid(connection):
        return "it is a WITHOUT ROWID table, and the log is ordered by rowid"
    keys = [name for name, column in columns.items() if column[3]]
    if keys != ["id"] or "int" in columns["id"][0]:
        return "id must be its primary key, as text"
    if "rowid" in columns:
        return "its column rowid hides the rowid, by which the log is ordered"
    for name, (_, not_null, default, _) in columns.items():
        if name in OPTIONAL_COLUMNS and not_null:
            return f"its column {name} is NOT NULL, and an event may have none"
        if name not in EVENT_LOG_COLUMNS and not_null and default is None:
            return f"its column {name} is NOT NULL without a default, so no event could be written"
    return None


def _has_rowid(connection: sqlite3.Connection) -> bool:
    # From SQLite 3.37 on `PRAGMA table_list` gives the same answer.
    try:
        connection.execute("SELECT rowid FROM event_log LIMIT 0")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return False
    return True


def _broken_views(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield a problem for each view over a missing table or column.

    Such a view makes later changes of the schema fail.
    """
    for each in _objects(connection):
        if each.type == "view":
            quoted = each.name.replace('"', '""')
            try:
                connection.execute(f'SELECT * FROM "{quoted}" LIMIT 0')  # noqa: S608 - quoted
            except sqlite3.OperationalError as error:
                # A view may use a function or module that only the program's own connections have. Such a view is not
                # broken.
                if "no such table" in str(error) or "no such column" in str(error):
                    yield f"view {each.name} is broken ({error}): correct or drop it"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


# --- plan and record --------------------------------------------------------------------------------------------------


@database_file.retry_if_changed
def plan(path: Path) -> list[str]:
    """Return what an adoption of the file at *path* would do, by lines.

    Nothing is changed.
    """
    with database_file.open_read_only(path) as connection, closing(schema.model(schema.migrations())) as model:
        has_log = any(each.name == "event_log" for each in _objects(connection))
        made = [each.name for each in _objects(model) if each.type == "table"]
        events = connection.execute("SELECT count(*) FROM event_log").fetchone()[0] if has_log else 0
        before = state_before(connection)
        tables = foreign_tables(connection)
    kept = [f"keep event_log with its {events:,} events, which are listed and not replayed"] if has_log else []
    return [
        f"{path} holds {_named(tables or ['an event_log'])}. An adoption would",
        *(f"  - {line}" for line in kept),
        f"  - make the tables {', '.join(name for name in made if name != 'event_log' or not has_log)}",
        f"  - make the triggers {', '.join(TRIGGERS)} on event_log",
        f"  - set the journal mode to WAL (now: {before.journal_mode if before else 'wal'})",
        "From then on SQLite refuses UPDATE of event_log, and INSERT or REPLACE of a known id with other content.",
        "`outfeed release` removes everything again.",
    ]


def state_before(connection: sqlite3.Connection) -> PriorState | None:
    """Return the state that a release would restore.

    Returns None unless the database is another program's.
    """
    if not is_foreign(connection):
        return None
    objects = _objects(connection)
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if not any(each.name == "event_log" for each in objects):
        return PriorState(mode, None)
    return PriorState(mode, [each.name for each in objects if each.name in LOG_INDEXES])


def record(connection: sqlite3.Connection, before: PriorState) -> None:
    """Record *before* for a release, in the caller's transaction."""
    connection.execute("INSERT INTO outfeed_meta (key, value) VALUES (?, ?)", (KEY, json.dumps(before)))


def recorded(connection: sqlite3.Connection) -> PriorState | None:
    """Return the state that the adoption recorded.

    Returns None if the database was not adopted, or by a version that did not record the state.
    """
    text = database.meta(connection, KEY)
    return PriorState(*json.loads(text)) if text else None
