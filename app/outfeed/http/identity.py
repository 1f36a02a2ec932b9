"""The principal of a request. A feature authenticates it, as a `Guard`; every other view only reads it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from flask import g
from werkzeug.exceptions import Unauthorized

from outfeed.feature import Part
from outfeed.feed.subscriber import Subscriber
from outfeed.http.services import services
from outfeed.principal import Principal


class Guard(Part, ABC):
    """Knows the principals, and disconnects subscribers whose permissions were revoked."""

    @abstractmethod
    def principal_of(self, grant: str) -> Principal | None:
        """Return the principal that *grant* stands for now; None once it was revoked. Raises DatabaseError."""

    @abstractmethod
    def check_newcomer(self, subscriber: Subscriber) -> None:
        """Check a subscriber again that was just added to the hub. Raises DatabaseError."""


def principal() -> Principal:
    """Return the principal of this request. A public route has none to ask for."""
    found = g.principal
    assert isinstance(found, Principal)
    return found


def guard() -> Guard:
    """Return the guard of this process: that of the feature `access`."""
    return services().part(Guard)  # type: ignore[type-abstract]


def require_still() -> None:
    """Raise Unauthorized if the permission that the request came with was revoked while it waited."""
    if guard().principal_of(principal().grant) != principal():
        raise Unauthorized("signed out or revoked")
