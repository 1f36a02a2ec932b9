"""Retries: pauses, the server's Retry-After, and retryable answers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

FIRST_PAUSE_SECS = 0.5
MAX_PAUSE_SECS = 10.0
RETRIED_STATUSES = {408, 425, 429}  # and every 5xx


@dataclass(slots=True)
class Backoff:
    """Pauses between attempts, with full jitter.

    The jitter keeps a thousand clients from reconnecting at the same moment.
    """

    attempt: int = field(default=0)

    def next(self) -> float:
        """Return the seconds to wait; the limit doubles with each attempt."""
        ceiling = min(MAX_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(self.attempt, 30))
        self.attempt += 1
        return secrets.SystemRandom().uniform(0, ceiling)


def is_worth_retrying(status: int) -> bool:
    """Return whether a retry of the same request may succeed."""
    return status >= 500 or status in RETRIED_STATUSES


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the pause in seconds that an answer asks for.

    It is at most MAX_PAUSE_SECS, and 0 if the answer asks for none.
    """
    wanted = headers.get("Retry-After", "").strip()
    return min(int(wanted[:9]), MAX_PAUSE_SECS) if wanted.isascii() and wanted.isdigit() else 0
