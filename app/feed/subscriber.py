"""Subscribers: one connected client, from its first message to its close.

Pushed while live, pulled while behind: the relay's thread writes to live subscribers without ever waiting; who can't
take the bytes falls out of the cohort, and its own thread carries on from the source until it has caught up.
"""

from __future__ import annotations

import enum
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from app import clock
from app.access import Principal
from app.errors import InvalidRequest
from app.feed import frames, subscription
from app.feed.cohort import Cohort, Delivery
from app.feed.frames import Batch
from app.feed.subscription import Filter, SubscribeRequest, Verdict
from app.feed.wire import Wire
from app.history import Item

if TYPE_CHECKING:
    from app.feed.hub import Hub

PAGE_EVENTS = 1000
# The rest that is brought up from the tail under the hub's lock is at most this; more is sent outside it first.
JOIN_EVENTS = 200
IDLE_SECS = 60.0
HUB_WAIT_SECS = 0.05


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
    """One client. Its own thread calls `receive` and `advance`; the relay's thread `push` and `heartbeat`.

    The wire's lock guards `state`, `cohort`, `joined_at`, `cursor` and `prev`: the relay reads them, and takes a
    subscriber out of its cohort, under that lock; only the own thread (with the hub's lock before it) puts one in.

    `cursor`: everything that matches up to there is written. `prev`: the last seq the client was told.
    `principal` is who this is, and limits what it sees; who loses that right is asked to end.
    """

    def __init__(self, hub: Hub, wire: Wire, wake: Callable[[], None], principal: Principal) -> None:
        self.principal = principal
        self.state = State.IDLE
        self.cohort: Cohort | None = None
        self.joined_at = 0
        self.cursor = 0
        self.prev = 0
        self.filter = Filter(principal.visible)
        self.epoch = ""
        self.ending: tuple[int, str] | None = None
        self._hub = hub
        self._wire = wire
        self._wake = wake
        self._idle_since = clock.monotonic()

    # --- the client's own thread --------------------------------------------------------------------------------------

    def receive(self, text: str | bytes) -> None:
        """Answer one message from the client; whatever is wrong with it becomes an `error` frame."""
        try:
            self._obey(text)
        except InvalidRequest as error:
            self._write(frames.error(error.code, str(error)))

    def _obey(self, text: str | bytes) -> None:
        fields = _parsed(text)
        match fields.get("action"):
            case "subscribe":
                self._subscribe(subscription.parse_subscribe(text))
            case "unsubscribe":
                self._unsubscribe(fields)
            case "ping":
                self._write(frames.message("pong"))
            case "ack":
                raise InvalidRequest("no_consumer", "ack: this subscription has no consumer")
            case unknown:
                raise InvalidRequest("unknown_action", f"no action {unknown!r:.80}")

    def _subscribe(self, request: SubscribeRequest) -> None:
        """Replace the subscription; nothing of the old one is written after the new verdict."""
        if request.after is not None and request.after > self._hub.position:
            self._hub.hurry()
        window = self._hub.source.window()
        verdict = subscription.decide(request.after, request.epoch, window)
        after = verdict.after
        wanted = request.filter(self.principal.visible)
        if request.last is not None and (request.after is None or verdict.kind == "reset"):
            with self._hub.reading:
                after = subscription.start_of_last(self._hub.source, wanted, request.last, verdict.head)
        self._leave(State.REPLAYING)
        self.filter, self.epoch, self.cursor, self.prev = wanted, verdict.epoch, after, after
        self._write(_subscribed(verdict, after))

    def _unsubscribe(self, fields: dict[str, Any]) -> None:
        if fields.get("channel") != "events":
            raise InvalidRequest("unknown_channel", f"no channel {fields.get('channel')!r:.80}")
        if self.state is not State.IDLE:
            self._leave(State.IDLE)
            self._idle_since = clock.monotonic()
        self._write(frames.message("unsubscribed", {"channel": "events"}))

    def _leave(self, state: State) -> None:
        with self._wire.lock:
            cohort, self.cohort = self.cohort, None
            self._move(state)
        if cohort is not None:
            self._hub.part(self, cohort)

    def advance(self) -> None:
        """Take one step from REPLAYING towards LIVE: finish the cut frame, then join, or send a page more.

        Raises Overtaken when the rows after the cursor are gone, Stalled or OSError when the client is.
        """
        if not self._wire.drain(self._is_wanted):
            return
        if self.cursor > self._hub.position:
            self._wait_for_hub()
        rest = self._hub.tail_after(self.cursor, self.epoch)
        if rest is None:
            self._send_page_from_source()
        elif len(rest) > JOIN_EVENTS:
            self._send(self.filter.matching(rest), through=rest[-1].seq)
        else:
            self._hub.join(self)

    def _wait_for_hub(self) -> None:
        """Hurry the relay to where another process has been already; a while, not a spin, if it can't read now."""
        self._hub.hurry()
        if self.cursor > self._hub.position:
            time.sleep(HUB_WAIT_SECS)

    def _send_page_from_source(self) -> None:
        with self._hub.reading:
            page = self._hub.source.read_after(self.cursor, PAGE_EVENTS)
            page.window.prove(self.epoch, self.cursor)
            matching = self.filter.matching(page.items)
        self._send(matching, through=page.through)

    def _send(self, items: list[Item], through: int) -> None:
        batch = frames.join(items, self.prev)
        if self._write(batch.data):
            self.cursor, self.prev = through, batch.last

    def _write(self, frame: bytes) -> bool:
        return self._wire.write(frame, self._is_wanted)

    def _is_wanted(self) -> bool:
        return self.ending is None

    def seconds_left(self) -> float | None:
        """Return how long the client may stay without a subscription; None while it has one."""
        if self.state is not State.IDLE:
            return None
        return max(0.0, self._idle_since + IDLE_SECS - clock.monotonic())

    def take_rest(self, items: list[Item], position: int, cohort: Cohort) -> bool:
        """Write *items*, the rest up to *position*, and become live if the socket takes them all at once.

        The hub calls this under its lock, so that no batch can be published in between.
        """
        with self._wire.lock:
            if self.ending is not None:
                return False
            batch = frames.join(self.filter.matching(items), self.prev)
            sent = self._wire.offer(batch.data)
            if sent < len(batch.data):
                self._note_cut(batch, sent, self.cursor)
                return False
            self.cursor, self.prev = position, batch.last
            self.cohort, self.joined_at = cohort, position
            self._move(State.LIVE)
            return True

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
            self._fall_behind()
        self._hub.part(self, delivery.cohort)
        self._wake()

    def heartbeat(self, cohort: Cohort, frame: bytes, position: int) -> None:
        """Say that all that matches up to *position* is written; the relay's thread has written it just before."""
        with self._wire.lock:
            if self.cohort is not cohort:
                return
            sent = self._offer(frame)
            if sent == len(frame):
                return
            self.cursor, self.prev = position, cohort.prev
            if sent:
                self._wire.keep(frame[sent:])
            self._fall_behind()
        self._hub.part(self, cohort)
        self._wake()

    def _offer(self, data: bytes) -> int:
        try:
            return self._wire.offer(data)
        except OSError:
            return 0  # gone: its own thread meets the same error, and ends it

    def _note_cut(self, batch: Batch, sent: int, start: int) -> None:
        """Set the cursor to the last frame that is out or begun; the end of a cut one stays with the wire."""
        whole = bisect_right(batch.ends, sent)
        begin = batch.ends[whole - 1] if whole else 0
        if sent > begin:
            self._wire.keep(batch.data[sent : batch.ends[whole]])
            whole += 1
        self.cursor, self.prev = (batch.seqs[whole - 1],) * 2 if whole else (start, batch.prev)

    def _fall_behind(self) -> None:
        self.cohort = None
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


def _parsed(text: str | bytes) -> dict[str, Any]:
    if isinstance(text, bytes):
        raise InvalidRequest("binary", "messages are JSON in text frames")
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("invalid_json", f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("invalid_message", "a message is a JSON object with an 'action'")
    return fields


def _subscribed(verdict: Verdict, after: int) -> bytes:
    # rate 0: as they come; `rate` and `batch` have no effect yet.
    return frames.message("subscribed", {"channel": "events", **verdict.as_dict(), "after": after, "rate": 0})
