"""The cohorts of one process: positions and due times of live clients.

A cohort has the position of its members, and the time from which their next frame may be sent.
"""

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
from outfeed.feed.trace import Trace
from outfeed.history import Item


class Round(NamedTuple):
    """The result of one pass over the cohorts.

    *batches* may be sent now. *behind* are clients that need events older than the tail; they have left their cohorts.
    *failed* has one entry for each cohort whose encoding raised: the cohort's clients, which have left, and the error.
    """

    batches: list[CohortBatch]
    behind: list[ConnectedClient]
    failed: list[tuple[list[ConnectedClient], Exception]]


class Cohorts:
    """The position of the feed and of every live client.

    No other object stores these positions. `_lock` guards the position, the epoch, the tail, and every cohort and
    membership; all changes of them are methods of this class. The lock is held while a joining client catches up, which
    never waits. It is never held while a batch is written. A thread that takes several locks takes this one first, then
    that of a client's writer.

    *pacer* is told when a cohort is due. *wanted* is set when new events are wanted sooner than before. *trace* gets
    the decisions.
    """

    def __init__(self, pacer: Pacer, wanted: threading.Event, stats: FeedStats, trace: Trace | None) -> None:
        self.epoch = ""
        self.position = 0
        self._pacer = pacer
        self._wanted = wanted
        self._stats = stats
        self._trace = trace
        self._lock = threading.Lock()
        self._tail = Tail(0)
        self._cohorts: dict[Subscription, list[Cohort]] = {}
        self._new_members: dict[Membership, None] = {}

    # --- the relay's thread -------------------------------------------------------------------------------------------

    def restart(self, epoch: str, position: int, tail: Tail) -> list[ConnectedClient]:
        """Continue at *position* of *epoch*, and return all live clients.

        The clients leave their cohorts at once. A client that stayed until its own thread ended would treat new events
        as a continuation of the old ones.
        """
        with self._lock:
            self.epoch, self.position, self._tail = epoch, position, tail
            return [client for cohort in list(self._all()) for client in self._remove_members(cohort)]

    def advance(self, items: list[Item], position: int) -> Round:
        """Move to *position*, and return what may be sent now.

        *items* are the new events up to *position*.
        """
        with self._lock:
            self.position = position
            self._tail.extend(items)
            return self._collect()

    def collect(self) -> Round:
        """Take what may be sent now from each cohort, and plan the rest."""
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
                except Exception as error:  # noqa: BLE001 - the edge of a cohort: the hub logs the error and ends the clients
                    found.failed.append((self._remove_members(cohort), error))
        return found

    def _collect_from(self, cohort: Cohort, now: float, found: Round) -> None:
        if cohort.position < self.position and cohort.due <= now:
            items = self._tail.after(cohort.position)
            if items is None:
                for client in self._remove_members(cohort):
                    self._stats.note_fallback()
                    found.behind.append(client)
                return
            if batch := cohort.next_batch(items, self.position, self.epoch, now):
                found.batches.append(batch)
        if cohort.position < self.position:
            self._pacer.plan(cohort.due)

    def fall_behind(self, member: Membership, cohort: Cohort, place: Place) -> bool:
        """Remove *member* from *cohort* at *place*.

        Returns False if the member has already left that cohort.
        """
        with self._lock:
            if member.cohort is not cohort:
                return False
            self._remove_member(member, place)
        self._stats.note_fallback()
        return True

    def remove_members(self, cohort: Cohort) -> list[ConnectedClient]:
        """Remove all members from *cohort*, and return their clients."""
        with self._lock:
            return self._remove_members(cohort)

    def _remove_members(self, cohort: Cohort) -> list[ConnectedClient]:
        members = list(cohort.members)
        for member in members:
            self._remove_member(member, cohort.place)
        return [member.client for member in members]

    def live(self) -> list[tuple[Cohort, list[Membership]]]:
        """Return each cohort with its members."""
        with self._lock:
            return [(cohort, list(cohort.members)) for cohort in self._all()]

    def take_new_members(self) -> list[tuple[Cohort, list[Membership]]]:
        """Return each new member once, when its cohort is at the position.

        These members joined when there was nothing new to read.
        """
        with self._lock:
            arrived = {
                member: cohort
                for member in self._new_members
                if (cohort := member.cohort) is not None and cohort.position == self.position
            }
            for member in arrived:
                del self._new_members[member]
        return [(cohort, [member]) for member, cohort in arrived.items()]

    def due(self) -> float:
        """Return when the first live client may be sent something.

        The time is on the monotonic clock. It is infinity if no client is live.
        """
        with self._lock:
            return min((cohort.due for cohort in self._all()), default=math.inf)

    # --- the clients' own threads -------------------------------------------------------------------------------------

    def tail_after(self, cursor: int, epoch: str) -> list[Item] | None:
        """Return the tail's items after *cursor*.

        Returns None if the tail does not reach back to *cursor*: the caller must read the source. Raises Overtaken.
        """
        with self._lock:
            self._check(epoch)
            return self._tail.after(cursor)

    def join(self, client: ConnectedClient, subscription: Subscription, epoch: str, place: Place) -> Membership:
        """Make *client*, which is at *place*, live; return its membership.

        `is_live` of the membership is False if the client is too far behind or if its socket is full. Raises Overtaken.

        A client without a rate first gets the events up to the position from the tail. A client with a rate joins at
        its own cursor, and its cohort catches up at its pace.
        """
        member = Membership(client, place)
        with self._lock:
            self._check(epoch)
            # Positions are compared under the lock: tests/feed/test_hub.py fails without it.
            rest = self._tail.after(place.cursor)
            if rest is None or place.cursor > self.position:
                return member
            if not subscription.rate and not self._catch_up(member, subscription, rest):
                return member
            cohort = self._cohort_for(subscription, member.place)
            cohort.add_member(member, member.place.prev)
            if self._trace:
                self._trace.note("join", client=client, epoch=epoch, cursor=cohort.position)
            if cohort.position < self.position or member.place.prev < self.position:
                self._new_members[member] = None
                self._pacer.plan(cohort.due)
        return member

    def _catch_up(self, member: Membership, subscription: Subscription, rest: list[Item]) -> bool:
        """Write *rest* and move *member* to the position.

        Returns False if the socket does not take all of *rest* at once.
        """
        place, writer = member.place, member.client.writer
        matching = subscription.filter.matching(rest)
        batch = subscription.encode(matching, place.prev, self.epoch)
        with writer.lock:
            sent = writer.try_send(batch.data)
            if sent < len(batch.data):
                member.place = stash_cut_piece(writer, batch, sent, place)
                if self._trace and (got := [item for item in matching if item.seq <= member.place.cursor]):
                    self._trace.note_sent(member.client, self.epoch, place.prev, got)
                return False
        self._stats.note_sent(member.client.transport, len(batch.ends), len(batch.data))
        if self._trace and matching:
            self._trace.note_sent(member.client, self.epoch, place.prev, matching)
        member.place = place._replace(cursor=self.position, prev=batch.last)
        return True

    def _cohort_for(self, subscription: Subscription, place: Place) -> Cohort:
        """Return a cohort that fits *place*, or a new one.

        A cohort that may send before the client may be sent something does not fit.
        """
        cohorts = self._cohorts.setdefault(subscription, [])
        for cohort in cohorts:
            if cohort.position == place.cursor and cohort.due >= place.due:
                return cohort
        cohorts.append(Cohort(subscription, place.cursor, place.due))
        self._wanted.set()
        return cohorts[-1]

    def leave(self, member: Membership) -> float:
        """End *member*'s membership; return when its next frame may be sent."""
        with self._lock:
            if member.cohort is not None:
                self._remove_member(member, member.cohort.place)
            return member.place.due

    def _remove_member(self, member: Membership, place: Place) -> None:
        cohort = member.cohort
        assert cohort is not None
        cohort.remove_member(member, place)
        self._new_members.pop(member, None)
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
        """Empty the tail after an erasure, so that joins read the source."""
        with self._lock:
            self._tail = Tail(self.position)


def stash_cut_piece(writer: SocketWriter, batch: Batch, sent: int, start: Place) -> Place:
    """Stash the rest of a piece that was cut after *sent* bytes.

    Returns the place of a client that started at *start*. The caller holds the writer's lock.
    """
    seq, unsent = batch.cut_at(sent)
    if unsent:
        writer.stash_remainder(unsent)
    return Place(start.cursor, batch.prev, start.due) if seq is None else Place(seq, seq, start.due)


def _merge(cohorts: list[Cohort], now: float) -> None:
    """Merge cohorts that have the same position and may send together."""
    at: dict[tuple[int, float], Cohort] = {}
    for cohort in list(cohorts):
        kept = at.setdefault((cohort.position, max(cohort.due, now)), cohort)
        if kept is not cohort:
            kept.merge(cohort)
            cohorts.remove(cohort)
