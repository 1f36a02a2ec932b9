"""Server-sent events: the feed as a text stream.

Format: HTML Living Standard, section 9.2. An event is `id: epoch:seq` and one `data:` line with its JSON. The verdict
comes first, as an event named `subscribed`. A heartbeat is a comment with an `id`: it moves the browser's Last-Event-ID
and dispatches no event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from outfeed.feed.encoding import Batch, Counters
from outfeed.history import Item

MIN_RETRY_MS = 1000


class SseEncoding:
    """One event a piece.

    A group is only the joined bytes of its events, and each event keeps its own id.
    """

    transport = "stream"

    def singles(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        # A payload is one line. Inside JSON strings line ends are escaped, and other line ends are replaced by spaces.
        pieces = [
            b"id: %b:%d\ndata: %b\n\n" % (epoch.encode(), item.seq, item.json.replace(b"\n", b" ").replace(b"\r", b" "))
            for item in items
        ]
        return Batch.of(pieces, [item.seq for item in items], prev)

    groups = singles

    def subscribed(self, payload: dict[str, Any]) -> bytes:
        where = f"{payload['epoch']}:{payload['after']}".encode()
        return b"event: subscribed\nid: %b\ndata: %b\n\n" % (where, orjson.dumps(payload))

    def heartbeat(self, cursor: int, epoch: str, counters: Counters, origin_age: float | None = None) -> bytes:
        told = "".join(f" {name}={count}" for name, count in counters.as_dict().items())
        return b": heartbeat%b\nid: %b:%d\n\n" % (told.encode(), epoch.encode(), cursor)

    def stale(self, reason: str | None, since: str | None) -> bytes:
        return b"event: stale\ndata: %b\n\n" % orjson.dumps({"reason": reason, "since": since})

    def close_message(self, code: int, reason: str) -> bytes:
        told = orjson.dumps({"code": code, "reason": reason})
        # Without a hint, every EventSource reconnects after the same time. An EventSource has no back-off either.
        retry = reason.removeprefix("retry_ms=")
        hint = b"retry: %d\n" % (MIN_RETRY_MS + int(retry)) if retry.isdecimal() else b""
        return b"event: closed\n%bdata: %b\n\n" % (hint, told)


SSE = SseEncoding()
