"""Matching events of the past: their commit times, in bounded work."""

from __future__ import annotations

import json
from dataclasses import dataclass

from outfeed import clock
from outfeed.alerts.rule import PREFIX
from outfeed.log.store.log_filter import LogFilter
from outfeed.store import rows
from outfeed.store.database import Connection, Database

CHUNK_ROWS = 20_000
MAX_MATCHES = 300_000
MAX_SECS = 3.0
_SECS = "round((julianday(created_at) - 2440587.5) * 86400.0, 3)"
_FROM = "FROM event_log JOIN outbox ON event_id = id WHERE event_log.rowid > ? AND event_log.rowid <= ?"
_FIRST = f"SELECT {_SECS} {_FROM} ORDER BY event_log.rowid LIMIT 1"
_OLDEST = f"SELECT {_SECS} FROM outbox ORDER BY seq LIMIT 1"  # noqa: S608 - ours


@dataclass(frozen=True, slots=True)
class PastMatches:
    """The commit times of matching events, in order, as seconds since 1970.

    They are all of those since *begin*. *limit* says why this is later than the wanted begin, or is None.
    """

    times: list[float]
    begin: float
    limit: str | None


def find(database: Database, filter_: LogFilter, begin: float) -> PastMatches:
    """Return the matching events that were committed since *begin*.

    Stops after MAX_SECS and at MAX_MATCHES. Raises DatabaseError.
    """
    clause, values = rows.bound({**filter_.where(), f"substr(event_type, 1, {len(PREFIX)}) <> ?": (PREFIX,)})
    sql = f"SELECT json_group_array({_SECS}) {_FROM} {clause.replace('WHERE', 'AND', 1)}"
    deadline, times, limit = clock.monotonic() + MAX_SECS, list[float](), None
    with database.connection() as connection:
        high, reached = _newest_rowid(connection, None), clock.now().timestamp()
        while high is not None and reached > begin:
            if clock.monotonic() > deadline or len(times) > MAX_MATCHES:
                limit = "at the limit of matching events" if len(times) > MAX_MATCHES else "at the time limit"
                break
            low = high - CHUNK_ROWS
            found = connection.execute(sql, (low, high, *values)).fetchone()[0]
            times += filter(None, json.loads(found))
            high = _newest_rowid(connection, low)
            first = connection.execute(_FIRST, (low, low + CHUNK_ROWS)).fetchone()
            reached = reached if first is None or first[0] is None else min(reached, first[0])
        if limit is None:
            oldest = connection.execute(_OLDEST).fetchone()
            kept = clock.now().timestamp() if oldest is None or oldest[0] is None else oldest[0]
            reached, limit = (kept, "where the outbox begins") if kept > begin else (begin, None)
    return PastMatches(sorted(at for at in times if at >= reached), reached, limit)


def _newest_rowid(connection: Connection, up_to: int | None) -> int | None:
    """Return the newest rowid, or the newest one that is not above *up_to*."""
    sql, values = ("SELECT max(rowid) FROM event_log", ()) if up_to is None else (
        "SELECT max(rowid) FROM event_log WHERE rowid <= ?", (up_to,)
    )  # fmt: skip
    found: int | None = connection.execute(sql, values).fetchone()[0]
    return found
