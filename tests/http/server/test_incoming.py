"""Incoming: connections that the main loop closes, and kept responses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager

import pytest
from gunicorn.config import Config

from outfeed.http.server import incoming
from outfeed.http.server.incoming import MAX_WAITING_THREADS, ClientSocket, Connection, Incomplete, free_request

LATER = 1e9


@contextmanager
def connected() -> Iterator[tuple[ClientSocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        accepted, _ = listener.accept()
        with ClientSocket(accepted) as client:
            yield client, peer


@pytest.fixture
def pair() -> Iterator[tuple[ClientSocket, socket.socket]]:
    with connected() as both:
        yield both


@pytest.fixture
def connect() -> Iterator[object]:
    opened: list[socket.socket] = []

    def connect(address: str, data: bytes = b"") -> Connection:
        ours, theirs = socket.socketpair()
        opened.append(theirs)
        connection = Connection(Config(), ours, (address, 1), ("", 0), 10_000)
        opened.append(ours)
        connection.assembly.feed(data)
        return connection

    yield connect
    for each in opened:
        each.close()


class TestIncomplete:
    def test_the_oldest_connection_of_an_address_is_closed_for_its_newest(self, connect):
        incomplete = Incomplete(10, 2, 1000, lambda _: False)
        first, second, third = (connect("192.0.2.1") for _ in range(3))
        neighbour = connect("192.0.2.2")
        assert [incomplete.put(each, LATER) for each in (neighbour, first, second)] == [[], [], []]
        assert incomplete.put(third, LATER) == [first]

    def test_one_ipv6_network_is_one_address(self, connect):
        incomplete = Incomplete(10, 1, 1000, lambda _: False)
        first, second = connect("2001:db8::1"), connect("2001:db8::2")
        assert incomplete.put(first, LATER) == []
        assert incomplete.put(second, LATER) == [first]

    def test_a_trusted_proxy_has_only_the_total_limit(self, connect):
        incomplete = Incomplete(3, 1, 1000, lambda address: address == "10.0.0.1")
        first, *others = (connect("10.0.0.1") for _ in range(4))
        assert [incomplete.put(each, LATER) for each in (first, *others)] == [[], [], [], [first]]

    def test_beyond_the_total_limit_the_address_with_most_connections_loses_one(self, connect):
        incomplete = Incomplete(3, 3, 1000, lambda _: False)
        alone = connect("192.0.2.1")
        many = [connect("192.0.2.2") for _ in range(2)]
        for each in (alone, *many):
            incomplete.put(each, LATER)
        assert incomplete.put(connect("192.0.2.3"), LATER) == [many[0]]

    def test_beyond_the_limit_of_bytes_the_oldest_large_connection_is_closed(self, connect):
        incomplete = Incomplete(9, 9, 1000, lambda _: False)
        silent, heavy, heavier = connect("192.0.2.1"), connect("192.0.2.2", b"x" * 600), connect("192.0.2.3")
        assert [incomplete.put(each, LATER) for each in (silent, heavy, heavier)] == [[], [], []]
        heavier.assembly.feed(b"x" * 600)
        assert incomplete.put(heavier, LATER) == [heavy]
        incomplete.remove(heavy)
        assert incomplete.put(heavier, LATER) == []

    def test_a_connection_is_overdue_after_its_deadline(self, connect):
        incomplete = Incomplete(9, 9, 1000, lambda _: False)
        soon, later = connect("192.0.2.1"), connect("192.0.2.1")
        incomplete.put(soon, 5.0)
        incomplete.put(later, 6.0)
        assert incomplete.overdue(5.0) == [soon]

    def test_shortened_deadlines_end_silent_connections_at_once(self, connect):
        incomplete = Incomplete(9, 9, 1000, lambda _: False)
        silent, half = connect("192.0.2.1"), connect("192.0.2.1", b"GET")
        half.began = 1.0
        incomplete.put(silent, LATER)
        incomplete.put(half, LATER)
        incomplete.shorten_deadlines(2.0)
        assert (incomplete.overdue(1.0), incomplete.overdue(2.0)) == ([silent], [silent, half])


class TestClientSocket:
    def test_a_short_response_waits_for_no_reader(self, pair):
        client, peer = pair
        answer = bytes(range(256)) * 512
        for _ in range(2):
            client.sendall(answer)
        received = b""
        while len(received) < 2 * len(answer):
            client.flush()
            received += peer.recv(1 << 20)
        assert received == 2 * answer
        assert client.flush()

    def test_an_unread_response_is_given_up(self, pair, monkeypatch):
        client, _ = pair
        monkeypatch.setattr(incoming, "UNREAD_SECS", 0.05)
        with pytest.raises(BrokenPipeError, match="no byte"):
            client.sendall(bytes(32 * 2**20))
        assert client.flush(), "nothing is left for the main loop to wait with"

    def test_the_number_of_waiting_threads_is_limited(self):
        with ExitStack() as stack, ThreadPoolExecutor(MAX_WAITING_THREADS + 1) as pool:
            pairs = [stack.enter_context(connected()) for _ in range(MAX_WAITING_THREADS + 1)]
            sending = [pool.submit(client.sendall, bytes(8 * 2**20)) for client, _ in pairs]
            refused, waiting = wait(sending, return_when=FIRST_COMPLETED)
            for _, peer in pairs:
                peer.close()
        assert [str(each.exception()) for each in refused] == ["[Errno 32] 8 threads wait for clients that do not read"]
        assert len(waiting) == MAX_WAITING_THREADS

    def test_a_long_response_reaches_a_slow_reader_completely(self, pair):
        client, peer = pair
        answer = bytes(range(256)) * 2**17
        received = bytearray()

        def read() -> None:
            while len(received) < len(answer):
                received.extend(peer.recv(1 << 16))

        reader = incoming.threading.Thread(target=read)
        reader.start()
        client.sendall(answer)
        while not client.flush():
            pass
        reader.join()
        assert bytes(received) == answer


def test_the_header_of_a_request_is_freed_when_its_connection_stays_open(pair):
    client, _ = pair
    connection = Connection(Config(), client, ("192.0.2.1", 1), ("", 0), 10_000)
    connection.assembly.feed(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.assembly.advance()
    connection.request = connection.assembly.take()
    request = next(connection)
    environ = {"gunicorn.socket": client, "HTTP_HOST": "x", "PATH_INFO": "/ws"}

    free_request(environ, ("gunicorn.socket", "PATH_INFO", "REMOTE_ADDR"))

    assert (request.path, request.headers, request.unreader) == ("/ws", [], None)
    assert environ == {"gunicorn.socket": client, "PATH_INFO": "/ws"}
