"""Subscribers: one connected client, from its first subscription to its close.

Pushed while live, pulled while behind: the relay's thread writes to live subscribers without ever waiting; who can't
take the bytes falls out of the cohort, and its own thread carries on from the source until it has caught up.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from outfeed import clock
from outfeed.errors import DatabaseError, InvalidRequest
from outfeed.feed import subscription
from outfeed.feed.cohort import Cohort, Delivery
from outfeed.feed.encoding import Batch, Encoding
from outfeed.feed.pace import due_at, next_due
from outfeed.feed.page_cache import PAGE_EVENTS
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.subscription import SubscribeRequest, Subscription, Verdict
from outfeed.history import Claim, Item
from outfeed.log_message import LogMessage
from outfeed.principal import Principal

if TYPE_CHECKING:
    from outfeed.feed.hub import Hub

# The rest that is brought up from the tail under the hub's lock is at most this; more is sent outside it first.
JOIN_EVENTS = 200
IDLE_SECS = 60.0
HUB_WAIT_SECS = 0.05
RETRY_SECS = 0.5
log = logging.getLogger(__name__)


class State(enum.Enum):
    """Where a subscriber stands. IDLE: connected, without a subscription."""

    IDLE = "idle"
    REPLAYING = "replaying"
    LIVE = "live"
    CLOSED = "closed"


_MOVES = {
    (State.IDLE, State.REPLAYING),
    (State.REPLAYING, State.REPLAYING),
    (State.REPLAYING, State.LIVE),
    (State.LIVE, State.REPLAYING),
    (State.REPLAYING, State.IDLE),
    (State.LIVE, State.IDLE),
}


class Subscriber:
    """One client. Its own thread calls `subscribe` and `advance`; the relay's thread `push` and `heartbeat`.

    The writer's lock guards `state`, `cohort`, `joined_at`, `cursor`, `prev` and `due`: the relay reads them, and takes
    a subscriber out of its cohort, under that lock; only the own thread (with the hub's lock before it) puts one in.

    `cursor`: everything that matches up to there is written. `prev`: the last seq the client was told. `due`: when the
    next frame may go. *rates*: what a client that names no rate gets, and the most it may ask for (0: no limit).
    `principal` is who this is, and limits what it sees; who loses that right is asked to end.
    """

    def __init__(
        self,
        hub: Hub,
        wire: SocketWriter,
        wake: Callable[[], None],
        encoding: Encoding,
        rates: tuple[float, float],
        principal: Principal,
    ) -> None:
        self.principal = principal
        self.state = State.IDLE
        self.cohort: Cohort | None = None
        self.joined_at = 0
        self.cursor = 0
        self.prev = 0
        self.due = 0.0
        self.subscription = Subscription(subscription.Filter(principal.visible), batch=False, rate=0, encoding=encoding)
        self.epoch = ""
        self.ending: tuple[int, str] | None = None
        self._hub = hub
        self._wire = wire
        self._wake = wake
        self._rates = rates
        self._idle_since = clock.monotonic()
        self._page: list[Item] = []
        self._page_end = 0
        self._erasures = 0

    # --- the client's own thread --------------------------------------------------------------------------------------

    def subscribe(self, request: SubscribeRequest, *, may_create: bool = True) -> None:
        """Replace the subscription and answer with the verdict; nothing of the old one is written after it.

        With *may_create*, a new name of a consumer makes one. Raises InvalidRequest, ForbiddenConsumer, UnknownName.
        """
        consumers, name = self._hub.consumers, request.consumer
        claim = consumers.claim(self, name, may_create=may_create) if name else None
        verdict = self._verdict(request, claim)
        after = verdict.after
        wanted = request.filter(self.principal.visible)
        if request.last is not None and (request.after is None or verdict.kind == "reset"):
            with self._hub.reading:
                after = subscription.start_of_last(self._hub.source, wanted, request.last, verdict.head)
        self._leave(State.REPLAYING)
        if claim is None:
            consumers.release(self)
        rate = self._granted(request.rate)
        self.subscription = Subscription(wanted, request.batch, rate, self.subscription.encoding)
        self.epoch, self.cursor, self.prev, self._page = verdict.epoch, after, after, []
        self.due = due_at(rate, self.due, clock.monotonic())
        payload = {"channel": "events", **verdict.as_dict(), "after": after, "rate": rate}
        self.write(self.subscription.encoding.subscribed(payload))

    def _verdict(self, request: SubscribeRequest, claim: Claim | None) -> Verdict:
        after = claim.seq if claim else request.after
        if after is not None and after > self._hub.position:
            self._hub.hurry()
        with self._hub.reading:
            window = self._hub.source.window()
        self._hub.vouch(window.last_seq)
        return subscription.decide_for(claim, window) if claim else subscription.decide(after, request.epoch, window)

    def acknowledge(self, seq: int) -> None:
        """Move the consumer's checkpoint to *seq*; on the disk when this returns.

        Raises InvalidRequest, Superseded, Overtaken.
        """
        if seq > self._sent_up_to():
            raise InvalidRequest("ack_beyond", f"ack: {seq} has not been sent")
        self._hub.consumers.acknowledge(self, self.epoch, seq)

    def _sent_up_to(self) -> int:
        with self._wire.lock:
            return self.cohort.position if self.cohort else self.cursor

    def _granted(self, rate: float | None) -> float:
        default, most = self._rates
        if rate is None:
            return default
        return most if most and (rate == 0 or rate > most) else rate

    def unsubscribe(self) -> None:
        """Leave the feed, and stay connected for a while."""
        if self.state is not State.IDLE:
            self._leave(State.IDLE)
            self._hub.consumers.release(self)
            self._idle_since = clock.monotonic()

    def _leave(self, state: State) -> None:
        with self._wire.lock:
            cohort, self.cohort = self.cohort, None
            if cohort is not None:
                self.due = cohort.due  # whoever subscribes again and again is sent nothing sooner
            self._move(state)
        if cohort is not None:
            self._hub.part(self, cohort)

    def advance(self) -> None:
        """Take one step from REPLAYING towards LIVE: finish the cut frame, then send what was read, join, or read on.

        Raises Overtaken when the rows after the cursor are gone, ClientStalled or OSError when the client is.
        """
        if not self._wire.flush(self._is_wanted):
            return
        if self._page and self._erasures == self._hub.erasures:
            self._send_next()
            return
        self._page, self._erasures = [], self._hub.erasures  # counted before anything is read
        if self.cursor > self._hub.position:
            self._wait_for_hub()
        rest = self._hub.tail_after(self.cursor, self.epoch)
        if rest is None:
            self._read_page()
        elif self.subscription.rate or len(rest) <= JOIN_EVENTS:
            self._hub.join(self)
        else:
            with self._hub.reading:
                matching = self.subscription.filter.matching(rest)
            self._begin(matching, end=rest[-1].seq)

    def _wait_for_hub(self) -> None:
        """Hurry the relay to where another process has been already; a while, not a spin, if it can't read now."""
        self._hub.hurry()
        if self.cursor > self._hub.position:
            time.sleep(HUB_WAIT_SECS)

    def _read_page(self) -> None:
        # One at a time at ten a second, a page of a thousand would only be held in memory.
        is_single = self.subscription.rate and not self.subscription.batch
        limit = max(100, math.ceil(self.subscription.rate)) if is_single else PAGE_EVENTS
        try:
            page = self._hub.pages.read_after(self.cursor, limit)
            with self._hub.reading:
                page.window.prove(self.epoch, self.cursor)
                matching = self.subscription.filter.matching(page.items)
        except DatabaseError as error:
            # It passes, or /readyz says so; to be sent away, and come back, would help nobody.
            log.warning(LogMessage("replay waits, trying again", error=error))
            time.sleep(RETRY_SECS)
            return
        self._begin(matching, end=page.through)

    def _begin(self, matching: list[Item], end: int) -> None:
        """Take *matching*, all there is up to the seq *end*, as what is sent next."""
        self._hub.vouch(end)
        self._page, self._page_end = matching, end
        self._send_next() if matching else self._finish_page()

    def _send_next(self) -> None:
        """Send what the pace allows now of the page, nothing before its time."""
        if self.due > clock.monotonic():
            return
        with self._hub.reading:
            chunk, _ = self.subscription.next_chunk(self._page)
            batch = self.subscription.encode(chunk, self.prev, self.epoch)
        if not self.write(batch.data):
            return
        self._hub.stats.note_sent(self.transport, len(batch.ends), len(batch.data))
        if rate := self.subscription.rate:
            self.due = next_due(self.due, clock.monotonic(), rate)
        self._page = self._page[len(chunk) :]
        self.cursor = self.prev = batch.last
        if not self._page:
            self._finish_page()

    def _finish_page(self) -> None:
        self.cursor = max(self.cursor, self._page_end)

    def write(self, data: bytes) -> bool:
        """Write one answer, after what is unsent; False when the connection is to end. Raises OSError."""
        return self._wire.write(data, self._is_wanted)

    def _is_wanted(self) -> bool:
        return self.ending is None

    def patience(self) -> float | None:
        """Return how many seconds the own thread may wait for the client: until it is due, for ever when LIVE."""
        if self.state is State.REPLAYING:
            return max(0.0, self.due - clock.monotonic()) if self._page else 0.0
        if self.state is State.IDLE:
            return max(0.0, self._idle_since + IDLE_SECS - clock.monotonic())
        return None

    @property
    def transport(self) -> str:
        """How it is connected."""
        return self.subscription.encoding.transport

    @property
    def is_idle_too_long(self) -> bool:
        """Whether the client has had its time to subscribe."""
        return self.state is State.IDLE and self.patience() == 0

    def take_rest(self, items: list[Item], position: int, cohort: Cohort) -> bool:
        """Write *items*, the rest up to *position*, and become live if the socket takes them all at once.

        The hub calls this under its lock, so that no batch can be published in between.
        """
        with self._wire.lock:
            if self.ending is not None:
                return False
            batch = self.subscription.encode(self.subscription.filter.matching(items), self.prev, self.epoch)
            sent = self._wire.try_send(batch.data)
            if sent < len(batch.data):
                self._note_cut(batch, sent, self.cursor)
                return False
            self._hub.stats.note_sent(self.transport, len(batch.ends), len(batch.data))
            self.cursor, self.prev = position, batch.last
            self._enter(cohort)
            return True

    def enter(self, cohort: Cohort) -> bool:
        """Become live in *cohort*, which is at this cursor; the hub calls this under its lock."""
        with self._wire.lock:
            if self.ending is not None:
                return False
            self._enter(cohort)
            return True

    def _enter(self, cohort: Cohort) -> None:
        self.cohort, self.joined_at = cohort, cohort.position
        self._move(State.LIVE)

    def end(self) -> None:
        """Leave the feed for good."""
        if self.state is not State.CLOSED:
            with self._wire.lock:
                cohort, self.cohort, self.state = self.cohort, None, State.CLOSED
            if cohort is not None:
                self._hub.part(self, cohort)

    # --- the relay's thread -------------------------------------------------------------------------------------------

    def push(self, delivery: Delivery) -> None:
        """Write the batch if this is still a member that lacks it, without ever waiting."""
        batch = delivery.batch
        with self._wire.lock:
            # It may have left, or left and joined again further on, since the members were copied.
            if self.cohort is not delivery.cohort or self.joined_at > delivery.start:
                return
            sent = self._offer(batch.data)
            if sent == len(batch.data):
                return
            self._note_cut(batch, sent, delivery.start)
            self._fall_behind(delivery.cohort)
        self._hub.part(self, delivery.cohort)
        self._wake()

    def heartbeat(self, cohort: Cohort, data: bytes) -> None:
        """Write *data*, which holds no events; all up to the cohort's position is written, no batch is on its way."""
        with self._wire.lock:
            if self.cohort is not cohort:
                return
            sent = self._offer(data)
            if sent == len(data):
                return
            if sent:
                self._wire.stash_remainder(data[sent:])
            self.cursor, self.prev = cohort.position, cohort.prev
            self._fall_behind(cohort)
        self._hub.part(self, cohort)
        self._wake()

    def drop_out(self, cohort: Cohort) -> None:
        """Go on by oneself from the cohort's position: the tail no longer reaches back to it."""
        with self._wire.lock:
            if self.cohort is not cohort:
                return
            self.cursor, self.prev = cohort.position, cohort.prev
            self._fall_behind(cohort)
        self._wake()

    def change_cohort(self, old: Cohort, new: Cohort) -> bool:
        """Move from *old* to *new*, which is at the same position; False where it has left meanwhile."""
        with self._wire.lock:
            if self.cohort is not old:
                return False
            self.cohort = new
            return True

    def _offer(self, data: bytes) -> int:
        try:
            return self._wire.try_send(data)
        except OSError:
            return 0  # gone: its own thread meets the same error, and ends it

    def _note_cut(self, batch: Batch, sent: int, start: int) -> None:
        """Set the cursor to the last piece that is out or begun; the end of a cut one stays with the writer."""
        whole = bisect_right(batch.ends, sent)
        begin = batch.ends[whole - 1] if whole else 0
        if sent > begin:
            self._wire.stash_remainder(batch.data[sent : batch.ends[whole]])
            whole += 1
        self.cursor, self.prev = (batch.seqs[whole - 1],) * 2 if whole else (start, batch.prev)

    def _fall_behind(self, cohort: Cohort) -> None:
        self._hub.stats.note_fallback()
        self.cohort = None
        self.due = cohort.due
        self._move(State.REPLAYING)

    def _move(self, state: State) -> None:
        if (self.state, state) not in _MOVES:
            raise RuntimeError(f"a subscriber can't go from {self.state.value} to {state.value}")
        self.state = state

    # --- any thread ---------------------------------------------------------------------------------------------------

    def ask_to_end(self, code: int, reason: str) -> None:
        """Have the own thread close the connection with *code*; the first to ask decides."""
        if self.ending is None:
            self.ending = (code, reason)
            self._wake()
