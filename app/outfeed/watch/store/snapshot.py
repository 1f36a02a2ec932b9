"""Snapshots: events for the rows that a table already has.

A snapshot runs in chunks of one write transaction each. A chunk reads the rows that it logs, so an event is the state
of its row at that seq. The transaction of a chunk also stores the reached key in `outfeed_watch.snapshot`, so a kill
loses no row and repeats none.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.errors import InvalidWatch
from outfeed.log_message import LogMessage
from outfeed.store.database import Connection, Database, OperationalError
from outfeed.watch.definition import EXISTING
from outfeed.watch.store import schema, watches
from outfeed.watch.store.sql import quoted
from outfeed.watch.store.watches import Watch
from outfeed.watch.table import WatchedTable

MIN_ROWS, MAX_ROWS = 20, 500
# A chunk holds the write lock; one whose rows take longer makes the next one smaller. The commit is not counted.
CHUNK_SECS = 0.03
# Between two chunks, as a part of the time that the last one held the write lock: a writer that waits finds it free.
PAUSE, MAX_PAUSE_SECS = 0.5, 0.05
log = logging.getLogger(__name__)


class Progress(NamedTuple):
    """The place of a snapshot, as `outfeed_watch.snapshot` has it.

    *reached* and *last* are the values that order the rows, as SQL literals. *reached* is None before the first chunk.
    *error* is the reason why it ended early.
    """

    last: list[str]
    reached: list[str] | None = None
    schema_version: int = 0
    error: str | None = None

    @classmethod
    def parsed(cls, text: str | None) -> Progress | None:
        """Return the value of the column, None if no snapshot was begun."""
        return cls(**json.loads(text)) if text else None


def begin(connection: Connection, watch: Watch, table: WatchedTable) -> None:
    """Start a snapshot: each row of the table is reported as `T.existing`."""
    last = _key_at_end(connection, table)
    _store(connection, watch.number, Progress(last, None, _schema_version(connection)) if last else None)


def advance(database: Database, stopping: threading.Event, secs: float) -> bool:
    """Write chunks of all snapshots for up to *secs* seconds.

    Returns whether a snapshot has rows left. Raises DatabaseError.
    """
    end = clock.monotonic() + secs
    rows, reader = MAX_ROWS, None
    while not stopping.is_set():
        with database.transaction() as connection:
            began = clock.monotonic()
            reader = _reader(connection, reader)
            if reader is None:
                return False
            _chunk(connection, reader, rows)
            took = clock.monotonic() - began
        held = clock.monotonic() - began
        rows = max(MIN_ROWS, min(MAX_ROWS, int(rows * CHUNK_SECS / max(took, 0.001))))
        if clock.monotonic() >= end:
            return True
        stopping.wait(min(held * PAUSE, MAX_PAUSE_SECS))
    return True


class _Reader(NamedTuple):
    """The next snapshot, and what reads the rows of its table.

    *version* is that of the schema. *statement* logs rows: `Watch.row_events`. *table* is None if it no longer exists.
    """

    number: int
    options: str
    version: int
    progress: Progress
    name: str
    table: WatchedTable | None
    statement: str


def _reader(connection: Connection, last: _Reader | None) -> _Reader | None:
    """Return the snapshot that is to be continued, or None.

    Most chunks need nothing new but the progress of *last*.
    """
    rows = connection.execute(
        "SELECT number, options, snapshot FROM outfeed_watch WHERE state = ? AND snapshot IS NOT NULL ORDER BY number",
        (watches.ACTIVE,),
    ).fetchall()
    found = [(number, options, Progress(**json.loads(text))) for number, options, text in rows]
    todo = next((each for each in found if each[2].error is None), None)
    if todo is None:
        return None
    number, options, progress = todo
    version = _schema_version(connection)
    if last is not None and last[:3] == (number, options, version):
        return last._replace(progress=progress)
    watch = next(each for each in watches.list_watches(connection) if each.number == number)
    table = schema.read(connection, watch.table)
    statement = watch.row_events(table, f"{watch.type}.{EXISTING}") if table is not None else ""
    return _Reader(number, options, version, progress, watch.table, table, statement)


def is_running(watch: Watch) -> bool:
    """Return whether a snapshot of the watch is to be continued."""
    progress = Progress.parsed(watch.snapshot)
    return watch.state == watches.ACTIVE and progress is not None and progress.error is None


def describe(watch: Watch) -> str:
    """Return the state of the watch's snapshot, empty if there is none."""
    progress = Progress.parsed(watch.snapshot)
    if progress is None:
        return ""
    return "running" if progress.error is None else f"ended early: {progress.error}"


def run(database: Database) -> None:
    """Write every snapshot to its end. Raises DatabaseError."""
    while advance(database, threading.Event(), math.inf):
        pass


def _chunk(connection: Connection, reader: _Reader, rows: int) -> None:
    progress, table = reader.progress, reader.table
    if table is None:
        _store(connection, reader.number, None)
        return
    if reader.version != progress.schema_version and not (table.has_integer_key or not table.has_rowid):
        # VACUUM may have given the rows other rowids.
        progress = progress._replace(reached=None)
    try:
        reached = _log_rows(connection, reader.statement, table, progress, rows)
    except OperationalError as error:
        if not str(error).startswith(watches.PROGRAMS_OWN):
            raise
        log.warning(LogMessage("snapshot ended: a column can't be read", table=reader.name, error=error))
        _store(connection, reader.number, progress._replace(error=str(error)))
        return
    done = reached == progress.last
    _store(
        connection,
        reader.number,
        None if done else progress._replace(reached=reached, schema_version=reader.version),
    )


def _log_rows(connection: Connection, statement: str, table: WatchedTable, progress: Progress, rows: int) -> list[str]:
    """Log the next *rows* rows; return the key that was reached."""
    order = order_of(table)
    within = [f"{_row(order)} <= {_values(progress.last)}"]
    if progress.reached is not None:
        within.append(f"{_row(order)} > {_values(progress.reached)}")
    condition = " AND ".join(within)
    end = connection.execute(
        f"SELECT {_literals(order)} FROM {quoted(table.name)} AS r WHERE {condition} ORDER BY {_columns(order)}"
        f" LIMIT 1 OFFSET {rows - 1}"
    ).fetchone()
    reached = progress.last if end is None else list(end)
    connection.execute(
        f"{statement} AND {condition} AND {_row(order)} <= {_values(reached)} ORDER BY {_columns(order)}"
    )
    return reached


def order_of(table: WatchedTable) -> tuple[str, ...]:
    """Return the columns that order the rows: the rowid, or the PRIMARY KEY.

    Raises InvalidWatch.
    """
    if table.rowid is not None:
        return (table.rowid,)
    if not table.has_rowid:
        return table.primary_key
    raise InvalidWatch(f"{table.name}: no name of its rowid is free, so its rows can't be read in an order")


def _columns(order: Sequence[str]) -> str:
    return ", ".join(f"r.{quoted(name)}" for name in order)


def _row(order: Sequence[str]) -> str:
    return f"({_columns(order)})"


def _values(literals: Sequence[str]) -> str:
    return f"({', '.join(literals)})"


def _literals(order: Sequence[str]) -> str:
    return ", ".join(f"quote(r.{quoted(name)})" for name in order)


def _key_at_end(connection: Connection, table: WatchedTable) -> list[str] | None:
    order = order_of(table)
    descending = ", ".join(f"r.{quoted(name)} DESC" for name in order)
    row = connection.execute(
        f"SELECT {_literals(order)} FROM {quoted(table.name)} AS r ORDER BY {descending} LIMIT 1"
    ).fetchone()
    return list(row) if row else None


def _schema_version(connection: Connection) -> int:
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    return int(version)


def _store(connection: Connection, number: int, progress: Progress | None) -> None:
    value: Any = None if progress is None else json.dumps(progress._asdict())
    connection.execute("UPDATE outfeed_watch SET snapshot = ? WHERE number = ?", (value, number))
