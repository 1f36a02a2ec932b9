"""Frames: what is written to a WebSocket, as bytes (RFC 6455 section 5.2; a server's frames are not masked)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from app.history import Item

GOING_AWAY = 1001
POLICY = 1008
TOO_LARGE = 1009
OUR_FAULT = 1011
RESTARTING = 1012
SIGNED_OUT = 4001
OVERTAKEN = 4008
SUPERSEDED = 4009

_TEXT = 0x81
_CLOSE = 0x88


class Batch(NamedTuple):
    """Frames joined for one write, so that a thousand events cost one.

    `ends[i]` is where the frame of `seqs[i]` ends in `data`. The first frame's `prev` is *prev*.
    """

    data: bytes
    ends: list[int]
    seqs: list[int]
    prev: int

    @property
    def last(self) -> int:
        """The seq a client has after the whole batch."""
        return self.seqs[-1] if self.seqs else self.prev


def join(items: Sequence[Item], prev: int) -> Batch:
    """Return one `event` frame for each item; each names the seq before it as `prev`."""
    frames, ends, seqs, end = [], [], [], 0
    before = prev
    for item in items:
        body = b'{"type":"event","seq":%d,"prev":%d,"payload":%b}' % (item.seq, before, item.json)
        frame = _header(_TEXT, len(body)) + body
        before = item.seq
        end += len(frame)
        frames.append(frame)
        ends.append(end)
        seqs.append(before)
    return Batch(b"".join(frames), ends, seqs, prev)


def message(type_: str, payload: dict[str, Any] | None = None) -> bytes:
    """Return the frame `{"type": …, "payload": …}`, without a payload where there is none."""
    fields = {"type": type_} if payload is None else {"type": type_, "payload": payload}
    return text(orjson.dumps(fields))


def error(code: str, explanation: str) -> bytes:
    """Return an `error` frame."""
    return message("error", {"code": code, "message": explanation})


def text(body: bytes) -> bytes:
    """Return *body*, UTF-8, as one text frame."""
    return _header(_TEXT, len(body)) + body


def close(code: int, reason: str) -> bytes:
    """Return a close frame; the reason is cut at 123 bytes (RFC 6455 section 5.5)."""
    body = struct.pack("!H", code) + reason.encode()[:123].decode(errors="ignore").encode()
    return _header(_CLOSE, len(body)) + body


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", first, length)
    if length < 65536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)
