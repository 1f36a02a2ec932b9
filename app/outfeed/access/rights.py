"""Rights: disconnects clients when a permission is revoked or expires.

The change may come from any process. The same SELECT reads the number of erasures. After an erasure the core drops its
cached events.
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
    """The guard of one process: checks its subscribers again after changes.

    Detecting a change costs one SELECT. `_lock` guards `_uses`, the times at which tokens were used. A job writes them
    every few seconds, so that no request waits for a writer.
    """

    def __init__(self, database: Database, core: Core) -> None:
        self._database = database
        self._core = core
        self._counters = (-1, -1)
        self._lock = threading.Lock()
        self._uses: dict[str, str] = {}
        self.jobs = {"rights": Job(self.check, 0.5), "uses": Job(self.write_uses, 5.0)}

    def start(self) -> None:
        """Read the counters before the first client connects.

        Raises DatabaseError.
        """
        self._counters = account.change_counters(self._database)
        self._core.hub.erased = self._counters[1]

    def check(self) -> None:
        """Disconnect revoked subscribers and drop caches after an erasure.

        Never raises.
        """
        try:
            now = account.change_counters(self._database)
            if now[0] != self._counters[0]:
                self._check_all()
            else:
                self._check_times()
            if now[1] != self._counters[1]:
                self._core.forget(erased=now[1])
            self._counters = now
        except DatabaseError as error:
            log.warning(LogMessage("can't check the permissions, trying again", error=error))

    def _check_all(self) -> None:
        current: dict[str, Principal | None] = {}
        for subscriber in self._core.hub.clients():
            grant = subscriber.principal.grant
            if grant not in current:
                current[grant] = account.principal_of(self._database, grant)
            _disconnect_if_changed(current[grant], subscriber)

    def principal_of(self, grant: str) -> Principal | None:
        """Return the current principal of *grant*, or None if it is revoked.

        Raises DatabaseError.
        """
        return account.principal_of(self._database, grant)

    def check_newcomer(self, subscriber: ConnectedClient) -> None:
        """Check again a subscriber that was just added to the hub.

        `check` may have run between its admission and its addition. Raises DatabaseError.
        """
        _disconnect_if_changed(account.principal_of(self._database, subscriber.principal.grant), subscriber)

    def _check_times(self) -> None:
        now = clock.now()
        for subscriber in self._core.hub.clients():
            if subscriber.principal.has_expired(now):
                subscriber.ask_to_end(frames.SIGNED_OUT, "expired")

    def close(self) -> None:
        """Write the uses that no job has written yet."""
        self.write_uses()

    def note_use(self, grant: str) -> None:
        """Note that a token was used now."""
        with self._lock:
            self._uses[grant] = clock.timestamp()

    def write_uses(self) -> None:
        """Write the times at which tokens were used.

        Never raises. Times that can't be written now are written by the next call.
        """
        with self._lock:
            uses, self._uses = self._uses, {}
        try:
            if uses:
                account.note_uses(self._database, uses)
        except DatabaseError as error:
            log.warning(LogMessage("can't write the tokens' last use, trying again", error=error))
            with self._lock:
                self._uses = uses | self._uses


def _disconnect_if_changed(found: Principal | None, subscriber: ConnectedClient) -> None:
    """Disconnect *subscriber* if *found*, its current principal, has changed."""
    if found is None or not found.may_follow:
        subscriber.ask_to_end(frames.SIGNED_OUT, "signed out or revoked")
    elif found != subscriber.principal:
        # The client still has access, with other permissions. It reconnects and gets a new filter.
        subscriber.ask_to_end(frames.RESTARTING, f"retry_ms={random.randint(0, 500)}")  # noqa: S311
