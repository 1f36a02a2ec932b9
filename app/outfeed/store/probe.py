"""Probe: checks whether the database can be written to.

The server reports a failure before a writer meets it, and reports the recovery.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from outfeed import clock
from outfeed.errors import DatabaseError, QueryCancelled
from outfeed.log_message import LogMessage
from outfeed.store import lease
from outfeed.store.database import Database

EVERY_SECS = 10.0
# With less free space than this, or after a failed write, only a write that needs space shows whether there is some.
TIGHT_BYTES = 2**20
ROOM_BYTES = 65_536
CHECK = "integrity"
# Workers that start together check together, and one check is enough. The time is shorter than INTEGRITY_DELAY_SECS in
# http/services.py, so that a restarted server checks in any case.
FRESH_SECS = 240.0
log = logging.getLogger(__name__)


def _is_fresh(file: Path) -> bool:
    """Return whether a check has passed in the last FRESH_SECS.

    *file* has the time of the last check of any process.
    """
    try:
        return 0 <= clock.now().timestamp() - float(file.read_text("ascii")) < FRESH_SECS
    except ValueError:
        return False


class Probe:
    """Watches one process's database.

    `check` is called about every second, by one thread at a time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next = 0.0
        self._reported: str | None = None
        self._awaits_check = False  # another process is checking the whole file

    def check(self) -> None:
        """Try to write, every EVERY_SECS and on each call while writes fail.

        Never raises.
        """
        if self._awaits_check:
            self.check_integrity()
        now = clock.monotonic()
        is_well = self._database.failure is None and self._database.damage is None
        if is_well and now < self._next:
            return
        self._next = now + EVERY_SECS
        try:
            self._write()
        except DatabaseError as error:
            self._report(str(error))
        else:
            self._report(None)

    def check_integrity(self) -> None:
        """Read the whole file to find damage that no query has met.

        One process at a time does so, under a lease, and its result counts for all if the file is whole. If it is
        damaged, each of the others reads it as well, to refuse its own writes. `Database.interrupt_checks` ends the
        read. Never raises.
        """
        try:
            file = lease.lock_file(self._database.path, CHECK)
            with lease.hold(file, wait=False) as is_held:
                self._awaits_check = not is_held
                if is_held and not _is_fresh(file):
                    file.write_text("", "ascii")
                    self._database.check()
                    file.write_text(str(clock.now().timestamp()), "ascii")
        except (DatabaseError, QueryCancelled, OSError) as error:
            if not self._database.is_interrupted:
                log.error(LogMessage("can't check the database", error=error))

    def problems(self) -> list[str]:
        """Return why nothing can be written, one sentence each.

        The list is empty if the database can be written to.
        """
        found = [self._database.damage, self._database.failure]
        return list(dict.fromkeys(str(each) for each in found if each is not None))

    def _write(self) -> None:
        """Take the write lock; if that is not conclusive, write and delete."""
        with self._database.transaction() as connection:
            if needs_room := self._database.failure is not None or self._is_tight():
                connection.execute(
                    "INSERT INTO outfeed_meta (key, value) VALUES ('probe', zeroblob(?))"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (ROOM_BYTES,),
                )
        if needs_room:
            self._database.failure = None
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM outfeed_meta WHERE key = 'probe'")

    def _is_tight(self) -> bool:
        try:
            disk = os.statvfs(self._database.path.parent)
        except OSError:
            return True
        return disk.f_bavail * disk.f_frsize < TIGHT_BYTES

    def _report(self, failure: str | None) -> None:
        if failure != self._reported:
            if failure is None:
                log.warning(LogMessage("can write to the database again", path=self._database.path))
            else:
                log.error(LogMessage("can't write to the database, trying again", error=failure))
        self._reported = failure
