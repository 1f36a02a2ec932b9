"""The feed's protocol, checked in one place for all tests.

Frames must be whole, and the cursor must skip no event.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_OPCODES = frozenset(0x80 | opcode for opcode in (TEXT, CLOSE, PING, PONG))


class CorruptFrame(AssertionError):
    """The bytes are not a whole, unmasked frame of a known kind."""


class Ended(EOFError):
    """The server has ended the connection. Its last frame may be cut."""


def frame_spans(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Yield (opcode, start, stop) of each whole payload in *data*.

    *data* begins with a server frame. Raises CorruptFrame.
    """
    at, end = 0, len(data)
    while end - at >= 2:
        first, length, head = data[at], data[at + 1], 2
        if first not in _OPCODES or length > 127:
            raise CorruptFrame(f"a frame begins with {first:#x} {length:#x}")
        if length == 126:
            length, head = int.from_bytes(data[at + 2 : at + 4]), 4
        elif length == 127:
            length, head = int.from_bytes(data[at + 2 : at + 10]), 10
        start = at + head
        if start > end or start + length > end:
            return
        yield first & 0xF, start, start + length
        at = start + length


class FrameReader:
    """Splits a server's bytes into frames, in chunks of any size."""

    def __init__(self, data: bytes = b"") -> None:
        self._unread = bytearray(data)
        self.taken_bytes = 0

    def feed(self, data: bytes) -> None:
        self._unread += data

    @property
    def unread_bytes(self) -> int:
        return len(self._unread)

    def take(self) -> tuple[int, bytes] | None:
        """Return the opcode and body of the next frame.

        Returns None while the frame is incomplete. Raises CorruptFrame.
        """
        for opcode, start, stop in frame_spans(self._unread):
            body = bytes(self._unread[start:stop])
            del self._unread[:stop]
            self.taken_bytes += stop
            return opcode, body
        return None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield the whole frames."""
        while frame := self.take():
            yield frame


class FrameSocket:
    """The client's end of a WebSocket, as a bare *sock*.

    The handshake is over, and *rest* was received with it.
    """

    def __init__(self, sock: socket.socket, rest: bytes = b"") -> None:
        self.socket = sock
        self.frames = FrameReader(rest)

    def take_frame(self) -> tuple[int, bytes]:
        """Return the opcode and body of the next frame.

        Raises CorruptFrame, Ended, and the errors of the socket.
        """
        while (frame := self.frames.take()) is None:
            chunk = self.socket.recv(1 << 16)
            if not chunk:
                raise Ended("the server ended the connection")
            self.frames.feed(chunk)
        return frame

    def take_message(self) -> dict[str, Any]:
        """Return the next text frame's JSON; skip pongs."""
        while True:
            opcode, body = self.take_frame()
            if opcode == TEXT:
                message: dict[str, Any] = json.loads(body)
                return message
            assert opcode == PONG, f"unexpected frame {opcode}"

    def has_more(self, timeout: float) -> bool:
        """Return whether a frame or its beginning comes within *timeout* secs."""
        return bool(self.frames.unread_bytes or select.select([self.socket], [], [], timeout)[0])

    def has_nothing_to_read(self) -> bool:
        """Return whether all written bytes were read.

        A write on loopback arrives at once.
        """
        return not self.has_more(0)


class CursorCheck:
    """The rule of every client for its cursor.

    `prev` is at most the cursor, the seq is beyond it, and the cursor never moves back.
    """

    def __init__(self, cursor: int = 0) -> None:
        self.cursor = cursor
        self.epoch = ""

    def take(self, frame: dict[str, Any]) -> list[dict[str, Any]]:
        """Check a frame and move the cursor.

        Returns the frame's events, each with its `seq`.
        """
        kind, payload = frame["type"], frame.get("payload")
        events = events_of(frame)
        if kind == "subscribed":
            self.cursor, self.epoch = payload["after"], payload["epoch"]
        elif kind == "heartbeat":
            self.move(payload["cursor"])
        elif events:
            self.advance([event["seq"] for event in events], frame["prev"])
        else:
            assert kind in ("stale", "pong"), frame
        return events

    def advance(self, seqs: Sequence[int], prev: int | None = None) -> None:
        """Check events in their order.

        *prev* is the frame's, if the transport has one.
        """
        if prev is not None:
            assert prev <= self.cursor, f"the events after {self.cursor} up to {prev} are missing"
        for seq in seqs:
            assert self.cursor < seq, f"event {seq} came after {self.cursor}"
            self.cursor = seq

    def move(self, cursor: int) -> None:
        """Accept a cursor that came without an event."""
        assert cursor >= self.cursor, f"the cursor moved from {self.cursor} back to {cursor}"
        self.cursor = cursor


def events_of(frame: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events in a frame, each with its `seq`.

    A frame of another kind has none.
    """
    if frame["type"] == "event":
        return [{"seq": frame["seq"], **frame["payload"]}]
    return list(frame["payload"]) if frame["type"] == "events" else []


def seqs_of(frame: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in events_of(frame)]


def check(frames: Iterable[dict[str, Any]]) -> int:
    """Return the cursor after a connection's frames."""
    cursor = CursorCheck()
    for frame in frames:
        cursor.take(frame)
    return cursor.cursor


def check_whole(frames: list[dict[str, Any]]) -> None:
    """Fail unless every subscription had each event after its verdict.

    Each event must come once, up to the last received one.
    """
    check(frames)
    expected = 0
    for frame in frames:
        if frame["type"] == "subscribed":
            expected = frame["payload"]["after"] + 1
        for seq in seqs_of(frame):
            assert seq == expected
            expected += 1
