"""Exhaustion: resources of the system that a worker ran out of a moment ago."""

from __future__ import annotations

import logging

from outfeed import clock
from outfeed.log_message import LogMessage
from outfeed.metrics import Metrics

DESCRIPTORS = "file descriptors"
LATELY_SECS = 2.0
log = logging.getLogger(__name__)


class Exhaustion:
    """When one worker last ran out of which resource. Any thread may note one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._met: dict[str, float] = {}

    def note(self, what: str) -> None:
        """Count and log a client that was refused because no *what* was left."""
        self._metrics.note_refusal(what.replace(" ", "_"))
        self._met[what] = clock.monotonic()
        log.error(LogMessage("client refused: a resource has run out", resource=what))

    def recent(self) -> list[str]:
        """Return the resources that ran out within LATELY_SECS."""
        now = clock.monotonic()
        return [what for what, met in self._met.items() if now - met < LATELY_SECS]
