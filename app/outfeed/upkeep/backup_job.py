"""Backup job: makes backups by the schedule and on request.

Of several processes, the one that holds the lease does so.
"""

from __future__ import annotations

import logging
import math
import threading
from datetime import UTC, datetime, timedelta

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import OutfeedError, QueryCancelled
from outfeed.feature import Part
from outfeed.jobs import Job
from outfeed.log_message import LogMessage
from outfeed.store import deadline, lease
from outfeed.store.database import Database
from outfeed.upkeep import backups, maintenance

BY = "schedule"
TICK_SECS = 1.0
DUE_EVERY_SECS = 60.0
# The pause after a failed backup, before the schedule tries again.
RETRY_AFTER = timedelta(minutes=10)
log = logging.getLogger(__name__)


class BackupJob(Part):
    """Backs up into OUTFEED_BACKUP_DIR, if it is set.

    Any thread may call `request`. `_lock` guards `_requested`, the principal that has requested a backup. `run` belongs
    to the thread of its job.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._requested: str | None = None
        self._looked_at = -math.inf
        self.jobs = {"backup": Job(self.run, TICK_SECS)} if settings.backup_dir else {}

    def request(self, by: str) -> None:
        """Make a backup as soon as no other one runs, within about a second.

        A second request before it begins has no effect.
        """
        with self._lock:
            self._requested = self._requested or by

    @property
    def is_requested(self) -> bool:
        """Return whether a requested backup has not begun yet."""
        with self._lock:
            return self._requested is not None

    def run(self) -> None:
        """Back up if that is requested or due. An error is logged."""
        is_time = clock.monotonic() - self._looked_at >= DUE_EVERY_SECS
        if not is_time and not self.is_requested:
            return
        try:
            with lease.hold(lease.lock_file(self._database.path, backups.JOB), wait=False) as is_held:
                if is_held:
                    self._looked_at = clock.monotonic()
                    self._back_up_if_wanted()
        except QueryCancelled:
            log.info(LogMessage("backup cancelled: the server stops"))
        except (OutfeedError, OSError) as error:
            log.warning(LogMessage("backup failed", error=error))

    def _back_up_if_wanted(self) -> None:
        with self._lock:
            by, self._requested = self._requested, None
        folder = self._settings.backup_dir
        if folder is None or (by is None and not is_due(self._database, self._settings)):
            return
        with deadline.limited(math.inf, lambda: not self._stopping.is_set()):
            made = backups.make_alone(
                self._database, folder, self._settings.backup_keep, by=by or BY, on_progress=self._check_stop
            )
        facts = {"events": made.content.events, "removed": len(made.removed)}
        log.info(LogMessage("backed up", file=made.path.name, **facts))

    def _check_stop(self, _: int, __: int) -> None:
        if self._stopping.is_set():
            raise QueryCancelled("the server stops")

    def stop(self) -> None:
        """Cancel a running backup. Its copy is removed."""
        self._stopping.set()


def is_due(database: Database, settings: Settings) -> bool:
    """Return whether the schedule wants a backup now.

    It is due if no backup in the folder is younger than OUTFEED_BACKUP_EVERY_HOURS, and if the last one has not failed
    within RETRY_AFTER. Raises DatabaseError.
    """
    if not settings.backup_every_hours or settings.backup_dir is None:
        return False
    now, run = clock.now(), maintenance.runs(database).get(backups.JOB, maintenance.MaintenanceRun())
    if run.has_failed and abs(now - datetime.fromtimestamp(run.failed_at or 0, UTC)) < RETRY_AFTER:
        return False
    try:
        last = backups.last_made(backups.list_backups(database, settings.backup_dir), now)
    except OutfeedError:
        return True  # the backup fails for the same reason, and the failure is recorded
    return last is None or now - last >= timedelta(hours=settings.backup_every_hours)
