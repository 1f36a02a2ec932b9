"""Outfeed's own errors as `system.error` events of the log.

They are the errors that loops and connections caught.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from datetime import datetime, timedelta
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import OutfeedError
from outfeed.events import EventType
from outfeed.log_message import LogMessage
from outfeed.store import audit
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.store.event_log import log_event

EVERY = timedelta(minutes=1)  # one event of a place at most in this time, over all processes
MAX_PLACES = 50
MAX_MESSAGE_CHARS = 500
KEY = "own-error:"
log = logging.getLogger(__name__)


class _Caught(NamedTuple):
    times: int
    message: str


class OwnErrors:
    """The caught errors that are not yet in the log.

    A job writes them later, so that no write is attempted where one may just have failed. Any thread may call `note`.
    `_lock` guards the waiting errors.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiting: dict[str, _Caught] = {}

    def note(self, where: str, error: BaseException) -> None:
        """Note that *error* was caught at *where*, one of few names.

        Errors of the database, Outfeed's own refusals and MemoryError are ignored.
        """
        if isinstance(error, OutfeedError | sqlite3.Error | MemoryError):
            return
        message = f"{type(error).__name__}: {error}"[:MAX_MESSAGE_CHARS].encode("utf-8", "replace").decode()
        with self._lock:
            if where in self._waiting or len(self._waiting) < MAX_PLACES:
                self._waiting[where] = _Caught(self._waiting.get(where, _Caught(0, "")).times + 1, message)

    def write(self) -> None:
        """Write an event for each place that has had none for EVERY.

        Errors that cannot be written wait for the next call.
        """
        with self._lock:
            waiting = dict(self._waiting)
        for where, caught in waiting.items():
            try:
                if not _write(self._database, where, caught):
                    continue
            except (OutfeedError, sqlite3.Error, OSError) as error:
                log.info(LogMessage("can't write own errors to the log, trying again", error=error))
                return
            self._forget(where, caught.times)

    def _forget(self, where: str, count: int) -> None:
        with self._lock:
            left = self._waiting.pop(where)
            if left.times > count:  # noted since the write
                self._waiting[where] = left._replace(times=left.times - count)


def last(database: Database) -> tuple[str, str] | None:
    """Return the time and the message of the newest error in the log."""
    with database.connection() as connection:
        row = connection.execute(
            "SELECT timestamp, CASE WHEN json_valid(data) THEN json_extract(data, '$.message') END FROM event_log"
            " WHERE event_type = ? AND source = ? ORDER BY rowid DESC LIMIT 1",
            (EventType.SYSTEM_ERROR, audit.SOURCE),
        ).fetchone()
    return (str(row[0]), str(row[1])) if row else None


def _write(database: Database, where: str, caught: _Caught) -> bool:
    """Write the event; return whether it was written.

    It is not written if any process has written one of that place within EVERY.
    """
    now = clock.now()
    with database.connection() as connection:
        if _is_recent(connection, where, now):
            return False
    with database.transaction() as connection:
        if _is_recent(connection, where, now):
            return False
        connection.execute(
            "INSERT INTO outfeed_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value",
            (KEY + where, clock.isoformat(now)),
        )
        times = "" if caught.times == 1 else f" ({caught.times:,} times)"
        data = {"message": f"{where}: {caught.message}{times}", "place": where, "count": caught.times}
        log_event(EventType.SYSTEM_ERROR, audit.SOURCE, data=data, connection=connection)
    return True


def _is_recent(connection: sqlite3.Connection, where: str, now: datetime) -> bool:
    last = clock.parsed(db.meta(connection, KEY + where))
    return last is not None and timedelta() <= now - last < EVERY
