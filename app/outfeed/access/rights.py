"""Rights: open connections end when a permission is revoked or expires, whichever process did it.

The same SELECT tells whether an event was erased; then the core forgets what it has read.
"""

from __future__ import annotations

import logging
import random
import threading

from outfeed import clock
from outfeed.access.store import account
from outfeed.errors import DatabaseError
from outfeed.feed import frames
from outfeed.feed.client import ConnectedClient
from outfeed.feed.core import Core
from outfeed.http.identity import Guard
from outfeed.jobs import Job
from outfeed.log_message import LogMessage
from outfeed.principal import Principal
from outfeed.store.database import Database

log = logging.getLogger(__name__)


class Rights(Guard):
    """Checks the subscribers of one process again. Looking whether anything has changed costs one SELECT.

    `_lock` guards `_uses`: when tokens were used, written now and then, so that no request waits for a writer.
    """

    def __init__(self, database: Database, core: Core) -> None:
        self._database = database
        self._core = core
        self._seen = (-1, -1)
        self._lock = threading.Lock()
        self._uses: dict[str, str] = {}
        self.jobs = {"rights": Job(self.check, 0.5), "uses": Job(self.write_uses, 5.0)}

    def start(self) -> None:
        """Take the counters as they are: nobody is connected yet. Raises DatabaseError."""
        self._seen = account.rights(self._database)
        self._core.hub.erased = self._seen[1]

    def check(self) -> None:
        """Send away who may no longer see what they asked for, and forget what was erased. Never raises."""
        try:
            now = account.rights(self._database)
            if now[0] != self._seen[0]:
                self._check_all()
            else:
                self._check_times()
            if now[1] != self._seen[1]:
                self._core.forget(erased=now[1])
            self._seen = now
        except DatabaseError as error:
            log.warning(LogMessage("rights not checked, trying again", error=error))

    def _check_all(self) -> None:
        current: dict[str, Principal | None] = {}
        for subscriber in self._core.hub.clients():
            grant = subscriber.principal.grant
            if grant not in current:
                current[grant] = account.principal_of(self._database, grant)
            _apply(current[grant], subscriber)

    def principal_of(self, grant: str) -> Principal | None:
        """Return the principal that *grant* stands for now; None once it was revoked. Raises DatabaseError."""
        return account.principal_of(self._database, grant)

    def check_newcomer(self, subscriber: ConnectedClient) -> None:
        """Look again at one that was just added to the hub: `check` may have looked in vain since it was admitted.

        Raises DatabaseError.
        """
        _apply(account.principal_of(self._database, subscriber.principal.grant), subscriber)

    def _check_times(self) -> None:
        now = clock.now()
        for subscriber in self._core.hub.clients():
            if subscriber.principal.has_expired(now):
                subscriber.ask_to_end(frames.SIGNED_OUT, "expired")

    def close(self) -> None:
        """Write the uses that no job has written yet."""
        self.write_uses()

    def note_use(self, grant: str) -> None:
        """Remember that a token was used just now."""
        with self._lock:
            self._uses[grant] = clock.timestamp()

    def write_uses(self) -> None:
        """Write down when tokens were used. Never raises: what can't be written now is written the next time."""
        with self._lock:
            uses, self._uses = self._uses, {}
        try:
            if uses:
                account.note_uses(self._database, uses)
        except DatabaseError as error:
            log.warning(LogMessage("uses of tokens not written, trying again", error=error))
            with self._lock:
                self._uses = uses | self._uses


def _apply(found: Principal | None, subscriber: ConnectedClient) -> None:
    """Send *subscriber* away unless what it may is what *found*, who it is now, may."""
    if found is None or not found.may_follow:
        subscriber.ask_to_end(frames.SIGNED_OUT, "signed out or revoked")
    elif found != subscriber.principal:
        # Still welcome, with other rights: it comes back and gets a filter that knows of them.
        subscriber.ask_to_end(frames.RESTARTING, f"retry_ms={random.randint(0, 500)}")  # noqa: S311
