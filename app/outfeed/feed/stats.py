"""Statistics of the feed of one process, counted once a poll and cohort, at a few microseconds."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from outfeed import clock
from outfeed.events import EventType
from outfeed.history import Item
from outfeed.metrics import Metrics

RECENT_SECS = 600.0
RECENT_SAMPLES = 2000
OTHER = "other"
_TYPES = frozenset(map(str, EventType))


class Percentiles(NamedTuple):
    """Percentiles of the newest samples, in seconds; None where there is none. *samples* says how many they are."""

    samples: int
    p50: float | None
    p99: float | None


class LatencyHistogram:
    """How long something takes: all since the start in *histogram*, the newest samples here, for their percentiles.

    `_lock` guards the newest samples: RECENT_SAMPLES at most, none older than RECENT_SECS.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT_SAMPLES)

    def note(self, secs: float) -> None:
        """Add one sample; below zero, by a clock that was set, is zero."""
        secs = max(0.0, secs)
        self._histogram.observe(secs)
        with self._lock:
            self._recent.append((clock.monotonic(), secs))

    def recent(self) -> Percentiles:
        """Return the percentiles of the newest samples."""
        oldest = clock.monotonic() - RECENT_SECS
        with self._lock:
            found = sorted(secs for at, secs in self._recent if at >= oldest)
        return Percentiles(len(found), _quantile(found, 0.5), _quantile(found, 0.99))


def _quantile(ordered: list[float], share: float) -> float | None:
    """Return the smallest value that *share* of all don't exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class _ByLabel(dict[str, Counter]):
    """The children of a counter with one label; `labels` of the library takes a lock and four times as long."""

    def __init__(self, parent: Counter) -> None:
        self._parent = parent

    def __missing__(self, label: str) -> Counter:
        return self.setdefault(label, self._parent.labels(label))


class FeedStats:
    """Any thread may note what was sent; the rest is noted by the relay's poll, which is one at a time.

    `deliveries`: from the moment an event was written, or, where all who are live keep a pace, from the moment it might
    go, to the moment it was handed to their sockets; the event that waited longest speaks for each page. `polls`: how
    long each took.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.polls = LatencyHistogram(metrics.poll_seconds)
        self.deliveries = LatencyHistogram(metrics.delivery_seconds)
        self._events = _ByLabel(metrics.events)
        self._frames = _ByLabel(metrics.frames)
        self._bytes = _ByLabel(metrics.bytes)

    def note_events(self, items: Iterable[Item]) -> None:
        """Count the events of a page by type; all types that aren't ours as one, however many there are."""
        counts: dict[
            str, int
        ] = {}  # a collections.Counter takes five times as long for one event, and no less for many
        for item in items:
            label = item.event_type if item.event_type in _TYPES else OTHER
            counts[label] = counts.get(label, 0) + 1
        for label, count in counts.items():
            self._events[label].inc(count)

    def note_delivery(self, written_at: object, wanted_from: float) -> None:
        """Note that a page was just handed out, if anyone wanted it yet.

        *written_at* is when its first event was written, *wanted_from* the hub's, on the monotonic clock.
        """
        overdue = clock.monotonic() - wanted_from
        if overdue >= 0 and (moment := clock.parsed(written_at)):
            self.deliveries.note(min(overdue, (clock.now() - moment).total_seconds()))

    def note_sent(self, transport: str, frames: int, size: int) -> None:
        """Add frames with events that were handed to sockets; once for all members of a cohort."""
        self._frames[transport].inc(frames)
        self._bytes[transport].inc(size)

    def note_fallback(self) -> None:
        """Add a live client whose socket could not take it, and that goes on by itself."""
        self.metrics.fallbacks.inc()
