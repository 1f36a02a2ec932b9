"""Slow clients on the real server: each costs a connection but no thread."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outfeed.http.assets import PACKAGE
from scripts.soaks.stage import fill
from tests.costly_clients import KINDS, CostlyClients, secs_to_live, sockets_of
from tests.journeys.test_failures import FaultyServer
from tests.journeys.test_limits import HEALTHY_SECS, connect, probing, status
from tests.server import Server
from tests.waits import PATIENCE_SECS, shortest, wait_until

LIVE_SECS = 1.0
PLACES = 10  # for incomplete requests of one address
EXPORTS = 4  # of one address, at once
MAX_BODY_BYTES = 8 * 2**20
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: feed\r\n\r\n"
EVENT = json.dumps({"event_type": "a.b", "source": "s"}).encode()


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """A server with few connections and a fifth of the time for slow clients.

    Each test has its own addresses.
    """
    folder = tmp_path_factory.mktemp("hasty")
    server = FaultyServer(folder, max_connections=20, max_incomplete_per_ip=PLACES)
    server.ailments.write_text("hasty patience=5")
    with server:
        fill(server.database, 50_000)
        yield server


@contextlib.contextmanager
def client(server: Server, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECS, source_address=(address, 0)) as sock:
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """Return all bytes until the server closes; none after a reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(1 << 16):
            received += chunk
    return received


def read_answers(sock: socket.socket, count: int) -> bytes:
    received = b""
    while received.count(b'{"status":"alive"}') < count:
        chunk = sock.recv(1 << 16)
        assert chunk, received
        received += chunk
    return received


def post(server: Server, *headers: str) -> bytes:
    lines = ["POST /api/events HTTP/1.1", "Host: feed", f"Authorization: Bearer {server.token}"]
    return "\r\n".join([*lines, "Content-Type: application/json", *headers, "", ""]).encode()


# --- costly clients ---------------------------------------------------------------------------------------------------


def test_costly_clients_of_every_kind_delay_no_other_and_are_closed_in_time(impatient: Server) -> None:
    """Without limits, each kind takes all 52 threads with its 200 sockets."""
    assert impatient.token
    before = sockets_of(impatient)

    def secs_beside_them() -> float:
        with CostlyClients(impatient, 40):
            wait_until(
                lambda: sockets_of(impatient) <= before + PLACES + EXPORTS, "the sockets over the limit are closed"
            )
            live = shortest(lambda: secs_to_live(impatient), LIVE_SECS)
            assert live < LIVE_SECS
            with probing(impatient) as took:
                wait_until(lambda: len(took) > 40, "some answers")
                wait_until(lambda: sockets_of(impatient) <= before + 2, "the costly clients are gone", timeout=8)
        return max(took)

    assert shortest(secs_beside_them, HEALTHY_SECS) < HEALTHY_SECS


@pytest.mark.parametrize("kind", KINDS)
def test_costly_clients_of_one_kind_hold_no_thread(impatient: Server, kind: str) -> None:
    before = sockets_of(impatient)
    with CostlyClients(impatient, 100, kinds=[kind]):
        wait_until(lambda: sockets_of(impatient) <= before + PLACES + EXPORTS, "the sockets over the limit are closed")
        assert shortest(lambda: secs_to_live(impatient), LIVE_SECS) < LIVE_SECS
    wait_until(lambda: sockets_of(impatient) <= before + 2, "all sockets are closed")


def test_only_the_oldest_incomplete_request_of_an_address_is_dropped(impatient: Server) -> None:
    with contextlib.ExitStack() as stack:
        oldest, *others = (stack.enter_context(client(impatient, "127.0.5.1")) for _ in range(PLACES))
        neighbour = stack.enter_context(client(impatient, "127.0.5.2"))
        for each in (oldest, *others, neighbour):
            each.sendall(HEALTH[:-1])
        viewer, head = connect(impatient, "127.0.5.1")
        viewer.close()
        assert status(head) == 101
        newest = stack.enter_context(client(impatient, "127.0.5.1"))
        newest.sendall(HEALTH[:-1])
        assert read_all(oldest) == b""
        for each in (*others, neighbour, newest):
            each.sendall(HEALTH[-1:])
            read_answers(each, 1)


def test_concurrent_exports_are_limited_per_address_and_server(impatient: Server) -> None:
    export = (
        b"GET /api/events/export HTTP/1.1\r\nHost: feed\r\nAuthorization: Bearer %b\r\n\r\n" % impatient.token.encode()
    )

    def request_export(address: str) -> int:
        sock = stack.enter_context(client(impatient, address))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(export)
        return status(sock.recv(100))

    with contextlib.ExitStack() as stack:
        assert [request_export("127.0.6.1") for _ in range(5)] == [200] * 4 + [429]
        assert [request_export("127.0.6.2") for _ in range(4)] == [200] * 4
        assert request_export("127.0.6.3") == 503
    with contextlib.ExitStack() as stack:
        wait_until(lambda: request_export("127.0.6.3") == 200, "the places are free again")


def test_a_client_that_does_not_read_gets_one_answer_at_a_time(impatient: Server) -> None:
    with CostlyClients(impatient, 1, "127.0.8.1", kinds=["many answers"]):
        for _ in range(50):
            with client(impatient) as sock:
                sock.sendall(HEALTH)
                read_answers(sock, 1)
        assert 0 < unsent_to(impatient, "127.0.8.1") < 2 * len((PACKAGE / "static" / "outfeed.css").read_bytes())


def unsent_to(server: Server, address: str) -> int:
    """Return the bytes that the kernel holds for clients with that address."""
    remote = socket.inet_aton(address)[::-1].hex().upper()
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = f":{server.port:04X}"
    return sum(int(row[4].split(":")[0], 16) for row in rows if row[1].endswith(local) and row[2].startswith(remote))


def test_health_does_not_wait_for_requests_that_wait_for_the_database(impatient: FaultyServer) -> None:
    request = post(impatient, f"Content-Length: {len(EVENT)}") + EVENT
    with contextlib.ExitStack() as stack:
        with impatient.locked():
            writers = [stack.enter_context(client(impatient, f"127.0.9.{number + 1}")) for number in range(30)]
            for each in writers:
                each.sendall(request)
            for _ in range(20):  # the first may be served before the writers' requests
                with client(impatient) as sock:
                    sock.sendall(HEALTH)
                    read_answers(sock, 1)
            assert not select.select(writers, [], [], 0)[0], "all wait for the lock or for other writers"
        answers = [each.recv(1 << 16) for each in writers]
    assert {status(answer) for answer in answers} == {201}


def test_a_slowly_sent_request_has_one_deadline(impatient: Server) -> None:
    with client(impatient, "127.0.7.1") as sock:
        began = time.monotonic()
        sock.sendall(post(impatient, "Content-Length: 1000"))
        sock.settimeout(0.1)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < PATIENCE_SECS:
                sock.sendall(b" ")
                with contextlib.suppress(TimeoutError):
                    assert sock.recv(100) == b""
                    break
    assert 1 < time.monotonic() - began < 6


# --- slow but valid clients -------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(impatient: Server) -> None:
    with client(impatient) as sock:
        sized = post(impatient, f"Content-Length: {len(EVENT)}") + EVENT
        sock.sendall(HEALTH + sized + HEALTH[:10])
        sock.sendall(HEALTH[10:])
        statuses = re.findall(rb"HTTP/1.1 (\d+)", read_answers(sock, 2))
        assert statuses == [b"200", b"201", b"200"]


def test_chunked_bodies_and_expect_continue_are_supported(impatient: Server) -> None:
    with client(impatient) as sock:
        sock.sendall(post(impatient, "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
        sock.sendall(b"0\r\n\r\n")
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 201 ")
    with client(impatient) as sock:
        sock.sendall(post(impatient, "Expect: 100-continue", f"Content-Length: {len(EVENT)}"))
        assert sock.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(EVENT)
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize("headers", [f"Content-Length: {MAX_BODY_BYTES + 1}", "Transfer-Encoding: chunked"])
def test_a_client_that_sends_too_much_before_it_reads_gets_its_413(impatient: Server, headers: str) -> None:
    chunk = b"%x\r\n" % (MAX_BODY_BYTES + 1) if "chunked" in headers else b""
    with client(impatient) as sock:
        sock.sendall(post(impatient, headers) + chunk + b" " * (MAX_BODY_BYTES + 1))
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close\r\n" in answer


def test_a_client_that_closes_its_write_side_gets_its_answer(impatient: Server) -> None:
    with client(impatient) as sock:
        sock.sendall(HEALTH)
        sock.shutdown(socket.SHUT_WR)
        assert b'{"status":"alive"}' in read_all(sock)


def test_a_stopping_server_does_not_wait_for_half_requests(tmp_path: Path) -> None:
    with Server(tmp_path) as server, contextlib.ExitStack() as stack:
        for beginning in (b"", HEALTH[:-1], post(server, "Content-Length: 10")):
            stack.enter_context(client(server)).sendall(beginning)
        assert server.stop() < 3.5
