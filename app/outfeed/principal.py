"""Principals: what the sender of a request may do, and which events it may see. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from outfeed.errors import Forbidden

READ, WRITE, ADMIN = "read", "write", "admin"
SCOPES = (READ, WRITE, ADMIN)
ROLES = {"viewer": (READ,), "producer": (READ, WRITE), "operator": SCOPES}

# The audit's own types: only `admin` reads them, and only Outfeed writes them. What else begins with `system.` is
# everybody's.
AUDIT_PREFIX = "access."
AUDIT_TYPES = ("system.pruned", "system.restored")
_PATTERN = re.compile(r"[^*\s,]{1,198}(\.\*)?")


def is_of_type(event_type: str, pattern: str) -> bool:
    """Return whether *pattern*, an exact type or a prefix like `task.*`, names *event_type*."""
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else event_type == pattern


def check_patterns(types: Iterable[str]) -> tuple[str, ...]:
    """Return *types*, each once. Raises ValueError where one is neither a type nor a prefix like `task.*`."""
    found = tuple(dict.fromkeys(types))
    for pattern in found:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"a type is like task.created or task.*, got {pattern!r:.80}")
    return found


def is_audit(event_type: str) -> bool:
    """Return whether that is one of the audit's own types."""
    return event_type.startswith(AUDIT_PREFIX) or event_type in AUDIT_TYPES


@dataclass(frozen=True, slots=True)
class EventScope:
    """Which events a principal may see, ANDed into each of its filters. Empty *types* is no condition."""

    types: tuple[str, ...] = ()
    has_audit: bool = False

    def covers(self, event_type: str) -> bool:
        """Return whether events of that type may be seen."""
        return (self.has_audit or not is_audit(event_type)) and (
            not self.types or any(is_of_type(event_type, pattern) for pattern in self.types)
        )


# For who has the database's file itself.
EVERYTHING = EventScope(has_audit=True)


class Wanted(Protocol):
    """Which events a reader wants: all conditions hold. Empty *types*, or None, is no condition."""

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
    """Who a request or a connection comes from.

    *grant* is what its right rests on, one row of the account tables, so that an open connection can be checked
    again: `token:…`, `session:…`, `ticket:token:…`. *expires_at* ends it without anybody's doing.
    """

    name: str
    scopes: tuple[str, ...]
    grant: str
    types: tuple[str, ...] = ()
    expires_at: datetime | None = None

    @property
    def is_session(self) -> bool:
        """Whether this is a person who signed in."""
        return self.grant.startswith("session:")

    @property
    def is_browser(self) -> bool:
        """Whether a page asks: of a person who signed in, or of another site with a ticket."""
        return not self.grant.startswith("token:")

    @property
    def has_ticket(self) -> bool:
        """Whether this is a page of another site."""
        return self.grant.startswith("ticket:")

    @property
    def is_operator(self) -> bool:
        """Whether it may do everything: a user with the role operator, or a token with the scope admin."""
        return ADMIN in self.scopes

    @property
    def owner(self) -> str:
        """Its name as the owner of a consumer, `token:NAME` or `user:NAME`: a new token of the name is the same."""
        return f"{'user' if self.is_session else 'token'}:{self.name}"

    @property
    def may_follow(self) -> bool:
        """Whether it may be connected to the feed."""
        return self.may(READ)

    def is_over(self, now: datetime) -> bool:
        """Return whether its time has run out."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def visible(self) -> EventScope:
        """Which events it may see."""
        return EventScope(self.types, has_audit=ADMIN in self.scopes)

    def may(self, scope: str) -> bool:
        """Return whether *scope* is granted; `admin` includes the others."""
        return scope in self.scopes or ADMIN in self.scopes

    def require_write(self, event_type: object) -> None:
        """Raise Forbidden unless it may write events of that type. What is no type is refused by who checks events."""
        if not isinstance(event_type, str):
            return
        if is_audit(event_type):
            raise Forbidden(f"only Outfeed itself writes events of the type {str(event_type)!r:.80}")
        if not (self.may(WRITE) and self.visible.covers(event_type)):
            raise Forbidden(f"{self.name} may not write events of the type {str(event_type)!r:.80}")
