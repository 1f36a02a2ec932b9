"""The tally: what the feed of one process does, counted where it happens, at no more than a microsecond each."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

from outfeed import clock
from outfeed.events import EventType
from outfeed.history import Item
from outfeed.metrics import BOUNDS

RECENT_SECS = 600.0
RECENT_SAMPLES = 2000
OTHER = "other"
_TYPES = frozenset(map(str, EventType))


class Spread(NamedTuple):
    """How the newest samples lie, in seconds; None where there is none. *samples* says how many they are."""

    samples: int
    p50: float | None
    p99: float | None


class Timings:
    """How long something took, over and over. `count`, `total_secs` and `counts` are all since the start.

    `counts[i]` is how many took up to `BOUNDS[i]`, and longer than the bound before; the last, longer than all.

    `_lock` guards the newest samples: RECENT_SAMPLES at most, none older than RECENT_SECS.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total_secs = 0.0
        self.counts = [0] * (len(BOUNDS) + 1)
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT_SAMPLES)

    def note(self, secs: float) -> None:
        """Add one sample; below zero, by a clock that was set, is zero."""
        secs = max(0.0, secs)
        self.count += 1
        self.counts[bisect_left(BOUNDS, secs)] += 1
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

    `deliveries`: from the moment an event was written, or, where all who are live keep a pace, from the moment it might
    go, to the moment it was handed to their sockets; the event that waited longest speaks for each page. `polls`: how
    long each took.
    """

    def __init__(self) -> None:
        self.polls = Timings()
        self.deliveries = Timings()
        self.events: Counter[str] = Counter()

    def note_events(self, items: Iterable[Item]) -> None:
        """Count the events of a page by type; all types that aren't ours as one, however many there are."""
        for event_type, count in Counter(item.event_type for item in items).items():
            self.events[event_type if event_type in _TYPES else OTHER] += count

    def note_delivery(self, written_at: object, wanted_from: float) -> None:
        """Note that a page was just handed out, if anyone wanted it yet.

        *written_at* is when its first event was written, *wanted_from* the hub's, on the monotonic clock.
        """
        overdue = clock.monotonic() - wanted_from
        if overdue >= 0 and (moment := clock.parsed(written_at)):
            self.deliveries.note(min(overdue, (clock.now() - moment).total_seconds()))


class Sent:
    """What was handed to sockets, by transport, and how often one could not take it. `_lock` guards the counts."""

    def __init__(self) -> None:
        self.frames: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.fallbacks = 0
        self._lock = threading.Lock()

    def note(self, transport: str, frames: int, size: int) -> None:
        """Add frames with events; once for all members of a cohort."""
        with self._lock:
            self.frames[transport] += frames
            self.bytes[transport] += size

    def note_fallback(self) -> None:
        """Add a live client that goes on by itself."""
        with self._lock:
            self.fallbacks += 1
