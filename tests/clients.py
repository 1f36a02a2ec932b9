"""Clients that are peers of ours, not mirrors: on the `websockets` library, and of bare bytes."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from tests.waits import PATIENCE_SECS

if TYPE_CHECKING:
    from tests.server import Server


class FeedClient:
    """A WebSocket client on the `websockets` library. Checks of every event that it follows the one before."""

    def __init__(self, url: str, token: str | None, headers: dict[str, str] | None = None, **options: Any) -> None:
        """Connect with *token*; without one with the *headers*, or the ticket in the *url*."""
        self._open = contextlib.ExitStack()
        self.socket: ClientConnection = self._open.enter_context(
            connect(
                url.replace("http", "ws", 1) + ("" if "?" in url else "/ws"),
                additional_headers=headers or ({"Authorization": f"Bearer {token}"} if token else {}),
                # Without a limit to its queue the library goes on reading, and so sees the answer to its close frame.
                compression=None, max_size=None, max_queue=None, proxy=None, **options,
            )
        )  # fmt: skip
        self.cursor = 0
        self.epoch = ""
        self.seen: list[int] = []
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> FeedClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def send(self, **fields: Any) -> None:
        self.socket.send(json.dumps(fields))

    def receive(self, timeout: float = PATIENCE_SECS) -> dict[str, Any]:
        """Return the next frame. Raises TimeoutError, ConnectionClosed."""
        frame: dict[str, Any] = json.loads(self.socket.recv(timeout=timeout))
        return frame

    def subscribe(self, **fields: Any) -> dict[str, Any]:
        """Subscribe and return the verdict's payload; it must come before anything of the new subscription."""
        self.send(action="subscribe", channel="events", **{"rate": 0, **fields})
        while (frame := self.receive())["type"] not in ("subscribed", "error"):
            self._note(frame)
        assert frame["type"] == "subscribed", frame
        payload: dict[str, Any] = frame["payload"]
        self.cursor, self.epoch = payload["after"], payload["epoch"]
        return payload

    def resume(self) -> dict[str, Any]:
        """Subscribe from the cursor on."""
        return self.subscribe(after=self.cursor, epoch=self.epoch)

    def next_event(self, timeout: float = PATIENCE_SECS) -> dict[str, Any]:
        """Return the next event frame, passing over heartbeats."""
        while True:
            frame = self.receive(timeout)
            if self._note(frame):
                return frame

    def follow(self, until: int, timeout: float = PATIENCE_SECS) -> None:
        """Take events until the cursor is at *until*."""
        while self.cursor < until:
            self._note(self.receive(timeout))

    def _note(self, frame: dict[str, Any]) -> bool:
        if frame["type"] == "heartbeat":
            assert frame["payload"]["cursor"] >= self.cursor
            self.cursor = frame["payload"]["cursor"]
            return False
        if frame["type"] == "stale":
            return False
        assert frame["type"] == "event", frame
        assert frame["prev"] <= self.cursor < frame["seq"], (frame["prev"], self.cursor, frame["seq"])
        self.cursor = frame["seq"]
        self.seen.append(frame["seq"])
        self.events.append(frame["payload"])
        return True

    def closed_with(self, timeout: float = PATIENCE_SECS) -> tuple[int, str]:
        """Take what still comes until the server closes; return its code and reason."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                self.socket.recv(timeout=max(0.01, deadline - time.monotonic()))
            except ConnectionClosed as closed:
                return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        raise AssertionError("the server did not close the connection")


class Follower:
    """A client that comes back: follows the feed by cursor over any number of restarts, and drops what it has seen."""

    def __init__(self, server: Server, after: int = 0) -> None:
        self.server = server
        self.cursor = after
        self.epoch = ""
        self.ids: list[str] = []
        self.verdicts: list[str] = []
        self.resumes = 0

    def run(self, is_done: Callable[[Follower], bool]) -> None:
        """Follow until *is_done*; blocks."""
        while not is_done(self):
            with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, TimeoutError, EOFError):
                self._follow(is_done)
            time.sleep(0.02)

    def _follow(self, is_done: Callable[[Follower], bool]) -> None:
        with self.server.connect(open_timeout=5) as client:
            fields = {"after": self.cursor} | ({"epoch": self.epoch} if self.epoch else {})
            verdict = client.subscribe(**fields)
            self.verdicts.append(verdict["verdict"])
            self.resumes += 1
            self.epoch = verdict["epoch"]
            while not is_done(self):
                with contextlib.suppress(TimeoutError):
                    self._show(client, client.receive(timeout=0.2))

    def _show(self, client: FeedClient, frame: dict[str, Any]) -> None:
        if frame["type"] != "event" or frame["seq"] <= self.cursor:
            return
        assert frame["prev"] <= self.cursor, (frame["prev"], self.cursor)
        self.ids.append(frame["payload"]["id"])
        self.cursor = frame["seq"]


class RawClient:
    """A WebSocket client of bare bytes: for many at once, for reading nothing, and for breaking the protocol."""

    def __init__(self, server: Server, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(PATIENCE_SECS)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {server.token}\r\n\r\n".encode()
        )
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send_frame(self, body: bytes, opcode: int = 1) -> None:
        """Send *body* (125 bytes at most) as one frame, masked with zeros."""
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(body), 0, 0, 0, 0]) + body)

    def subscribe(self, **fields: Any) -> None:
        self.send_frame(json.dumps({"action": "subscribe", "channel": "events", "rate": 0, **fields}).encode())

    def has_more(self, timeout: float) -> bool:
        """Return whether there is something to take, a frame or its beginning, within *timeout* seconds."""
        return bool(self._buffer or select.select([self.socket], [], [], timeout)[0])

    def take_frame(self) -> tuple[int, bytes]:
        """Return the opcode and body of the next frame; anything but a whole, unmasked, known frame is corrupt."""
        first, length = self._take(2)
        assert first in (0x81, 0x88, 0x89, 0x8A), f"corrupt frame: {first:#x}"
        assert length < 128, "a server's frames are not masked"
        if length >= 126:
            length = int.from_bytes(self._take(2 if length == 126 else 8))
        return first & 0xF, self._take(length)

    def _take(self, size: int) -> bytes:
        if len(self._buffer) < size:
            chunks = [self._buffer]
            while sum(map(len, chunks)) < size:
                chunks.append(self._receive())
            self._buffer = b"".join(chunks)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _receive(self) -> bytes:
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise EOFError("the server ended the connection")
        return chunk
