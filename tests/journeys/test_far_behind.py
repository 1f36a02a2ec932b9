"""A client 100,000 events behind gets them all and delays no other client."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.clients import RawClient
from tests.journeys.test_stalled import rss_bytes, wait_for_events
from tests.server import Server, make_database
from tests.transports import Singles, Stream

BEHIND = 100_000
MAX_GROWTH_BYTES = 32 * 2**20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a long history from before its start."""
    folder = tmp_path_factory.mktemp("far_behind")
    server = Server(folder, heartbeat_secs=0.3)
    fill(server, BEHIND)
    with server:
        yield server


def fill(server: Server, rows: int) -> None:
    """Write that many rows for a server that is not started yet."""
    make_database(server.database)
    with contextlib.closing(sqlite3.connect(server.database)) as raw, raw:
        # Written to the outbox, which any table may fill: ten times as fast as by the log and its triggers.
        raw.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO outbox (event_id, payload, created_at) SELECT 'old-' || i, json_object('id', 'old-' || i,"
            " 'event_type', 'a.b', 'source', 's', 'timestamp', 't', 'data', ?), 't' FROM n",
            (rows, "x" * 80),
        )


def by_socket(**fields: Any) -> Callable[[Server], socket.socket]:
    def begin(server: Server) -> socket.socket:
        client = RawClient(server)
        client.subscribe(after=0, **fields)
        return client.socket

    return begin


def by_stream(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(
        f"GET /api/feed/stream?{urlencode({'after': 0, 'rate': 0})} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {server.token}\r\n\r\n".encode()
    )
    return connection


TRANSPORTS = {
    "one event a frame": (by_socket(), rb'"type":"event","seq":(\d+),'),
    "several events a frame": (by_socket(batch=True), rb'\{"seq":(\d+),'),
    "stream": (by_stream, rb"\nid: \w+:(\d+)\ndata: \{\"id"),
}


@pytest.mark.parametrize("way", TRANSPORTS)
def test_a_client_far_behind_gets_all_events_and_the_server_stays_small(shared: Server, way: str) -> None:
    follow_to(shared, BEHIND, way)


def follow_to(server: Server, until: int, way: str) -> None:
    """Read every event up to the seq *until* on one connection, in order.

    Checks the server's memory at the same time.
    """
    begin, pattern = TRANSPORTS[way]
    assert server.token
    before, seq, received = rss_bytes(server.workers()[0]), 0, b""
    with begin(server) as connection:
        while seq < until:
            assert select.select([connection], [], [], 15)[0], "no more events arrive"
            chunk = connection.recv(1 << 20)
            assert chunk, "disconnected"
            received += chunk
            end = 0
            for found in re.finditer(pattern, received):
                assert int(found[1]) == seq + 1
                seq, end = seq + 1, found.end()
            received = received[end:]
            grown = rss_bytes(server.workers()[0]) - before
            assert grown < MAX_GROWTH_BYTES, f"{grown / 2**20:.0f} MiB"


@contextlib.contextmanager
def resuming(server: Server) -> Iterator[list[int]]:
    """Have another process resume repeatedly from the beginning.

    Yields the number of events of each read.
    """
    script = (
        "import socket, sys\n"
        "port, token = int(sys.argv[1]), sys.argv[2]\n"
        "while True:\n"
        "    with socket.create_connection(('127.0.0.1', port)) as s:\n"
        "        s.sendall(f'GET /api/feed/stream?after=0&rate=0 HTTP/1.1\\r\\nHost: x\\r\\n'\n"
        "                  f'Authorization: Bearer {token}\\r\\n\\r\\n'.encode())\n"
        "        end = b''\n"
        f"        while b':{BEHIND}\\ndata' not in end:\n"
        "            chunk = s.recv(1 << 20)\n"
        "            print(chunk.count(b'data: '), flush=True)\n"
        "            end = end[-100:] + chunk\n"
    )
    counts: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", script, str(server.port), server.token], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        counts.append(int(process.stdout.readline()))
        rest = threading.Thread(target=lambda: counts.extend(map(int, process.stdout or ())))
        rest.start()
        yield counts
        process.kill()
        rest.join()


def test_live_clients_are_not_delayed(shared: Server) -> None:
    """Compares pairs, with and without a client that resumes all the time.

    That client shares two cores and the interpreter.
    """
    alone, beside = [], []
    with shared.connect() as reader:
        reader.subscribe()
        for round_ in range(3):
            alone.append(wait_for_events(shared, reader, f"alone-{round_}"))
            with resuming(shared) as counts:
                beside.append(wait_for_events(shared, reader, f"beside-{round_}"))
            assert sum(counts) > 0
    assert median(beside) < 4 * median(alone) + 0.05, (alone, beside)


@pytest.mark.parametrize("way", [Singles, Stream])
def test_a_filter_without_matches_reaches_the_head_soon_and_resumes_at_once(
    shared: Server, way: type[Singles | Stream]
) -> None:
    with contextlib.closing(sqlite3.connect(shared.database)) as raw:
        head = raw.execute("SELECT max(seq) FROM outbox").fetchone()[0]
    with way(shared, after=0, types="none.*") as client:
        client.follow(head)
        epoch, events = client.epoch, client.events
    assert events == []
    times = []
    for _ in range(5):
        began = time.monotonic()
        with way(shared, after=head, epoch=epoch, types="none.*") as client:
            assert client.verdict.kind == "resumed"
            client.follow(head)
        times.append(time.monotonic() - began)
    assert min(times) < 0.2, times
