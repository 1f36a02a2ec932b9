"""Frames: the bytes that are written to a WebSocket.

Format: RFC 6455 section 5.2. A server's frames are not masked.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from outfeed.feed.encoding import Batch, Counters, grouped
from outfeed.history import Item
from outfeed.text import escaped

POLICY = 1008
TOO_LARGE = 1009
INTERNAL_ERROR = 1011
RESTARTING = 1012
SIGNED_OUT = 4001
OVERTAKEN = 4008
SUPERSEDED = 4009


class CloseCode(NamedTuple):
    """The meaning of a close code, and the client's next step."""

    meaning: str
    next_step: str


CLOSE_CODES = {
    POLICY: CloseCode(
        "The client sent more than 100 messages, pings and fragments in a second, or had no subscription for 60 s. "
        "An `ack` of further events does not count.",
        "Correct the client before it reconnects.",
    ),
    TOO_LARGE: CloseCode("A message exceeds 64 KiB.", "Correct the client before it reconnects."),
    INTERNAL_ERROR: CloseCode("Internal server error. The server's log has the traceback.", "Reconnect with back-off."),
    RESTARTING: CloseCode("The server restarts. The reason is `retry_ms=N`.", "Reconnect after N ms."),
    SIGNED_OUT: CloseCode(
        "The session ended, or the token was revoked or expired.", "Reconnect after a new sign-in or with a new token."
    ),
    OVERTAKEN: CloseCode(
        "Pruning removed events that this client had not received, or the epoch changed.",
        "Reconnect at once with the same cursor. The verdict says what is missing.",
    ),
    SUPERSEDED: CloseCode(
        "A newer connection of the same consumer took over, or the consumer was reset, removed or given away.",
        "Do not reconnect.",
    ),
}

PING = b"\x89\x00"
_TEXT = 0x81
_CLOSE = 0x88


class WebSocketEncoding:
    """One JSON message a frame.

    A single event is an `event` message. Several events of one frame are an `events` message.
    """

    transport = "websocket"

    def singles(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        pieces, seqs, before = [], [], prev
        for item in items:
            body = b'{"type":"event","seq":%d,"prev":%d,"payload":%b}' % (item.seq, before, item.json)
            pieces.append(_header(_TEXT, len(body)) + body)
            before = item.seq
            seqs.append(before)
        return Batch.of(pieces, seqs, prev)

    def groups(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        pieces, seqs, before = [], [], prev
        for group in grouped(items):
            # Each item is already a JSON object. Its opening brace is replaced to make room for its seq.
            rows = b",".join([b'{"seq":%d,%b' % (item.seq, item.json[1:]) for item in group])
            pieces.append(text(b'{"type":"events","prev":%d,"payload":[%b]}' % (before, rows)))
            before = group[-1].seq
            seqs.append(before)
        return Batch.of(pieces, seqs, prev)

    def subscribed(self, payload: dict[str, Any]) -> bytes:
        return message("subscribed", payload)

    def heartbeat(self, cursor: int, epoch: str, counters: Counters, origin_age: float | None = None) -> bytes:
        fields: dict[str, Any] = {"cursor": cursor, **counters.as_dict()}
        return message("heartbeat", fields if origin_age is None else fields | {"origin_age": _shown(origin_age)})

    def stale(self, reason: str | None, since: str | None) -> bytes:
        return message("stale", {"reason": reason, "since": since})

    def close_message(self, code: int, reason: str) -> bytes:
        return close(code, reason)


WEBSOCKET = WebSocketEncoding()


def message(type_: str, payload: dict[str, Any] | None = None) -> bytes:
    """Return the frame `{"type": …, "payload": …}`.

    The field `payload` is left out if *payload* is None.
    """
    fields = {"type": type_} if payload is None else {"type": type_, "payload": payload}
    return text(orjson.dumps(fields))


def _shown(age: float) -> float | None:
    """Return *age* to a tenth of a second; None if it is infinite."""
    return round(age, 1) if math.isfinite(age) else None


def error(code: str, explanation: str) -> bytes:
    """Return an `error` frame."""
    return message("error", {"code": code, "message": escaped(explanation)})


def text(body: bytes) -> bytes:
    """Return *body*, UTF-8, as one text frame."""
    return _header(_TEXT, len(body)) + body


def close(code: int, reason: str) -> bytes:
    """Return a close frame.

    The reason is cut at 123 bytes (RFC 6455 section 5.5).
    """
    body = struct.pack("!H", code) + reason.encode()[:123].decode(errors="ignore").encode()
    return _header(_CLOSE, len(body)) + body


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", first, length)
    if length < 65536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)
