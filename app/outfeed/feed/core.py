"""The assembled core of one process.

The core runs nothing by itself: threads and timers call it from outside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from outfeed.feed.cohorts import Cohorts
from outfeed.feed.consumers import ConsumerConnections
from outfeed.feed.hub import Hub
from outfeed.feed.pace import Pacer
from outfeed.feed.page_cache import PageCache
from outfeed.feed.reader import FeedReader
from outfeed.feed.relay import Relay
from outfeed.feed.source import CheckpointStore, Source
from outfeed.feed.stats import FeedStats
from outfeed.feed.trace import Trace
from outfeed.feed.waiters import Waiters
from outfeed.history import Item
from outfeed.metrics import Metrics


class Core:
    """The parts of the core. Each part gets the others in its constructor.

    Call `relay.poll` every second and when `pacer` is due. Call `relay.poll_if_wanted` after a commit, but not before
    the rest that the last call returned is over or *wanted* is set. A test does so on one thread, with a clock, a
    source and sockets of its own (tests/feed/simulated.py).

    *record* writes a seq of an epoch to the high-water mark; it also gets the last items up to that seq. It is called
    before an item or a cursor up to that seq is sent. *trace* gets the decisions, if there is one.
    """

    def __init__(
        self,
        source: Source,
        checkpoints: CheckpointStore,
        record: Callable[[str, int, list[Item]], None],
        *,
        heartbeat_secs: float,
        workers: int = 1,
        stats: FeedStats | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.trace = trace
        self.stats = stats or FeedStats(Metrics())
        self.wanted = threading.Event()
        self.pacer = Pacer()
        self.pages = PageCache(source)
        self.consumers = ConsumerConnections(checkpoints)
        self.cohorts = Cohorts(self.pacer, self.wanted, self.stats, trace)
        self.waiters = Waiters(self.cohorts, self.wanted)
        self.hub = Hub(self.cohorts, self.waiters, self.stats, trace)
        self.relay = Relay(source, self.hub, self.consumers, self.pages, record, heartbeat_secs, workers)
        self.reader = FeedReader(source, self.pages, self.cohorts, self.waiters, self.relay)

    def note_types(self, changes: int) -> None:
        """Send clients the number of changes of displays, if it has moved."""
        if changes != self.hub.types:
            self.hub.types = changes
            self.waiters.wake_all()

    def forget(self, erased: int = 0) -> None:
        """Drop all cached events after an erasure.

        *erased* is the total number of erased events. Heartbeats, verdicts and polls carry it, and long polls end.
        """
        if self.trace:
            self.trace.note("forget", epoch=self.hub.epoch, position=self.hub.position)
        self.pages.forget()  # first, so that the relay notices an erasure during its read
        self.hub.forget()
        self.hub.erased = erased or self.hub.erased
        self.waiters.wake_all()
