"""Repairs, snapshots and notes of the watches, in each serving process."""

from __future__ import annotations

import logging
import threading

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import DatabaseError
from outfeed.feature import Part
from outfeed.jobs import Job
from outfeed.log_message import LogMessage
from outfeed.store import lease
from outfeed.store.database import Database
from outfeed.watch.store import repair, snapshot
from outfeed.watch.store.watches import JOB

NOTE_EVERY_SECS = 60.0
SNAPSHOT_SECS = 0.8  # of each second
log = logging.getLogger(__name__)


class WatchPart(Part):
    """Maintains the watches of one database.

    Of several processes, one does so at a time, under a lease.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._stopping = threading.Event()
        self._schema_version: int | None = None
        self._noted = (0.0, 0)  # when, and the last rowid of the log then
        self._lost: list[str] = []
        self._failure: str | None = None
        self.jobs = {JOB: Job(self.check, 1.0)}

    def check(self, *, is_start: bool = False) -> None:
        """Repair triggers, continue snapshots and note the highest keys.

        Never raises: a failure is logged once, and the next call tries again.
        """
        try:
            with lease.hold(lease.lock_file(self._database.path, JOB), wait=False) as is_held:
                if is_held:
                    self._check(is_start=is_start)
                    snapshot.advance(self._database, self._stopping, SNAPSHOT_SECS)
            self._failure = None
        except DatabaseError as error:
            if str(error) != self._failure:
                log.error(LogMessage("watches can't be checked, trying again", error=error))
            self._failure = str(error)

    def _check(self, *, is_start: bool) -> None:
        with self._database.snapshot() as connection:
            (version,) = connection.execute("PRAGMA schema_version").fetchone()
            if version == self._schema_version:
                self._note_now_and_then()
                return
            self._lost = repair.lost_tables(connection)
            found = repair.problems(connection, self._settings)
        if found:
            with self._database.transaction() as connection:
                done = repair.repair(connection, self._settings, is_start=is_start)
            for each in dict.fromkeys(done):
                log.warning(LogMessage("watch repaired", problem=each))
            return  # the repair has changed the schema, so the next call looks again
        self._schema_version = version
        self._note()

    def _note_now_and_then(self) -> None:
        since, rowid = self._noted
        if clock.monotonic() - since >= NOTE_EVERY_SECS and self._last_rowid() != rowid:
            self._note()

    def _last_rowid(self) -> int:
        with self._database.snapshot() as connection:
            return repair.last_rowid(connection)

    def _note(self, *, is_clean: bool = False) -> None:
        if self._lost:
            return
        with self._database.transaction() as connection:
            if repair.has_watches(connection):
                repair.note(connection, is_clean=is_clean)
            self._noted = clock.monotonic(), repair.last_rowid(connection)

    def problems(self) -> list[str]:
        return [f"the table {name} is missing, so watched tables have no events" for name in self._lost]

    def stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        """Note the highest keys of the watched tables.

        So the next start knows which rows have no event.
        """
        try:
            self._note(is_clean=True)
        except DatabaseError as error:
            log.warning(LogMessage("highest keys of watched tables not noted", error=error))
