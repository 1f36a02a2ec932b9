"""Independent clients: on the `websockets` library, and of raw bytes."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.protocol import CursorCheck, Ended, FrameSocket
from tests.waits import PATIENCE_SECS

if TYPE_CHECKING:
    from tests.server import Server


class FeedClient:
    """A WebSocket client on the `websockets` library.

    It checks that every event follows the one before.
    """

    def __init__(self, url: str, token: str | None, headers: dict[str, str] | None = None, **options: Any) -> None:
        """Connect with *token*.

        Without one, connect with the *headers*, or the ticket in the *url*.
        """
        self._open = contextlib.ExitStack()
        self.socket: ClientConnection = self._open.enter_context(
            connect(
                url.replace("http", "ws", 1) + ("" if "?" in url else "/ws"),
                additional_headers=headers or ({"Authorization": f"Bearer {token}"} if token else {}),
                # Without a limit to its queue the library continues to read, and so receives the answer to its close
                # frame.
                compression=None, max_size=None, max_queue=None, proxy=None, **options,
            )
        )  # fmt: skip
        self.check = CursorCheck()
        self.seen: list[int] = []
        self.events: list[dict[str, Any]] = []

    @property
    def cursor(self) -> int:
        return self.check.cursor

    @property
    def epoch(self) -> str:
        return self.check.epoch

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
        """Subscribe and return the verdict's payload.

        The verdict must come before any frame of the new subscription.
        """
        self.send(action="subscribe", channel="events", **{"rate": 0, **fields})
        while (frame := self.receive())["type"] not in ("subscribed", "error"):
            self.note(frame)
        assert frame["type"] == "subscribed", frame
        self.check.take(frame)
        payload: dict[str, Any] = frame["payload"]
        return payload

    def resume(self) -> dict[str, Any]:
        """Subscribe from the cursor on."""
        return self.subscribe(after=self.cursor, epoch=self.epoch)

    def next_event(self, timeout: float = PATIENCE_SECS) -> dict[str, Any]:
        """Return the next event frame; skip heartbeats."""
        while True:
            frame = self.receive(timeout)
            if self.note(frame):
                return frame

    def follow(self, until: int, timeout: float = PATIENCE_SECS) -> None:
        """Receive events until the cursor is at *until*."""
        while self.cursor < until:
            self.note(self.receive(timeout))

    def note(self, frame: dict[str, Any]) -> bool:
        """Check a frame and keep its event; return whether it has one."""
        assert frame["type"] in ("event", "heartbeat", "stale"), frame
        if not self.check.take(frame):
            return False
        self.seen.append(frame["seq"])
        self.events.append(frame["payload"])
        return True

    def closed_with(self, timeout: float = PATIENCE_SECS) -> tuple[int, str]:
        """Receive frames until the server closes; return its code and reason."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                self.socket.recv(timeout=max(0.01, deadline - time.monotonic()))
            except ConnectionClosed as closed:
                return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        raise AssertionError("the server did not close the connection")


class RawClient(FrameSocket):
    """A WebSocket client of raw bytes.

    Tests use it for many clients at once, for clients that read nothing, and for breaches of the protocol.
    """

    def __init__(self, server: Server, receive_buffer_bytes: int | None = None) -> None:
        super().__init__(socket.socket())
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(PATIENCE_SECS)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {server.token}\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            chunk = self.socket.recv(1 << 16)
            if not chunk:
                raise Ended("the server ended the connection")
            answer += chunk
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        self.frames.feed(rest)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send_frame(self, body: bytes, opcode: int = 1) -> None:
        """Send *body* (125 bytes at most) as one frame, masked with zeros."""
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(body), 0, 0, 0, 0]) + body)

    def subscribe(self, **fields: Any) -> None:
        self.send_frame(json.dumps({"action": "subscribe", "channel": "events", "rate": 0, **fields}).encode())
