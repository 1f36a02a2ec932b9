"""The reader: verdicts, pages and waits for clients that are behind, over whichever transport they ask."""

from __future__ import annotations

import threading

from outfeed.feed import subscription
from outfeed.feed.cohorts import Cohorts
from outfeed.feed.page_cache import PageCache
from outfeed.feed.relay import Relay
from outfeed.feed.source import Source
from outfeed.feed.subscription import FeedRequest, Filter, Verdict
from outfeed.feed.waiters import Waiters
from outfeed.history import Claim, Item

# More threads than this that read, match and encode at once, and hundreds of replays starve everything else: with 4,
# 1,000 clients that come back are served in half the time, and /healthz is answered in 36 ms instead of 1,360.
REPLAY_READERS = 4


class FeedReader:
    """Reads the source. Any thread may call any method.

    Verdicts, matching and encoding take a *turn*; `PageCache` lets one thread read.

    Nothing is returned that would be forgotten over a restore: what lies beyond the position is recorded in the
    high-water mark first. If it can't be written, what was read is returned all the same, and /readyz says no.
    """

    def __init__(self, source: Source, pages: PageCache, cohorts: Cohorts, waiters: Waiters, relay: Relay) -> None:
        self.turn = threading.BoundedSemaphore(REPLAY_READERS)
        self._looking_back = threading.Lock()  # one at a time: it may look at each of very many events
        self._source = source
        self._pages = pages
        self._cohorts = cohorts
        self._waiters = waiters
        self._relay = relay

    @property
    def erasures(self) -> int:
        """How often something was erased from the history: a page that was read before is not to be sent after."""
        return self._pages.erasures

    def verdict(self, wanted: FeedRequest | Claim) -> Verdict:
        """Return where a client with that cursor, or a consumer with that claim, stands now."""
        with self.turn:
            window = self._source.window()
        self.catch_up_to(window.epoch, window.last_seq)
        if isinstance(wanted, Claim):
            return subscription.decide_for(wanted, window)
        return subscription.decide(wanted.after, wanted.epoch, window)

    def start_of_last(self, filter_: Filter, count: int, head: int) -> int:
        """Return the seq after which the newest *count* matching events up to *head* follow."""
        with self._looking_back:
            return subscription.start_of_last(self._source, filter_, count, head)

    def read_after(self, filter_: Filter, epoch: str, cursor: int, limit: int) -> tuple[list[Item], int]:
        """Return the matching items of the next *limit* after *cursor*, and the seq up to which they are all.

        Raises Overtaken if some of what follows *cursor* in *epoch* is gone.
        """
        page = self._pages.read_after(cursor, limit)
        with self.turn:
            page.window.prove(epoch, cursor)
            matching = filter_.matching(page.items)
        self.catch_up_to(epoch, page.through)
        return matching, page.through

    def catch_up_to(self, epoch: str, seq: int) -> None:
        """Publish up to *seq* of *epoch*, if that is not done yet, which records it in the high-water mark."""
        if seq > self._cohorts.position or epoch != self._cohorts.epoch:
            self._relay.poll_now()

    def wait(
        self, filter_: Filter, epoch: str, cursor: int, timeout: float, event: threading.Event | None = None
    ) -> None:
        """Wait as `Waiters.wait` does. If the epoch is not the hub's, return once the hub has looked for a new one."""
        if epoch == self._cohorts.epoch:
            self._waiters.wait(filter_, epoch, cursor, timeout, event)
        else:
            self._relay.poll_now()
