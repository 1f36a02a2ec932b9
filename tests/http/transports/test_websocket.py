"""The handler of /ws: limits of the client, and reasons for a close."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request
from simple_websocket import Server
from wsproto.handshake import H11Handshake

from outfeed import clock
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.feed import frames
from outfeed.feed.subscriber import Subscriber
from outfeed.http.app import create_app
from outfeed.http.server.incoming import SOCKET_KEY
from outfeed.http.transports import connection
from outfeed.http.transports.connection import Waker
from outfeed.http.transports.sock_server import SERVER_OPTIONS, MemorySocket
from outfeed.http.transports.websocket import MAX_MESSAGES_PER_SEC, WebSocketHandler
from outfeed.store.database import Database
from tests.feed.fake_source import VIEWER, MemorySource, core_of
from tests.feed.socket_harness import Feed, Peer

HANDSHAKE = {
    "HTTP_HOST": "localhost",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
}
ACCEPT = b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI="
ALL_READ = (1000, "the client has sent nothing else")
FLOOD = (frames.POLICY, "more than 100 messages a second")


def masked(first: int, body: bytes = b"") -> bytes:
    """Return a frame of less than 126 bytes with a mask that changes nothing."""
    return struct.pack("!BB", first, 0x80 | len(body)) + bytes(4) + body


PING = masked(0x81, b'{"action": "ping"}')


class HandlerRunner(Waker):
    """A waker that runs a handler until it has read all of the client's bytes.

    The test moves the clock.
    """

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.writer)
        self.now = 0.0
        self.secs_a_wait = 0.0
        self.timeouts: list[float | None] = []
        self.core = core_of(MemorySource())
        self._peer = peer
        self._chunks: list[bytes] = []
        self.subscriber: Any = None
        self.handler: Any = None

    def receive(self, *chunks: bytes) -> tuple[int, str] | None:
        """Return how the handler ends after the client has sent *chunks*.

        The client sends each chunk when the handler has read the one before.
        """
        self.subscriber = Subscriber(self.core, self.writer, self.wake, frames.WEBSOCKET, (0, 0), VIEWER)
        self._chunks = list(chunks)
        ending: tuple[int, str] | None = self.handler.run(self.subscriber, self)
        return ending

    def wait(self, timeout: float | None) -> bool:
        self.timeouts.append(timeout)
        self.now += self.secs_a_wait
        if not super().wait(0) and self._chunks:
            self._peer.socket.sendall(self._chunks.pop(0))
        if has_input := super().wait(0):
            return has_input
        self.subscriber.ask_to_end(*ALL_READ)
        return False


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # so that sent bytes have arrived
        yield peer


@pytest.fixture
def runner(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandlerRunner]:
    runner = HandlerRunner(peer)
    monkeypatch.setattr(clock, "monotonic", lambda: runner.now)
    ws = Server({SOCKET_KEY: MemorySocket(), **HANDSHAKE}, **SERVER_OPTIONS)
    ws.sock.take_sent()
    runner.handler = WebSocketHandler(ws)
    yield runner
    runner.close()


# --- how much a client may send ---------------------------------------------------------------------------------------


def test_the_number_of_messages_at_once_is_limited(runner: HandlerRunner) -> None:
    assert runner.receive(PING * MAX_MESSAGES_PER_SEC) == ALL_READ
    assert runner.receive(PING) == FLOOD


@pytest.mark.parametrize("opcode", [0x89, 0x8A, 0x00], ids=["ping", "pong", "fragment"])
def test_frames_other_than_messages_count_too(runner: HandlerRunner, opcode: int) -> None:
    assert runner.receive(masked(0x01)) == ALL_READ
    assert runner.receive(masked(opcode) * (MAX_MESSAGES_PER_SEC - 1)) == ALL_READ
    assert runner.receive(masked(opcode)) == FLOOD


def test_a_fragmented_message_counts_once(runner: HandlerRunner) -> None:
    for _ in range(MAX_MESSAGES_PER_SEC):
        for byte in PING:
            assert runner.receive(bytes([byte])) == ALL_READ
    assert runner.receive(PING) == FLOOD


def test_a_pause_does_not_raise_the_limit_of_messages_at_once(runner: HandlerRunner) -> None:
    runner.secs_a_wait = 20
    assert runner.receive(PING * MAX_MESSAGES_PER_SEC) == ALL_READ
    assert runner.receive(PING * (MAX_MESSAGES_PER_SEC + 1)) == FLOOD


def test_frames_that_arrived_while_the_thread_did_not_read_are_allowed(runner: HandlerRunner) -> None:
    assert runner.receive(PING * MAX_MESSAGES_PER_SEC) == ALL_READ
    runner.now += 2
    assert runner.receive(PING * 2 * MAX_MESSAGES_PER_SEC) == ALL_READ
    assert runner.receive(PING) == FLOOD


def test_an_acknowledgement_of_each_event_does_not_count(runner: HandlerRunner) -> None:
    feed = Feed()
    runner.core = feed.core
    subscribe = masked(0x81, b'{"action": "subscribe", "channel": "events", "consumer": "bot", "rate": 0}')
    runner.receive(subscribe)
    feed.write(3 * MAX_MESSAGES_PER_SEC)
    acks = [masked(0x81, b'{"action": "ack", "seq": %d}' % seq) for seq in range(1, 3 * MAX_MESSAGES_PER_SEC + 1)]
    assert runner.receive(subscribe, b"".join(acks)) == ALL_READ
    assert runner.subscriber.acknowledged == 3 * MAX_MESSAGES_PER_SEC
    assert runner.receive(subscribe, acks[0] * MAX_MESSAGES_PER_SEC) == FLOOD


# --- what ends the connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [bytes(1), PING, masked(0x89, b"?")], ids=["half a frame", "a message", "a ping"])
def test_a_close_frame_of_the_client_after_the_servers_is_noticed(runner: HandlerRunner, first: bytes) -> None:
    assert runner.receive(b"") == ALL_READ
    close = masked(0x88, b"\x03\xe8bye")
    data = first + close if len(first) > 1 else close
    assert [runner.handler.is_close_frame(data[:-1]), runner.handler.is_close_frame(data[-1:])] == [False, True]


def test_after_an_invalid_frame_no_bytes_count_as_a_close_frame(runner: HandlerRunner) -> None:
    assert runner.receive(masked(0x83)) == (1002, "Invalid opcode 0x3")
    assert not runner.handler.is_close_frame(masked(0x88))


def test_invalid_bytes_of_a_client_are_not_buffered(runner: HandlerRunner) -> None:
    assert runner.receive(b"GET / HTTP/1.1\r\n\r\n") == (1002, "Invalid opcode 0x7")
    tracemalloc.start()
    for _ in range(100):
        assert not runner.handler.is_close_frame(bytes(16_384))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000


def test_a_close_frame_of_the_client_gets_one_close_frame(runner: HandlerRunner, peer: Peer) -> None:
    assert runner.receive(PING + masked(0x88, b"\x03\xe8bye")) is None
    assert [peer.take_frame() for _ in range(2)] == [(1, b'{"type":"pong"}'), (8, b"\x03\xe8bye")]


def test_a_client_is_pinged_every_25_seconds(runner: HandlerRunner, peer: Peer) -> None:
    runner.secs_a_wait = 12.5
    for _ in range(3):
        assert runner.receive(PING) == ALL_READ
    assert runner.timeouts == [25, 12.5] * 3, "the thread waits no longer than until the next ping"
    pong = (1, b'{"type":"pong"}')
    assert [peer.take_frame() for _ in range(5)] == [pong, (9, b""), pong, (9, b""), pong]


@pytest.fixture
def flask_app(database: Database) -> Iterator[Flask]:
    app = create_app(Settings())
    services = app.extensions["outfeed"]
    services.relay.start()
    yield app
    services.mark.close()


@contextlib.contextmanager
def serving(app: Flask, database: Database, peer: Peer, **environ: Any) -> Iterator[None]:
    """Serve *peer*'s handshake on another thread until the block ends."""
    handshake = {**HANDSHAKE, "HTTP_AUTHORIZATION": f"Bearer {account.create_token(database, 'reader', ['read'])}"}
    base = {**handshake, SOCKET_KEY: peer.server_end, **environ}

    def serve() -> None:
        with contextlib.suppress(StopIteration):
            app.test_client().get("/ws", base_url="ws://localhost", environ_overrides=base)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    peer.socket.close()
    thread.join()


def head_of(peer: Peer) -> bytes:
    """Return the response to the handshake."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += peer.socket.recv(1)
    return received


def test_an_error_in_the_handler_closes_the_connection_with_1011(
    flask_app: Flask, database: Database, peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Flask would write a page with status 500 into the WebSocket."""

    def fail(*_: Any) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Subscriber, "subscribe", fail)
    monkeypatch.setattr(connection, "CLOSE_SECS", 0.0)
    with serving(flask_app, database, peer):
        assert head_of(peer).startswith(b"HTTP/1.1 101 ")
        peer.socket.sendall(masked(0x81, b'{"action":"subscribe","channel":"events"}'))
        assert peer.take_frame() == (8, struct.pack("!H", 1011) + b"internal server error")
        assert peer.socket.recv(1) == b""
    assert "unforeseen" in caplog.text
    assert flask_app.extensions["outfeed"].hub.clients() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_SEC_WEBSOCKET_PROTOCOL": "\xe9"},
        {"HTTP_USER_AGENT": "a\x0bb"},
        {"HTTP_CONNECTION": "Upgrade, \xe9"},
        {"HTTP_TRANSFER_ENCODING": "gzip"},
    ],
)
def test_a_header_that_the_library_would_reject_has_no_effect(
    flask_app: Flask, database: Database, peer: Peer, headers: dict[str, str]
) -> None:
    with serving(flask_app, database, peer, **headers):
        head = head_of(peer)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert ACCEPT in head


def test_no_compression_is_agreed_on(flask_app: Flask, database: Database, peer: Peer) -> None:
    with serving(flask_app, database, peer, HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate"):
        head = head_of(peer)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in head.lower()


def test_the_server_does_not_wait_for_a_client_that_closes(
    flask_app: Flask, database: Database, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLOSE_SECS", 60.0)
    with serving(flask_app, database, peer):
        head_of(peer)
        peer.socket.sendall(masked(0x88, b"\x03\xe8"))
        assert peer.take_frame() == (8, b"\x03\xe8")
        assert peer.socket.recv(1) == b""


def test_the_state_of_the_handshake_is_freed(flask_app: Flask, database: Database, peer: Peer) -> None:
    def handshakes() -> int:
        gc.collect()
        return sum(isinstance(each, H11Handshake) for each in gc.get_objects())

    before = handshakes()
    with serving(flask_app, database, peer):
        head_of(peer)
        peer.socket.sendall(PING)
        peer.take_frame()
        assert handshakes() == before


def test_one_wake_ends_one_wait(peer: Peer) -> None:
    waker = Waker(peer.writer)
    waker.wake()
    assert not waker.wait(None)
    began = time.monotonic()
    assert not waker.wait(0.05)
    assert time.monotonic() - began >= 0.05
    waker.close()


def test_no_header_of_the_request_is_kept_while_a_client_is_connected(
    flask_app: Flask, database: Database, peer: Peer
) -> None:
    requests: list[dict[str, Any]] = []
    flask_app.before_request(lambda: requests.append(vars(request)))
    with serving(flask_app, database, peer, HTTP_COOKIE="a=b"):
        head_of(peer)
        peer.socket.sendall(PING)
        peer.take_frame()
        [found] = requests
        assert set(found["environ"]) == {SOCKET_KEY, "REQUEST_METHOD", "PATH_INFO", "REMOTE_ADDR"}
        assert not {"args", "authorization", "cookies"} & found.keys()


def test_a_connected_client_has_one_thread(flask_app: Flask, database: Database, peer: Peer) -> None:
    before = threading.active_count()
    with serving(flask_app, database, peer):
        head_of(peer)
        peer.socket.sendall(PING)
        assert peer.take_frame() == (1, b'{"type":"pong"}')
        assert threading.active_count() == before + 1


def test_no_bytes_follow_the_close_frame_for_an_invalid_frame(
    flask_app: Flask, database: Database, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLOSE_SECS", 0.0)
    with serving(flask_app, database, peer):
        head_of(peer)
        peer.socket.sendall(masked(0x83) + PING)
        assert peer.take_frame() == (8, struct.pack("!H", 1002) + b"Invalid opcode 0x3")
        with contextlib.suppress(ConnectionResetError):
            assert peer.socket.recv(1) == b""


def test_the_request_has_its_own_environ_again_when_it_ends(flask_app: Flask, database: Database, peer: Peer) -> None:
    """Flask breaks a reference cycle in it.

    Otherwise the cycle would hold the request's memory until a collection.
    """
    sockets: list[Any] = []
    flask_app.teardown_request(lambda _: sockets.append(request.environ[SOCKET_KEY]))
    with serving(flask_app, database, peer):
        head_of(peer)
    assert sockets == [peer.server_end]
