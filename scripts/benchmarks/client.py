"""One connected client of the load: its socket and its position."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Self

from scripts.benchmarks import websocket
from scripts.benchmarks.errors import LoadError
from tests.protocol import frame_spans

CONNECT_TIMEOUT_SECS = 30.0
IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Target:
    """Address and subscription of a client, and the module of its protocol."""

    host: str
    port: int
    path: str
    headers: dict[str, str]
    subscribe: str
    protocol: str = "client"


@dataclass(slots=True)
class Client:
    """A client. `seen` is the number of the last event read.

    `rest` is the unread end of the last chunk. Its frames are those of a WebSocket, or it is read without them.
    """

    has_frames: ClassVar[bool] = True

    sock: socket.socket
    accept: bytes = b""
    rest: bytes = b""
    seen: int = 0
    is_careful: bool = True

    @classmethod
    def dial(cls, target: Target) -> Self:
        """Connect and send the handshake, without waiting for the response."""
        sock = socket.create_connection((target.host, target.port), CONNECT_TIMEOUT_SECS)
        request, accept = websocket.upgrade_request(f"{target.host}:{target.port}", target.path, target.headers)
        sock.sendall(request)
        return cls(sock, accept)

    def subscribe(self, target: Target) -> None:
        """Read the handshake's response and send the subscription.

        Does not wait for the verdict.
        """
        self.rest = websocket.read_upgrade(self.sock, self.accept)
        self.sock.sendall(websocket.masked(websocket.TEXT, target.subscribe.encode()))

    def await_verdict(self) -> None:
        """Read up to the frame that answers the subscription.

        Raises LoadError if it is not `subscribed`.
        """
        while not self._take_verdict():
            chunk = self.sock.recv(65_536)
            if not chunk:
                raise LoadError("the server closed the connection before it answered the subscription")
            self.rest += chunk

    def _take_verdict(self) -> bool:
        for opcode, start, stop in frame_spans(self.rest):
            if opcode == websocket.TEXT:
                frame, self.rest = self.rest[start:stop], self.rest[stop:]
                if b'"subscribed"' not in frame:
                    raise LoadError(f"the server refused the subscription: {frame[:200]!r}")
                return True
        return False


def connect_all(count: int, target: Target, *, is_answered: bool = True) -> list[Client]:
    """Return *count* subscribed clients.

    Up to IN_FLIGHT handshakes are under way at once. Without *is_answered* the verdicts and later frames stay unread.
    """
    kind: type[Client] = import_module(f"scripts.benchmarks.{target.protocol}").Client
    clients: list[Client] = []
    while len(clients) < count:
        some = [kind.dial(target) for _ in range(min(IN_FLIGHT, count - len(clients)))]
        for client in some:
            client.subscribe(target)
        for client in some:
            if is_answered:
                client.await_verdict()
            client.sock.setblocking(False)
        clients += some
    return clients
