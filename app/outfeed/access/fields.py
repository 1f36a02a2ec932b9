"""Values of a token, as the commands and the pages read them."""

from __future__ import annotations

from datetime import UTC, datetime

from outfeed import clock
from outfeed.access.store import account
from outfeed.cli.values import duration
from outfeed.principal import check_patterns
from outfeed.text import separated


def scopes(value: str) -> tuple[str, ...]:
    """Return the scopes of `read,write`. Raises ValueError."""
    return account.check_scopes(separated(value))


def types(value: str) -> tuple[str, ...]:
    """Return the types of `task.*,bid.submitted`. Raises ValueError."""
    patterns = separated(value)
    if not patterns:
        raise ValueError("Pass at least one type, or omit --types to allow all.")
    return check_patterns(patterns)


def expiry(value: str) -> datetime:
    """Return the time of `90d`, `12h`, `30m`, or an ISO 8601 time with zone.

    Raises ValueError.
    """
    if (lifetime := duration(value)) is not None:
        return clock.now() + lifetime
    try:
        moment = datetime.fromisoformat(value)
        has_zone = moment.tzinfo is not None and bool(moment.astimezone(UTC))
    except (ValueError, OverflowError):
        has_zone = False
    if not has_zone:
        raise ValueError(f"must be like 90d, 12h, 30m or 2030-01-31T00:00Z (got {value!r:.80})")
    if moment <= clock.now():
        raise ValueError(f"{value} is in the past")
    return moment
