"""NATS, with and without JetStream, by its protocol of text lines.

A JetStream client has an ephemeral push consumer without acknowledgements, which is the nearest to a live client of
Outfeed. A writer waits for the acknowledgement of each event. Without JetStream nothing is stored or acknowledged.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from scripts.benchmarks import client
from scripts.benchmarks.client import Target
from scripts.benchmarks.errors import LoadError, ServerError
from scripts.benchmarks.peers.peer import BIN, Peer
from scripts.benchmarks.servers import HOST

SUBJECT, STREAM = "events", "BENCH"
GREETING = b'CONNECT {"verbose":false,"pedantic":false,"protocol":1}\r\n'
TIMEOUT_SECS = 30.0


class Server(Peer):
    """NATS without JetStream."""

    name = "NATS core"
    stored = "no"
    is_stream = False
    store = ""

    def command(self) -> list[str]:
        """Return the command line, with a file of settings."""
        # A ping within a measurement would be an answer that only some clients owe.
        settings = f'listen: "{HOST}:{self.port}"\nping_interval: "1h"\n{self.store}'
        (self.folder / "nats.conf").write_text(settings, encoding="utf-8")
        return [str(BIN / "nats-server"), "-c", "nats.conf"]

    def is_ready(self) -> bool:
        """Return whether the server answers a ping."""
        try:
            Wire(HOST, self.port).close()
        except OSError:
            return False
        return True

    def prepare(self) -> None:
        """Make the stream that stores the events."""
        if self.is_stream:
            wire = Wire(HOST, self.port)
            wire.request(f"$JS.API.STREAM.CREATE.{STREAM}", {"name": STREAM, "subjects": [SUBJECT], "storage": "file"})
            wire.close()

    def target(self) -> Target:
        """Return a subscription to all new events."""
        return Target(HOST, self.port, SUBJECT, {}, "stream" if self.is_stream else "", "peers.nats")

    def sink(self) -> dict[str, Any]:
        """Return the writer's order."""
        return {"module": "peers.nats", "port": self.port, "is_stream": self.is_stream}


class StreamServer(Server):
    """JetStream with its default: the file system decides when it syncs."""

    name = "JetStream, default"
    stored = "no"
    is_stream = True
    store = 'jetstream { store_dir: "store" }\n'


class SyncedStreamServer(StreamServer):
    """JetStream that syncs each event before it acknowledges it."""

    name = "JetStream, fsync always"
    stored = "yes"
    store = 'jetstream { store_dir: "store", sync_interval: always }\n'


class Wire:
    """A blocking connection. It opens with a ping, so that it is ready."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), TIMEOUT_SECS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox = f"_INBOX.{os.urandom(8).hex()}"
        self.rest = b""
        self.sock.sendall(GREETING + f"SUB {self.inbox} 1\r\nPING\r\n".encode())
        self.await_line(b"PONG")

    def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        """Send a message, without waiting."""
        self.sock.sendall(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")

    def request(self, subject: str, body: Any) -> dict[str, Any]:
        """Return the answer of JetStream. Raises ServerError for a refusal."""
        self.publish(subject, json.dumps(body).encode(), self.inbox)
        answer: dict[str, Any] = json.loads(self.take_message())
        if "error" in answer:
            raise ServerError(f"{subject}: {answer['error']}")
        return answer

    def take_message(self) -> bytes:
        """Return the body of the next message."""
        size = int(self.await_line(b"MSG ").rpartition(b" ")[2])
        while len(self.rest) < size + 2:
            self._receive()
        body, self.rest = self.rest[:size], self.rest[size + 2 :]
        return body

    def await_line(self, start: bytes) -> bytes:
        """Return the next line that begins with *start*."""
        while True:
            line, end, rest = self.rest.partition(b"\r\n")
            if not end:
                self._receive()
                continue
            self.rest = rest
            if line.startswith(b"-ERR"):
                raise LoadError(f"NATS answered {line.decode()}")
            if line == b"PING":
                self.sock.sendall(b"PONG\r\n")
            if line.startswith(start):
                return line

    def close(self) -> None:
        """Wait until all is received by the server, and disconnect."""
        self.sock.sendall(b"PING\r\n")
        self.await_line(b"PONG")
        self.sock.close()

    def _receive(self) -> None:
        chunk = self.sock.recv(65_536)
        if not chunk:
            raise LoadError("NATS closed the connection")
        self.rest += chunk


@dataclass(slots=True)
class Client(client.Client):
    """A subscriber."""

    has_frames: ClassVar[bool] = False
    wire: Wire | None = None

    @classmethod
    def dial(cls, target: Target) -> Self:
        """Connect."""
        wire = Wire(target.host, target.port)
        return cls(wire.sock, wire=wire)

    def subscribe(self, target: Target) -> None:
        """Subscribe to the subject, or to a consumer of the stream."""
        assert self.wire
        if not target.subscribe:
            self.sock.sendall(f"SUB {target.path} 2\r\n".encode())
            return
        inbox = f"{self.wire.inbox}.events"
        self.sock.sendall(f"SUB {inbox} 2\r\n".encode())
        wanted = {"deliver_subject": inbox, "ack_policy": "none", "deliver_policy": "new", "mem_storage": True}
        self.wire.request(f"$JS.API.CONSUMER.CREATE.{STREAM}", {"stream_name": STREAM, "config": wanted})

    def await_verdict(self) -> None:
        """Wait until the server has the subscription."""
        assert self.wire
        self.sock.sendall(b"PING\r\n")
        self.wire.await_line(b"PONG")
        self.rest = self.wire.rest


class Sink:
    """Publishes each event in a message of its own."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._wire = Wire(HOST, order["port"])
        self._is_stream = order["is_stream"]
        self.seconds: list[float] = []

    def put(self, row: dict[str, Any]) -> None:
        """Publish a row, and await its acknowledgement from a stream."""
        began = time.perf_counter()
        body = json.dumps(row, separators=(",", ":")).encode()
        self._wire.publish(SUBJECT, body, self._wire.inbox if self._is_stream else "")
        if self._is_stream and b'"error"' in (answer := self._wire.take_message()):
            raise LoadError(f"JetStream answered {answer.decode()}")
        self.seconds.append(time.perf_counter() - began)

    def close(self) -> None:
        """Wait until the server has every event."""
        self._wire.close()
