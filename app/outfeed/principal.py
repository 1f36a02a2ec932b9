"""Principals: the permissions of a request's sender.

A principal also limits which events the sender may see. No I/O.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from outfeed.errors import Forbidden

READ, WRITE, ADMIN = "read", "write", "admin"
SCOPES = (READ, WRITE, ADMIN)
ANY = "any"  # of a route whose view checks the scope of each action itself
ROLES = {"viewer": (READ,), "producer": (READ, WRITE), "operator": SCOPES}

# The audit's own types: only `admin` reads them, and only Outfeed writes them. All other `system.` types are open to
# every principal.
AUDIT_PREFIX = "access."
AUDIT_TYPES = ("system.pruned", "system.restored", "system.backed_up")
_PATTERN = re.compile(r"[^*\s,]{1,198}(\.\*)?")


def is_of_type(event_type: str, pattern: str) -> bool:
    """Return whether *pattern* covers *event_type*.

    A pattern is an exact type or a prefix like `task.*`.
    """
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else event_type == pattern


def check_patterns(types: Iterable[str]) -> tuple[str, ...]:
    """Return *types*, each once.

    Raises ValueError for a text that is neither a type nor a prefix like `task.*`.
    """
    found = tuple(dict.fromkeys(types))
    for pattern in found:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"a type is like task.created or task.*, got {pattern!r:.80}")
    return found


def is_audit(event_type: str) -> bool:
    """Return whether *event_type* is one of the audit's own types."""
    return event_type.startswith(AUDIT_PREFIX) or event_type in AUDIT_TYPES


@dataclass(frozen=True, slots=True)
class EventScope:
    """The events that a principal may see.

    The scope is ANDed into each of the principal's filters. Empty *types* sets no condition.
    """

    types: tuple[str, ...] = ()
    has_audit: bool = False

    def covers(self, event_type: str) -> bool:
        """Return whether events of that type may be seen."""
        return (self.has_audit or not is_audit(event_type)) and (
            not self.types or any(is_of_type(event_type, pattern) for pattern in self.types)
        )


# For processes with access to the database file.
EVERYTHING = EventScope(has_audit=True)


class Wanted(Protocol):
    """The events that a reader wants: all conditions must hold.

    Empty *types* and None set no condition.
    """

    @property
    def visible(self) -> EventScope: ...
    @property
    def types(self) -> tuple[str, ...]: ...
    @property
    def source(self) -> str | None: ...
    @property
    def task_id(self) -> str | None: ...
    @property
    def agent_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request or the owner of a connection.

    *grant* names the credential, one row of the account tables, so that an open connection can be checked again:
    `token:…`, `session:…`, `ticket:token:…`. The principal expires at *expires_at*.
    """

    name: str
    scopes: tuple[str, ...]
    grant: str
    types: tuple[str, ...] = ()
    expires_at: datetime | None = None

    @property
    def is_session(self) -> bool:
        """Whether the principal is a user who signed in."""
        return self.grant.startswith("session:")

    @property
    def is_browser(self) -> bool:
        """Whether the request comes from a page.

        It is a page of a user who signed in, or a page of another site with a ticket.
        """
        return not self.grant.startswith("token:")

    @property
    def has_ticket(self) -> bool:
        """Whether the principal is a page of another site."""
        return self.grant.startswith("ticket:")

    @property
    def is_operator(self) -> bool:
        """Whether the principal may do everything.

        It is a user with the role operator, or a token with the scope admin.
        """
        return ADMIN in self.scopes

    @property
    def role(self) -> str:
        """Name of the smallest role with the principal's permissions."""
        return next(role for role, scopes in ROLES.items() if all(scope in scopes for scope in self.scopes))

    @property
    def owner(self) -> str:
        """Name of the principal as the owner of a consumer.

        It is `token:NAME` or `user:NAME`. A new token of the same name is the same owner.
        """
        return f"{'user' if self.is_session else 'token'}:{self.name}"

    @property
    def fingerprint(self) -> str:
        """Opaque text that names the credential and its permissions.

        Clients that share a connection compare it.
        """
        told = json.dumps([self.grant, self.name, self.scopes, self.types])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def may_follow(self) -> bool:
        """Whether the principal may be connected to the feed."""
        return self.may(READ)

    def has_expired(self, now: datetime) -> bool:
        """Return whether the principal has expired."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def visible(self) -> EventScope:
        """Events that the principal may see."""
        return EventScope(self.types, has_audit=ADMIN in self.scopes)

    def may(self, scope: str) -> bool:
        """Return whether *scope* is granted; `admin` includes the others."""
        return scope == ANY or scope in self.scopes or ADMIN in self.scopes

    def require_write(self, event_type: object) -> None:
        """Raise Forbidden unless the principal may write that type.

        A value that is not text passes, because the validation of events rejects it.
        """
        if not isinstance(event_type, str):
            return
        if is_audit(event_type):
            raise Forbidden(f"only Outfeed itself writes events of the type {str(event_type)!r:.80}")
        if not (self.may(WRITE) and self.visible.covers(event_type)):
            raise Forbidden(f"{self.name} may not write events of the type {str(event_type)!r:.80}")
