"""Pruning by itself: every hour, by one process, and only by a clock that can be believed."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from outfeed import clock
from outfeed.errors import OutfeedError
from outfeed.events import EventType
from outfeed.feature import Part
from outfeed.jobs import Job
from outfeed.log_message import LogMessage
from outfeed.store import audit, lease
from outfeed.store import database as db
from outfeed.store.database import Connection, Database
from outfeed.store.event_log import log_event
from outfeed.upkeep.policy import Policy
from outfeed.upkeep.retention import JOB, Prune

EVERY_SECS = 3600.0
# A clock that has moved further than this since the last run is believed once it has gone on from there as long.
MAX_LEAP = timedelta(days=1)
log = logging.getLogger(__name__)


class RetentionJob(Part):
    """Prunes by *policy*. `run` is called about every hour, by each process that serves; one does it."""

    def __init__(self, database: Database, policy: Policy) -> None:
        self._database = database
        self._policy = policy
        self._stopping = threading.Event()
        self.jobs = {"prune": Job(self.run, EVERY_SECS)}

    def run(self) -> None:
        """Prune unless another process is at it or the clock can't be believed. What fails is logged."""
        try:
            with lease.hold(lease.lock_file(self._database.path, JOB), wait=False) as is_held:
                if is_held and is_clock_plausible(self._database):
                    self._prune()
        except (OutfeedError, OSError) as error:
            log.warning(LogMessage("could not prune, trying again in an hour", error=error))

    def _prune(self) -> None:
        done = Prune(self._database, self._policy, "schedule", stopping=self._stopping).run()
        if done.events or done.outbox_rows:
            log.info(LogMessage("pruned", events=done.events, outbox_rows=done.outbox_rows))

    def stop(self) -> None:
        """Have a run that is at work end after its chunk."""
        self._stopping.set()


def is_clock_plausible(database: Database) -> bool:
    """Return whether the wall clock has gone on from where it last was here, or has held for a day since it leapt.

    A clock set a year ahead makes everything a year old. What is known of it is kept in the database: a restart changes
    nothing, and a backup that was restored is not pruned in its first day. Leaves an event when it begins to doubt.
    """
    now = clock.now()
    with database.transaction() as connection:
        seen = clock.parsed(db.meta(connection, "clock"))
        if seen is None or now <= seen + MAX_LEAP or _has_held(connection, now):
            _remember(connection, "clock", now)
            _forget_leap(connection)
            return True
        if db.meta(connection, "clock_leapt") is None:
            _doubt(connection, seen, now)
        _remember(connection, "clock_doubted", now)
        return False


def _has_held(connection: Connection, now: datetime) -> bool:
    """Return whether the leap is MAX_LEAP ago; forget it where the clock has leapt once more since the last run."""
    leapt, doubted = (clock.parsed(db.meta(connection, key)) for key in ("clock_leapt", "clock_doubted"))
    if leapt is None or doubted is None:
        return False
    if not doubted - MAX_LEAP <= now <= doubted + MAX_LEAP:
        _forget_leap(connection)
        return False
    return now >= leapt + MAX_LEAP


def _doubt(connection: Connection, seen: datetime, now: datetime) -> None:
    _remember(connection, "clock_leapt", now)
    days = (now - seen) / timedelta(days=1)
    log.warning(LogMessage("clock has leapt, not pruning for a day", days=f"{days:.1f}"))
    message = f"The clock is {days:,.1f} days on since pruning last ran; nothing is pruned until it has held for a day"
    log_event(EventType.SYSTEM_WARNING, audit.SOURCE, data={"message": message}, connection=connection)


def _remember(connection: Connection, key: str, moment: datetime) -> None:
    connection.execute(
        "INSERT INTO outfeed_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, clock.isoformat(moment)),
    )


def _forget_leap(connection: Connection) -> None:
    connection.execute("DELETE FROM outfeed_meta WHERE key IN ('clock_leapt', 'clock_doubted')")
