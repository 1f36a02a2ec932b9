"""Activity: how many events of each type a minute, by the events' own time."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.store.database import Database
from outfeed.store.outbox import read_window

MINUTES = 60
# What is older than this is read once: events rarely come later than that.
SETTLED_MINUTES = 2
_MINUTE = timedelta(minutes=1)

# ISO 8601 in UTC, as we write it, begins with its minute; what a raw writer wrote otherwise is no minute of ours.
QUERY = """
    SELECT substr(timestamp, 1, 16), event_type, count(*) FROM event_log INDEXED BY event_log_timestamp
    WHERE timestamp >= ? AND timestamp < ? GROUP BY 1, 2
"""


class Activity(NamedTuple):
    """Counts by type, a Counter for each of MINUTES, the oldest first; *begin* is when the first of them began.

    Every event up to *seq* of *epoch* is in it.
    """

    epoch: str
    seq: int
    begin: datetime
    minutes: list[Counter[str]]


class ActivityLog:
    """Reads the last hour's activity. `_lock` guards what is kept of it, so that an hour is read only once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._epoch = ""
        self._settled: dict[str, Counter[str]] = {}

    def read(self) -> Activity:
        """Return the activity up to now, in one read transaction."""
        now = clock.now().replace(second=0, microsecond=0)
        wanted = [now - _MINUTE * age for age in reversed(range(MINUTES))]
        with self._lock, self._database.snapshot() as connection:
            window = read_window(connection)
            if window.epoch != self._epoch:
                self._epoch, self._settled = window.epoch, {}
            since = next(each for each in wanted if _key(each) not in self._settled)
            rows = connection.execute(QUERY, (_key(since), _key(now + _MINUTE))).fetchall()
            found = self._settled | _counted(rows)
            minutes = [found.get(_key(each), Counter()) for each in wanted]
            settled = zip(wanted[:-SETTLED_MINUTES], minutes, strict=False)
            self._settled = {_key(each): counts for each, counts in settled}
        return Activity(window.epoch, window.last_seq, wanted[0], minutes)


def _key(minute: datetime) -> str:
    return f"{minute:%Y-%m-%dT%H:%M}"


def _counted(rows: list[tuple[str, Any, int]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for minute, event_type, count in rows:
        found.setdefault(minute, Counter())[str(event_type)] += count
    return found
