"""Rows of `event_log`: conditions on them, and their events.

The events are redacted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from outfeed.config import settings
from outfeed.events import Event, known_type
from outfeed.history import loads_leniently
from outfeed.nesting import is_deep, may_be_deep
from outfeed.principal import AUDIT_PREFIX, AUDIT_TYPES, EventScope
from outfeed.redaction import may_hold_secrets, redact, text_may_hold_secrets

COLUMNS = "id, event_type, source, task_id, agent_id, data, timestamp"
# The same columns, without data above :limit, and the number of bytes that were left out.
_BOUNDED = """
    id, event_type, source, task_id, agent_id, CASE WHEN length(data) > :limit THEN NULL ELSE data END, timestamp,
    CASE WHEN length(data) > :limit THEN length(CAST(data AS BLOB)) ELSE 0 END
"""

# SQL conditions with the values that they bind. All conditions must hold.
Where = dict[str, tuple[str | int, ...]]


def seen(visible: EventScope) -> Where:
    """Return `visible.covers` as conditions."""
    where: Where = {}
    if not visible.has_audit:
        where[f"substr(event_type, 1, {len(AUDIT_PREFIX)}) <> ?"] = (AUDIT_PREFIX,)
        where[f"event_type NOT IN ({', '.join('?' * len(AUDIT_TYPES))})"] = AUDIT_TYPES
    # Written differently from a filter's own types, which are keys of the same mapping.
    return where | {f"({clause})": values for clause, values in of_types(visible.types).items()}


def of_types(patterns: Iterable[str]) -> Where:
    """Return a condition for `is_of_type` of any of *patterns*.

    Without patterns there is no condition.
    """
    exact = [name for name in patterns if not name.endswith(".*")]
    prefixes = [name[:-1] for name in patterns if name.endswith(".*")]
    any_of = [*["event_type = ?"] * len(exact), *(f"substr(event_type, 1, {len(p)}) = ?" for p in prefixes)]
    return {f"({' OR '.join(any_of)})": (*exact, *prefixes)} if any_of else {}


def bound(where: Where) -> tuple[str, tuple[str | int, ...]]:
    """Return the WHERE clause, which may be empty, and its values."""
    clause = f"WHERE {' AND '.join(where)}" if where else ""
    return clause, tuple(value for values in where.values() for value in values)


def load(connection: sqlite3.Connection, rowids: Iterable[int]) -> dict[int, Event]:
    """Return the events of *rowids* that still exist, by rowid.

    `data` above OUTFEED_MAX_EVENT_BYTES is left out.
    """
    sql = f"SELECT {_BOUNDED} FROM event_log WHERE rowid = :rowid"  # noqa: S608 - ours
    limit = settings().max_event_bytes
    found = {rowid: connection.execute(sql, {"rowid": rowid, "limit": limit}).fetchone() for rowid in rowids}
    return {rowid: event_of(row[:7], row[7]) for rowid, row in found.items() if row}


def event_of(row: tuple[Any, ...], omitted_bytes: int = 0) -> Event:
    """Return the redacted event of a row of COLUMNS.

    A raw writer may have stored any value in it.
    """
    *names, data = map(readable, (*row[:5], row[6], row[5]))
    value = _parsed(data)
    # Most events hold no secret, and a quick check shows that.
    if text_may_hold_secrets("\n".join(map(str, names))):
        names = redact(names)
    if isinstance(value, str) or may_hold_secrets(str(data).encode(), value):
        value = redact(value)
    id_, event_type, source, task_id, agent_id, timestamp = names
    return Event(
        id=id_, event_type=known_type(event_type), source=source, task_id=task_id, agent_id=agent_id,
        data=value, timestamp=timestamp, omitted_bytes=omitted_bytes,
    )  # fmt: skip


def readable(value: Any) -> Any:
    """Return a raw writer's BLOB as hex, as the outbox does.

    Other values are returned as they are.
    """
    return value.hex().upper() if isinstance(value, bytes) else value


def _parsed(data: Any) -> Any:
    """Return the parsed JSON.

    Text that is not JSON or is nested too deeply is returned as it is.
    """
    if not isinstance(data, str):
        return data
    try:
        value = loads_leniently(data)
    except (ValueError, RecursionError):
        return data
    return data if may_be_deep(data) and is_deep(value) else value
