"""Relay: reads the source from its position and feeds the hub."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable
from datetime import timedelta

from outfeed import clock
from outfeed.errors import SourceError
from outfeed.feed.consumers import ConsumerConnections
from outfeed.feed.encoding import Counters
from outfeed.feed.hub import Hub
from outfeed.feed.page_cache import PageCache
from outfeed.feed.source import PAGE_EVENTS, Source
from outfeed.feed.subscription import MAX_SEQ
from outfeed.feed.tail import TAIL_EVENTS
from outfeed.history import Item, Page
from outfeed.log_message import LogMessage

# This many new events in one poll are a burst: more events were committed while the last ones were pushed.
BURST_EVENTS = 3
MAX_REST_SECS = 0.01
# The clients of a copy are told that it is stale once its origin has not confirmed it for this long.
STALE_ORIGIN_SECS = 10.0
ORIGIN_SILENT = "the origin server has sent nothing for more than 10 s"
log = logging.getLogger(__name__)


class Relay:
    """The relay of one worker process; there are *workers* of them.

    Any thread may call `poll` at any time. The scheduler calls `poll` every second, and the pacer calls it when a paced
    cohort is due. The commit notifier calls `poll_if_wanted` after a commit. A client whose cursor lies beyond the
    position calls `poll_now`.

    One call at a time does the work, with `_working` held. A call that finds another one running makes that one repeat,
    so that no commit waits for the next second.
    """

    def __init__(
        self,
        source: Source,
        hub: Hub,
        consumers: ConsumerConnections,
        pages: PageCache,
        record: Callable[[str, int, list[Item]], None],
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
        # May be replayed, but is not yet in the high-water mark.
        self._unrecorded: tuple[str, int, list[Item]] | None = None
        self._next_heartbeat = clock.monotonic() + heartbeat_secs
        self._completed_at: float | None = None
        self._failure: str | None = None
        self._sent_reason: str | None = None  # reason of the last `stale` message, None after a recovery
        self._sent_counters = Counters()  # counters in the last heartbeat
        self.stats = hub.stats

    def start(self) -> None:
        """Start at the head; earlier events are for clients that resume.

        The newest events are kept in the tail, because after a restart all clients resume at about the same place.
        Raises SourceError.
        """
        self._begin(TAIL_EVENTS)
        self._completed_at = clock.monotonic()
        self._sent_counters = self._hub.counters

    def poll(self) -> None:
        """Push the pending events.

        If another call is running, this one returns at once and the other one repeats. Never raises: an error is
        logged, and the next poll retries from the same position.
        """
        self._repeats = True
        while self._repeats and self._working.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._working.release()

    def poll_if_wanted(self) -> float:
        """Poll after a commit; return the seconds to rest before the next.

        Commits during the rest are left to the next poll. If all live clients have a pace, the rest lasts until the
        next client is due, so that there is one read instead of one for each commit.

        In a burst the rest is as long as this poll took, times the workers. Without it, pushing every few events to
        hundreds of clients on busy processors slows the writers, which wait in each fsync, to a quarter of their speed.
        """
        rest, wanted_from = 0.0, self.wanted_from()
        if wanted_from <= clock.monotonic():
            began, position = clock.monotonic(), self._hub.position
            self.poll()
            if self._hub.position - position >= BURST_EVENTS:
                rest = min(self._workers * (clock.monotonic() - began), MAX_REST_SECS)
            wanted_from = self.wanted_from()
        # Without a poll, `wanted` ends the rest if a client has joined by now. Asked again, there would be no rest to
        # end, and the commit would wait for the scheduler: tests/feed/test_relay.py fails.
        return max(rest, wanted_from - clock.monotonic())

    def wanted_from(self) -> float:
        """Return when new events are next wanted, on the monotonic clock.

        Returns infinity if no client waits for any. While a consumer is connected, new events are always wanted: a
        commit may be the claim of another connection.
        """
        return 0.0 if self._consumers.are_connected else self._hub.wanted_from()

    def poll_now(self) -> None:
        """Push the pending events before returning.

        The call waits for one that is running.
        """
        with self._working:
            self._repeats = True
            self._work()
        if self._repeats:
            self.poll()  # another call came after the last check and left its work to this one

    @property
    def age(self) -> float:
        """Seconds since the last completed poll; infinity before the first."""
        return float("inf") if self._completed_at is None else clock.monotonic() - self._completed_at

    @property
    def failure(self) -> str | None:
        """Error of the last poll; None if it completed."""
        return self._failure

    def _work(self) -> None:
        if not self._repeats:
            return  # another call has done the work since, and may have failed: tests/feed/test_relay.py
        began = clock.monotonic()
        try:
            while self._repeats:
                self._repeats = False
                while self._advance():
                    pass
                self._hub.flush()
                self._hub.send_first_heartbeats()
                self._consumers.close_superseded()
            self._send_heartbeat(None)
        except (SourceError, OSError) as error:
            if self._note_failure(error):
                log.error(LogMessage("poll failed, trying again", error=error))
            self._send_heartbeat(_reason(error))
        except Exception as error:
            self.stats.metrics.note_error("poll", error)
            # The edge of the loop: no error may end the commit notifier or the scheduler's job.
            if self._note_failure(error):
                log.exception("poll failed, trying again")
        else:
            self._completed_at = clock.monotonic()
            self._failure = None
            self.stats.polls.note(self._completed_at - began)

    def _note_failure(self, error: Exception) -> bool:
        """Return whether *error* differs from that of the last poll.

        A repeated error is logged once.
        """
        before, self._failure = self._failure, f"{type(error).__name__}: {error}"
        return before != self._failure

    def _advance(self) -> bool:
        """Publish one page; return True if there is more to do."""
        hub = self._hub
        self._record_head()
        erasures = self._pages.erasures
        page = self._source.read_after(hub.position, PAGE_EVENTS)
        window = page.window
        if window.epoch != hub.epoch:
            self._begin(1)
            return True
        if window.last_seq < hub.position:
            if window.is_copy:
                return False  # it is behind, and catches up: tests/feed/test_behind.py
            # A copy of the database replaced the file: the seqs after its head would be used again.
            self._source.renew_epoch(window.epoch)
            return True
        if window.first_seq > hub.position + 1:
            self._record(window.epoch, window.first_seq - 1, [])
            hub.skip(window.first_seq - 1)
            return True
        self._publish(page)
        self._forget_if_erased(erasures)
        return page.through < window.last_seq

    def _begin(self, most: int) -> None:
        """Move to the head, and preload up to *most* events into the tail.

        All events before the head may be replayed from now on.
        """
        erasures = self._pages.erasures
        newest = self._source.read_before(MAX_SEQ, most)
        window, items = newest.window, newest.items[::-1]
        self._unrecorded = (window.epoch, window.last_seq, items) if window.last_seq else None
        with contextlib.suppress(OSError):  # the next poll tries again, and reports it
            self._record_head()
        self._hub.begin(window, items)
        self._forget_if_erased(erasures)

    def _forget_if_erased(self, erasures: int) -> None:
        """Empty the tail if events were erased since there were *erasures*.

        They may be among the events of a page that was read since.
        """
        if erasures != self._pages.erasures:
            self._hub.forget()

    def _record_head(self) -> None:
        """Record the head from which this relay began, if it has not been done."""
        if self._unrecorded:
            self._record(*self._unrecorded)
            self._unrecorded = None

    def _publish(self, page: Page) -> None:
        if page.through > self._hub.position:
            self._record(page.window.epoch, page.through, page.items)
            wanted_from = self.wanted_from()
            self._hub.publish(page.items, page.through)
            self.stats.note_delivery(page.written_at, wanted_from)
            self.stats.note_events(page.items)

    def _send_heartbeat(self, outage: str | None) -> None:
        """Send heartbeats, and the reason if no new event can be read.

        A change is sent at once, and repeated at the heartbeat's interval. *outage* is why the source cannot be read.
        Clients of a copy get it when the copy is stale, and heartbeats until then, so that a short outage of the engine
        does not alarm them.
        """
        age, now = self._source.origin_age, clock.monotonic()
        stale = outage
        if age is not None:
            stale = (outage or ORIGIN_SILENT) if age > STALE_ORIGIN_SECS else None
        if (stale, self._hub.counters) == (self._sent_reason, self._sent_counters) and now < self._next_heartbeat:
            return
        self._next_heartbeat = now + self._heartbeat_secs
        if stale is None and self._sent_reason is not None:
            self._hub.tell_stale(None, None)
        if outage is None or age is not None:
            self._hub.heartbeat(age)
            self._pages.forget_old()
            self._sent_counters = self._hub.counters
        if stale is not None:
            self._hub.tell_stale(stale, self._fresh_until(age))
        self._sent_reason = stale

    def _fresh_until(self, origin_age: float | None) -> str | None:
        """Return when the copy was last current; None before the first read."""
        age = self.age if origin_age is None else origin_age
        return clock.isoformat(clock.now() - timedelta(seconds=age)) if math.isfinite(age) else None


def _reason(error: SourceError | OSError) -> str:
    """Return why no new event is published, without file paths."""
    return error.in_short if isinstance(error, SourceError) else f"the server has an I/O error: {error.strerror}"
