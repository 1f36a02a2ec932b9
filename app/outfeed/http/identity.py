"""The principal of a request.

A feature authenticates the request, as a `Guard`. Every other view only reads the principal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta

from flask import g
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from outfeed import clock
from outfeed.feature import Part
from outfeed.feed.subscriber import Subscriber
from outfeed.http.services import serving
from outfeed.principal import Principal

# How long a sign-in counts as fresh.
FRESH_FOR = timedelta(minutes=10)


class Guard(Part, ABC):
    """The part that knows principals and disconnects revoked subscribers."""

    @abstractmethod
    def principal_of(self, grant: str) -> Principal | None:
        """Return the current principal of *grant*, or None if it is revoked.

        Raises SourceError.
        """

    def signed_in_at(self, grant: str) -> datetime | None:
        """Return when the session of *grant* began; None for another grant.

        Raises SourceError.
        """
        return None

    @abstractmethod
    def check_newcomer(self, subscriber: Subscriber) -> None:
        """Check again a subscriber that was just added to the hub.

        Raises SourceError.
        """


def principal() -> Principal:
    """Return the principal of this request.

    A public route has no principal and must not call this.
    """
    found = g.principal
    assert isinstance(found, Principal)
    return found


def guard() -> Guard:
    """Return this process's guard, which the feature `access` provides."""
    return serving().part(Guard)  # type: ignore[type-abstract]


def has_just_signed_in() -> bool:
    """Return whether the principal has signed in within FRESH_FOR.

    A token has not signed in.
    """
    began = guard().signed_in_at(principal().grant)
    return began is not None and timedelta() <= clock.now() - began < FRESH_FOR


def require_not_revoked() -> None:
    """Raise Unauthorized if the permission was revoked during the request."""
    require_unchanged(principal())


def require_unchanged(before: Principal) -> None:
    """Raise Unauthorized if the permissions of *before* have changed.

    A request that waits calls this after the wait, with the principal from before it.
    """
    if guard().principal_of(before.grant) != before:
        raise Unauthorized("signed out or revoked", www_authenticate=WWWAuthenticate("bearer"))
