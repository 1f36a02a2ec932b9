"""Subscribers: one connected client, from its first subscription to its close.

Pushed while live, pulled while behind: the relay's thread writes to live clients without ever waiting. A client that
can't take the bytes leaves its cohort, and its own thread carries on from the source until it has caught up.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from outfeed import clock
from outfeed.errors import DatabaseError, InvalidRequest
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

# At most this much is brought up from the tail with the lock of the cohorts held; more is sent before that.
JOIN_EVENTS = 200
IDLE_SECS = 60.0
HUB_WAIT_SECS = 0.05
RETRY_SECS = 0.5
log = logging.getLogger(__name__)


class Subscriber:
    """One client. All that stands here is changed by its own thread alone, but for `ending`, which any thread may set.

    While the client is live, its membership says where it stands, and the cohorts own that. Else `place` does.
    *rates*: what a client that names no rate gets, and the most it may ask for (0: no limit).
    `principal` limits what it sees; if those permissions change, it is asked to end.
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

    # --- the client's own thread --------------------------------------------------------------------------------------

    def subscribe(self, request: SubscribeRequest, *, may_create: bool = True) -> None:
        """Replace the subscription and answer with the verdict; nothing of the old one is written after it.

        `Hub` keeps that: it looks at the membership under the writer's lock.

        With *may_create*, a new name of a consumer makes one. Raises InvalidRequest, ForbiddenConsumer, UnknownName.
        """
        consumers, reader, name = self._core.consumers, self._core.reader, request.consumer
        claim = consumers.claim(self, name, may_create=may_create) if name else None
        verdict = reader.verdict(claim or request)
        after = verdict.after
        wanted = request.filter(self.principal.visible)
        if request.last is not None and (request.after is None or verdict.kind == "reset"):
            after = reader.start_of_last(wanted, request.last, verdict.head)
        due = self._leave(ClientState.REPLAYING)  # a client that subscribes again and again is sent nothing sooner
        if claim is None:
            consumers.release(self)
        rate = self._granted(request.rate)
        self.subscription = Subscription(wanted, request.batch, rate, self.subscription.encoding)
        self.epoch, self._page = verdict.epoch, []
        self.place = Place(after, after, due_at(rate, due, clock.monotonic()))
        payload = {"channel": "events", **verdict.as_dict(), "after": after, "rate": rate}
        if erased := self._core.hub.erased:
            payload["erasures"] = erased
        self.write(self.subscription.encoding.subscribed(payload))

    def acknowledge(self, seq: int) -> None:
        """Move the consumer's checkpoint to *seq*; on the disk when this returns.

        Raises InvalidRequest, Superseded, Overtaken.
        """
        if seq > (self._membership.position if self._membership else self.place.cursor):
            raise InvalidRequest("ack_beyond", f"ack: {seq} has not been sent")
        self._core.consumers.acknowledge(self, self.epoch, seq)

    def _granted(self, rate: float | None) -> float:
        default, most = self._rates
        if rate is None:
            return default
        return most if most and (rate == 0 or rate > most) else rate

    def unsubscribe(self) -> None:
        """Leave the feed, and stay connected for a while."""
        if self._state is not ClientState.IDLE:
            self._leave(ClientState.IDLE)
            self._core.consumers.release(self)
            self._idle_since = clock.monotonic()

    def _leave(self, state: ClientState) -> float:
        """Leave the cohort, if in one, for *state*; return when the next frame may go."""
        self._state = self._state.moved_to(state)
        if self._membership is not None:
            self.place = self.place._replace(due=self._core.cohorts.leave(self._membership))
            self._membership = None
        return self.place.due

    def advance(self) -> None:
        """Take one step from REPLAYING towards LIVE: finish the cut frame, then send what was read, join, or read on.

        Raises Overtaken when the rows after the cursor are gone, ClientStalled or OSError when the client is.
        """
        self._take_over()
        if not self.writer.flush(self._is_wanted):
            return
        if self._page and self._erasures == self._core.reader.erasures:
            self._send_next()
            return
        self._page, self._erasures = [], self._core.reader.erasures  # counted before anything is read
        if self.place.cursor > self._core.hub.position:
            self._wait_for_hub()
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
        self._take_over()

    def _take_over(self) -> None:
        """Go on where the membership has ended."""
        if self._membership is not None and not self._membership.is_live:
            self._state = self._state.moved_to(ClientState.REPLAYING)
            self.place, self._membership = self._membership.place, None

    def _wait_for_hub(self) -> None:
        """Have this process poll up to where another one has been; wait a while, not in a spin, if it can't now."""
        self._core.relay.poll_now()
        if self.place.cursor > self._core.hub.position:
            time.sleep(HUB_WAIT_SECS)

    def _read_page(self) -> None:
        # One at a time at ten a second, a page of a thousand would only be held in memory.
        is_single = self.subscription.rate and not self.subscription.batch
        limit = max(100, math.ceil(self.subscription.rate)) if is_single else PAGE_EVENTS
        try:
            found = self._core.reader.read_after(self.subscription.filter, self.epoch, self.place.cursor, limit)
        except DatabaseError as error:
            # It passes, or /readyz says so: closing the connection would help no client.
            log.warning(LogMessage("replay waits, trying again", error=error))
            time.sleep(RETRY_SECS)
            return
        self._begin(*found)

    def _begin(self, matching: list[Item], end: int) -> None:
        """Take *matching*, all there is up to the seq *end*, as what is sent next."""
        self._page, self._page_end = matching, end
        self._send_next() if matching else self._finish_page()

    def _send_next(self) -> None:
        """Send what the pace allows now of the page, nothing before its time."""
        if self.place.due > clock.monotonic():
            return
        with self._core.reader.turn:
            chunk, _ = self.subscription.next_chunk(self._page)
            batch = self.subscription.encode(chunk, self.place.prev, self.epoch)
        if not self.write(batch.data):
            return
        self._core.stats.note_sent(self.transport, len(batch.ends), len(batch.data))
        rate, due = self.subscription.rate, self.place.due
        self._page = self._page[len(chunk) :]
        self.place = Place(batch.last, batch.last, next_due(due, clock.monotonic(), rate) if rate else due)
        if not self._page:
            self._finish_page()

    def _finish_page(self) -> None:
        self.place = self.place._replace(cursor=max(self.place.cursor, self._page_end))

    def write(self, data: bytes) -> bool:
        """Write one answer, after what is unsent; False when the connection is to end. Raises OSError."""
        return self.writer.write(data, self._is_wanted)

    def _is_wanted(self) -> bool:
        return self.ending is None

    def wait_secs(self) -> float | None:
        """Return how many seconds the own thread may wait for the client: until it is due, for ever when LIVE."""
        match self.state:
            case ClientState.REPLAYING:
                return max(0.0, self.place.due - clock.monotonic()) if self._page else 0.0
            case ClientState.IDLE:
                return max(0.0, self._idle_since + IDLE_SECS - clock.monotonic())
        return None

    def note_refusal(self, reason: str, **details: object) -> None:
        """Count and log that the client was refused something."""
        self._core.stats.metrics.note_refusal(reason, **details)

    @property
    def is_idle_too_long(self) -> bool:
        """Whether the client has had its time to subscribe."""
        return self._state is ClientState.IDLE and self.wait_secs() == 0

    def end(self) -> None:
        """Leave the feed for good."""
        self._state = ClientState.CLOSED
        if self._membership is not None:
            self._core.cohorts.leave(self._membership)
            self._membership = None
        self._core.consumers.release(self)

    # --- any thread ---------------------------------------------------------------------------------------------------

    @property
    def transport(self) -> str:
        """How it is connected."""
        return self.subscription.encoding.transport

    @property
    def state(self) -> ClientState:
        """REPLAYING as soon as the client has fallen behind, before its own thread notices."""
        state, membership = self._state, self._membership
        has_fallen_behind = state is ClientState.LIVE and membership is not None and not membership.is_live
        return ClientState.REPLAYING if has_fallen_behind else state

    def wake(self) -> None:
        """Wake the own thread."""
        self._wake()

    def ask_to_end(self, code: int, reason: str) -> None:
        """Have the own thread close the connection with *code*; the first to ask decides."""
        if self.ending is None:
            self.ending = (code, reason)
            self._wake()
