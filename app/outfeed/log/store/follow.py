"""Following the log: the events written since the last read."""

from __future__ import annotations

import itertools
from dataclasses import replace

from outfeed.events import Event
from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.log_page import LogScan
from outfeed.store import rows
from outfeed.store.database import Database

PAGE_EVENTS = 500


class LogFollower:
    """A reader of the log's matching events, in the order of their rows.

    SQLite has one writer, so a row that is committed later has a higher rowid. The reader starts at the newest row.
    """

    def __init__(self, database: Database, filter_: LogFilter) -> None:
        self._database = database
        self._filter = filter_
        self._position = self._newest()

    def read_before(self, limit: int) -> list[Event]:
        """Return the newest *limit* events before the start, newest first."""
        scan = LogScan(self._database, self._filter, self._position + 1, max_scanned=None)
        return self._load([match[0] for match in itertools.islice(scan, limit)])

    def read_new(self) -> list[Event]:
        """Return the next events, oldest first.

        They are at most PAGE_EVENTS. An empty result means that there is no newer one.
        """
        newest = self._newest()
        if newest <= self._position:
            return []
        wanted = replace(self._filter, since=None)  # a row that is written now may have an older timestamp
        scan = LogScan(self._database, wanted, self._position, is_upward=True, max_scanned=None)
        found = [match[0] for match in itertools.islice(scan, PAGE_EVENTS)]
        self._position = found[-1] if len(found) == PAGE_EVENTS else max([newest, *found])
        return self._load(found)

    def _load(self, rowids: list[int]) -> list[Event]:
        with self._database.connection() as connection:
            return list(rows.load(connection, rowids).values())

    def _newest(self) -> int:
        with self._database.connection() as connection:
            (rowid,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM event_log").fetchone()
        return int(rowid)
