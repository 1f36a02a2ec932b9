"""The extension for events: `events/list`, `poll` and `stream`.

It follows the design sketch of MCP's working group on triggers and events, `docs/design-sketch-proposal.md` of
modelcontextprotocol/experimental-ext-triggers-events at commit 6104601d (2026). The sketch is not a part of the
protocol, and may change. Webhooks of the sketch (`events/subscribe`) are not offered: `outfeed webhook` has them.

There is one event type, `event.logged`, with the filters of the feed as its arguments. A cursor is `EPOCH:SEQ`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

import orjson
from flask import Response
from mcp_types.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import BaseModel, ConfigDict, Field

from outfeed import clock
from outfeed.errors import InvalidRequest, RpcError
from outfeed.feed import frames
from outfeed.feed.encoding import Batch, Counters
from outfeed.feed.subscription import SubscribeRequest, validated
from outfeed.gateways.mcp import operations
from outfeed.gateways.mcp.headers import CURRENT, META
from outfeed.gateways.mcp.protocol import RpcMessage
from outfeed.gateways.mcp.shapes import NOTICE, arguments_of
from outfeed.gateways.mcp.tools import FEED
from outfeed.history import Item
from outfeed.http import identity, limits
from outfeed.http.transports import connection
from outfeed.http.transports.feed import MAX_WAIT_SECS, STREAM_HEAD, SSEHandler
from outfeed.http.transports.shapes import FeedItem
from outfeed.principal import READ
from outfeed.store import deadline

NAME = "event.logged"
FILTERS = ("types", "source", "task_id", "agent_id")
NEXT_POLL_MS = 1000
MAX_EVENTS = 1000
CAPABILITIES: dict[str, Any] = {"events": {}}
# The codes of the sketch.
NOT_FOUND, FORBIDDEN, EXHAUSTED, UNSUPPORTED = -32011, -32012, -32013, -32014


class SubscriptionParams(BaseModel):
    """The subscription of a poll or a stream."""

    model_config = ConfigDict(extra="ignore")

    meta: Annotated[dict[str, Any], Field(alias="_meta")]
    name: str
    arguments: dict[str, Any] | None = None
    cursor: str | None = None
    max_age_ms: Annotated[int | None, Field(ge=0, le=2**53, alias="maxAgeMs")] = None


class PollParams(SubscriptionParams):
    """The subscription of a poll, and its limits."""

    max_events: Annotated[int | None, Field(ge=1, alias="maxEvents")] = None
    timeout_ms: Annotated[int | None, Field(ge=0, alias="timeoutMs")] = None


class ListRequest(BaseModel):
    """`events/list`."""

    method: Literal["events/list"]


class PollRequest(BaseModel):
    """`events/poll`."""

    params: PollParams


class StreamRequest(BaseModel):
    """`events/stream`."""

    params: SubscriptionParams


REQUESTS: Mapping[tuple[str, str], type[BaseModel]] = {
    ("events/list", CURRENT): ListRequest,
    ("events/poll", CURRENT): PollRequest,
    ("events/stream", CURRENT): StreamRequest,
}


def list_types(_: RpcMessage) -> dict[str, Any]:
    """Return the event type that a client can subscribe to."""
    if not identity.principal().may(READ):
        return {"events": []}
    described = {
        "name": NAME,
        "description": f"An event was logged. All filters must match. {NOTICE}",
        "delivery": ["poll", "push"],
        "inputSchema": arguments_of(SubscribeRequest, FILTERS),
        "payloadSchema": FeedItem.model_json_schema(mode="serialization"),
    }
    return {"events": [described]}


# --- by poll ----------------------------------------------------------------------------------------------------------


def poll(message: RpcMessage) -> dict[str, Any]:
    """Return the events after the cursor, and wait for the first one.

    Without a cursor it returns no event and the present one. Raises RpcError, Unauthorized.
    """
    params = PollParams.model_validate(message.params)
    wanted = _request(params)
    if params.cursor is not None:
        wanted["wait"] = min((params.timeout_ms or 0) / 1000, MAX_WAIT_SECS)
        wanted["limit"] = min(params.max_events or 100, MAX_EVENTS)
    answer = operations.caught(lambda: operations.ask(FEED, wanted))
    if answer.is_error:
        raise _error_of(answer)
    page = answer.body
    occurrences = [_occurrence(event, f"{page['epoch']}:{event['seq']}") for event in page["events"]]
    fresh = _not_older(occurrences, params.max_age_ms)
    return {
        "events": fresh,
        "cursor": f"{page['epoch']}:{page['cursor']}",
        "truncated": page["verdict"] in ("gap", "reset") or len(fresh) < len(occurrences),
        "hasMore": page["cursor"] < page["head"],
        "nextPollMs": NEXT_POLL_MS,
    }


def _request(params: SubscriptionParams) -> dict[str, Any]:
    """Return the subscription as the feed takes it. Raises RpcError."""
    if not identity.principal().may(READ):
        raise RpcError(FORBIDDEN, "events need a token with the scope read")
    if params.name != NAME:
        raise RpcError(NOT_FOUND, f"no event type {params.name!r:.80}; there is {NAME}", {"kind": "event"})
    wanted = dict(params.arguments or {})
    for name in wanted:
        if name not in FILTERS:
            raise RpcError(INVALID_PARAMS, f"arguments.{name:.80}: must be one of {', '.join(FILTERS)}")
    return wanted | _position(params.cursor)


def _position(cursor: str | None) -> dict[str, Any]:
    if cursor is None:
        return {}
    epoch, _, seq = cursor.rpartition(":")
    if not epoch or not seq.isdecimal():
        raise RpcError(INVALID_PARAMS, "cursor: must be one that this server returned")
    return {"epoch": epoch, "after": seq}


def _error_of(answer: operations.ApiAnswer) -> RpcError:
    detail = answer.body["detail"]
    if answer.status in (429, 503):
        return RpcError(EXHAUSTED, detail, {"limit": "connections"})
    return RpcError(INVALID_PARAMS if answer.status == 422 else INTERNAL_ERROR, detail)


def _occurrence(event: dict[str, Any], cursor: str) -> dict[str, Any]:
    return {
        "eventId": event.get("id") or cursor,
        "name": NAME,
        "timestamp": event.get("timestamp"),
        "data": event,
    }


def _not_older(occurrences: list[dict[str, Any]], max_age_ms: int | None) -> list[dict[str, Any]]:
    if max_age_ms is None:
        return occurrences
    now, max_age = clock.now(), timedelta(milliseconds=max_age_ms)
    return [each for each in occurrences if now - (clock.parsed(each["timestamp"]) or now) <= max_age]


# --- by stream --------------------------------------------------------------------------------------------------------


def stream(message: RpcMessage) -> Response:
    """Serve notifications of events until either side ends the stream.

    Raises RpcError.
    """
    params = SubscriptionParams.model_validate(message.params)
    if params.max_age_ms is not None:
        raise RpcError(UNSUPPORTED, "maxAgeMs: a stream does not take it; poll does", {"feature": "maxAgeMs"})
    try:
        wanted = validated(SubscribeRequest, {**_request(params), "rate": 0})  # a program takes every event at once
    except InvalidRequest as error:
        raise RpcError(INVALID_PARAMS, str(error)) from None
    if limits.admit_connection():
        raise RpcError(EXHAUSTED, "too many connections; try again in a few seconds", {"limit": "connections"})
    assert message.id is not None
    with deadline.unlimited():
        return connection.serve(STREAM_HEAD, NotificationEncoding(message.id), SSEHandler(wanted))


@dataclass(frozen=True, slots=True)
class NotificationEncoding:
    """The feed as notifications on the response of one `events/stream`."""

    request_id: str | int
    transport = "stream"

    def singles(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        pieces = [self._event(item, epoch) for item in items]
        return Batch.of(pieces, [item.seq for item in items], prev)

    groups = singles

    def _event(self, item: Item, epoch: str) -> bytes:
        cursor = f"{epoch}:{item.seq}"
        told = {**_occurrence({"id": item.id, "timestamp": item.timestamp}, cursor), "cursor": cursor}
        told["data"] = orjson.Fragment(b'{"seq":%d,%b' % (item.seq, item.json[1:]))
        return self._notification("event", told)

    def subscribed(self, payload: dict[str, Any]) -> bytes:
        cursor = f"{payload['epoch']}:{payload['after']}"
        return self._notification("active", {"cursor": cursor, "truncated": payload["verdict"] in ("gap", "reset")})

    def heartbeat(self, cursor: int, epoch: str, counters: Counters, origin_age: float | None = None) -> bytes:
        return self._notification("heartbeat", {"cursor": f"{epoch}:{cursor}"})

    def stale(self, reason: str | None, since: str | None) -> bytes:
        if reason is None:
            return b": the database can be read again\n\n"
        return self._notification("error", {"error": {"code": INTERNAL_ERROR, "message": reason}})

    def close_message(self, code: int, reason: str) -> bytes:
        """Return the end of the request, after the reason if it is final.

        After every other end, the client continues with its cursor.
        """
        ended = b""
        if code == frames.SIGNED_OUT:
            ended = self._notification("terminated", {"error": {"code": FORBIDDEN, "message": reason}})
        result = {"resultType": "complete", "_meta": {}}
        return ended + _line({"jsonrpc": "2.0", "id": self.request_id, "result": result})

    def _notification(self, name: str, params: dict[str, Any]) -> bytes:
        meta = {f"{META}subscriptionId": self.request_id}
        method = f"notifications/events/{name}"
        return _line({"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": meta}})


def _line(message: dict[str, Any]) -> bytes:
    # A line end inside the text of an event would end the line of the stream.
    return b"data: %b\n\n" % orjson.dumps(message).replace(b"\n", b" ").replace(b"\r", b" ")


HANDLERS: Mapping[str, Callable[[RpcMessage], dict[str, Any] | Response]] = {
    "events/list": list_types,
    "events/poll": poll,
    "events/stream": stream,
}
