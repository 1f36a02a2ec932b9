"""The checks that other tests rely on: a broken stream fails them."""

from __future__ import annotations

from typing import Any

import pytest

from outfeed.feed import frames
from tests.protocol import CorruptFrame, CursorCheck, FrameReader, check_whole


def event(prev: int, seq: int) -> dict[str, Any]:
    return {"type": "event", "seq": seq, "prev": prev, "payload": {"id": f"id-{seq}"}}


def batch(prev: int, *seqs: int) -> dict[str, Any]:
    return {"type": "events", "prev": prev, "payload": [{"seq": seq} for seq in seqs]}


def verdict(after: int) -> dict[str, Any]:
    return {"type": "subscribed", "payload": {"after": after, "epoch": "e"}}


def heartbeat(cursor: int) -> dict[str, Any]:
    return {"type": "heartbeat", "payload": {"cursor": cursor}}


BROKEN = {
    "an event that was not sent": [event(6, 7)],
    "a batch whose event before was not sent": [batch(6, 7, 8)],
    "an event twice": [event(5, 6), event(5, 6)],
    "an event twice in a batch": [batch(5, 6, 6)],
    "a batch out of order": [batch(5, 7, 6)],
    "a batch that begins at the cursor": [batch(5, 5, 6)],
    "a heartbeat that moves back": [heartbeat(4)],
    "a frame of another kind": [{"type": "error", "payload": {}}],
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_a_stream_that_breaks_the_rule_fails(sent: list[dict[str, Any]]) -> None:
    check = CursorCheck()
    check.take(verdict(5))
    *kept, broken = sent
    for frame in kept:
        check.take(frame)
    with pytest.raises(AssertionError):
        check.take(broken)


def test_a_stream_that_keeps_the_rule_moves_the_cursor_and_returns_its_events() -> None:
    check = CursorCheck()
    sent = [verdict(5), event(5, 6), heartbeat(9), batch(8, 10, 12), event(0, 13), verdict(3), event(3, 4)]
    found = [[each["seq"] for each in check.take(frame)] for frame in sent]
    assert found == [[], [6], [], [10, 12], [13], [], [4]]
    assert (check.cursor, check.epoch) == (4, "e")


def test_events_without_prev_must_rise() -> None:
    check = CursorCheck(5)
    check.advance([7, 9])
    with pytest.raises(AssertionError):
        check.advance([9])


@pytest.mark.parametrize("sent", [[verdict(3), event(3, 5)], [verdict(3), event(3, 4), verdict(9), event(4, 11)]])
def test_a_complete_stream_has_every_seq_after_a_verdict(sent: list[dict[str, Any]]) -> None:
    with pytest.raises(AssertionError):
        check_whole(sent)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_frames_are_read_whole_in_any_chunks(size: int, chunk: int) -> None:
    sent = frames.text(b"x" * size) * 2 + frames.text(b"end")
    reader = FrameReader()
    found = []
    for start in range(0, len(sent), chunk):
        reader.feed(sent[start : start + chunk])
        found += reader
    assert found == [(1, b"x" * size)] * 2 + [(1, b"end")]
    assert (reader.taken_bytes, reader.unread_bytes) == (len(sent), 0)


@pytest.mark.parametrize("sent", [b"\x01\x01x", b"\x80\x01x", b"\x81\x81\0\0\0\0x", b"\xc1\x01x", b"\x83\x01x"])
def test_a_frame_that_is_fragmented_masked_compressed_or_unknown_fails(sent: bytes) -> None:
    with pytest.raises(CorruptFrame):
        FrameReader(sent).take()
