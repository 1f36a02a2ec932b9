"""One connected client of the load: its socket, and what it has read so far."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from scripts.benchmarks import websocket
from scripts.benchmarks.errors import LoadError

CONNECT_TIMEOUT_SECS = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to subscribe; text frames that begin with one of *greetings* may come before the verdict."""

    host: str
    port: int
    path: str
    headers: dict[str, str]
    subscribe: str
    greetings: tuple[str, ...] = ()


@dataclass(slots=True)
class Client:
    """`seen` is the number of the last event read; `rest` is the unread end of the last chunk."""

    sock: socket.socket
    accept: bytes = b""
    rest: bytes = b""
    seen: int = 0
    is_careful: bool = True

    @classmethod
    def dial(cls, target: Target) -> Client:
        """Connect and send the handshake, without waiting for the answer."""
        sock = socket.create_connection((target.host, target.port), CONNECT_TIMEOUT_SECS)
        request, accept = websocket.upgrade_request(f"{target.host}:{target.port}", target.path, target.headers)
        sock.sendall(request)
        return cls(sock, accept)

    def subscribe(self, target: Target) -> None:
        """Read the handshake's answer and send the subscription, without waiting for the verdict."""
        self.rest = websocket.read_upgrade(self.sock, self.accept)
        self.sock.sendall(websocket.masked(websocket.TEXT, target.subscribe.encode()))

    def await_verdict(self, target: Target) -> None:
        """Read up to the frame that answers the subscription."""
        greetings = tuple(greeting.encode() for greeting in target.greetings)
        while not self._take_verdict(greetings):
            chunk = self.sock.recv(65_536)
            if not chunk:
                raise LoadError("closed before the subscription was answered")
            self.rest += chunk

    def _take_verdict(self, greetings: tuple[bytes, ...]) -> bool:
        for opcode, start, stop in websocket.frames(self.rest):
            if opcode == websocket.TEXT and not self.rest.startswith(greetings, start):
                frame, self.rest = self.rest[start:stop], self.rest[stop:]
                if b'"subscribed"' not in frame:
                    raise LoadError(f"the subscription was refused: {frame[:200]!r}")
                return True
        return False


def connect_all(count: int, target: Target, *, is_answered: bool = True, in_flight: int = 64) -> list[Client]:
    """Return *count* subscribed clients; up to *in_flight* handshakes are under way at once.

    Without *is_answered* the verdicts are left unread, and so is what follows them.
    """
    clients: list[Client] = []
    while len(clients) < count:
        some = [Client.dial(target) for _ in range(min(in_flight, count - len(clients)))]
        for client in some:
            client.subscribe(target)
        for client in some:
            if is_answered:
                client.await_verdict(target)
            client.sock.setblocking(False)
        clients += some
    return clients
