"""Incoming frames: bytes leave in order, and of one frame at a time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import DATA_OPCODES, Frame, Opcode

from outfeed.http.transports.incoming_frames import IncomingFrames

SIZES = st.one_of(st.integers(0, 200), st.sampled_from([125, 126, 65_535, 65_536, 70_000]))
DATA = st.builds(Frame, st.sampled_from(sorted(DATA_OPCODES)), SIZES.map(bytes), fin=st.booleans())
CONTROL = st.builds(Frame, st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]), st.integers(0, 125).map(bytes))


def message_bytes(frames: list[Frame]) -> int:
    """Return the size of the last message's received part."""
    size = 0
    for frame in frames:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            size = 0
        if frame.opcode in DATA_OPCODES:
            size += len(frame.data)
    return size


@settings(max_examples=300, deadline=None)
@given(
    frames=st.lists(st.one_of(DATA, CONTROL), max_size=8), chunk_bytes=st.sampled_from([1, 2, 7, 100, 16_384, 10**6])
)
def test_take_returns_bytes_in_order_and_of_one_frame_at_most(frames: list[Frame], chunk_bytes: int) -> None:
    incoming = IncomingFrames()
    whole = [frame.serialize(mask=True, extensions=[]) for frame in frames]
    data = b"".join(whole)[: sum(map(len, whole)) if chunk_bytes > 7 else 2000]
    ends, end = set(), 0
    for frame in whole:
        end += len(frame)
        ends.add(end)
    taken = 0
    for start in range(0, len(data), chunk_bytes):
        incoming.feed(data[start : start + chunk_bytes])
        while piece := incoming.take():
            assert data[taken : taken + len(piece)] == piece
            assert not any(taken < end < taken + len(piece) for end in ends)
            taken += len(piece)
    if taken == sum(map(len, whole)):
        assert incoming.count == sum(frame.opcode is not Opcode.CLOSE for frame in frames)
        assert incoming.message_bytes == message_bytes(frames)
        assert incoming.is_at_close == (bool(frames) and frames[-1].opcode is Opcode.CLOSE)
    else:
        assert len(data) == 2000
        assert len(data) - taken < 14, "more than the beginning of a header is held back"


def test_the_end_of_a_close_frame_is_known_once_all_of_it_was_taken() -> None:
    incoming = IncomingFrames()
    frame = Frame(Opcode.CLOSE, b"\x03\xe8bye").serialize(mask=True, extensions=[])
    incoming.feed(frame[:-1])
    assert incoming.take() == frame[:-1]
    assert not incoming.is_at_close
    incoming.feed(frame[-1:])
    assert incoming.take() == frame[-1:]
    assert incoming.is_at_close
