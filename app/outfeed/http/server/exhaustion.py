"""Exhaustion: system resources that a worker recently ran out of."""

from __future__ import annotations

import logging

from outfeed import clock
from outfeed.log_message import LogMessage
from outfeed.metrics import Metrics

DESCRIPTORS = "file descriptors"
RECENT_SECS = 2.0
log = logging.getLogger(__name__)


class Exhaustion:
    """The last time at which one worker ran out of each resource.

    Any thread may note a shortage.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._noted_at: dict[str, float] = {}

    def note(self, what: str) -> None:
        """Count and log a client that was rejected because *what* ran out."""
        self._metrics.note_refusal(what.replace(" ", "_"))
        self._noted_at[what] = clock.monotonic()
        log.error(LogMessage("client refused: a resource has run out", resource=what))

    def recent(self) -> list[str]:
        """Return the resources that ran out within RECENT_SECS."""
        now = clock.monotonic()
        return [what for what, noted_at in self._noted_at.items() if now - noted_at < RECENT_SECS]
