"""Number of events per type and minute, by the events' own time."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.store import database as db
from outfeed.store import instants, rows
from outfeed.store.database import Connection
from outfeed.store.outbox import read_window

MINUTES = 60
_MINUTE = timedelta(minutes=1)
_HORIZON = timedelta(hours=2)  # an event with a future time counts once its minute has begun
# The outbox has no row for a raw DELETE. So all events are recounted this often, and for 2 % of the time at most.
RECOUNT_SECS = 60.0
_RECOUNT_SHARE = 50
MAX_ADDED = 10_000  # adding more new events costs more than a recount of the hour

# Uses the index: the texts of times between the bounds lie within a day of the bounds.
QUERY = f"""
    SELECT {instants.MINUTE}, event_type, count(*) FROM event_log INDEXED BY event_log_timestamp
    WHERE timestamp >= ? AND timestamp < ? AND {{times}} GROUP BY 1, 2
"""  # noqa: S608 - ours
ADDED_QUERY = f"""
    SELECT {instants.MINUTE}, event_type, count(*)
    FROM outbox CROSS JOIN event_log ON event_log.id = outbox.event_id
    WHERE seq > ? AND {{times}} GROUP BY 1, 2
"""  # noqa: S608


class Activity(NamedTuple):
    """Counts by type: a Counter for each of MINUTES, the oldest first.

    *begin* is the begin of the oldest minute. The counts contain every event up to *seq* of *epoch*.
    """

    epoch: str
    seq: int
    begin: datetime
    minutes: list[Counter[str]]


class _State(NamedTuple):
    """The basis of the counts. Another epoch or an erasure invalidates them."""

    epoch: str
    erasures: int


class ActivityLog:
    """Counts of the last hour's events.

    A new event counts in the minute of its own time, however late it is written. For one thread at a time.
    """

    def __init__(self) -> None:
        self._state: _State | None = None
        self._seq = 0
        self._since = clock.now()
        self._counts: dict[str, Counter[str]] = {}
        self._recount_at = 0.0

    def read(self, connection: Connection) -> Activity:
        """Return the activity up to now, from *connection*'s read transaction."""
        now = clock.now().replace(second=0, microsecond=0)
        wanted = [now - _MINUTE * age for age in reversed(range(MINUTES))]
        window = read_window(connection)
        state = _State(window.epoch, db.meta(connection, "erasures"))
        is_near = window.first_seq <= self._seq + 1 and window.last_seq - self._seq <= MAX_ADDED
        is_due = clock.monotonic() >= self._recount_at or wanted[0] < self._since  # the clock was set back
        if state == self._state and is_near and not is_due:
            self._add(connection, wanted[0])
        else:
            self._recount(connection, wanted[0])
        self._state, self._seq, self._since = state, window.last_seq, wanted[0]
        minutes = [self._counts.get(_key(each), Counter()) for each in wanted]
        return Activity(window.epoch, window.last_seq, wanted[0], minutes)

    def _recount(self, connection: Connection, since: datetime) -> None:
        began = clock.monotonic()
        self._counts = {}
        times, values = _within(since)
        for texts in instants.text_ranges(*_range(since)):
            self._count(connection.execute(QUERY.format(times=times), (*texts, *values)).fetchall())
        ended = clock.monotonic()
        self._recount_at = ended + max(RECOUNT_SECS, _RECOUNT_SHARE * (ended - began))

    def _add(self, connection: Connection, since: datetime) -> None:
        self._counts = {key: counts for key, counts in self._counts.items() if key >= _key(since)}
        times, values = _within(since)
        self._count(connection.execute(ADDED_QUERY.format(times=times), (self._seq, *values)).fetchall())

    def _count(self, found: list[tuple[str, Any, int]]) -> None:
        for minute, event_type, count in found:
            self._counts.setdefault(minute, Counter())[str(rows.readable(event_type))] += count


def _key(minute: datetime) -> str:
    return f"{minute:%Y-%m-%dT%H:%M}"


def _range(since: datetime) -> tuple[str, str]:
    return clock.isoformat(since), clock.isoformat(since + _MINUTE * MINUTES + _HORIZON)


def _within(since: datetime) -> tuple[str, tuple[str | int, ...]]:
    """Return the SQL condition for the hour and horizon, and its bound values."""
    [found] = instants.within(*_range(since)).items()
    return found
