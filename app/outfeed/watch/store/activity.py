"""How often the watches write: events of the last hour, by type."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from outfeed import clock
from outfeed.store.database import Connection

MAX_ROWS = 10_000  # of the log, the newest
WINDOW = timedelta(hours=1)


class WatchActivity(NamedTuple):
    """The numbers of events by type in the last hour.

    *is_whole* is False if the newest MAX_ROWS events are all of the last hour: then the numbers are the least.
    """

    counts: Mapping[str, int]
    is_whole: bool

    def of(self, types: set[str] | frozenset[str]) -> int:
        """Return the number of events of *types*."""
        return sum(self.counts.get(each, 0) for each in types)


def read(connection: Connection) -> WatchActivity:
    """Return the activity of the last hour, from the newest MAX_ROWS events."""
    since = clock.isoformat(clock.now() - WINDOW)
    rows = connection.execute(
        "SELECT event_type, count(*) FROM"
        " (SELECT event_type, timestamp FROM event_log ORDER BY rowid DESC LIMIT ?)"
        " WHERE timestamp >= ? GROUP BY event_type",
        (MAX_ROWS, since),
    ).fetchall()
    counts = {str(name): count for name, count in rows}
    return WatchActivity(counts, sum(counts.values()) < MAX_ROWS)
