"""Grants.

A grant is a token, a session or a ticket, on which a request or a connection rests.
"""

from __future__ import annotations

from typing import Protocol

from outfeed.access.store import account
from outfeed.feature import SharedGrants
from outfeed.principal import Principal
from outfeed.store.database import Database


class Grants(Protocol):
    """The grants of tokens, sessions and tickets, and their lookup.

    Any thread may call any method; each raises SourceError if it can't look now.
    """

    def find_token(self, secret: str) -> Principal | None:
        """Return who has the token.

        None if it is unknown, was revoked or has expired.
        """
        ...

    def find_session(self, key: str) -> Principal | None:
        """Return who has the session.

        None if it has ended or expired, or the user is disabled.
        """
        ...

    def redeem_ticket(self, ticket: str) -> Principal | None:
        """Use *ticket* up and return in whose name it reads; None for a bad one."""
        ...

    def principal_of(self, grant: str) -> Principal | None:
        """Return who has *grant* now; None once it was revoked or has expired."""
        ...

    def counters(self) -> tuple[str, int]:
        """Return the counter of revocations, and the number of erased events.

        The first changes when a permission may have been revoked.
        """
        ...


class DatabaseGrants:
    """The grants in the account tables.

    If other hosts serve the feed, tickets are where those find them.
    """

    def __init__(self, database: Database, shared: SharedGrants | None) -> None:
        self._database = database
        self._shared = shared

    def find_token(self, secret: str) -> Principal | None:
        """Return who has the token.

        None if it is unknown, was revoked or has expired.
        """
        return account.find_token(self._database, secret)

    def find_session(self, key: str) -> Principal | None:
        """Return who has the session.

        None if it has ended or expired, or the user is disabled.
        """
        return account.find_session(self._database, key)

    def principal_of(self, grant: str) -> Principal | None:
        """Return who has *grant* now; None once it was revoked or has expired."""
        return account.principal_of(self._database, grant)

    def counters(self) -> tuple[str, int]:
        """Return the counter of revocations, and the number of erased events.

        The first changes when a permission may have been revoked.
        """
        rights, erasures = account.change_counters(self._database)
        return str(rights), erasures

    def create_ticket(self, principal: Principal) -> str:
        """Return a ticket that opens one WebSocket in *principal*'s name.

        It reads only, and is valid for TICKET_LIFETIME.
        """
        if self._shared is None:
            return account.create_ticket(self._database, principal)
        return self._shared.create_ticket(principal)

    def redeem_ticket(self, ticket: str) -> Principal | None:
        """Use *ticket* up and return in whose name it reads; None for a bad one."""
        if self._shared is None:
            return account.redeem_ticket(self._database, ticket)
        grant = self._shared.take_ticket(ticket)
        return account.principal_of(self._database, f"ticket:{grant}") if grant else None

    def share(self, grant: str) -> None:
        """Make a new *grant* known to other hosts at once.

        Never raises: they learn of it within a second anyway.
        """
        if self._shared is not None and (found := self.principal_of(grant)) is not None:
            self._shared.add(found)
