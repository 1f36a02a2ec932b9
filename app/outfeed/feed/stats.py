"""Statistics of the feed of one process.

They are counted once per poll and cohort, at the cost of a few microseconds.
"""

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
    """Percentiles of the newest samples, in seconds.

    *samples* is the number of samples. The percentiles are None if there is none.
    """

    samples: int
    p50: float | None
    p99: float | None


class LatencyHistogram:
    """Durations of one operation.

    *histogram* counts all samples since the start. The newest samples are kept for their percentiles: RECENT_SAMPLES at
    most, none older than RECENT_SECS. `_lock` guards them.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT_SAMPLES)

    def note(self, secs: float) -> None:
        """Add one sample.

        A negative duration, which a clock change can cause, counts as zero.
        """
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
    """Return the smallest value that *share* of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class _ByLabel(dict[str, Counter]):
    """The children of a counter with one label.

    The library's `labels` takes a lock and four times as long.
    """

    def __init__(self, parent: Counter) -> None:
        self._parent = parent

    def __missing__(self, label: str) -> Counter:
        return self.setdefault(label, self._parent.labels(label))


class FeedStats:
    """Statistics of the events, frames and polls of one process.

    Any thread may note what was sent. The relay's poll, of which one runs at a time, notes the rest.

    `deliveries`: the seconds from the write of an event to the moment when it was handed to the sockets. If all live
    clients have a pace, the time starts when the event might be sent. The event that waited longest counts for its
    page. `polls`: the duration of each poll.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.polls = LatencyHistogram(metrics.poll_seconds)
        self.deliveries = LatencyHistogram(metrics.delivery_seconds)
        self._events = _ByLabel(metrics.events)
        self._frames = _ByLabel(metrics.frames)
        self._bytes = _ByLabel(metrics.bytes)

    def note_events(self, items: Iterable[Item]) -> None:
        """Count the events of a page by type.

        All types that are not Outfeed's own are counted as one label, so that the number of labels is bounded.
        """
        # For one event a collections.Counter takes five times as long, and for many events no less.
        counts: dict[str, int] = {}
        for item in items:
            label = item.event_type if item.event_type in _TYPES else OTHER
            counts[label] = counts.get(label, 0) + 1
        for label, count in counts.items():
            self._events[label].inc(count)

    def note_delivery(self, written_at: object, wanted_from: float) -> None:
        """Note that a page was just sent, if a client wanted it by now.

        *written_at* is when the page's first event was written. *wanted_from* is the hub's, on the monotonic clock.
        """
        overdue = clock.monotonic() - wanted_from
        if overdue >= 0 and (moment := clock.parsed(written_at)):
            self.deliveries.note(min(overdue, (clock.now() - moment).total_seconds()))

    def note_sent(self, transport: str, frames: int, size: int) -> None:
        """Count frames with events that were handed to sockets.

        One call counts the frames of all members of a cohort.
        """
        self._frames[transport].inc(frames)
        self._bytes[transport].inc(size)

    def note_fallback(self) -> None:
        """Count a live client that fell behind and switched to replay."""
        self.metrics.fallbacks.inc()
