"""The only place that reads a clock.

Wall time is for people and rows; intervals are measured on `monotonic`, which no clock step moves.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class _Monotonic:
    # Kept as a class attribute: freezegun patches module attributes, and a frozen monotonic clock would stop the feed
    # in tests that step the wall clock (tests/journeys/test_clock.py).
    read = staticmethod(time.monotonic)


def monotonic() -> float:
    """Return seconds on a clock that only goes forward; meaningless between processes."""
    return _Monotonic.read()


def now() -> datetime:
    """Return the wall time as an aware datetime in UTC."""
    return datetime.now(UTC)


def isoformat(moment: datetime) -> str:
    """Return an aware *moment* as UTC, ISO 8601, milliseconds, `Z`: `2024-01-15T10:30:00.000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def timestamp() -> str:
    """Return the wall time as `isoformat` writes it."""
    return isoformat(now())
