"""Retention job: prunes every hour in one process.

It does not prune if the wall clock is implausible.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
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
# A clock that jumped further since the last run is trusted after it has advanced normally for as long.
MAX_LEAP = timedelta(days=1)
log = logging.getLogger(__name__)


class RetentionJob(Part):
    """Prunes by the policy that *policy* returns.

    `run` is called about every hour, by each process that serves. One of them prunes.
    """

    def __init__(self, database: Database, policy: Callable[[], Policy]) -> None:
        self._database = database
        self._policy = policy
        self._stopping = threading.Event()
        self.jobs = {"prune": Job(self.run, EVERY_SECS)}

    def run(self) -> None:
        """Prune, unless another process is pruning or the clock is implausible.

        Errors are logged.
        """
        try:
            with lease.hold(lease.lock_file(self._database.path, JOB), wait=False) as is_held:
                if is_held and is_clock_plausible(self._database):
                    self._prune()
        except (OutfeedError, OSError) as error:
            log.warning(LogMessage("could not prune, trying again in an hour", error=error))

    def _prune(self) -> None:
        done = Prune(self._database, self._policy(), "schedule", stopping=self._stopping).run()
        if done.events or done.outbox_rows:
            log.info(LogMessage("pruned", events=done.events, outbox_rows=done.outbox_rows))

    def stop(self) -> None:
        """Stop a running prune after its current chunk."""
        self._stopping.set()


def is_clock_plausible(database: Database) -> bool:
    """Return whether the wall clock is plausible.

    It is plausible if it has jumped less than MAX_LEAP since the last run, or if a larger jump is a day ago. (A clock
    set a year ahead makes every event a year old.) The state is in the database: it survives a restart, and a restored
    backup is not pruned on its first day. Writes an event at the first implausible time.
    """
    now = clock.now()
    with database.transaction() as connection:
        seen = clock.parsed(db.meta(connection, "clock"))
        if seen is None or now <= seen + MAX_LEAP or _is_leap_over(connection, now):
            _save_time(connection, "clock", now)
            _clear_leap(connection)
            return True
        if db.meta(connection, "clock_leapt") is None:
            _record_leap(connection, seen, now)
        _save_time(connection, "clock_doubted", now)
        return False


def _is_leap_over(connection: Connection, now: datetime) -> bool:
    """Return whether the jump of the clock is MAX_LEAP ago.

    Clears the recorded jump if the clock has jumped again since the last run.
    """
    leapt, doubted = (clock.parsed(db.meta(connection, key)) for key in ("clock_leapt", "clock_doubted"))
    if leapt is None or doubted is None:
        return False
    if not doubted - MAX_LEAP <= now <= doubted + MAX_LEAP:
        _clear_leap(connection)
        return False
    return now >= leapt + MAX_LEAP


def _record_leap(connection: Connection, seen: datetime, now: datetime) -> None:
    _save_time(connection, "clock_leapt", now)
    days = (now - seen) / timedelta(days=1)
    log.warning(LogMessage("clock has leapt, not pruning for a day", days=f"{days:.1f}"))
    message = f"The clock is {days:,.1f} days on since pruning last ran; nothing is pruned until it has held for a day"
    log_event(EventType.SYSTEM_WARNING, audit.SOURCE, data={"message": message}, connection=connection)


def _save_time(connection: Connection, key: str, moment: datetime) -> None:
    connection.execute(
        "INSERT INTO outfeed_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, clock.isoformat(moment)),
    )


def _clear_leap(connection: Connection) -> None:
    connection.execute("DELETE FROM outfeed_meta WHERE key IN ('clock_leapt', 'clock_doubted')")
