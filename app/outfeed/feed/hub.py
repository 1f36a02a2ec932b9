"""The hub: the connected clients of one process, and writes to them."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable

from outfeed.feed import frames
from outfeed.feed.client import ConnectedClient
from outfeed.feed.cohort import Cohort, CohortBatch, Membership, Place
from outfeed.feed.cohorts import Cohorts, Round, stash_cut_piece
from outfeed.feed.encoding import Batch, Counters
from outfeed.feed.stats import FeedStats
from outfeed.feed.tail import Tail
from outfeed.feed.trace import Trace
from outfeed.feed.waiters import Waiters
from outfeed.history import Item, Window
from outfeed.log_message import LogMessage

POLL = "poll"  # transport of clients that send their cursor with each request
log = logging.getLogger(__name__)


class Hub:
    """The connected clients of one process.

    `_lock` guards the set of clients. *cohorts* stores the positions of the live ones. *trace* gets the decisions.
    """

    def __init__(self, cohorts: Cohorts, waiters: Waiters, stats: FeedStats, trace: Trace | None) -> None:
        self.stats = stats
        self.closing = threading.Event()
        self.erased = 0  # number of events erased from this history, as clients are told
        self.types = 0  # number of changes of displays, as clients are told
        self.is_copy = False  # whether the source may be behind
        self._moved = threading.Condition()  # notified when the position or the epoch has changed
        self._cohorts = cohorts
        self._trace = trace
        self._waiters = waiters
        self._lock = threading.Lock()
        self._clients: set[ConnectedClient] = set()

    @property
    def epoch(self) -> str:
        """Epoch of the position."""
        return self._cohorts.epoch

    @property
    def position(self) -> int:
        """Seq up to which every event has been published."""
        return self._cohorts.position

    @property
    def counters(self) -> Counters:
        """Counters that heartbeats, verdicts and polls carry."""
        return Counters(self.erased, self.types)

    # --- the relay's thread -------------------------------------------------------------------------------------------

    def begin(self, window: Window, newest: list[Item]) -> None:
        """Start, or restart, at the head of *window*.

        *newest* are the last events before the head, and become the tail. Live clients are closed, since they follow
        another history.
        """
        self.is_copy = window.is_copy
        tail = Tail(newest[0].seq - 1 if newest else window.last_seq)
        tail.extend(newest)
        self._restart(window.epoch, window.last_seq, tail, "the epoch changed")

    def skip(self, position: int) -> None:
        """Continue after *position* when pruning has overtaken the feed.

        The events up to *position* were pruned before they could be sent. Live clients are closed.
        """
        self._restart(self.epoch, position, Tail(position), "pruning overtook the feed")

    def _restart(self, epoch: str, position: int, tail: Tail, reason: str) -> None:
        if self._trace:
            self._trace.note("begin", epoch=epoch, position=position, reason=reason, is_copy=self.is_copy)
        overtaken = self._cohorts.restart(epoch, position, tail)
        self._waiters.wake_all()
        self._notify()
        for client in overtaken:
            client.ask_to_end(frames.OVERTAKEN, reason)

    def publish(self, items: list[Item], position: int) -> None:
        """Move to *position*, and push *items* to all live clients.

        *items* are the new events up to *position*. Each client gets one write.
        """
        if self._trace:
            self._trace.note("publish", epoch=self.epoch, after=self.position, position=position, events=items)
        round_ = self._cohorts.advance(items, position)
        self._waiters.wake(items)
        self._notify()
        self._send(round_)

    def forget(self) -> None:
        """Empty the tail after an erasure."""
        self._cohorts.forget()

    def flush(self) -> None:
        """Push the waiting events of paced cohorts that are due."""
        self._send(self._cohorts.collect())

    def _send(self, round_: Round) -> None:
        for each in round_.batches:
            self._write(each)
            count = len(each.members)
            transport = each.cohort.subscription.encoding.transport
            self.stats.note_sent(transport, count * len(each.batch.ends), count * len(each.batch.data))
        for client in round_.behind:
            client.wake()
        for clients, error in round_.failed:
            self._fail(clients, error)

    def _write(self, each: CohortBatch) -> None:
        """Write the batch to each client that is still a member.

        The call never waits for a client.
        """
        cohort, batch = each.cohort, each.batch
        data, size = batch.data, len(batch.data)
        push = self._trace.note_push(each, self.epoch, cohort.position) if self._trace else None
        for member in each.members:
            writer = member.client.writer
            try:
                with writer.lock:
                    # `Subscriber.subscribe` leaves the cohort before it writes the verdict. This batch is therefore
                    # written before the verdict or skipped here. A client that has joined again is another member.
                    if member.cohort is not cohort:
                        if push:
                            push.missed.add(member.client)
                        continue
                    try:
                        sent = writer.try_send(data)
                    except OSError:
                        sent = 0  # the connection is gone: the client's own thread gets the same error and ends it
                    if sent == size:
                        continue
                    place = stash_cut_piece(writer, batch, sent, Place(each.start, batch.prev, cohort.due))
                    if push:
                        push.cut[member.client] = place.cursor
                if self._cohorts.fall_behind(member, cohort, place):
                    member.client.wake()
            except Exception as error:  # noqa: BLE001 - the edge of a client: `_fail` logs it
                self._cohorts.fall_behind(member, cohort, cohort.place)
                self._fail([member.client], error)
        if push:
            push.is_done = True

    def _fail(self, clients: list[ConnectedClient], error: Exception) -> None:
        """Close *clients*, which have left their cohort because of *error*.

        Other clients are not affected.
        """
        self.stats.metrics.note_error("cohort", error)
        log.error(LogMessage("cohort failed, closing its clients", clients=len(clients)), exc_info=error)
        for client in clients:
            client.ask_to_end(frames.INTERNAL_ERROR, "internal server error")

    def wanted_from(self) -> float:
        """Return when live or waiting clients next want new events.

        The time is on the monotonic clock. It is infinity if there is no such client.
        """
        since = self._waiters.since
        return self._cohorts.due() if since is None else since

    def send_first_heartbeats(self) -> None:
        """Send the position to clients that went live with nothing to read.

        Without it, such a client may show itself as behind.
        """
        self._tell(self._cohorts.take_new_members(), self._heartbeat_of)

    def heartbeat(self, origin_age: float | None = None) -> None:
        """Send every live client the seq up to which it is served.

        *origin_age* is that of a copy. Call it between two rounds, when that seq is exact.
        """
        if origin_age is None:
            self._tell(self._cohorts.live(), self._heartbeat_of)
        else:
            self._tell(self._cohorts.live(), lambda cohort: self._heartbeat_of(cohort, origin_age))

    def _heartbeat_of(self, cohort: Cohort, origin_age: float | None = None) -> bytes:
        return cohort.subscription.encoding.heartbeat(cohort.position, self.epoch, self.counters, origin_age)

    def tell_stale(self, reason: str | None, since: str | None) -> None:
        """Tell every live client that the source cannot be read.

        *reason* says why, and *since* is the time of the last read. A *reason* of None says that the source can be read
        again.

        Call it between two rounds. Long polls end, and their next request is answered with the reason.
        """
        self._tell(self._cohorts.live(), lambda cohort: cohort.subscription.encoding.stale(reason, since))
        self._waiters.wake_all()

    def _tell(self, found: Iterable[tuple[Cohort, list[Membership]]], message: Callable[[Cohort], bytes]) -> None:
        for cohort, members in found:
            try:
                batch = Batch(message(cohort), [], [], cohort.prev)
            except Exception as error:  # noqa: BLE001 - the edge of a cohort: `_fail` logs it
                self._fail(self._cohorts.remove_members(cohort), error)
            else:
                self._write(CohortBatch(cohort, batch, cohort.position, members))

    # --- any thread ---------------------------------------------------------------------------------------------------

    def _notify(self) -> None:
        with self._moved:
            self._moved.notify_all()

    def wait_for(self, seq: int, epoch: str, timeout: float) -> bool:
        """Wait until the position is at *seq*, or *epoch* is over.

        Waits *timeout* seconds at most; returns whether it is so.
        """
        with self._moved:
            return self._moved.wait_for(lambda: self.position >= seq or self.epoch != epoch, timeout)

    def add(self, client: ConnectedClient) -> None:
        """Register a connected client.

        If the hub is closing, the client is asked to close.
        """
        with self._lock:
            self._clients.add(client)
            is_closing = self.closing.is_set()
        if is_closing:
            client.ask_to_end(*_restarting())

    def remove(self, client: ConnectedClient) -> None:
        """End *client* and unregister it.

        The client's own thread calls this.
        """
        client.end()
        with self._lock:
            self._clients.discard(client)

    def clients(self) -> list[ConnectedClient]:
        """Return all connected clients."""
        with self._lock:
            return list(self._clients)

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the number of clients by transport and state.

        A client that waits in a long poll has the state `waiting`.
        """
        found = Counter((each.transport, each.state.value) for each in self.clients())
        return found + Counter({(POLL, "waiting"): self._waiters.polls})

    def close(self) -> None:
        """Close all clients with 1012 and a random delay to reconnect after."""
        with self._lock:
            self.closing.set()
            clients = list(self._clients)
        self._waiters.close()
        for client in clients:
            client.ask_to_end(*_restarting())


def _restarting() -> tuple[int, str]:
    return frames.RESTARTING, f"retry_ms={random.randint(200, 3000)}"  # noqa: S311 - spreads load, keeps no secret
