"""The tally: what the feed of one process does, counted where it happens, at no more than a microsecond each."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import NamedTuple

from app import clock

RECENT_SECS = 600.0
RECENT_SAMPLES = 2000


class Spread(NamedTuple):
    """How the newest samples lie, in seconds; None where there is none. *samples* says how many they are."""

    samples: int
    p50: float | None
    p99: float | None


class Timings:
    """How long something took, over and over. `count` and `total_secs` are all since the start.

    `_lock` guards the newest samples: RECENT_SAMPLES at most, none older than RECENT_SECS.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total_secs = 0.0
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT_SAMPLES)

    def note(self, secs: float) -> None:
        """Add one sample; below zero, by a clock that was set, is zero."""
        secs = max(0.0, secs)
        self.count += 1
        self.total_secs += secs
        with self._lock:
            self._recent.append((clock.monotonic(), secs))

    def recent(self) -> Spread:
        """Return how the newest samples lie."""
        oldest = clock.monotonic() - RECENT_SECS
        with self._lock:
            found = sorted(secs for at, secs in self._recent if at >= oldest)
        return Spread(len(found), _quantile(found, 0.5), _quantile(found, 0.99))


def _quantile(ordered: list[float], share: float) -> float | None:
    """Return the smallest value that *share* of all don't exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class Tally:
    """Written by the relay's poll, which is one at a time; read by anyone, who may see a moment before or after.

    `deliveries`: from the moment an event was written to the moment it was handed to all sockets that are live, paced
    ones at their beat aside; the event that waited longest speaks for each page. `polls`: how long each took.
    """

    def __init__(self) -> None:
        self.polls = Timings()
        self.deliveries = Timings()

    def note_delivery(self, written_at: object) -> None:
        """Note that a page was just handed out; *written_at* is when its first event was written."""
        if moment := clock.parsed(written_at):
            self.deliveries.note((clock.now() - moment).total_seconds())
