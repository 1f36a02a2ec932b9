"""The crowd: 1,000 clients that subscribe at once, 500 events behind.

100 events a second are written at the same time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sqlite3
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks import event, websocket
from scripts.benchmarks.client import Client, Target
from scripts.benchmarks.readers import Reader
from scripts.benchmarks.writer import SqliteSink
from scripts.soaks.stage import Mismatch
from tests.server import Server

CLIENTS = 1000
BEHIND = 500
PER_SECOND = 100
LIVE_WITHIN_SECS = 6.0
HEALTHY_MS = 100.0
# A client is live if it has the event that was the head this long ago.
NEARNESS_SECS = 0.25
GIVE_UP_SECS = 60.0
SUBSCRIBE = json.dumps({"action": "subscribe", "channel": "events", "after": 0, "rate": 0})
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Arrival:
    """The crowd's results: seconds until live, and the slowest /healthz."""

    live_secs: float
    slowest_health_ms: float


def arrive(server: Server) -> Arrival:
    """Connect the crowd to *server*, whose log is empty. Raises Mismatch.

    Every client's events are checked.
    """
    fill(server.database)
    clients = connect(server)
    try:
        with writing(server.database), probing(server.url) as prober:
            live_secs = watch(server, clients)
            output, _ = prober.communicate("", timeout=10)
    finally:
        for client in clients:
            client.sock.close()
    arrival = Arrival(live_secs, float(output))
    if arrival.live_secs > LIVE_WITHIN_SECS or arrival.slowest_health_ms > HEALTHY_MS:
        load = f"the machine's load average is {os.getloadavg()[0]:.1f}"
        raise Mismatch(f"promised are {LIVE_WITHIN_SECS:.0f} s and {HEALTHY_MS:.0f} ms, it took {arrival}; {load}")
    return arrival


def connect(server: Server) -> list[Client]:
    """Return clients after the handshake, without a subscription."""
    target = Target("127.0.0.1", server.port, "/ws", {"Authorization": f"Bearer {server.token}"}, SUBSCRIBE)
    clients = []
    for _ in range(CLIENTS):
        client = Client.dial(target)
        client.rest = websocket.read_upgrade(client.sock, client.accept)
        client.is_careful = False
        clients.append(client)
    return clients


def watch(server: Server, clients: list[Client]) -> float:
    """Subscribe all and read until all are live. Return the seconds."""
    reader = Reader(BEHIND + round(GIVE_UP_SECS) * PER_SECOND)
    by_descriptor = {client.sock.fileno(): client for client in clients}
    began = time.monotonic()
    with contextlib.closing(select.epoll()) as epoll, contextlib.closing(Head(server.database)) as head:
        for descriptor, client in by_descriptor.items():
            client.sock.sendall(websocket.masked(websocket.TEXT, SUBSCRIBE.encode()))
            epoll.register(descriptor, select.EPOLLIN)
        while min(client.seen for client in clients) < head.recent():
            if time.monotonic() - began > GIVE_UP_SECS:
                raise Mismatch(f"after {GIVE_UP_SECS:.0f} s not all of {CLIENTS} clients were live")
            for descriptor, _ in epoll.poll(0.02, CLIENTS):
                reader.read(by_descriptor[descriptor])
    return time.monotonic() - began


class Head:
    """The head of the log, now and NEARNESS_SECS ago."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database, isolation_level=None)
        self._seen: deque[tuple[float, int]] = deque()

    def recent(self) -> int:
        """Return the head of NEARNESS_SECS ago, or the first seen since.

        It is at least BEHIND.
        """
        now = time.monotonic()
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        self._seen.append((now, int(row[0])))
        while len(self._seen) > 1 and self._seen[1][0] <= now - NEARNESS_SECS:
            self._seen.popleft()
        return max(BEHIND, self._seen[0][1])

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def fill(database: Path) -> None:
    """Write the crowd's backlog in one commit."""
    with contextlib.closing(SqliteSink(str(database), BEHIND)) as sink:
        for number in range(1, BEHIND + 1):
            sink.put(event.make(number, time.time_ns()))


@contextlib.contextmanager
def writing(database: Path) -> Iterator[None]:
    """Have the bench's writer write events at a fixed rate until the end."""
    order = {
        "path": str(database),
        "commit_size": 1,
        "first": BEHIND + 1,
        "events": round(GIVE_UP_SECS) * PER_SECOND,
        "per_second": PER_SECOND,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks.writer", json.dumps(order)], cwd=_ROOT, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def probing(url: str) -> Iterator[subprocess.Popen[str]]:
    """Probe /healthz from another process.

    When its input ends, it prints the duration of the slowest response in ms.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.soaks.prober", url],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
