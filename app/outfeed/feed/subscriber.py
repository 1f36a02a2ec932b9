"""Subscribers: connected clients, from subscription to close.

The relay's thread pushes to live clients without waiting. A client whose socket buffer is full leaves its cohort. Its
own thread then reads the source until the client has caught up.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import random
import time
from collections.abc import Callable

from outfeed import clock
from outfeed.errors import InvalidRequest, SourceError
from outfeed.feed import frames
from outfeed.feed.client import ClientState
from outfeed.feed.cohort import Membership, Place
from outfeed.feed.core import Core
from outfeed.feed.encoding import Encoding
from outfeed.feed.pace import due_at, next_due
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.source import PAGE_EVENTS
from outfeed.feed.subscription import Filter, SubscribeRequest, Subscription
from outfeed.history import Item
from outfeed.log_message import LogMessage
from outfeed.principal import Principal

# At most this many events are sent from the tail with the lock of the cohorts held. A longer rest is sent before the
# join.
JOIN_EVENTS = 200
IDLE_SECS = 60.0
HUB_WAIT_SECS = 0.05
# A copy that is behind catches up. Its clients wait in steps, so that they can be closed, and not for ever.
COPY_WAIT_SECS = 1.0
MAX_COPY_WAIT_SECS = 10.0
RETRY_SECS = 0.5
log = logging.getLogger(__name__)


class Subscriber:
    """One connected client.

    Only the client's own thread changes the attributes, except `ending`, which any thread may set.

    While the client is live, its membership has its position, and the cohorts own the membership. Otherwise `place` has
    it. *rates*: the rate of a client that requests none, and the highest rate that it may request (0: no limit).
    `principal` limits which events the client sees. If its permissions change, the client is asked to end.
    """

    def __init__(
        self,
        core: Core,
        writer: SocketWriter,
        wake: Callable[[], None],
        encoding: Encoding,
        rates: tuple[float, float],
        principal: Principal,
    ) -> None:
        self.writer = writer
        self.principal = principal
        self.subscription = Subscription(Filter(principal.visible), batch=False, rate=0, encoding=encoding)
        self.epoch = ""
        self.acknowledged = 0  # the highest seq that the consumer has acknowledged
        self.place = Place()
        self.ending: tuple[int, str] | None = None
        self._core = core
        self._wake = wake
        self._rates = rates
        self._state = ClientState.IDLE
        self._membership: Membership | None = None
        self._idle_since = clock.monotonic()
        self._page: list[Item] = []
        self._page_end = 0
        self._erasures = 0
        self._waits_until: float | None = None  # for a copy to come to the cursor

    # --- the client's own thread --------------------------------------------------------------------------------------

    def subscribe(self, request: SubscribeRequest, *, may_create: bool = True) -> None:
        """Replace the subscription and answer with the verdict.

        No event of the old subscription is written after the verdict: `Hub` checks the membership under the writer's
        lock.

        With *may_create*, an unknown consumer name creates a consumer. Raises InvalidRequest, ForbiddenConsumer,
        UnknownName.
        """
        consumers, reader, name = self._core.consumers, self._core.reader, request.consumer
        claim = consumers.claim(self, name, may_create=may_create) if name else None
        verdict = reader.verdict(claim or request)
        after = verdict.after
        wanted = request.filter(self.principal.visible)
        if request.last is not None and (request.after is None or verdict.kind == "reset"):
            after = reader.start_of_last(wanted, request.last, verdict.head)
        due = self._leave(ClientState.REPLAYING)  # repeated subscribing does not advance the next frame
        if claim is None:
            consumers.release(self)
        rate = self._allowed_rate(request.rate)
        self.subscription = Subscription(wanted, request.batch, rate, self.subscription.encoding)
        self.epoch, self._page, self.acknowledged = verdict.epoch, [], after
        self.place = Place(after, after, due_at(rate, due, clock.monotonic()))
        counters = self._core.hub.counters.as_dict()
        given = {"channel": "events", "rate": rate, "principal": self.principal.fingerprint}
        payload = {**given, **verdict.as_dict(), "after": after, **counters}
        if self._core.trace:
            self._core.trace.note_verdict(self, request, wanted, dataclasses.replace(verdict, after=after))
        self.write(self.subscription.encoding.subscribed(payload))

    def acknowledge(self, seq: int) -> None:
        """Move the consumer's checkpoint to *seq*.

        The checkpoint is on disk when this returns. Raises InvalidRequest, Superseded, Overtaken.
        """
        if seq > (self._membership.position if self._membership else self.place.cursor):
            raise InvalidRequest("ack_beyond", f"ack: {seq} has not been sent")
        self._core.consumers.acknowledge(self, self.epoch, seq)
        self.acknowledged = max(self.acknowledged, seq)

    def _allowed_rate(self, rate: float | None) -> float:
        default, most = self._rates
        if rate is None:
            return default
        return most if most and (rate == 0 or rate > most) else rate

    def unsubscribe(self) -> None:
        """Leave the feed but stay connected, for up to IDLE_SECS."""
        if self._state is not ClientState.IDLE:
            self._leave(ClientState.IDLE)
            self._core.consumers.release(self)
            self._note("unsubscribe")
            self._idle_since = clock.monotonic()

    def _leave(self, state: ClientState) -> float:
        """Leave the cohort, if any, and enter *state*.

        Returns when the next frame may be sent.
        """
        self._state = self._state.moved_to(state)
        if self._membership is not None:
            self.place = self.place._replace(due=self._core.cohorts.leave(self._membership))
            self._membership = None
        return self.place.due

    def advance(self) -> None:
        """Take one step from REPLAYING towards LIVE.

        The step finishes a cut frame, then sends from the current page, joins a cohort, or reads the next page. Raises
        Overtaken when the rows after the cursor are gone, ClientStalled or OSError when the connection is.
        """
        self._replay_if_removed()
        if not self.writer.flush(self._is_wanted):
            return
        if self._page and self._erasures == self._core.reader.erasures:
            self._send_next()
            return
        # The count is read before the page, so that an erasure during the read is noticed.
        self._page, self._erasures = [], self._core.reader.erasures
        if self.place.cursor > self._core.hub.position and not self._wait_for_hub():
            return
        rest = self._core.cohorts.tail_after(self.place.cursor, self.epoch)
        if rest is None:
            self._read_page()
        elif self.subscription.rate or len(rest) <= JOIN_EVENTS:
            self._join()
        else:
            with self._core.reader.turn:
                matching = self.subscription.filter.matching(rest)
            self._begin(matching, end=rest[-1].seq)

    def _join(self) -> None:
        self._membership = self._core.cohorts.join(self, self.subscription, self.epoch, self.place)
        self._state = self._state.moved_to(ClientState.LIVE)
        self._replay_if_removed()

    def _replay_if_removed(self) -> None:
        """Return to REPLAYING if the membership has ended."""
        if self._membership is not None and not self._membership.is_live:
            self._state = self._state.moved_to(ClientState.REPLAYING)
            self.place, self._membership = self._membership.place, None

    def _wait_for_hub(self) -> bool:
        """Have this process poll up to the position of another process.

        If the hub is still behind, for example because the source cannot be read, the thread waits HUB_WAIT_SECS. A
        copy may be behind for longer: its clients wait for the relay, without reads of their own, and the result is
        whether the hub has reached the cursor.
        """
        hub = self._core.hub
        if not hub.is_copy:
            self._core.relay.poll_now()
            hub.wait_for(self.place.cursor, self.epoch, HUB_WAIT_SECS)
            return True
        if hub.wait_for(self.place.cursor, self.epoch, COPY_WAIT_SECS):
            self._waits_until = None
            return True
        if self._waits_until is None:
            self._waits_until = clock.monotonic() + MAX_COPY_WAIT_SECS - COPY_WAIT_SECS
        if clock.monotonic() >= self._waits_until:
            self.ask_to_end(frames.RESTARTING, f"retry_ms={random.randint(200, 3000)}")  # noqa: S311 - spreads load
        return False

    def _read_page(self) -> None:
        # With single events at ten a second, most of a page of 1,000 would only occupy memory.
        is_single = self.subscription.rate and not self.subscription.batch
        limit = max(100, math.ceil(self.subscription.rate)) if is_single else PAGE_EVENTS
        try:
            found = self._core.reader.read_after(self.subscription.filter, self.epoch, self.place.cursor, limit)
        except SourceError as error:
            # The error is temporary, or /readyz reports it. Closing the connection would help no client.
            log.warning(LogMessage("replay failed, trying again", error=error))
            time.sleep(RETRY_SECS)
            return
        self._begin(*found)

    def _begin(self, matching: list[Item], end: int) -> None:
        """Make *matching*, complete up to the seq *end*, the next to send."""
        self._page, self._page_end = matching, end
        self._send_next() if matching else self._finish_page()

    def _send_next(self) -> None:
        """Send the part of the page that the pace allows now."""
        if self.place.due > clock.monotonic():
            return
        with self._core.reader.turn:
            chunk, _ = self.subscription.next_chunk(self._page)
            batch = self.subscription.encode(chunk, self.place.prev, self.epoch)
        if not self.write(batch.data):
            return
        self._core.stats.note_sent(self.transport, len(batch.ends), len(batch.data))
        if self._core.trace:
            self._core.trace.note_sent(self, self.epoch, self.place.prev, chunk)
        rate, due = self.subscription.rate, self.place.due
        self._page = self._page[len(chunk) :]
        self.place = Place(batch.last, batch.last, next_due(due, clock.monotonic(), rate) if rate else due)
        if not self._page:
            self._finish_page()

    def _finish_page(self) -> None:
        self.place = self.place._replace(cursor=max(self.place.cursor, self._page_end))

    def write(self, data: bytes) -> bool:
        """Write one answer, after the remainder of an earlier frame.

        Returns False when the connection is to end. Raises OSError.
        """
        return self.writer.write(data, self._is_wanted)

    def _is_wanted(self) -> bool:
        return self.ending is None

    def wait_secs(self) -> float | None:
        """Return how long the own thread may wait for the client, in seconds.

        While the client is LIVE, the result is None: no limit.
        """
        match self.state:
            case ClientState.REPLAYING:
                return max(0.0, self.place.due - clock.monotonic()) if self._page else 0.0
            case ClientState.IDLE:
                return max(0.0, self._idle_since + IDLE_SECS - clock.monotonic())
        return None

    def note_refusal(self, reason: str, **details: object) -> None:
        """Count and log that a request of the client was refused."""
        self._core.stats.metrics.note_refusal(reason, **details)

    @property
    def is_idle_too_long(self) -> bool:
        """Whether the client has not subscribed within IDLE_SECS."""
        return self._state is ClientState.IDLE and self.wait_secs() == 0

    def end(self) -> None:
        """Leave the feed permanently."""
        self._state = ClientState.CLOSED
        if self._membership is not None:
            self._core.cohorts.leave(self._membership)
            self._membership = None
        self._core.consumers.release(self)
        self._note("disconnect")

    # --- any thread ---------------------------------------------------------------------------------------------------

    @property
    def transport(self) -> str:
        """Name of the client's transport."""
        return self.subscription.encoding.transport

    @property
    def state(self) -> ClientState:
        """Current state of the client.

        It is REPLAYING as soon as the client has fallen behind, before the client's own thread notices.
        """
        state, membership = self._state, self._membership
        has_fallen_behind = state is ClientState.LIVE and membership is not None and not membership.is_live
        return ClientState.REPLAYING if has_fallen_behind else state

    def wake(self) -> None:
        """Wake the client's own thread."""
        self._wake()

    def ask_to_end(self, code: int, reason: str) -> None:
        """Ask the client's own thread to close the connection with *code*.

        The first call sets the code and the reason.
        """
        if self.ending is None:
            self.ending = (code, reason)
            self._note("end", code=code, reason=reason)
            self._wake()

    def _note(self, kind: str, **fields: object) -> None:
        if self._core.trace:
            self._core.trace.note(kind, client=self, **fields)
