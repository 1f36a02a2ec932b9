"""The probe: finds out that the database can't be written to before a writer does, and that it can again."""

from __future__ import annotations

import logging
import os

from outfeed import clock
from outfeed.errors import DatabaseError
from outfeed.log_message import LogMessage
from outfeed.store.database import Database

EVERY_SECS = 10.0
# With less than this to spare, or after a write has failed, only a write that needs room shows whether there is some.
TIGHT_BYTES = 2**20
ROOM_BYTES = 65_536
log = logging.getLogger(__name__)


class Probe:
    """Looks after one process's database. `check` is called about every second, by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next = 0.0
        self._said: str | None = None

    def check(self) -> None:
        """Try to write: every EVERY_SECS, and each time while writes fail. Never raises."""
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
        """Read the whole file, for damage where nobody has read. Never raises."""
        try:
            self._database.check()
        except DatabaseError as error:
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
