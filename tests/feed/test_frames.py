"""Frames, read back by another implementation of RFC 6455."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wsproto.frame_protocol import FrameProtocol, Opcode

from outfeed.feed import frames
from tests.feed.fake_source import item


def read_back(data: bytes) -> list[tuple[Opcode, bytes]]:
    """Return the whole frames in *data* as a client of wsproto reads them.

    No bytes may be left over.
    """
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(data)
    found: list[tuple[Opcode, bytes]] = []
    body = b""
    for frame in protocol.received_frames():
        body += _payload(frame.payload)
        if frame.message_finished:
            found.append((frame.opcode, body))
            body = b""
    assert body == b""
    return found


def _payload(payload: Any) -> bytes:
    if isinstance(payload, tuple):  # of a close frame
        return int(payload[0]).to_bytes(2) + (payload[1] or "").encode()
    return payload.encode() if isinstance(payload, str) else bytes(payload)


@pytest.mark.parametrize(
    ("length", "header_bytes"), [(0, 2), (1, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (100_000, 10)]
)
def test_a_frame_of_any_length_has_the_right_header(length: int, header_bytes: int) -> None:
    frame = frames.text(b"x" * length)
    assert len(frame) == length + header_bytes
    assert read_back(frame) == [(Opcode.TEXT, b"x" * length)]


def test_a_message_has_a_type_and_an_optional_payload() -> None:
    found = read_back(frames.message("pong") + frames.message("heartbeat", {"cursor": 7}))
    assert [json.loads(body) for _, body in found] == [
        {"type": "pong"},
        {"type": "heartbeat", "payload": {"cursor": 7}},
    ]


def test_an_error_has_a_code_and_a_message() -> None:
    ((_, body),) = read_back(frames.error("unknown_channel", "no channel 'ü'"))
    assert json.loads(body) == {"type": "error", "payload": {"code": "unknown_channel", "message": "no channel 'ü'"}}


@pytest.mark.parametrize("data", ["", "x" * 100, "x" * 70_000])
def test_joined_frames_end_at_their_offsets_and_name_the_seq_before(data: str) -> None:
    items = [item(seq, data=data) for seq in (7, 9, 12)]
    batch = frames.WEBSOCKET.singles(items, prev=5, epoch="e")
    assert (batch.seqs, batch.last, batch.prev) == ([7, 9, 12], 12, 5)
    assert batch.ends[-1] == len(batch.data)
    starts = [0, *batch.ends[:-1]]
    for start, end, each, prev in zip(starts, batch.ends, items, [5, 7, 9], strict=True):
        ((_, body),) = read_back(batch.data[start:end])
        expected = {"type": "event", "seq": each.seq, "prev": prev, "payload": json.loads(each.json)}
        assert json.loads(body) == expected


def test_an_empty_batch_writes_nothing_and_keeps_the_cursor() -> None:
    batch = frames.WEBSOCKET.singles([], prev=5, epoch="e")
    assert (batch.data, batch.last) == (b"", 5)


@pytest.mark.parametrize("reason", ["", "retry_ms=200", "x" * 200, "ü" * 100, "€" * 42], ids=range(5))
def test_a_close_frame_has_its_code_and_as_much_of_the_reason_as_fits(reason: str) -> None:
    ((opcode, body),) = read_back(frames.close(1012, reason))
    assert opcode is Opcode.CLOSE
    assert int.from_bytes(body[:2]) == 1012
    assert reason.startswith(body[2:].decode())
    assert len(body) <= 125
    assert len(body) == 2 + len(reason.encode()) or len(body) > 120
