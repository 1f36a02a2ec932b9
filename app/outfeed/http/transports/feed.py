"""The feed over HTTP: by cursor, by long poll, as server-sent events."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import orjson
from flask import Blueprint, Response, request
from pydantic import Field, field_validator

from outfeed import clock
from outfeed.errors import InvalidRequest, Overtaken
from outfeed.feed import subscription
from outfeed.feed.client import ClientState
from outfeed.feed.encoding import Counters
from outfeed.feed.hub import POLL
from outfeed.feed.pace import SLACK
from outfeed.feed.reader import BEHIND_SECS
from outfeed.feed.source import PAGE_EVENTS
from outfeed.feed.sse import SSE
from outfeed.feed.subscriber import Subscriber
from outfeed.feed.subscription import FeedRequest, SubscribeRequest, Verdict
from outfeed.history import Item
from outfeed.http import identity, limits, parking
from outfeed.http.api.operation import EVENT_STREAM, operation, query_string
from outfeed.http.parking import NextMatch, Wait
from outfeed.http.permission import requires
from outfeed.http.services import serving
from outfeed.http.transports import connection
from outfeed.http.transports.connection import Ending, Waker, granted_rates
from outfeed.http.transports.shapes import FeedPage
from outfeed.principal import READ, Principal
from outfeed.store import deadline

MAX_SCANNED_ROWS = 20_000
MAX_WAIT_SECS = 60
_REFUSALS = {
    403: "The scope read is missing, or the consumer belongs to another principal.",
    404: "No consumer has this name; `POST /api/consumers` creates one.",
}
# nginx would buffer the stream without X-Accel-Buffering. `no-transform` forbids proxies to compress it.
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}
STREAM_HEAD = "\r\n".join(
    ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in STREAM_HEADERS.items()), "", ""]
).encode()

feed = Blueprint("feed", __name__, url_prefix="/api/feed")


_ForOrigin = Annotated[
    Literal["1"] | None, Field(description="`1`: a proxy in front of edges passes the request to the origin.")
]


class _Types:
    """Mixin for queries: `types=a,b` in a query string is a list."""

    @field_validator("types", mode="before", check_fields=False)
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) and value else value or ()


class PollQuery(_Types, FeedRequest):
    """The cursor and the filters of a request for the feed."""

    origin: _ForOrigin = None
    consumer: subscription.ConsumerName | None = None
    last: Annotated[int, Field(ge=1, le=subscription.MAX_LAST)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_SECS, allow_inf_nan=False)] = 0


class StreamQuery(_Types, SubscribeRequest):
    """A subscription in the query string."""

    origin: _ForOrigin = None


# --- by cursor --------------------------------------------------------------------------------------------------------


@feed.get("")
@requires(READ)
@operation(query=PollQuery, answers={200: FeedPage}, refusals=_REFUSALS)
def poll(query: PollQuery) -> Response:
    """Return the events after a cursor, with the verdict on it.

    Without `after` and `last` no events are returned. With `wait`, a request without events waits for the first event
    that matches, up to that many seconds. A waiting request counts as a connection, and holds no thread.
    """
    if query.consumer and query.after is not None:
        raise InvalidRequest("invalid_field", "consumer: resumes from its checkpoint and takes no 'after'")
    subscription.require_epoch(query)
    waiting: _Waiting | None = parking.resumed_state() if query.wait else None
    began = waiting.began if waiting else clock.monotonic()
    if waiting:
        query = waiting.continued(query)
    elif query.wait and (refusal := limits.admit_wait()):
        return refusal
    while True:
        verdict = waiting.verdict if waiting else _verdict(query)
        try:
            if query.wait and verdict.kind == "resumed":
                waiting = waiting or _Waiting(
                    began, verdict, verdict.after, serving().hub.counters, identity.principal()
                )
                events, cursor = _wait(query, waiting)
            else:
                events, cursor = _collect(query, verdict)
        except Overtaken:
            waiting = None  # pruned between the verdict and the read: the next verdict reports it
            continue
        return _answer(verdict, events, cursor)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The state of a poll that waits, for the next pass of its request.

    *began* is on the monotonic clock. The events up to *cursor* do not match. *counters* and *principal* are those from
    before the wait.
    """

    began: float
    verdict: Verdict
    cursor: int
    counters: Counters
    principal: Principal

    def continued(self, query: PollQuery) -> PollQuery:
        """Return the query with the cursor of the first pass.

        A tool of MCP asks for the head first, and the head has moved since.
        """
        if query.consumer:
            return query
        return query.model_copy(update={"after": self.verdict.after, "epoch": self.verdict.epoch})


def _verdict(query: PollQuery) -> Verdict:
    if query.consumer:
        return serving().core.reader.verdict(serving().checkpoints.read(query.consumer, identity.principal()))
    return serving().core.reader.verdict(query)


def _collect(query: PollQuery, verdict: Verdict) -> tuple[list[Item], int]:
    """Return the events of the page: after the cursor, or the `last`.

    Without both it returns none, even if events have arrived since the verdict.
    """
    if verdict.kind in ("resumed", "gap"):
        return _read_after(query, verdict, verdict.after)
    if query.last is None:
        return [], verdict.after
    start = serving().core.reader.start_of_last(query.filter(identity.principal().visible), query.last, verdict.head)
    return _read_after(query, verdict, start)


def _read_after(query: PollQuery, verdict: Verdict, cursor: int) -> tuple[list[Item], int]:
    """Return up to *limit* matching items after *cursor*, and the new cursor."""
    found: list[Item] = []
    end = cursor + MAX_SCANNED_ROWS
    page_end = None
    while cursor != page_end and cursor < end and len(found) < query.limit:
        page_end = cursor
        wanted = query.filter(identity.principal().visible)
        matching, cursor = serving().core.reader.read_after(
            wanted, verdict.epoch, cursor, min(PAGE_EVENTS, end - cursor), may_sleep=not query.wait
        )
        found += matching
    if len(found) > query.limit:
        del found[query.limit :]
        cursor = found[-1].seq
    return found, cursor


def _wait(query: PollQuery, waiting: _Waiting) -> tuple[list[Item], int]:
    """Wait for the first event, and long enough to keep the client's rate.

    A client that asks again at once stays within the rate. A full page returns at once. Raises Parked, Overtaken.
    """
    with deadline.unlimited():  # the wait may be longer than the deadline, and each read is short
        is_woken = parking.resumed_state() is not None
        while True:
            events, cursor = _read_after(query, waiting.verdict, waiting.cursor)
            is_in_vain = is_woken and cursor == waiting.cursor
            if not events:
                waiting = replace(waiting, cursor=cursor)
            rest = _rest_of_wait(query, waiting, bool(events), is_in_vain)
            if rest is None or len(events) >= query.limit:
                identity.require_unchanged(waiting.principal)
                return events, cursor
            parking.wait(rest, waiting)
            is_woken = True


def _rest_of_wait(query: PollQuery, waiting: _Waiting, has_events: bool, is_in_vain: bool) -> Wait | None:
    """Return how long to wait, and for which event.

    Returns None if the poll is answered now. If an event woke the poll and was not found, a copy is behind.
    """
    now, hub = clock.monotonic(), serving().hub
    end = waiting.began + query.wait
    earliest = min(end, waiting.began + SLACK / granted_rates()[0])
    if hub.closing.is_set():
        return None
    if has_events or hub.counters != waiting.counters or now >= end:
        return Wait(None, earliest, earliest) if now < earliest else None
    wanted = NextMatch(query.filter(identity.principal().visible), waiting.verdict.epoch, waiting.cursor)
    return Wait(wanted, max(earliest, now + BEHIND_SECS) if is_in_vain else earliest, end)


def _answer(verdict: Verdict, events: list[Item], cursor: int) -> Response:
    fields = verdict.as_dict() | serving().hub.counters.as_dict()
    del fields["after"]
    fields["head"] = max(verdict.head, cursor)
    head = orjson.dumps(fields | {"cursor": cursor, "principal": identity.principal().fingerprint})
    # The items are JSON already. The seq goes behind each item's opening brace.
    rows = b",".join(b'{"seq":%d,%b' % (item.seq, item.json[1:]) for item in events)
    body = b'%b,"events":[%b]}' % (head[:-1], rows)
    serving().hub.stats.note_sent(POLL, bool(events), len(body) if events else 0)
    response = Response(body, content_type="application/json")
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(hashlib.sha256(body).hexdigest()[:32])
    response.make_conditional(request)
    return response


# --- as a stream ------------------------------------------------------------------------------------------------------


def _stream_fields() -> dict[str, str]:
    return {**query_string(), **_last_event_id()}


@feed.get("/stream")
@requires(READ, is_connection=True)
@operation(query=StreamQuery, fields=_stream_fields, answers={200: {EVENT_STREAM: str}}, refusals=_REFUSALS)
def stream(query: StreamQuery) -> Response:
    """Serve server-sent events until either side ends the stream.

    The header `Last-Event-ID` takes precedence over `after` and `epoch` in the URL.
    """
    subscription.check(query)
    if query.consumer:
        serving().checkpoints.require(query.consumer, identity.principal())
    if refusal := limits.admit_connection():
        return refusal
    if request.method == "HEAD":
        return Response(headers=STREAM_HEADERS)
    return connection.serve(STREAM_HEAD, SSE, SSEHandler(query))


def _last_event_id() -> dict[str, str]:
    value = request.headers.get("Last-Event-ID", "")
    if not value or "consumer" in request.args:  # a consumer resumes from its checkpoint
        return {}
    epoch, _, seq = value.rpartition(":")
    if not epoch or not seq.isdigit():
        raise InvalidRequest("invalid_field", "Last-Event-ID: must be epoch:seq")
    return {"after": seq, "epoch": epoch}


class SSEHandler:
    """Handler of one stream. Bytes that the client sends are dropped."""

    def __init__(self, wanted: SubscribeRequest) -> None:
        self._wanted = wanted

    def run(self, subscriber: Subscriber, waker: Waker) -> Ending | None:
        """Send the verdict and the events until the server ends the stream."""
        subscriber.subscribe(self._wanted, may_create=False)
        while subscriber.ending is None:
            if waker.wait(subscriber.wait_secs()):
                waker.writer.read()
            if subscriber.state is ClientState.REPLAYING:
                subscriber.advance()
        return subscriber.ending

    def is_close_frame(self, _: bytes) -> bool:
        """Return False: the client of a stream sends no frames."""
        return False
