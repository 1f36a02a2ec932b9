"""The cohorts of one process: which client is live, in which cohort, at which position, and when it is due."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import Overtaken
from outfeed.feed.client import ConnectedClient
from outfeed.feed.cohort import Cohort, CohortBatch, Membership, Place
from outfeed.feed.encoding import Batch
from outfeed.feed.pace import Pacer
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.stats import FeedStats
from outfeed.feed.subscription import Subscription
from outfeed.feed.tail import Tail
from outfeed.history import Item


class Round(NamedTuple):
    """The result of one look at the cohorts.

    *batches*: what may go now. *behind*: clients that the tail no longer reaches back to, and that have left.
    *failed*: for each cohort whose encoding raised, its clients, which have left, and the error.
    """

    batches: list[CohortBatch]
    behind: list[ConnectedClient]
    failed: list[tuple[list[ConnectedClient], Exception]]


class Cohorts:
    """The only place that says where live clients stand, and where the feed does.

    `_lock` guards the position, the epoch, the tail, and every cohort and membership; all changes of them are methods
    of this class. It is held while one client that joins is brought up, without waiting, and never while a batch is
    written. Locks are taken in the order: this one, a client's writer.

    *pacer* is told when a cohort is due; *wanted* is set when new events are wanted sooner than before.
    """

    def __init__(self, pacer: Pacer, wanted: threading.Event, stats: FeedStats) -> None:
        self.epoch = ""
        self.position = 0
        self._pacer = pacer
        self._wanted = wanted
        self._stats = stats
        self._lock = threading.Lock()
        self._tail = Tail(0)
        self._cohorts: dict[Subscription, list[Cohort]] = {}
        self._newcomers: dict[Membership, None] = {}

    # --- the relay's thread -------------------------------------------------------------------------------------------

    def restart(self, epoch: str, position: int, tail: Tail) -> list[ConnectedClient]:
        """Go on at *position* of *epoch*. All live clients leave; return them.

        They leave at once: until their own threads have ended, they would take new events for a continuation.
        """
        with self._lock:
            self.epoch, self.position, self._tail = epoch, position, tail
            return [client for cohort in list(self._all()) for client in self._disband(cohort)]

    def advance(self, items: list[Item], position: int) -> Round:
        """Move to *position*, before which *items* lie, and return what may go now."""
        with self._lock:
            self.position = position
            self._tail.extend(items)
            return self._collect()

    def collect(self) -> Round:
        """Take from each cohort what may go now, and plan what may not."""
        with self._lock:
            return self._collect()

    def _collect(self) -> Round:
        now = clock.monotonic()
        found = Round([], [], [])
        for cohorts in list(self._cohorts.values()):
            if len(cohorts) > 1:
                _merge(cohorts, now)
            for cohort in list(cohorts):
                try:
                    self._collect_from(cohort, now, found)
                except Exception as error:  # noqa: BLE001 - the edge of a cohort: the hub logs it and ends its clients
                    found.failed.append((self._disband(cohort), error))
        return found

    def _collect_from(self, cohort: Cohort, now: float, found: Round) -> None:
        if cohort.position < self.position and cohort.due <= now:
            items = self._tail.after(cohort.position)
            if items is None:
                for client in self._disband(cohort):
                    self._stats.note_fallback()
                    found.behind.append(client)
                return
            if batch := cohort.next_batch(items, self.position, self.epoch, now):
                found.batches.append(batch)
        if cohort.position < self.position:
            self._pacer.plan(cohort.due)

    def fall_behind(self, member: Membership, cohort: Cohort, place: Place) -> bool:
        """Have *member* leave *cohort* at *place*; False if it has left before."""
        with self._lock:
            if member.cohort is not cohort:
                return False
            self._dismiss(member, place)
        self._stats.note_fallback()
        return True

    def disband(self, cohort: Cohort) -> list[ConnectedClient]:
        """Have all members of *cohort* leave; return them."""
        with self._lock:
            return self._disband(cohort)

    def _disband(self, cohort: Cohort) -> list[ConnectedClient]:
        members = list(cohort.members)
        for member in members:
            self._dismiss(member, cohort.place)
        return [member.client for member in members]

    def live(self) -> list[tuple[Cohort, list[Membership]]]:
        """Return each cohort and its members."""
        with self._lock:
            return [(cohort, list(cohort.members)) for cohort in self._all()]

    def take_newcomers(self) -> list[tuple[Cohort, list[Membership]]]:
        """Return, once, those who joined with nothing new to read and whose cohort has reached the position."""
        with self._lock:
            arrived = {
                member: cohort
                for member in self._newcomers
                if (cohort := member.cohort) is not None and cohort.position == self.position
            }
            for member in arrived:
                del self._newcomers[member]
        return [(cohort, [member]) for member, cohort in arrived.items()]

    def due(self) -> float:
        """Return when the first live client may be sent something, on the monotonic clock; infinity if none is live."""
        with self._lock:
            return min((cohort.due for cohort in self._all()), default=math.inf)

    # --- the clients' own threads -------------------------------------------------------------------------------------

    def tail_after(self, cursor: int, epoch: str) -> list[Item] | None:
        """Return what the tail has after *cursor*, or None if the source must be read. Raises Overtaken."""
        with self._lock:
            self._check(epoch)
            return self._tail.after(cursor)

    def join(self, client: ConnectedClient, subscription: Subscription, epoch: str, place: Place) -> Membership:
        """Make *client*, which stands at *place*, live, and return its membership. Raises Overtaken.

        `is_live` of the membership is False if the client is too far behind, or its socket is full.

        Without a rate it is first brought up to the position from the tail. With one it joins at its own cursor, and
        its cohort brings it up at its pace.
        """
        member = Membership(client, place)
        with self._lock:
            self._check(epoch)
            # Positions are compared under the lock: tests/feed/test_hub.py fails without it.
            rest = self._tail.after(place.cursor)
            if rest is None or place.cursor > self.position:
                return member
            if not subscription.rate and not self._bring_up(member, subscription, rest):
                return member
            cohort = self._cohort_for(subscription, member.place)
            cohort.admit(member, member.place.prev)
            if cohort.position < self.position or member.place.prev < self.position:
                self._newcomers[member] = None
                self._pacer.plan(cohort.due)
        return member

    def _bring_up(self, member: Membership, subscription: Subscription, rest: list[Item]) -> bool:
        """Write *rest* and move *member* to the position; False if its socket doesn't take all of it at once."""
        place, writer = member.place, member.client.writer
        batch = subscription.encode(subscription.filter.matching(rest), place.prev, self.epoch)
        with writer.lock:
            sent = writer.try_send(batch.data)
            if sent < len(batch.data):
                member.place = keep_cut(writer, batch, sent, place)
                return False
        self._stats.note_sent(member.client.transport, len(batch.ends), len(batch.data))
        member.place = place._replace(cursor=self.position, prev=batch.last)
        return True

    def _cohort_for(self, subscription: Subscription, place: Place) -> Cohort:
        """Return the cohort that fits, or a new one. One that sends before the client may be sent something doesn't."""
        cohorts = self._cohorts.setdefault(subscription, [])
        for cohort in cohorts:
            if cohort.position == place.cursor and cohort.due >= place.due:
                return cohort
        cohorts.append(Cohort(subscription, place.cursor, place.due))
        self._wanted.set()
        return cohorts[-1]

    def leave(self, member: Membership) -> float:
        """End *member*'s stay; return when its next frame may go."""
        with self._lock:
            if member.cohort is not None:
                self._dismiss(member, member.cohort.place)
            return member.place.due

    def _dismiss(self, member: Membership, place: Place) -> None:
        cohort = member.cohort
        assert cohort is not None
        cohort.dismiss(member, place)
        self._newcomers.pop(member, None)
        if cohort.members:
            return
        cohorts = self._cohorts[cohort.subscription]
        cohorts.remove(cohort)
        if not cohorts:
            del self._cohorts[cohort.subscription]

    def _check(self, epoch: str) -> None:
        if epoch != self.epoch:
            raise Overtaken("the epoch changed")

    def _all(self) -> Iterator[Cohort]:
        return (cohort for cohorts in self._cohorts.values() for cohort in cohorts)

    # --- any thread ---------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Empty the tail, of which some was erased from the history: clients that join read the source."""
        with self._lock:
            self._tail = Tail(self.position)


def keep_cut(writer: SocketWriter, batch: Batch, sent: int, start: Place) -> Place:
    """Keep the unsent end of the piece that was cut after *sent* bytes; return where a client from *start* stands now.

    The caller holds the writer's lock.
    """
    seq, unsent = batch.cut_at(sent)
    if unsent:
        writer.stash_remainder(unsent)
    return Place(start.cursor, batch.prev, start.due) if seq is None else Place(seq, seq, start.due)


def _merge(cohorts: list[Cohort], now: float) -> None:
    """Make one of those that have come to the same position and may send at the same moment, so that none waits."""
    at: dict[tuple[int, float], Cohort] = {}
    for cohort in list(cohorts):
        kept = at.setdefault((cohort.position, max(cohort.due, now)), cohort)
        if kept is not cohort:
            kept.absorb(cohort)
            cohorts.remove(cohort)
