"""The log: append events, and read them back newest first (in rowid order)."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from app import clock
from app.access import AUDIT_PREFIX, AUDIT_TYPES, EVERYTHING, Visible
from app.config import settings
from app.errors import EventConflict
from app.events import Event, known_type, make_event, redact
from app.history import loads_leniently
from app.store import database as db
from app.store.database import Database

_INSERT = """
    INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
# A single-column index serves each filter in rowid order, so newest first needs no sort.
_COLUMNS = "id, event_type, source, task_id, agent_id, data, timestamp"


class Recorded(NamedTuple):
    """The answer to a writer. *seq* is None once the outbox row is pruned; *is_new* is False for a repeated id."""

    event: Event
    seq: int | None
    epoch: str
    is_new: bool


def log_event(
    event_type: str,
    source: str,
    task_id: str | None = None,
    agent_id: str | None = None,
    data: Any = None,
    *,
    id: str | None = None,
    timestamp: str | datetime | None = None,
    connection: sqlite3.Connection | None = None,
) -> Event:
    """Append one event and return it; durable when this returns, unless *connection* is given.

    With *connection*, an open `sqlite3` connection, the event joins the caller's transaction and is theirs to commit.
    *id* (1 to 200 characters, a new UUIDv7 by default) is an idempotency key: the same event again is not written
    again, and the one in the log is returned. *timestamp* is ISO 8601 or an aware datetime, the wall time by default.

    Raises InvalidEvent (nothing was written), EventConflict (the id is known with other content), DatabaseMissing,
    DatabaseBusy, SchemaMismatch.
    """
    event, data_json = make_event(
        event_type, source, task_id, agent_id, data,
        id=id, timestamp=timestamp, max_event_bytes=settings().max_event_bytes,
    )  # fmt: skip
    if connection is not None:
        return _append_once(connection, event, data_json, timestamp is not None)[0]
    if id is None:
        with db.default().connection() as own:
            _insert(own, event, data_json)
        return event
    with db.default().transaction() as own:
        return _append_once(own, event, data_json, timestamp is not None)[0]


def record(database: Database, fields: dict[str, Any], max_event_bytes: int) -> Recorded:
    """Append the event that *fields* (`log_event`'s names) describe and say where it went. Raises as `log_event`."""
    event, data_json = make_event(**fields, max_event_bytes=max_event_bytes)
    with database.transaction() as connection:
        event, is_new = _append_once(connection, event, data_json, fields.get("timestamp") is not None)
        return Recorded(event, _seq_of(connection, event.id), db.meta(connection, "epoch"), is_new)


def _append_once(
    connection: sqlite3.Connection, event: Event, data_json: str | None, compare_timestamp: bool
) -> tuple[Event, bool]:
    known = _find(connection, event.id)
    if known is None:
        _insert(connection, event, data_json)
        return event, True
    ours = (event.event_type, event.source, event.task_id, event.agent_id, _canonical(data_json))
    theirs = (known.event_type, known.source, known.task_id, known.agent_id, _canonical(json.dumps(known.data)))
    if ours != theirs or (compare_timestamp and known.timestamp != event.timestamp):
        raise EventConflict(f"id {event.id!r} is already in the log with other content; nothing was written")
    return known, False


def _canonical(data_json: str | None) -> str:
    # As text, not as Python values: 1, 1.0 and True are equal there and different in JSON.
    return json.dumps(json.loads(data_json or "null"), sort_keys=True)


def _insert(connection: sqlite3.Connection, event: Event, data_json: str | None) -> None:
    values = (event.id, event.event_type, event.source, event.task_id, event.agent_id, data_json, event.timestamp)
    try:
        connection.execute(_INSERT, values)
    except sqlite3.IntegrityError as error:
        raise EventConflict(f"id {event.id!r}: {error}") from error


def _seq_of(connection: sqlite3.Connection, event_id: str) -> int | None:
    row = connection.execute(
        "SELECT seq FROM outbox WHERE event_id = ? ORDER BY seq DESC LIMIT 1", (event_id,)
    ).fetchone()
    return row[0] if row else None


def _find(connection: sqlite3.Connection, event_id: str) -> Event | None:
    cursor = connection.cursor()
    cursor.row_factory = None  # a caller's own connection may have another
    row = cursor.execute(f"SELECT {_COLUMNS} FROM event_log WHERE id = ?", (event_id,)).fetchone()  # noqa: S608
    return _event(row) if row else None


# --- reading ----------------------------------------------------------------------------------------------------------


def get_event(event_id: str, database: Database | None = None, visible: Visible = EVERYTHING) -> Event | None:
    """Return the event with that id, whatever its size; None where there is none that may be seen."""
    with (database or db.default()).connection() as connection:
        event = _find(connection, event_id)
    return event if event and visible.covers(event.event_type) else None


def list_events(
    event_type: str | None = None,
    task_id: str | None = None,
    agent_id: str | None = None,
    source: str | None = None,
    limit: int = 100,
    offset: int = 0,
) -> list[Event]:
    """Return up to *limit* events that match all filters, newest first, after skipping *offset*.

    `data` above OUTFEED_MAX_EVENT_BYTES is left out (`omitted_bytes` says so).
    """
    where = _where(EVERYTHING, event_type, task_id, agent_id, source)
    return [event for _, event in _select(db.default(), where, limit, offset)]


def list_page(
    database: Database,
    visible: Visible,
    *,
    event_type: str | None = None,
    task_id: str | None = None,
    agent_id: str | None = None,
    source: str | None = None,
    limit: int = 100,
    cursor: int | None = None,
) -> tuple[list[Event], int | None]:
    """Return a page of what may be seen, newest first, and the *cursor* of the next; None where there is no more."""
    where = _where(visible, event_type, task_id, agent_id, source)
    if cursor is not None:
        where["rowid < ?"] = (cursor,)
    rows = _select(database, where, limit + 1)
    return [event for _, event in rows[:limit]], rows[limit - 1][0] if len(rows) > limit else None


def get_task_events(task_id: str) -> list[Event]:
    """Return the task's events, newest first."""
    return list_events(task_id=task_id, limit=-1)


def get_agent_events(agent_id: str) -> list[Event]:
    """Return the agent's events, newest first."""
    return list_events(agent_id=agent_id, limit=-1)


def get_recent_events(minutes: float = 60) -> list[Event]:
    """Return the events whose timestamp lies in the last *minutes*, newest first."""
    return [event for _, event in _select(db.default(), {"timestamp >= ?": (_since(minutes),)}, -1)]


def get_event_summary(
    minutes: float = 60, database: Database | None = None, visible: Visible = EVERYTHING
) -> dict[str, int]:
    """Return how many events of each type have a timestamp in the last *minutes*, the most frequent first."""
    clauses, values = _bound({"timestamp >= ?": (_since(minutes),), **_seen(visible)})
    with (database or db.default()).connection() as connection:
        rows = connection.execute(
            f"SELECT event_type, count(*) FROM event_log INDEXED BY event_log_timestamp {clauses}"  # noqa: S608
            " GROUP BY event_type ORDER BY 2 DESC, 1",
            values,
        ).fetchall()
    return redact(dict(rows))


def _since(minutes: float) -> str:
    if not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes!r}")
    return clock.isoformat(clock.now() - timedelta(minutes=minutes))


# SQL conditions with the values that they bind; all have to hold.
_Where = dict[str, tuple[str | int, ...]]


def _where(
    visible: Visible, event_type: str | None, task_id: str | None, agent_id: str | None, source: str | None
) -> _Where:
    filters = {"event_type = ?": event_type, "task_id = ?": task_id, "agent_id = ?": agent_id, "source = ?": source}
    return {clause: (value,) for clause, value in filters.items() if value is not None} | _seen(visible)


def _seen(visible: Visible) -> _Where:
    """Return `visible.covers` as conditions."""
    where: _Where = {}
    if not visible.has_audit:
        where[f"substr(event_type, 1, {len(AUDIT_PREFIX)}) <> ?"] = (AUDIT_PREFIX,)
        where[f"event_type NOT IN ({', '.join('?' * len(AUDIT_TYPES))})"] = AUDIT_TYPES
    if visible.types:
        exact = [name for name in visible.types if not name.endswith(".*")]
        prefixes = [name[:-1] for name in visible.types if name.endswith(".*")]
        any_of = [*["event_type = ?"] * len(exact), *(f"substr(event_type, 1, {len(p)}) = ?" for p in prefixes)]
        where[f"({' OR '.join(any_of)})"] = (*exact, *prefixes)
    return where


def _bound(where: _Where) -> tuple[str, tuple[str | int, ...]]:
    """Return the WHERE clause, or nothing, and its values."""
    clause = f"WHERE {' AND '.join(where)}" if where else ""
    return clause, tuple(value for values in where.values() for value in values)


def _select(database: Database, where: _Where, limit: int, offset: int = 0) -> list[tuple[int, Event]]:
    """Return (rowid, event) pairs, newest first. *limit* -1 means all."""
    index = "INDEXED BY event_log_timestamp" if "timestamp >= ?" in where else ""
    clauses, values = _bound(where)
    limit_bytes = settings().max_event_bytes
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT rowid, id, event_type, source, task_id, agent_id,"  # noqa: S608 - clauses are ours, values bound
            " CASE WHEN length(data) > ? THEN NULL ELSE data END, timestamp,"
            " CASE WHEN length(data) > ? THEN length(CAST(data AS BLOB)) ELSE 0 END"
            f" FROM event_log {index} {clauses} ORDER BY rowid DESC LIMIT ? OFFSET ?",
            (limit_bytes, limit_bytes, *values, limit, offset),
        ).fetchall()
    return [(row[0], _event(row[1:8], row[8])) for row in rows]


def _event(row: tuple[Any, ...], omitted_bytes: int = 0) -> Event:
    *names, data = map(_readable, (*row[:5], row[6], row[5]))
    id_, event_type, source, task_id, agent_id, timestamp, data = redact([*names, _parsed(data)])
    return Event(
        id=id_, event_type=known_type(event_type), source=source, task_id=task_id, agent_id=agent_id,
        data=data, timestamp=timestamp, omitted_bytes=omitted_bytes,
    )  # fmt: skip


def _readable(value: Any) -> Any:
    """A raw writer's BLOB reads as hex, as in the outbox."""
    return value.hex().upper() if isinstance(value, bytes) else value


def _parsed(data: Any) -> Any:
    if not isinstance(data, str):
        return data
    try:
        return loads_leniently(data)
    except (ValueError, RecursionError):
        return data
