"""Shortages: what the system had none left of, lately."""

from __future__ import annotations

import logging

from outfeed import clock
from outfeed.metrics import Metrics

DESCRIPTORS = "file descriptors"
LATELY_SECS = 2.0
log = logging.getLogger(__name__)


class Shortages:
    """What one worker ran out of, and when it last met that. Each entry is written whole, by any thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._met: dict[str, float] = {}

    def note(self, what: str) -> None:
        """Remember that there was no *what* just now; logged when it begins."""
        self._metrics.note_refusal(what.replace(" ", "_"))
        if what not in self.lately():
            log.error("out of %s, refusing who comes", what)
        self._met[what] = clock.monotonic()

    def lately(self) -> list[str]:
        """Return what there was none of within LATELY_SECS."""
        now = clock.monotonic()
        return [what for what, met in self._met.items() if now - met < LATELY_SECS]
