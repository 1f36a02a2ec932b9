"""Rights: disconnects clients when a permission is revoked or expires.

The change may come from any process. The same SELECT reads the number of erasures. After an erasure the core drops its
cached events.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterable
from datetime import datetime

from outfeed import clock
from outfeed.access.grants import DatabaseGrants, Grants
from outfeed.access.store import account
from outfeed.errors import DatabaseError, SourceError
from outfeed.feature import SharedGrants
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

    Detecting a change costs one read of *grants*.
    """

    def __init__(self, grants: Grants, core: Core) -> None:
        self.grants = grants
        self._core = core
        self._counters: tuple[str, int] = ("", 0)
        self.jobs = {"rights": Job(self.check, 0.5)}

    def prepare(self) -> None:
        """Read the counters.

        An erasure after that empties the tail, which is filled later. Raises SourceError.
        """
        self._counters = self.grants.counters()
        self._core.hub.erased = self._counters[1]

    def check(self) -> None:
        """Disconnect revoked subscribers and drop caches after an erasure.

        Never raises.
        """
        try:
            self.take(self.grants.counters())
            self._check_times()
        except SourceError as error:
            log.warning(LogMessage("can't check the permissions, trying again", error=error))

    def take(self, now: tuple[str, int]) -> None:
        """Check all subscribers, or drop caches, if the counters are others *now*.

        Raises SourceError.
        """
        rights, erasures = self._counters
        if now[0] != rights:
            self._check_all()
        if now[1] != erasures:
            self._core.forget(erased=now[1])
        self._counters = now

    @property
    def last_rights(self) -> str:
        """The counter of revocations at the last check."""
        return self._counters[0]

    def _check_all(self) -> None:
        clients = self._core.hub.clients()
        current = self._principals({subscriber.principal.grant for subscriber in clients})
        for subscriber in clients:
            _disconnect_if_changed(current[subscriber.principal.grant], subscriber)

    def _principals(self, grants: Iterable[str]) -> dict[str, Principal | None]:
        return {grant: self.grants.principal_of(grant) for grant in grants}

    def principal_of(self, grant: str) -> Principal | None:
        """Return the current principal of *grant*, or None if it is revoked.

        Raises SourceError.
        """
        return self.grants.principal_of(grant)

    def check_newcomer(self, subscriber: ConnectedClient) -> None:
        """Check again a subscriber that was just added to the hub.

        `check` may have run between its admission and its addition. Raises SourceError.
        """
        _disconnect_if_changed(self.grants.principal_of(subscriber.principal.grant), subscriber)

    def _check_times(self) -> None:
        now = clock.now()
        for subscriber in self._core.hub.clients():
            if subscriber.principal.has_expired(now):
                subscriber.ask_to_end(frames.SIGNED_OUT, "expired")

    def note_use(self, grant: str) -> None:
        """Note that a token was used now, where that is kept."""


class OriginRights(Rights):
    """The rights of a process that has the database.

    `_lock` guards `_uses`, the times at which tokens were used. A job writes them every few seconds, so that no request
    waits for a writer.
    """

    grants: DatabaseGrants

    def __init__(self, database: Database, shared: SharedGrants | None, core: Core) -> None:
        super().__init__(DatabaseGrants(database, shared), core)
        self._database = database
        self._lock = threading.Lock()
        self._uses: dict[str, str] = {}
        self.jobs = {**self.jobs, "uses": Job(self.write_uses, 5.0)}

    def signed_in_at(self, grant: str) -> datetime | None:
        return account.session_began_at(self._database, grant)

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
