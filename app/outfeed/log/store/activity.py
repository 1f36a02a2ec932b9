"""Number of events per type, source, level and the events' own time."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.principal import EventScope
from outfeed.store import database as db
from outfeed.store import instants, rows
from outfeed.store.database import Connection
from outfeed.store.outbox import read_window

_HORIZON = timedelta(hours=2)  # an event with a future time counts once its time has come
# The outbox has no row for a raw DELETE. So all events are recounted this often, and for 2 % of the time at most.
RECOUNT_SECS = 60.0
_RECOUNT_SHARE = 50
MAX_ADDED = 10_000  # adding more new events costs more than a recount of the hour
# The level that the data names, as `display.level_of` takes it. Only texts with the word are parsed.
_LEVEL = """
    CASE WHEN typeof(data) = 'text' AND instr(data, '"level"') THEN CASE WHEN json_valid(data) THEN
    CASE json_type(data, '$.level') WHEN 'text' THEN lower(substr(json_extract(data, '$.level'), 1, 8)) END END END
"""

# Uses the index: the texts of times between the bounds lie within a day of the bounds.
QUERY = f"""
    SELECT substr({instants.INSTANT}, 1, ?), event_type, source, {_LEVEL}, count(*)
    FROM event_log INDEXED BY event_log_timestamp
    WHERE timestamp >= ? AND timestamp < ? AND {{times}} GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - ours
ADDED_QUERY = f"""
    SELECT substr({instants.INSTANT}, 1, ?), event_type, source, {_LEVEL}, count(*)
    FROM outbox CROSS JOIN event_log ON event_log.id = outbox.event_id
    WHERE seq > ? AND {{times}} GROUP BY 1, 2, 3, 4
"""  # noqa: S608


class Range(NamedTuple):
    """A range of the chart: *bars* counts of *step_secs* each."""

    name: str
    title: str
    unit: str
    bars: int
    step_secs: int

    @property
    def step(self) -> timedelta:
        """Return the time that one bar covers."""
        return timedelta(seconds=self.step_secs)

    def floor(self, moment: datetime) -> datetime:
        """Return the begin of the bar that covers *moment*."""
        return datetime.fromtimestamp(int(moment.timestamp()) // self.step_secs * self.step_secs, UTC)


HOUR = Range("1h", "last hour", "minute", 60, 60)
RANGES = {
    each.name: each
    for each in (
        Range("15m", "last 15 minutes", "15 s", 60, 15),
        HOUR,
        Range("6h", "last 6 hours", "5 min", 72, 300),
        Range("24h", "last 24 hours", "15 min", 96, 900),
    )
}


class Written(NamedTuple):
    """The fields of an event that it is counted by.

    *said_level* is the level in its data, or None.
    """

    event_type: str
    source: str
    said_level: str | None


class Activity(NamedTuple):
    """A Counter for each bar of *range*, the oldest first.

    *begin* is the begin of the oldest bar. The counts contain every event up to *seq* of *epoch*.
    """

    epoch: str
    seq: int
    range: Range
    begin: datetime
    counts: list[Counter[Written]]


def has_events(connection: Connection, visible: EventScope) -> bool:
    """Return whether the log has a *visible* event."""
    where, values = rows.bound(rows.seen(visible))
    sql = f"SELECT 1 FROM event_log {where} ORDER BY rowid DESC LIMIT 1"  # noqa: S608 - ours
    return connection.execute(sql, values).fetchone() is not None


class _State(NamedTuple):
    """The basis of the counts. Another epoch or an erasure invalidates them."""

    epoch: str
    erasures: int


class ActivityLog:
    """Counts of the events in *range*, up to now.

    A new event counts in the bar of its own time, however late it is written. For one thread at a time.
    """

    def __init__(self, range_: Range = HOUR) -> None:
        self._range = range_
        self._state: _State | None = None
        self._seq = 0
        self._since = clock.now()
        self._counts: dict[datetime, Counter[Written]] = {}
        self._recount_at = 0.0

    def read(self, connection: Connection) -> Activity:
        """Return the activity up to now, from *connection*'s read transaction."""
        newest = self._range.floor(clock.now())
        wanted = [newest - self._range.step * age for age in reversed(range(self._range.bars))]
        window = read_window(connection)
        state = _State(window.epoch, db.meta(connection, "erasures"))
        is_near = window.first_seq <= self._seq + 1 and window.last_seq - self._seq <= MAX_ADDED
        is_due = clock.monotonic() >= self._recount_at or wanted[0] < self._since  # the clock was set back
        if state == self._state and is_near and not is_due:
            self._add(connection, wanted[0])
        else:
            self._recount(connection, wanted[0])
        self._state, self._seq, self._since = state, window.last_seq, wanted[0]
        counts = [self._counts.get(each, Counter()) for each in wanted]
        return Activity(window.epoch, window.last_seq, self._range, wanted[0], counts)

    def _recount(self, connection: Connection, since: datetime) -> None:
        began = clock.monotonic()
        self._counts = {}
        times, values = self._within(since)
        for texts in instants.text_ranges(*self._bounds(since)):
            found = connection.execute(QUERY.format(times=times), (self._chars, *texts, *values)).fetchall()
            self._count(found)
        ended = clock.monotonic()
        self._recount_at = ended + max(RECOUNT_SECS, _RECOUNT_SHARE * (ended - began))

    def _add(self, connection: Connection, since: datetime) -> None:
        self._counts = {begin: counts for begin, counts in self._counts.items() if begin >= since}
        times, values = self._within(since)
        found = connection.execute(ADDED_QUERY.format(times=times), (self._chars, self._seq, *values)).fetchall()
        self._count(found)

    @property
    def _chars(self) -> int:
        """Return the length of a time to the minute, or to the second."""
        return 16 if self._range.step_secs % 60 == 0 else 19

    def _count(self, found: list[tuple[str, Any, Any, str | None, int]]) -> None:
        for text, event_type, source, level, count in found:
            moment = clock.parsed(text)
            if moment is not None:
                written = Written(str(rows.readable(event_type)), str(rows.readable(source)), level)
                self._counts.setdefault(self._range.floor(moment), Counter())[written] += count

    def _bounds(self, since: datetime) -> tuple[str, str]:
        return clock.isoformat(since), clock.isoformat(since + self._range.step * self._range.bars + _HORIZON)

    def _within(self, since: datetime) -> tuple[str, tuple[str | int, ...]]:
        """Return the SQL condition for range and horizon, and its bound values."""
        [found] = instants.within(*self._bounds(since)).items()
        return found
