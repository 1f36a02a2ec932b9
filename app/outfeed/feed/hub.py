"""The hub: the connected clients of one process, and what is written to those that are live."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable

from outfeed.feed import frames
from outfeed.feed.client import ConnectedClient
from outfeed.feed.cohort import Cohort, CohortBatch, Membership, Place
from outfeed.feed.cohorts import Cohorts, Round, keep_cut
from outfeed.feed.encoding import Batch
from outfeed.feed.stats import FeedStats
from outfeed.feed.tail import Tail
from outfeed.feed.waiters import Waiters
from outfeed.history import Item, Window
from outfeed.log_message import LogMessage

POLL = "poll"  # the transport of clients that ask by cursor
log = logging.getLogger(__name__)


class Hub:
    """`_lock` guards the set of connected clients. Where they stand is kept by *cohorts*."""

    def __init__(self, cohorts: Cohorts, waiters: Waiters, stats: FeedStats) -> None:
        self.stats = stats
        self.closing = threading.Event()
        self.erased = 0  # how many events were erased from this history, as the clients are told
        self._cohorts = cohorts
        self._waiters = waiters
        self._lock = threading.Lock()
        self._clients: set[ConnectedClient] = set()

    @property
    def epoch(self) -> str:
        """The epoch of the position."""
        return self._cohorts.epoch

    @property
    def position(self) -> int:
        """The seq up to which everything has been published."""
        return self._cohorts.position

    # --- the relay's thread -------------------------------------------------------------------------------------------

    def begin(self, window: Window, newest: list[Item]) -> None:
        """Start, or start again, at the head of *window*, of which the *newest* items are at hand.

        Live clients are of another history, and are closed.
        """
        tail = Tail(newest[0].seq - 1 if newest else window.last_seq)
        tail.extend(newest)
        self._restart(window.epoch, window.last_seq, tail, "the epoch changed")

    def skip(self, position: int) -> None:
        """Go on after *position*: what lies before it was pruned before it could be sent. Live clients are closed."""
        self._restart(self.epoch, position, Tail(position), "pruning overtook the feed")

    def _restart(self, epoch: str, position: int, tail: Tail, reason: str) -> None:
        overtaken = self._cohorts.restart(epoch, position, tail)
        self._waiters.wake_all()
        for client in overtaken:
            client.ask_to_end(frames.OVERTAKEN, reason)

    def publish(self, items: list[Item], position: int) -> None:
        """Move to *position* and push *items*, which lie before it, to all live clients, with one write for each."""
        round_ = self._cohorts.advance(items, position)
        self._waiters.wake(items)
        self._send(round_)

    def flush(self) -> None:
        """Push what paced cohorts have waiting and may be sent now."""
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
        """Write the batch to each client that is still a member, without ever waiting."""
        cohort, batch = each.cohort, each.batch
        data, size = batch.data, len(batch.data)
        for member in each.members:
            writer = member.client.writer
            try:
                with writer.lock:
                    # `Subscriber.subscribe` leaves the cohort before it writes the verdict, so this batch is written
                    # before the verdict or skipped here. A client that has joined again is another member.
                    if member.cohort is not cohort:
                        continue
                    try:
                        sent = writer.try_send(data)
                    except OSError:
                        sent = 0  # gone: its own thread meets the same error, and ends it
                    if sent == size:
                        continue
                    place = keep_cut(writer, batch, sent, Place(each.start, batch.prev, cohort.due))
                if self._cohorts.fall_behind(member, cohort, place):
                    member.client.wake()
            except Exception as error:  # noqa: BLE001 - the edge of a client: `_fail` logs it
                self._cohorts.fall_behind(member, cohort, cohort.place)
                self._fail([member.client], error)

    def _fail(self, clients: list[ConnectedClient], error: Exception) -> None:
        """Close *clients*, which *error* concerns and which have left their cohort; the others go on."""
        self.stats.metrics.note_error("cohort", error)
        log.error(LogMessage("cohort failed, its clients are closed", clients=len(clients)), exc_info=error)
        for client in clients:
            client.ask_to_end(frames.OUR_FAULT, "internal server error")

    def wanted_from(self) -> float:
        """Return from when on live or waiting clients want new events, on the monotonic clock; infinity without any."""
        since = self._waiters.since
        return self._cohorts.due() if since is None else since

    def send_first_heartbeats(self) -> None:
        """Tell those who went live with nothing new to read how far that is: they may think they are behind."""
        self._tell(self._cohorts.take_newcomers(), self._heartbeat_of)

    def heartbeat(self) -> None:
        """Tell every live client how far it is served. Between two rounds, so that it is true."""
        self._tell(self._cohorts.live(), self._heartbeat_of)

    def _heartbeat_of(self, cohort: Cohort) -> bytes:
        return cohort.subscription.encoding.heartbeat(cohort.position, self.epoch, self.erased)

    def tell_stale(self, reason: str | None, since: str | None) -> None:
        """Tell every live client that the source can't be read, why, and since when; None: it can again.

        Between two rounds. Long polls end, and their next request is answered with the reason.
        """
        self._tell(self._cohorts.live(), lambda cohort: cohort.subscription.encoding.stale(reason, since))
        self._waiters.wake_all()

    def _tell(self, found: Iterable[tuple[Cohort, list[Membership]]], message: Callable[[Cohort], bytes]) -> None:
        for cohort, members in found:
            try:
                batch = Batch(message(cohort), [], [], cohort.prev)
            except Exception as error:  # noqa: BLE001 - the edge of a cohort: `_fail` logs it
                self._fail(self._cohorts.disband(cohort), error)
            else:
                self._write(CohortBatch(cohort, batch, cohort.position, members))

    # --- any thread ---------------------------------------------------------------------------------------------------

    def add(self, client: ConnectedClient) -> None:
        """Count a connected client in. One that comes while the hub closes is closed."""
        with self._lock:
            self._clients.add(client)
            is_closing = self.closing.is_set()
        if is_closing:
            client.ask_to_end(*_restarting())

    def remove(self, client: ConnectedClient) -> None:
        """End *client*, and count it out. Its own thread calls this."""
        client.end()
        with self._lock:
            self._clients.discard(client)

    def clients(self) -> list[ConnectedClient]:
        """Return all connected clients."""
        with self._lock:
            return list(self._clients)

    def counts(self) -> Counter[tuple[str, str]]:
        """Return how many clients there are by transport and state; a client that waits for a poll is `waiting`."""
        found = Counter((each.transport, each.state.value) for each in self.clients())
        return found + Counter({(POLL, "waiting"): self._waiters.polls})

    def close(self) -> None:
        """Close all clients with 1012 and a moment to come back at, spread out."""
        with self._lock:
            self.closing.set()
            clients = list(self._clients)
        self._waiters.close()
        for client in clients:
            client.ask_to_end(*_restarting())


def _restarting() -> tuple[int, str]:
    return frames.RESTARTING, f"retry_ms={random.randint(200, 3000)}"  # noqa: S311 - spreads load, keeps no secret
