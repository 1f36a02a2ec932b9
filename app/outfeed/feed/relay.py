"""The relay: reads the source from its position on and hands events to the hub."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from outfeed import clock
from outfeed.errors import DatabaseError
from outfeed.feed.consumers import ConsumerConnections
from outfeed.feed.hub import Hub
from outfeed.feed.page_cache import PageCache
from outfeed.feed.source import PAGE_EVENTS, Source
from outfeed.feed.subscription import MAX_SEQ
from outfeed.feed.tail import TAIL_EVENTS
from outfeed.history import Item, Page
from outfeed.log_message import LogMessage

# As many new events in one poll are a burst: more came while the last were pushed.
BURST_EVENTS = 3
MAX_REST_SECS = 0.01
log = logging.getLogger(__name__)


class Relay:
    """`poll` may be called at any time by any thread.

    The scheduler calls `poll` every second and the pacer when a paced cohort is due. The commit notifier calls
    `poll_if_wanted` after a commit, and a client whose cursor lies beyond the position calls `poll_now`. One call at
    a time does the work, with `_working` held. A call that finds another running makes that one repeat, so that no
    commit waits for the next second. Each worker process has one relay; there are *workers* of them.
    """

    def __init__(
        self,
        source: Source,
        hub: Hub,
        consumers: ConsumerConnections,
        pages: PageCache,
        record: Callable[[str, Item], None],
        heartbeat_secs: float,
        workers: int,
    ) -> None:
        self._source = source
        self._hub = hub
        self._consumers = consumers
        self._pages = pages
        self._record = record
        self._heartbeat_secs = heartbeat_secs
        self._workers = workers
        self._working = threading.Lock()
        self._repeats = False
        self._unrecorded: tuple[str, Item] | None = None  # may be replayed, and is not recorded yet
        self._next_heartbeat = clock.monotonic() + heartbeat_secs
        self._completed_at: float | None = None
        self._failure: str | None = None
        self._told: str | None = None  # why nothing can be read, as the clients know it
        self._told_erased = 0  # how many events were erased, as the clients know it
        self.stats = hub.stats

    def start(self) -> None:
        """Take the head as position: earlier events are for clients that resume. Raises DatabaseError.

        The newest of them are kept in the tail: after a restart all clients come back from about the same place.
        """
        self._begin(TAIL_EVENTS)
        self._completed_at = clock.monotonic()
        self._told_erased = self._hub.erased

    def poll(self) -> None:
        """Push what is pending; returns at once when another call is at work, which then goes round again.

        Never raises: what goes wrong is logged, and the next poll tries again from the same position.
        """
        self._repeats = True
        while self._repeats and self._working.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._working.release()

    def poll_if_wanted(self) -> float:
        """Poll for what was just committed; return for how many seconds to leave what comes now to the next poll.

        If all live clients keep a pace, that is until the next one is due: one read, not one for each commit. In a
        burst it is as long as this poll took, times the workers: on busy processors, pushing every few events to
        hundreds of clients slows down the writers, which wait in each fsync, to a quarter of their speed.
        """
        rest = 0.0
        if self.wanted_from() <= clock.monotonic():
            began, position = clock.monotonic(), self._hub.position
            self.poll()
            if self._hub.position - position >= BURST_EVENTS:
                rest = min(self._workers * (clock.monotonic() - began), MAX_REST_SECS)
        return max(rest, self.wanted_from() - clock.monotonic())

    def wanted_from(self) -> float:
        """Return from when on new events are wanted, on the monotonic clock; infinity if no client waits for any.

        While a consumer is connected, they always are: a commit may be the claim of another connection.
        """
        return 0.0 if self._consumers.are_connected else self._hub.wanted_from()

    def poll_now(self) -> None:
        """Push what is pending before returning, after waiting for a call that is at work."""
        with self._working:
            self._repeats = True
            self._work()
        if self._repeats:
            self.poll()  # another call came after the last look, and left it to this one

    @property
    def age(self) -> float:
        """Seconds since the last poll that completed; infinite before the first."""
        return float("inf") if self._completed_at is None else clock.monotonic() - self._completed_at

    @property
    def failure(self) -> str | None:
        """What the last poll failed with; None when it completed."""
        return self._failure

    def _work(self) -> None:
        began = clock.monotonic()
        try:
            while self._repeats:
                self._repeats = False
                while self._advance():
                    pass
                self._hub.flush()
                self._hub.send_first_heartbeats()
                self._consumers.close_superseded()
            self._beat()
        except (DatabaseError, OSError) as error:
            if self._note_failure(error):
                log.error(LogMessage("poll failed, trying again", error=error))
            self._tell_stale(_reason(error))
        except Exception as error:
            self.stats.metrics.note_error("poll", error)
            # The edge of the loop: whatever it is, it must not end the commit notifier or the scheduler's job.
            if self._note_failure(error):
                log.exception("poll failed, trying again")
        else:
            self._completed_at = clock.monotonic()
            self._failure = None
            self.stats.polls.note(self._completed_at - began)

    def _note_failure(self, error: Exception) -> bool:
        """Return whether it is another one than that of the poll before: it is logged once."""
        before, self._failure = self._failure, f"{type(error).__name__}: {error}"
        return before != self._failure

    def _advance(self) -> bool:
        """Take one page; True where there is more to do."""
        hub = self._hub
        if self._unrecorded:
            self._record(*self._unrecorded)
            self._unrecorded = None
        page = self._source.read_after(hub.position, PAGE_EVENTS)
        window = page.window
        if window.epoch != hub.epoch:
            self._begin(1)
            return True
        if window.last_seq < hub.position:
            # A copy was put back under us: the seqs after its head would be used again.
            self._source.renew_epoch(window.epoch)
            return True
        if window.first_seq > hub.position + 1:
            hub.skip(window.first_seq - 1)
            return True
        self._publish(page)
        return page.through < window.last_seq

    def _begin(self, most: int) -> None:
        """Stand at the head, with *most* of what is newest at hand. All before it may be replayed from now on."""
        newest = self._source.read_before(MAX_SEQ, most)
        self._hub.begin(newest.window, newest.items[::-1])
        self._unrecorded = (newest.window.epoch, newest.items[0]) if newest.items else None

    def _publish(self, page: Page) -> None:
        if page.items:
            self._record(page.window.epoch, page.items[-1])
        if page.through > self._hub.position:
            wanted_from = self.wanted_from()
            self._hub.publish(page.items, page.through)
            self.stats.note_delivery(page.written_at, wanted_from)
            self.stats.note_events(page.items)

    def _tell_stale(self, reason: str) -> None:
        """Tell the clients, at once and then as often as a heartbeat, that nothing new can be read."""
        if reason == self._told and clock.monotonic() < self._next_heartbeat:
            return
        self._told, self._next_heartbeat = reason, clock.monotonic() + self._heartbeat_secs
        since = None if self._completed_at is None else clock.now() - timedelta(seconds=self.age)
        self._hub.tell_stale(reason, clock.isoformat(since) if since else None)

    def _beat(self) -> None:
        if self._told is not None:
            self._told, self._next_heartbeat = None, 0.0
            self._hub.tell_stale(None, None)
        now = clock.monotonic()
        if now >= self._next_heartbeat or self._told_erased != self._hub.erased:
            self._next_heartbeat = now + self._heartbeat_secs
            self._told_erased = self._hub.erased
            self._hub.heartbeat()
            self._pages.forget_old()


def _reason(error: DatabaseError | OSError) -> str:
    """Return why nothing new is passed on, without paths."""
    return error.in_short if isinstance(error, DatabaseError) else f"the server has an I/O error: {error.strerror}"
