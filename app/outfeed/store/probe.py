"""The probe: finds out that the database can't be written to before a writer does, and that it can again."""

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
# With less than this to spare, or after a write has failed, only a write that needs room shows whether there is some.
TIGHT_BYTES = 2**20
ROOM_BYTES = 65_536
CHECK = "integrity"
# Workers that start together check together, and one of them is enough. Less than INTEGRITY_DELAY_SECS in
# http/services.py, so that a server that was started again checks in any case.
FRESH_SECS = 240.0
log = logging.getLogger(__name__)


def _is_fresh(file: Path) -> bool:
    """Return whether a process has found the database whole in the last FRESH_SECS."""
    try:
        return 0 <= clock.now().timestamp() - float(file.read_text("ascii")) < FRESH_SECS
    except ValueError:
        return False


class Probe:
    """Looks after one process's database. `check` is called about every second, by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next = 0.0
        self._said: str | None = None
        self._awaits_check = False  # another process reads the whole file

    def check(self) -> None:
        """Try to write: every EVERY_SECS, and each time while writes fail. Never raises."""
        if self._awaits_check:
            self.look_through()
        now = clock.monotonic()
        is_well = self._database.failure is None and self._database.damage is None
        if is_well and now < self._next:
            return
        self._next = now + EVERY_SECS
        try:
            self._write()
        except DatabaseError as error:
            self._say(str(error))
        else:
            self._say(None)

    def look_through(self) -> None:
        """Read the whole file, for damage where nobody has read. Never raises.

        One process at a time does so, under a lease, and finds the file whole for all. If it is damaged, each of the
        others reads it as well, to refuse its own writes. `Database.interrupt_checks` ends it.
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
                log.error(LogMessage("database can't be checked", error=error))

    def problems(self) -> list[str]:
        """Return why nothing can be written, one sentence each; none when all is well."""
        found = [self._database.damage, self._database.failure]
        return list(dict.fromkeys(str(each) for each in found if each is not None))

    def _write(self) -> None:
        """Take the write lock, and where that isn't enough to know, write something and take it away again."""
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

    def _say(self, failure: str | None) -> None:
        if failure != self._said:
            if failure is None:
                log.warning(LogMessage("database can be written to again", path=self._database.path))
            else:
                log.error(LogMessage("database can't be written to, trying again", error=failure))
        self._said = failure
