"""Reader: verdicts, pages and waits for clients that are behind.

All transports use it.
"""

from __future__ import annotations

import threading
import time

from outfeed.feed import subscription
from outfeed.feed.cohorts import Cohorts
from outfeed.feed.page_cache import PageCache
from outfeed.feed.relay import Relay
from outfeed.feed.source import Source
from outfeed.feed.subscription import FeedRequest, Filter, Verdict
from outfeed.feed.waiters import Waiter, Waiters
from outfeed.history import Claim, Item

# Maximum number of threads that read, match and encode at once. With more, hundreds of replays starve all other
# requests. With 4, 1,000 clients that reconnect are served in half the time, and /healthz is answered in 36 ms instead
# of 1,360.
REPLAY_READERS = 4
# Between two reads after a cursor that a copy has not come to again.
BEHIND_SECS = 0.5


class FeedReader:
    """Reads the source for clients. Any thread may call any method.

    Verdicts, matching and encoding take a *turn*. `PageCache` lets one thread read.

    Every event beyond the position is recorded in the high-water mark before it is returned, so that a restore does not
    reuse its seq unnoticed. If the mark cannot be written, the events are returned all the same, and /readyz fails.
    """

    def __init__(self, source: Source, pages: PageCache, cohorts: Cohorts, waiters: Waiters, relay: Relay) -> None:
        self.turn = threading.BoundedSemaphore(REPLAY_READERS)
        self._lookback_lock = threading.Lock()  # one at a time, because it may read MAX_LOOKBACK events
        self._source = source
        self._pages = pages
        self._cohorts = cohorts
        self._waiters = waiters
        self._relay = relay

    @property
    def erasures(self) -> int:
        """Number of erasures so far.

        A page that was read before an erasure must not be sent after it.
        """
        return self._pages.erasures

    def verdict(self, wanted: FeedRequest | Claim) -> Verdict:
        """Return the verdict on a client's cursor or a consumer's claim."""
        with self.turn:
            window = self._source.window()
        self.catch_up_to(window.epoch, window.last_seq)
        if isinstance(wanted, Claim):
            return subscription.decide_for(wanted, window)
        return subscription.decide(wanted.after, wanted.epoch, window)

    def start_of_last(self, filter_: Filter, count: int, head: int) -> int:
        """Return the seq before the newest *count* matching events to *head*."""
        with self._lookback_lock:
            return subscription.start_of_last(self._source, filter_, count, head)

    def read_after(
        self, filter_: Filter, epoch: str, cursor: int, limit: int, *, may_sleep: bool = True
    ) -> tuple[list[Item], int]:
        """Return matching items of the next *limit* after *cursor*.

        Also returns the seq up to which these are all matching items. Raises Overtaken if events after *cursor* in
        *epoch* are gone. If a copy is behind, the call takes BEHIND_SECS, unless the caller waits by itself.
        """
        page = self._pages.read_after(cursor, limit)
        with self.turn:
            page.window.prove(epoch, cursor)
            matching = filter_.matching(page.items)
        position = self._cohorts.position
        if not (page.window.last_seq < position and page.window.last_seq <= cursor <= position):
            self.catch_up_to(epoch, page.through)
        elif may_sleep:
            time.sleep(BEHIND_SECS)  # the copy catches up, and a retry at once would only delay it
        return matching, page.through

    def catch_up_to(self, epoch: str, seq: int) -> None:
        """Publish up to *seq* of *epoch* if that has not been done.

        Publishing records the events in the high-water mark.
        """
        if seq > self._cohorts.position or epoch != self._cohorts.epoch:
            self._relay.poll_now()

    def wait(
        self, filter_: Filter, epoch: str, cursor: int, timeout: float, event: threading.Event | None = None
    ) -> None:
        """Wait as `Waiters.wait` does.

        If *epoch* is not the hub's, the call polls once, so that the hub learns of a new epoch, and returns.
        """
        if self._is_current(epoch):
            self._waiters.wait(filter_, epoch, cursor, timeout, event)

    def begin_wait(self, filter_: Filter, epoch: str, cursor: int, waiter: Waiter) -> bool:
        """Register *waiter* as `Waiters.add` does, without blocking.

        Returns False, and registers nothing, if the caller must read at once.
        """
        return self._is_current(epoch) and self._waiters.add(filter_, epoch, cursor, waiter)

    def end_wait(self, filter_: Filter, waiter: Waiter) -> None:
        """Unregister a waiter of `begin_wait`."""
        self._waiters.remove(filter_, waiter)

    def _is_current(self, epoch: str) -> bool:
        if epoch == self._cohorts.epoch:
            return True
        self._relay.poll_now()
        return False
