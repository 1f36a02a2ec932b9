"""Trying again: how long to wait, what the server asks for, and which answers are worth it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

FIRST_PAUSE_SECS = 0.5
MAX_PAUSE_SECS = 10.0
RETRIED_STATUSES = {408, 425, 429}  # and every 5xx


@dataclass(slots=True)
class Backoff:
    """Pauses between attempts, with full jitter: a thousand clients must not come back at the same moment."""

    attempt: int = field(default=0)

    def next(self) -> float:
        """Return how many seconds to wait; up to twice as long as the time before."""
        ceiling = min(MAX_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(self.attempt, 30))
        self.attempt += 1
        return secrets.SystemRandom().uniform(0, ceiling)


def is_worth_retrying(status: int) -> bool:
    """Return whether the same request may be answered otherwise a little later."""
    return status >= 500 or status in RETRIED_STATUSES


def retry_after(headers: Mapping[str, str]) -> float:
    """Return how many seconds an answer asks to wait, within reason; 0 where it doesn't say."""
    wanted = headers.get("Retry-After", "")
    return min(int(wanted), MAX_PAUSE_SECS) if wanted.isdigit() else 0
