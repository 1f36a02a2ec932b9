"""The hub: the connected subscribers of one process, the position they are at, and the tail for those who join."""

from __future__ import annotations

import random
import threading
from bisect import bisect_right
from collections.abc import Callable

from app.errors import Overtaken
from app.feed import frames
from app.feed.cohort import Cohort, Delivery
from app.feed.source import Source
from app.feed.subscriber import Subscriber
from app.feed.subscription import Filter
from app.history import Item, Window

TAIL_EVENTS = 4000
TAIL_BYTES = 4 * 2**20
# More threads than this in SELECT and encode at once, and hundreds of replays starve everything else.
REPLAY_READERS = 4


class Tail:
    """The newest items up to the hub's position, matched to nobody; the hub's lock guards it.

    Holds every item above `start`: who has everything up to there can be brought up from here.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self._items: list[Item] = []
        self._bytes = 0

    def extend(self, items: list[Item]) -> None:
        self._items += items
        self._bytes += sum(len(item.json) for item in items)
        excess = max(0, len(self._items) - TAIL_EVENTS)
        size = self._bytes - sum(len(item.json) for item in self._items[:excess])
        while size > TAIL_BYTES:
            size -= len(self._items[excess].json)
            excess += 1
        if excess:
            self.start = self._items[excess - 1].seq
            del self._items[:excess]
        self._bytes = size

    def after(self, seq: int) -> list[Item] | None:
        """Return the items above *seq*, or None where they are not all here."""
        if seq < self.start:
            return None
        return self._items[bisect_right(self._items, seq, key=_seq) :]


def _seq(item: Item) -> int:
    return item.seq


class Hub:
    """`_lock` guards position, epoch, tail, cohorts and the set of subscribers.

    It is never held while a batch is sent to the cohorts, only while one joiner is brought up, without waiting.
    Locks are taken in the order hub, wire.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.reading = threading.BoundedSemaphore(REPLAY_READERS)
        self.hurry: Callable[[], None] = lambda: None  # the relay puts a blocking poll here
        self._lock = threading.Lock()
        self._cohorts: dict[Filter, Cohort] = {}
        self._subscribers: set[Subscriber] = set()
        self._is_closing = False
        self.epoch = ""
        self.position = 0
        self._tail = Tail(0)

    # --- the relay's thread -------------------------------------------------------------------------------------------

    def begin(self, window: Window) -> None:
        """Start, or start anew, at the head of *window*; live subscribers of another history are sent away."""
        self._restart(window.epoch, window.last_seq, "the epoch changed")

    def skip(self, position: int) -> None:
        """Go on after *position*: what lies before it was pruned before it could be sent."""
        self._restart(self.epoch, position, "pruning overtook the feed")

    def _restart(self, epoch: str, position: int, reason: str) -> None:
        with self._lock:
            self.epoch, self.position, self._tail = epoch, position, Tail(position)
            overtaken = [member for cohort in self._cohorts.values() for member in cohort.members]
        for subscriber in overtaken:
            subscriber.ask_to_end(frames.OVERTAKEN, reason)

    def publish(self, items: list[Item], position: int) -> None:
        """Move to *position* and push *items*, which lie before it, to all who are live; one write for each."""
        with self._lock:
            start, self.position = self.position, position
            self._tail.extend(items)
            deliveries = [cohort.deliver(items, start) for cohort in self._cohorts.values()]
        for delivery in filter(None, deliveries):
            self._send(delivery)

    def _send(self, delivery: Delivery) -> None:
        for subscriber in delivery.members:
            subscriber.push(delivery)

    def heartbeat(self) -> None:
        """Tell every live subscriber that it has all up to the position. Between two publishes, so that it is true."""
        with self._lock:
            position = self.position
            live = [(cohort, list(cohort.members)) for cohort in self._cohorts.values()]
        frame = frames.message("heartbeat", {"cursor": position})
        for cohort, members in live:
            for subscriber in members:
                subscriber.heartbeat(cohort, frame, position)

    # --- the clients' own threads -------------------------------------------------------------------------------------

    def add(self, subscriber: Subscriber) -> None:
        """Count a connected client in; one that comes while the hub closes is sent away."""
        with self._lock:
            self._subscribers.add(subscriber)
            is_closing = self._is_closing
        if is_closing:
            subscriber.ask_to_end(*_restarting())

    def remove(self, subscriber: Subscriber) -> None:
        """Count it out; it gets nothing any more."""
        subscriber.end()
        with self._lock:
            self._subscribers.discard(subscriber)

    def tail_after(self, cursor: int, epoch: str) -> list[Item] | None:
        """Return what the tail has after *cursor*, or None where the source must be read. Raises Overtaken."""
        with self._lock:
            self._check(epoch)
            return self._tail.after(cursor)

    def join(self, subscriber: Subscriber) -> bool:
        """Bring *subscriber* up from the tail and make it live; False where it is not there yet. Raises Overtaken."""
        with self._lock:
            self._check(subscriber.epoch)
            # Positions are compared under the lock: tests/journeys/test_joining.py fails without it.
            rest = self._tail.after(subscriber.cursor)
            if rest is None or subscriber.cursor > self.position:
                return False
            cohort = self._cohorts.get(subscriber.filter) or Cohort(subscriber.filter, self.position)
            if not subscriber.take_rest(rest, self.position, cohort):
                return False
            cohort.admit(subscriber, subscriber.prev)
            self._cohorts[subscriber.filter] = cohort
            return True

    def _check(self, epoch: str) -> None:
        if epoch != self.epoch:
            raise Overtaken("the epoch changed")

    def part(self, subscriber: Subscriber, cohort: Cohort) -> None:
        """Take *subscriber* off the list of *cohort*, unless it has joined it again meanwhile."""
        with self._lock:
            if subscriber.cohort is not cohort:
                cohort.members.pop(subscriber, None)
                if not cohort.members and self._cohorts.get(cohort.filter) is cohort:
                    del self._cohorts[cohort.filter]

    # --- any thread ---------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return how many subscribers there are in each state."""
        with self._lock:
            states = [subscriber.state.value for subscriber in self._subscribers]
        return {state: states.count(state) for state in sorted(set(states))}

    def __len__(self) -> int:
        return len(self._subscribers)

    def subscribers(self) -> list[Subscriber]:
        """Return everyone who is connected."""
        with self._lock:
            return list(self._subscribers)

    def forget_tail(self) -> None:
        """Keep nothing of what was sent: some of it was taken out of the history. Who joins reads the source."""
        with self._lock:
            self._tail = Tail(self.position)

    def close(self) -> None:
        """Send everyone away with 1012 and a moment to come back at, spread out."""
        with self._lock:
            self._is_closing = True
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            subscriber.ask_to_end(*_restarting())


def _restarting() -> tuple[int, str]:
    return frames.RESTARTING, f"retry_ms={random.randint(200, 3000)}"  # noqa: S311 - spreads load, keeps no secret
