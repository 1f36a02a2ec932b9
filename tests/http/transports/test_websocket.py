"""The dialogue of /ws: how many messages a client may send, and what it may still say when it is over."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from outfeed import clock
from outfeed.feed import frames
from outfeed.http.transports.websocket import MAX_MESSAGES_PER_SEC, _Dialogue
from tests.feed.cast import Peer

PING = struct.pack("!BB", 0x81, 0x80 | 18) + bytes(4) + b'{"action": "ping"}'


class Room:
    """What a dialogue takes place in: a clock that a test moves, a doorbell that is always rung, a peer to speak."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.now = 0.0
        self.dialogue: Any = None

    def wait(self, _: float | None) -> bool:
        return True

    def patience(self) -> None:
        return None

    def hear(self, data: bytes) -> tuple[int, str] | None:
        """Return how the dialogue would end once the client has said that."""
        self.peer.socket.sendall(data)
        assert self.dialogue._has_news(self, self)
        ending: tuple[int, str] | None = self.dialogue._listen(self, self.peer.writer)
        self.dialogue._messages.clear()
        return ending


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with Peer() as peer:
        room = Room(peer)
        monkeypatch.setattr(clock, "monotonic", lambda: room.now)
        room.dialogue = _Dialogue()
        yield room


def test_so_many_messages_at_once_and_no_more(room: Room) -> None:
    assert room.hear(PING * MAX_MESSAGES_PER_SEC) is None
    assert room.hear(PING) == (frames.POLICY, "more than 100 messages a second")


@pytest.mark.parametrize("opcode", [0x89, 0x8A, 0x00], ids=["ping", "pong", "fragment"])
def test_frames_that_are_no_messages_count_as_well(room: Room, opcode: int) -> None:
    room.write = lambda _: None  # type: ignore[attr-defined]
    assert room.hear(struct.pack("!BB", 0x01, 0x80) + bytes(4)) is None
    frame = struct.pack("!BB", opcode, 0x80) + bytes(4)
    assert room.hear(frame * (MAX_MESSAGES_PER_SEC - 1)) is None
    assert room.hear(frame) == (frames.POLICY, "more than 100 messages a second")


def test_a_message_that_comes_in_parts_counts_once(room: Room) -> None:
    for _ in range(MAX_MESSAGES_PER_SEC):
        for byte in PING:
            assert room.hear(bytes([byte])) is None
    assert room.hear(PING) == (frames.POLICY, "more than 100 messages a second")


def test_who_rests_may_not_send_more_at_once_for_that(room: Room) -> None:
    room.wait = lambda _: bool(setattr(room, "now", room.now + 60)) or True  # type: ignore[method-assign]
    assert room.hear(PING * MAX_MESSAGES_PER_SEC) is None
    assert room.hear(PING * (MAX_MESSAGES_PER_SEC + 1)) == (frames.POLICY, "more than 100 messages a second")


def test_what_came_while_nobody_listened_is_no_flood(room: Room) -> None:
    assert room.hear(PING * MAX_MESSAGES_PER_SEC) is None
    room.now += 2
    assert room.hear(PING * 2 * MAX_MESSAGES_PER_SEC) is None
    assert room.hear(PING) == (frames.POLICY, "more than 100 messages a second")


def test_of_who_speaks_no_websocket_nothing_is_kept(room: Room) -> None:
    assert room.hear(b"GET / HTTP/1.1\r\n\r\n") == (1002, "Invalid opcode 0x7")
    tracemalloc.start()
    for _ in range(100):
        assert not room.dialogue.is_farewell(bytes(16_384))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000
