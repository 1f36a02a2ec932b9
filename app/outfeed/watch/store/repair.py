"""Repairs: correct triggers after a program has changed its schema.

`problems` compares the file with the watches and changes nothing. `repair` does what each problem needs, in the
caller's write transaction. A migration that rebuilds a table drops its triggers without a word, so changes can have no
event until the next check: `T.gap` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import InvalidWatch
from outfeed.events import EventType
from outfeed.store import audit
from outfeed.store import database as db
from outfeed.store.database import Connection
from outfeed.store.event_log import log_event
from outfeed.watch import definition as definitions
from outfeed.watch.definition import INSERT
from outfeed.watch.store import generate, schema, snapshot, watches
from outfeed.watch.store.sql import json_name, quoted
from outfeed.watch.store.watches import ACTIVE, WAITING, Watch
from outfeed.watch.table import WatchedTable

# Without one of these, each write to a watched table fails.
NEEDED = ("event_log", "outbox", "outfeed_replaced")
# Rows of a table that appears: as many are reported one by one.
MAX_FIRST_ROWS = 1000
NOTED = "watch_noted"  # the key in outfeed_meta


class Fault(Enum):
    """The kinds of problem, each with the words for operators."""

    NEEDED_TABLE_GONE = "has triggers, but a table that they write to is missing"
    WITHOUT_WATCH = "has triggers without a watch"
    RENAMED = "has another name"
    GONE = "no longer exists"
    APPEARED = "has appeared"
    MISSING = "has lost triggers"
    ALTERED = "has triggers that do not fit its columns"
    NOT_NEWEST = "has a newer trigger of the program, so the last event may not show the final row"


class WatchProblem(NamedTuple):
    """A watch whose triggers are not as they must be.

    *name* is the table, or the table's new name, or a trigger's name if there is no watch.
    """

    fault: Fault
    name: str
    watch: Watch | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.fault.value}"


# --- finding ----------------------------------------------------------------------------------------------------------


def lost_tables(connection: Connection) -> list[str]:
    """Return the tables that the triggers write to and that are missing."""
    found = {name.lower() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [name for name in NEEDED if name not in found]


def problems(connection: Connection, settings: Settings) -> list[WatchProblem]:
    """Return each watch whose triggers are not as they must be."""
    present = watches.present_triggers(connection)
    if lost_tables(connection):
        return [WatchProblem(Fault.NEEDED_TABLE_GONE, name) for name in present]
    known = {each.number: each for each in watches.list_watches(connection)}
    found = [
        WatchProblem(Fault.WITHOUT_WATCH, name) for name in present if not _has_triggers(known.get(_number_of(name)))
    ]
    for watch in known.values():
        fault = _fault_of(connection, watch, settings)
        if fault is not None:
            found.append(fault)
    return found


def _number_of(trigger: str) -> int:
    number = generate.watch_of(trigger)
    assert number is not None
    return number


def _has_triggers(watch: Watch | None) -> bool:
    return watch is not None and watch.state == ACTIVE


def _fault_of(connection: Connection, watch: Watch, settings: Settings) -> WatchProblem | None:
    if watch.state == WAITING:
        return WatchProblem(Fault.APPEARED, watch.table, watch) if _table(connection, watch.table) else None
    if watch.state != ACTIVE:
        return None
    table = _table(connection, watch.table)
    if table is None:
        new_name = _new_name(connection, watch)
        return (
            WatchProblem(Fault.RENAMED, new_name, watch) if new_name else WatchProblem(Fault.GONE, watch.table, watch)
        )
    if watch.generator > generate.GENERATOR:  # a newer version of Outfeed takes care of it
        return None
    expected = with_secrets(watch, settings).triggers(table)
    present = watches.present_triggers(connection, watch.number)
    if any(name not in present for name in expected) or _tables_of(connection, watch) - {watch.table}:
        return WatchProblem(Fault.MISSING, watch.table, watch)
    if list(present.items()) != list(expected.items()):
        return WatchProblem(Fault.ALTERED, watch.table, watch)
    return WatchProblem(Fault.NOT_NEWEST, watch.table, watch) if _has_newer(connection, watch) else None


def _table(connection: Connection, name: str) -> WatchedTable | None:
    try:
        return schema.read(connection, name)
    except InvalidWatch:  # the name has become that of a view or a virtual table
        return None


def _tables_of(connection: Connection, watch: Watch) -> set[str]:
    """Return the tables that have triggers of the watch."""
    rows = connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    return {table for name, table in rows if generate.watch_of(name) == watch.number}


def _new_name(connection: Connection, watch: Watch) -> str | None:
    """Return the table that has the triggers of a watch since a rename."""
    found = [name for name in _tables_of(connection, watch) if _table(connection, name) is not None]
    taken = {each.table for each in watches.list_watches(connection)}
    return next((name for name in found if name not in taken), None)


def _has_newer(connection: Connection, watch: Watch) -> bool:
    """Return whether the table has a trigger newer than those of the watch.

    SQLite would run it first.
    """
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY rowid DESC",
        (watch.table,),
    ).fetchall()
    owners = [generate.watch_of(name) == watch.number for (name,) in rows]
    return owners != sorted(owners, reverse=True)


def with_secrets(watch: Watch, settings: Settings) -> Watch:
    """Return the watch with the hiding words of *settings* added."""
    return replace(watch, secrets=tuple(sorted({*watch.secrets, *settings.redact_keys})))


def differences(watch: Watch, settings: Settings) -> Iterator[str]:
    """Yield in words how a watch differs from this process's settings.

    Repairs leave these differences: two processes with different settings would rewrite the triggers in turns.
    """
    if more := sorted({*watch.secrets} - {*settings.redact_keys}):
        yield f"hides columns by {', '.join(more)}, which OUTFEED_REDACT_KEYS does not name"
    if watch.max_event_bytes != settings.max_event_bytes:
        yield f"limits events to {watch.max_event_bytes} bytes, and OUTFEED_MAX_EVENT_BYTES is another number"
    if watch.generator > generate.GENERATOR:
        yield "has triggers of a newer version of Outfeed"


# --- repairing --------------------------------------------------------------------------------------------------------


def repair(connection: Connection, settings: Settings, *, is_start: bool) -> list[str]:
    """Repair every problem; return a phrase for each.

    *is_start*: this process begins to look after the file, so it does not know what happened before.
    """
    found = problems(connection, settings)
    if not found:
        return []
    may_catch_up = _Noted.read(connection).is_certain(is_start=is_start)
    for problem in found:
        _repair(connection, problem, settings, may_catch_up=may_catch_up)
    if not lost_tables(connection):
        note(connection)
    return [str(each) for each in found]


def _repair(connection: Connection, problem: WatchProblem, settings: Settings, *, may_catch_up: bool) -> None:
    fault, name, watch = problem
    if watch is None:
        connection.execute(f"DROP TRIGGER {quoted(name)}")
    elif fault is Fault.GONE:
        watches.set_state(connection, watch, WAITING)
        _warn(connection, f"The watched table {name} no longer exists. Its watch waits for it")
    elif fault is Fault.APPEARED:
        _begin(connection, with_secrets(watch, settings))
    elif fault is Fault.MISSING:
        _replace(connection, with_secrets(watch, settings), may_catch_up=may_catch_up)
    else:
        if fault is Fault.RENAMED:
            watch = watches.rename(connection, watch, name)
        _adapt(connection, with_secrets(watch, settings))


def _adapt(connection: Connection, watch: Watch) -> None:
    """Create triggers that fit the table, and report columns without one."""
    table = schema.required(connection, watch.table)
    present = "\n".join(watches.present_triggers(connection, watch.number).values())
    unwatched = [name for name in generate.reported_columns(watch.definition, table) if json_name(name) not in present]
    watches.store_secrets(connection, watch)
    watches.create_triggers(connection, watch, table)
    if unwatched:
        _warn(connection, f"Changes of {watch.table}.{', '.join(unwatched)} had no event until now")
    _warn_of_missing(connection, watch, table)


def _warn_of_missing(connection: Connection, watch: Watch, table: WatchedTable) -> None:
    if lacking := definitions.missing(watch.definition, table):
        _warn(
            connection,
            f"The watch of {watch.table} names columns that the table does not have: {', '.join(lacking)}. Rules that"
            " test them are skipped until they return",
        )


def _begin(connection: Connection, watch: Watch) -> None:
    """Create the triggers of a watch whose table has appeared."""
    table = schema.required(connection, watch.table)
    watches.set_state(connection, watch, ACTIVE)
    watches.store_secrets(connection, watch)
    watches.create_triggers(connection, watch, table)
    _warn_of_missing(connection, watch, table)
    if watch.definition.from_start and watch.checked_at is None:
        snapshot.begin(connection, watch, table)
    elif watch.checked_at is not None or not _report_first_rows(connection, watch, table):
        watches.write_gap(connection, watch, since=watch.checked_at)


def _report_first_rows(connection: Connection, watch: Watch, table: WatchedTable) -> bool:
    """Report the rows of a table that appears for the first time.

    Returns False and reports none if there are more than MAX_FIRST_ROWS.
    """
    query = f"SELECT count(*) FROM (SELECT 1 FROM {quoted(table.name)} LIMIT {MAX_FIRST_ROWS + 1})"
    (count,) = connection.execute(query).fetchone()
    if count > MAX_FIRST_ROWS:
        return False
    if watch.definition.rules_on(INSERT):
        connection.execute(f"{watch.row_events(table, None)}{_in_order(table)}")
    return True


def _replace(connection: Connection, watch: Watch, *, may_catch_up: bool) -> None:
    """Create lost triggers again and write `T.gap`.

    Inserts that had no event are reported if they are known for certain.
    """
    table = schema.required(connection, watch.table)
    added, is_certain = 0, may_catch_up and table.has_integer_key and not _has_written(connection, watch)
    if is_certain and watch.definition.rules_on(INSERT):
        key = f"r.{quoted(table.primary_key[0])}"
        statement = f"{watch.row_events(table, None)} AND (?1 IS NULL OR {key} > ?1){_in_order(table)}"
        added = connection.execute(statement, (watch.last_key,)).rowcount
    watches.store_secrets(connection, watch)
    watches.create_triggers(connection, watch, table)
    watches.write_gap(connection, watch, since=watch.checked_at, added=added, uncertain=not is_certain)
    _warn_of_missing(connection, watch, table)


def _in_order(table: WatchedTable) -> str:
    return " ORDER BY " + ", ".join(f"r.{quoted(name)}" for name in snapshot.order_of(table))


def _warn(connection: Connection, message: str) -> None:
    log_event(EventType.SYSTEM_WARNING, audit.SOURCE, data={"message": message}, connection=connection)


# --- what is known of the last key ------------------------------------------------------------------------------------


class _Noted(NamedTuple):
    """The last note: the log's last rowid, and whether the server stopped."""

    rowid: int | None
    is_clean: bool = False

    @classmethod
    def read(cls, connection: Connection) -> _Noted:
        text = db.meta(connection, NOTED)
        return cls(*json.loads(text)) if text else cls(None)

    def is_certain(self, *, is_start: bool) -> bool:
        """Return whether `last_key` was noted and no later key can be lost."""
        return self.rowid is not None and (self.is_clean or not is_start)


def note(connection: Connection, *, is_clean: bool = False) -> None:
    """Note the time and the highest key of each watched table."""
    now = clock.isoformat(clock.now())
    for watch in watches.list_watches(connection):
        if watch.state == ACTIVE and (table := _table(connection, watch.table)) is not None:
            connection.execute(
                "UPDATE outfeed_watch SET checked_at = ?, last_key = ? WHERE number = ?",
                (now, watches.last_key(connection, table), watch.number),
            )
    connection.execute(
        "INSERT INTO outfeed_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (NOTED, json.dumps([last_rowid(connection), is_clean])),
    )


def last_rowid(connection: Connection) -> int:
    """Return the highest rowid of the log."""
    (rowid,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM event_log").fetchone()
    return int(rowid)


def has_watches(connection: Connection) -> bool:
    """Return whether a table is watched."""
    return connection.execute("SELECT 1 FROM outfeed_watch WHERE state = ? LIMIT 1", (ACTIVE,)).fetchone() is not None


def _has_written(connection: Connection, watch: Watch) -> bool:
    """Return whether the watch has written events since the last note."""
    noted = _Noted.read(connection)
    return any(_is_logged(connection, each, noted.rowid) for each in watch.definition.types)


def _is_logged(connection: Connection, event_type: str, after: int | None) -> bool:
    query = "SELECT 1 FROM event_log WHERE event_type = ? AND rowid > ? LIMIT 1"
    row: Any = connection.execute(query, (event_type, after or 0)).fetchone()
    return row is not None
