"""Event log: append events to `event_log`, each once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.config import settings
from outfeed.errors import EventConflict, InvalidEvent
from outfeed.events import Event, make_event
from outfeed.principal import is_audit
from outfeed.store import database as db
from outfeed.store import database_file, rows
from outfeed.store.database import Database

_INSERT = """
    INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_MORE = ", (?, ?, ?, ?, ?, ?, ?)"
# Many rows a statement, and many seqs a row: between two steps of SQLite another thread may take Python's lock for 5
# ms. With 4 writers of 100 events a call, one row a statement accepted 7,000 a second, and this 8,000 to 12,000.
_ROWS_A_STATEMENT = 250


class _Draft(NamedTuple):
    """An event to write, with its data as JSON.

    *has_id* and *has_timestamp* say whether the writer named them.
    """

    event: Event
    data_json: str | None
    has_id: bool
    has_timestamp: bool

    def row(self) -> tuple[str | None, ...]:
        """Return the values of _INSERT."""
        event = self.event
        return (
            event.id, event.event_type, event.source, event.task_id, event.agent_id, self.data_json, event.timestamp
        )  # fmt: skip

    def agree_with(self, known: _Draft) -> None:
        """Raise EventConflict unless *known* is this event.

        If the writer named no timestamp, the timestamps may differ.
        """
        if known is self:
            return
        is_same = self._content() == known._content()
        if not is_same or (self.has_timestamp and not self._is_at(known.event.timestamp)):
            raise EventConflict(f"id {self.event.id!r} already exists with different content; nothing was written")

    def _is_at(self, timestamp: str) -> bool:
        """Return whether *timestamp* is the time of this event.

        A raw writer may have written *timestamp* in another form.
        """
        return timestamp == self.event.timestamp or clock.parsed(timestamp) == clock.parsed(self.event.timestamp)

    def _content(self) -> tuple[str | None, ...]:
        # JSON as text, not as Python values: 1, 1.0 and True are equal in Python and different in JSON.
        data = json.dumps(json.loads(self.data_json or "null"), sort_keys=True)
        return self.event.event_type, self.event.source, self.event.task_id, self.event.agent_id, data


class Recorded(NamedTuple):
    """The answer to a writer.

    *seq* is None if the outbox row is pruned. *is_new* is False for a repeated id.
    """

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
    """Append one event and return it.

    Without *connection*, the event is durable when this returns. With *connection*, an open `sqlite3` connection, the
    event joins the caller's transaction and the caller commits it.

    *id* (1 to 200 characters, a new UUIDv7 by default) is an idempotency key: if the log has the same event under it,
    that event is returned and nothing is written. *timestamp* is ISO 8601 or an aware datetime, the wall time by
    default.

    Raises InvalidEvent (nothing was written), EventConflict (the id is known with other content), DatabaseMissing,
    DatabaseBusy, SchemaMismatch.
    """
    _refuse_audit(event_type)
    event, data_json = make_event(
        event_type, source, task_id, agent_id, data,
        id=id, timestamp=timestamp, max_event_bytes=settings().max_event_bytes,
    )  # fmt: skip
    draft = _Draft(event, data_json, id is not None, timestamp is not None)
    if connection is not None:
        database_file.refuse_foreign(connection)
        return _append_once(connection, draft)
    database = db.default()
    database.refuse_foreign()
    if id is None:
        with database.one_write() as own:
            database_file.refuse_foreign(own)
            _insert(own, draft)
        return event
    with database.transaction() as own:
        database_file.refuse_foreign(own)
        return _append_once(own, draft)


def append_audit(connection: sqlite3.Connection, event_type: str, source: str, data: Any) -> None:
    """Append an audit event in the caller's transaction.

    `log_event` refuses the types of the audit.
    """
    event, data_json = make_event(event_type, source, data=data, max_event_bytes=settings().max_event_bytes)
    database_file.refuse_foreign(connection)
    _insert(connection, _Draft(event, data_json, has_id=False, has_timestamp=False))


def _refuse_audit(event_type: object) -> None:
    """Raise InvalidEvent for a type of the audit.

    No program's event can therefore pass for one of Outfeed's own.
    """
    if isinstance(event_type, str) and is_audit(event_type):
        raise InvalidEvent("event_type", f"is reserved for Outfeed's own audit events, got {str(event_type)!r:.80}")


def record(
    database: Database, events: Sequence[Mapping[str, Any]], max_event_bytes: int, *, keeps_known: bool = False
) -> list[Recorded]:
    """Append *events*, all or none; return each result in order.

    An event has the names of `log_event`. All events are written in one transaction. An event that occurs twice in
    *events* is written once and answered twice. With *keeps_known*, the content of an event whose id exists may differ.
    Raises the errors of `log_event`, with the `index` of the invalid event.
    """
    moment = clock.moment()
    drafts = [_draft(index, fields, max_event_bytes, moment) for index, fields in enumerate(events)]
    named = [draft.event.id for draft in drafts if draft.has_id]
    with database.transaction() as connection:
        logged = _logged(connection, named) if named else {}
        fresh = _unknown([draft for draft in drafts if draft.event.id not in logged] if keeps_known else drafts, logged)
        seqs = _seqs_of(connection, list(logged)) if logged else {}
        seqs |= _append(connection, list(fresh.values()))
        epoch = db.meta(connection, "epoch")
    return [
        Recorded(logged.get(draft.event.id, draft).event, seqs.get(draft.event.id), epoch, draft.event.id in fresh)
        for draft in drafts
    ]


def _draft(index: int, fields: Mapping[str, Any], max_event_bytes: int, moment: clock.Moment) -> _Draft:
    try:
        _refuse_audit(fields.get("event_type"))
        event, data_json = make_event(**fields, max_event_bytes=max_event_bytes, moment=moment)
    except InvalidEvent as error:
        error.index = index
        raise
    return _Draft(event, data_json, fields.get("id") is not None, fields.get("timestamp") is not None)


def _unknown(drafts: list[_Draft], logged: Mapping[str, _Draft]) -> dict[str, _Draft]:
    """Return the drafts that must be written, by id.

    Raises EventConflict.
    """
    fresh: dict[str, _Draft] = {}
    for index, draft in enumerate(drafts):
        known = logged.get(draft.event.id) or fresh.setdefault(draft.event.id, draft)
        try:
            draft.agree_with(known)
        except EventConflict as error:
            error.index = index
            raise
    return fresh


def _append(connection: sqlite3.Connection, drafts: list[_Draft]) -> dict[str, int]:
    """Insert the drafts and return the seqs that the trigger assigned.

    The caller holds the write lock.
    """
    if not drafts:
        return {}
    (before,) = connection.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()
    try:
        for start in range(0, len(drafts), _ROWS_A_STATEMENT):
            rows = [draft.row() for draft in drafts[start : start + _ROWS_A_STATEMENT]]
            connection.execute(_INSERT + _MORE * (len(rows) - 1), [value for row in rows for value in row])
    except sqlite3.IntegrityError as error:
        raise EventConflict(str(error)) from error
    sql = "SELECT json_group_object(event_id, seq) FROM outbox WHERE seq > ?"
    seqs: dict[str, int] = json.loads(connection.execute(sql, (before,)).fetchone()[0])
    return seqs


def _append_once(connection: sqlite3.Connection, draft: _Draft) -> Event:
    known = _logged(connection, [draft.event.id]).get(draft.event.id)
    if known is not None:
        draft.agree_with(known)
        return known.event
    _insert(connection, draft)
    return draft.event


def _insert(connection: sqlite3.Connection, draft: _Draft) -> None:
    try:
        connection.execute(_INSERT, draft.row())
    except sqlite3.IntegrityError as error:
        raise EventConflict(f"id {draft.event.id!r}: {error}") from error


def _logged(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, _Draft]:
    """Return the events that the log has under *ids*, by id."""
    cursor = connection.cursor()
    cursor.row_factory = None  # a caller's own connection may have another
    found = cursor.execute(
        f"SELECT {rows.COLUMNS} FROM event_log WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608
        (json.dumps(ids),),
    ).fetchall()
    return {event.id: _Draft(event, json.dumps(event.data), True, True) for event in map(rows.event_of, found)}


def _seqs_of(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, int]:
    return dict(
        connection.execute(
            "SELECT event_id, max(seq) FROM outbox WHERE event_id IN (SELECT value FROM json_each(?))"
            " GROUP BY event_id",
            (json.dumps(ids),),
        ).fetchall()
    )
