"""Limits on the real server: an address over a limit delays no other."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server import Server
from tests.waits import PATIENCE_SECS, shortest, wait_until

HEALTHY_SECS = 0.1


def connect(server: Server, address: str, token: str = "") -> tuple[socket.socket, bytes]:
    """Request a WebSocket from *address*, an address of this machine.

    Returns the open socket and the head of the answer.
    """
    sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECS, source_address=(address, 0))
    sock.sendall(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"X-Forwarded-For: 192.0.2.77\r\nAuthorization: Bearer {token or server.token}\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head and (chunk := sock.recv(4096)):
        head += chunk
    return sock, head


def status(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])


@contextlib.contextmanager
def probing(server: Server) -> Iterator[list[float]]:
    """Probe /healthz continuously from another address.

    Collects the duration of each answer in seconds.
    """
    took: list[float] = []
    is_over = threading.Event()

    def probe() -> None:
        while not is_over.is_set():
            began = time.monotonic()
            asked = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30, source_address=("127.0.0.9", 0))
            asked.request("GET", "/healthz")
            assert asked.getresponse().status == 200
            asked.close()
            took.append(time.monotonic() - began)
            is_over.wait(0.02)

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        yield took
    finally:
        is_over.set()
        prober.join()


def nine_in_ten(took: list[float]) -> float:
    """Return the 90th percentile of *took*: the machine may be busy otherwise.

    No answer may have waited for all others.
    """
    assert len(took) >= 20
    assert max(took) < PATIENCE_SECS / 3
    return statistics.quantiles(took, n=10)[-1]


def assert_healthy(took: list[float]) -> None:
    assert nine_in_ten(took) < HEALTHY_SECS, sorted(took)[-5:]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests. Each test has its own addresses."""
    limits = {"max_connections_per_ip": 20, "connection_attempts_per_minute": 100, "max_connections": 30}
    with Server(tmp_path_factory.mktemp("limits"), **limits) as running:
        yield running


def test_two_thousand_attempts_from_one_address_delay_no_other(limited: Server) -> None:
    rounds = itertools.count(1)

    def secs_beside_them() -> float:
        round_ = next(rounds)

        def attempt(_: int) -> bytes:
            sock, head = connect(limited, f"127.0.1.{round_}")
            sock.close()
            return head

        with probing(limited) as took, ThreadPoolExecutor(8) as pool:
            heads = list(pool.map(attempt, range(2000)))
            sock, neighbours = connect(limited, f"127.0.4.{round_}")
            sock.close()

        counts = Counter(map(status, heads))
        assert counts[429] >= 2000 - 2 * 100  # a minute may have ended in between
        assert all(b"Retry-After: " in head for head in heads if status(head) == 429)
        assert status(neighbours) == 101
        return nine_in_ten(took)

    assert shortest(secs_beside_them, HEALTHY_SECS) < HEALTHY_SECS


def test_connections_are_limited_per_address_and_server_but_not_for_health(limited: Server) -> None:
    wait_until(lambda: is_empty(limited), "all clients have left")
    with contextlib.ExitStack() as stack, probing(limited) as took:

        def answer_to(address: str) -> bytes:
            sock, head = connect(limited, address)
            stack.callback(sock.close)
            return head

        def enter(address: str) -> None:
            wait_until(lambda: status(answer_to(address)) == 101, "the clients of the earlier check have left")

        for _ in range(20):
            enter("127.0.2.1")
        one_too_many = answer_to("127.0.2.1")
        for _ in range(10):
            enter("127.0.2.2")
        full = answer_to("127.0.2.3")
        wait_until(lambda: len(took) > 40, "some answers")

    assert (status(one_too_many), status(full)) == (429, 503)
    assert b"Retry-After: 5" in one_too_many
    assert b"Retry-After: 5" in full
    assert_healthy(took)
    wait_until(lambda: has_all_places(limited), "the places are free again")


def is_empty(server: Server) -> bool:
    """Return whether no client is connected."""
    return not any(server.counted("outfeed_clients").values())


def has_all_places(server: Server) -> bool:
    """Return whether the maximum of thirty connections can be open at once."""
    wait_until(lambda: is_empty(server), "all clients have left")
    addresses = [f"127.1.{next(_numbers)}.1" for _ in range(2)]
    with contextlib.ExitStack() as stack:
        answers = []
        for number in range(30):
            sock, head = connect(server, addresses[number % 2])
            stack.callback(sock.close)
            answers.append(status(head))
    return answers == [101] * 30


_numbers = itertools.count(1)


def test_fifty_idle_sockets_delay_no_request(limited: Server) -> None:
    with contextlib.ExitStack() as stack, probing(limited) as took:
        for _ in range(50):
            sock, head = connect(limited, "127.0.3.1", token="outfeed_nobody")
            stack.callback(sock.close)
            assert status(head) == 401
        wait_until(lambda: len(took) > 40, "some answers")

    assert_healthy(took)
