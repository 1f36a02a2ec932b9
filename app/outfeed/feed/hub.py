"""The hub: the connected subscribers of one process, and the position they are at."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import Overtaken
from outfeed.feed import frames
from outfeed.feed.cohort import Cohort, Delivery
from outfeed.feed.consumers import Consumers
from outfeed.feed.page_cache import PageCache
from outfeed.feed.source import Source
from outfeed.feed.stats import FeedStats
from outfeed.feed.subscriber import Subscriber
from outfeed.feed.subscription import Filter, Subscription
from outfeed.feed.tail import Tail
from outfeed.history import Item, Window
from outfeed.metrics import Metrics

# More threads than this that read, match and encode at once, and hundreds of replays starve everything else: with 4,
# 1,000 clients that come back are served in half the time, and /healthz is answered in 36 ms instead of 1,360.
REPLAY_READERS = 4
POLL = "poll"  # the transport of who asks by cursor


class _Round(NamedTuple):
    """What one look at the cohorts found: what may go now, and which cohorts the tail no longer reaches."""

    deliveries: list[Delivery]
    fallen: list[tuple[Cohort, list[Subscriber]]]


class Hub:
    """`_lock` guards position, epoch, tail, cohorts and the set of subscribers.

    It is never held while a batch is sent to the cohorts, only while one joiner is brought up, without waiting.
    Locks are taken in the order hub, writer.
    """

    def __init__(self, source: Source, consumers: Consumers, stats: FeedStats | None = None) -> None:
        self.source = source
        self.pages = PageCache(source)
        self.consumers = consumers
        self.reading = threading.BoundedSemaphore(REPLAY_READERS)
        self.hurry: Callable[[], None] = lambda: None  # the relay puts a blocking poll here
        self.plan: Callable[[float], None] = lambda _: None  # and the pacer's plan here
        self.rouse: Callable[[], None] = lambda: None  # and the end of the watcher's rest here
        self.epoch = ""
        self.position = 0
        self.erasures = 0
        self._lock = threading.Lock()
        self._cohorts: dict[Subscription, list[Cohort]] = {}
        self._subscribers: set[Subscriber] = set()
        self._newcomers: dict[Subscriber, None] = {}
        self._waiting: dict[Filter, list[threading.Event]] = {}
        self._waiting_since = 0.0
        self._polls = 0
        self.closing = threading.Event()
        self._tail = Tail(0)
        self.stats = stats or FeedStats(Metrics())

    # --- the relay's thread -------------------------------------------------------------------------------------------

    def begin(self, window: Window, newest: list[Item]) -> None:
        """Start, or start anew, at the head of *window*, of which the *newest* items are at hand.

        Live subscribers of another history are sent away.
        """
        tail = Tail(newest[0].seq - 1 if newest else window.last_seq)
        tail.extend(newest)
        self._restart(window.epoch, window.last_seq, tail, "the epoch changed")

    def skip(self, position: int) -> None:
        """Go on after *position*: what lies before it was pruned before it could be sent."""
        self._restart(self.epoch, position, Tail(position), "pruning overtook the feed")

    def _restart(self, epoch: str, position: int, tail: Tail, reason: str) -> None:
        with self._lock:
            self.epoch, self.position, self._tail = epoch, position, tail
            overtaken = [member for cohort in self._all_cohorts() for member in cohort.members]
            # At once: until their own threads have hung up, what comes now would be taken for what followed theirs.
            self._cohorts, self._newcomers = {}, {}
            self._wake_all_waiting()
        for subscriber in overtaken:
            subscriber.ask_to_end(frames.OVERTAKEN, reason)

    def publish(self, items: list[Item], position: int) -> None:
        """Move to *position* and push *items*, which lie before it, to all who are live; one write for each."""
        with self._lock:
            self.position = position
            self._tail.extend(items)
            self._wake_waiting(items)
            round_ = self._collect()
        self._send(round_)

    def flush(self) -> None:
        """Push what paced cohorts have waiting and may be sent now."""
        with self._lock:
            round_ = self._collect()
        self._send(round_)

    def _collect(self) -> _Round:
        """Take from each cohort what may go now, and plan for what may not."""
        now = clock.monotonic()
        round_ = _Round([], [])
        for cohorts in self._cohorts.values():
            if len(cohorts) > 1:
                _merge(cohorts, now)
            for cohort in cohorts:
                self._collect_from(cohort, now, round_)
        for cohort, _ in round_.fallen:
            self._remove(cohort)
        return round_

    def _collect_from(self, cohort: Cohort, now: float, round_: _Round) -> None:
        if cohort.position < self.position and cohort.due <= now:
            items = self._tail.after(cohort.position)
            if items is None:
                round_.fallen.append((cohort, list(cohort.members)))
                return
            if delivery := cohort.deliver(items, self.position, self.epoch, now):
                round_.deliveries.append(delivery)
        if cohort.position < self.position:
            self.plan(cohort.due)

    def _send(self, round_: _Round) -> None:
        for delivery in round_.deliveries:
            for subscriber in delivery.members:
                subscriber.push(delivery)
            self._note_sent(delivery)
        for cohort, members in round_.fallen:
            for subscriber in members:
                subscriber.drop_out(cohort)

    def _note_sent(self, delivery: Delivery) -> None:
        count, batch = len(delivery.members), delivery.batch
        transport = delivery.cohort.subscription.encoding.transport
        self.stats.note_sent(transport, count * len(batch.ends), count * len(batch.data))

    def wanted_from(self) -> float:
        """Return from when on someone may be sent what is new, on the monotonic clock; infinity where nobody is there.

        That is always where a consumer is connected: a commit may be the claim of another connection.
        """
        with self._lock:
            if self.consumers.are_connected:
                return 0.0
            wanted = [self._waiting_since] if self._waiting else [each.due for each in self._all_cohorts()]
        return min(wanted, default=math.inf)

    def greet(self) -> None:
        """Tell those who went live with nothing new to read how far that is: they may think they are behind."""
        with self._lock:
            arrived = [(each, each.cohort) for each in self._newcomers if each.cohort is not None]
            # Who is still being brought up is greeted when that is done.
            self._newcomers = {each: None for each, cohort in arrived if cohort.position < self.position}
        for subscriber, cohort in arrived:
            if cohort.position == self.position:
                subscriber.heartbeat(cohort, cohort.subscription.encoding.heartbeat(cohort.position, self.epoch))

    def heartbeat(self) -> None:
        """Tell every live subscriber how far it is served. Between two rounds, so that it is true."""
        self.pages.forget_old()
        self._tell(lambda cohort: cohort.subscription.encoding.heartbeat(cohort.position, self.epoch))

    def tell_stale(self, reason: str | None, since: str | None) -> None:
        """Tell every live subscriber that the source can't be read, why, and since when; None: it can again.

        Between two rounds. Long polls end, and their next request is answered with the reason.
        """
        self._tell(lambda cohort: cohort.subscription.encoding.stale(reason, since))
        with self._lock:
            self._wake_all_waiting()

    def _tell(self, message: Callable[[Cohort], bytes]) -> None:
        with self._lock:
            live = [(cohort, list(cohort.members)) for cohort in self._all_cohorts()]
        for cohort, members in live:
            data = message(cohort)
            for subscriber in members:
                subscriber.heartbeat(cohort, data)

    # --- the clients' own threads -------------------------------------------------------------------------------------

    def add(self, subscriber: Subscriber) -> None:
        """Count a connected client in; one that comes while the hub closes is sent away."""
        with self._lock:
            self._subscribers.add(subscriber)
            is_closing = self.closing.is_set()
        if is_closing:
            subscriber.ask_to_end(*_restarting())

    def remove(self, subscriber: Subscriber) -> None:
        """Count it out; it gets nothing any more."""
        subscriber.end()
        self.consumers.release(subscriber)
        with self._lock:
            self._subscribers.discard(subscriber)

    def tail_after(self, cursor: int, epoch: str) -> list[Item] | None:
        """Return what the tail has after *cursor*, or None where the source must be read. Raises Overtaken."""
        with self._lock:
            self._check(epoch)
            return self._tail.after(cursor)

    def join(self, subscriber: Subscriber) -> bool:
        """Make *subscriber* live; False where it is not there yet. Raises Overtaken.

        Without a pace it is first brought up to the position from the tail. With one it joins at its own cursor, and
        its cohort brings it up at its beat.
        """
        with self._lock:
            self._check(subscriber.epoch)
            # Positions are compared under the lock: tests/journeys/test_joining.py fails without it.
            rest = self._tail.after(subscriber.cursor)
            if rest is None or subscriber.cursor > self.position:
                return False
            cohort = self._cohort_for(subscriber)
            has_joined = (
                subscriber.enter(cohort)
                if subscriber.subscription.rate
                else subscriber.take_rest(rest, self.position, cohort)
            )
            if not has_joined:
                return False
            cohort.admit(subscriber, subscriber.prev)
            cohorts = self._cohorts.setdefault(cohort.subscription, [])
            is_new = cohort not in cohorts
            if is_new:
                cohorts.append(cohort)
            is_owed_news = cohort.position < self.position or subscriber.prev < self.position
            if is_owed_news:
                self._newcomers[subscriber] = None
        if is_new:
            self.rouse()
        if is_owed_news:
            self.plan(cohort.due)
        return True

    def _cohort_for(self, subscriber: Subscriber) -> Cohort:
        """Return the cohort that fits, or a new one; one that sends sooner than this client's pace allows doesn't."""
        position = subscriber.cursor if subscriber.subscription.rate else self.position
        for cohort in self._cohorts.get(subscriber.subscription, ()):
            if cohort.position == position and cohort.due >= subscriber.due:
                return cohort
        return Cohort(subscriber.subscription, position, prev=position, due=subscriber.due)

    def _check(self, epoch: str) -> None:
        if epoch != self.epoch:
            raise Overtaken("the epoch changed")

    def part(self, subscriber: Subscriber, cohort: Cohort) -> None:
        """Take *subscriber* off the list of *cohort*, unless it has joined it again meanwhile."""
        with self._lock:
            if subscriber.cohort is not cohort:
                cohort.members.pop(subscriber, None)
                if not cohort.members:
                    self._remove(cohort)

    def _remove(self, cohort: Cohort) -> None:
        cohorts = self._cohorts.get(cohort.subscription, [])
        if cohort in cohorts:
            cohorts.remove(cohort)
        if not cohorts:
            self._cohorts.pop(cohort.subscription, None)

    def _all_cohorts(self) -> Iterator[Cohort]:
        return (cohort for cohorts in self._cohorts.values() for cohort in cohorts)

    def vouch(self, seq: int) -> None:
        """Bring the position to *seq* before a client is told it: what lies beyond is not remembered over a restore.

        As far as can be: where the mark can't be written, what is read is told all the same, and /readyz says no.
        """
        if seq > self.position:
            self.hurry()

    def wait_for(
        self, filter_: Filter, epoch: str, cursor: int, timeout: float, event: threading.Event | None = None
    ) -> None:
        """Return when something that matches stands after *cursor*, when the epoch is over, or after *timeout* secs.

        Who hands in an *event* can end the wait by setting it, and is no client.
        """
        is_client = event is None
        event = event or threading.Event()
        with self._lock:
            is_known = epoch == self.epoch
            rest = self._tail.after(cursor)
            if is_known:
                if self.closing.is_set() or rest is None or any(map(filter_.matches, rest)):
                    return
                if not self._waiting:
                    self._waiting_since = clock.monotonic()
                self._waiting.setdefault(filter_, []).append(event)
                self._polls += is_client
                self.rouse()
        if not is_known:
            self.hurry()  # the source may have a new one that was not looked at yet
            return
        event.wait(timeout)
        with self._lock:
            self._polls -= is_client
            waiting = self._waiting.get(filter_, [])
            if event in waiting:
                waiting.remove(event)
            if not waiting:
                self._waiting.pop(filter_, None)

    def _wake_waiting(self, items: list[Item]) -> None:
        for filter_ in [each for each in self._waiting if any(map(each.matches, items))]:
            for event in self._waiting.pop(filter_):
                event.set()

    def _wake_all_waiting(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
        self._waiting = {}

    # --- any thread ---------------------------------------------------------------------------------------------------

    def counts(self) -> Counter[tuple[str, str]]:
        """Return how many clients there are by transport and state; who waits for a poll's answer is `waiting`."""
        with self._lock:
            found = Counter((each.transport, each.state.value) for each in self._subscribers)
            return found + Counter({(POLL, "waiting"): self._polls})

    def __len__(self) -> int:
        """Return how many clients hold a thread: who is connected, and who waits."""
        return len(self._subscribers) + self._polls

    def subscribers(self) -> list[Subscriber]:
        """Return everyone who is connected."""
        with self._lock:
            return list(self._subscribers)

    def forget(self) -> None:
        """Keep nothing of what was read: some of it was taken out of the history. Who joins reads the source."""
        with self._lock:
            self._tail = Tail(self.position)
        self.pages.forget()
        self.erasures += 1  # for who holds a page, and comes to the end of it at his own pace

    def close(self) -> None:
        """Send everyone away with 1012 and a moment to come back at, spread out."""
        with self._lock:
            self.closing.set()
            self._wake_all_waiting()
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            subscriber.ask_to_end(*_restarting())


def _merge(cohorts: list[Cohort], now: float) -> None:
    """Make one of those that have come to the same position and may send at the same moment, so that none waits."""
    at: dict[tuple[int, float], Cohort] = {}
    for cohort in list(cohorts):
        kept = at.setdefault((cohort.position, max(cohort.due, now)), cohort)
        if kept is not cohort:
            kept.absorb(cohort)
            cohorts.remove(cohort)


def _restarting() -> tuple[int, str]:
    return frames.RESTARTING, f"retry_ms={random.randint(200, 3000)}"  # noqa: S311 - spreads load, keeps no secret
