"""The writer: its own process, one event after the other into one sink.

Started with an order as JSON; prints what it did as JSON. An event's `t_ns` is taken just before its INSERT (or its
sending). At a fixed rate, one that is written more than an interval late was born when it was due: a writer that its
server holds up doesn't hide the wait.
"""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
import statistics
import sys
import time
from contextlib import closing
from typing import Any, Protocol

from scripts.benchmarks import event

INSERT = (
    "INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp)"
    " VALUES (:id, :event_type, :source, :task_id, :agent_id, :data, :timestamp)"
)


class Sink(Protocol):
    """Where events go."""

    def put(self, row: dict[str, Any]) -> None:
        """Hand over one event; a durable sink returns after the commit."""

    def close(self) -> None:
        """Release what is open."""


class SqliteSink:
    """Rows in `event_log`, at `synchronous=FULL`, *commit_size* of them in a commit; knows nothing of the feed."""

    def __init__(self, path: str, commit_size: int) -> None:
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._commit_size = commit_size
        self._pending = 0

    def put(self, row: dict[str, Any]) -> None:
        """Insert, and commit where this row fills a commit."""
        if self._commit_size > 1 and not self._pending:
            self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(INSERT, row | {"data": json.dumps(row["data"])})
        self._pending += 1
        if self._pending == self._commit_size:
            self._commit()

    def close(self) -> None:
        """Commit what is pending."""
        self._commit()
        self._connection.close()

    def _commit(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
        self._pending = 0


class LineSink:
    """Lines of JSON down a Unix socket, unanswered."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def put(self, row: dict[str, Any]) -> None:
        """Send one line."""
        self._socket.sendall(json.dumps(row, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Close the socket; what was sent still arrives."""
        self._socket.close()


class HttpSink:
    """A POST an event, on one connection that is kept."""

    def __init__(self, address: str, path: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=60)
        self._path = path

    def put(self, row: dict[str, Any]) -> None:
        """Post, and wait for the answer."""
        body = json.dumps(row, separators=(",", ":")).encode()
        self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise OSError(f"POST {self._path} answered {response.status}: {answer[:200]!r}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


SINKS: dict[str, type[SqliteSink] | type[LineSink] | type[HttpSink]] = {
    "sqlite": SqliteSink,
    "line": LineSink,
    "http": HttpSink,
}


class TimedSink:
    """A sink that notes how long each event took it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.seconds: list[float] = []

    def put(self, row: dict[str, Any]) -> None:
        """Hand over one event."""
        began = time.perf_counter()
        self._sink.put(row)
        self.seconds.append(time.perf_counter() - began)


def write_paced(sink: TimedSink, numbers: range, per_second: float) -> None:
    """Write at a fixed rate; the schedule doesn't shift when one is late."""
    interval_ns = round(1e9 / per_second)
    start_ns = time.time_ns() + interval_ns
    for place, number in enumerate(numbers):
        due_ns = start_ns + place * interval_ns
        time.sleep(max(0, due_ns - time.time_ns()) / 1e9)
        now_ns = time.time_ns()
        sink.put(event.make(number, now_ns if now_ns - due_ns < interval_ns else due_ns))


def write_burst(sink: TimedSink, numbers: range) -> None:
    """Write as fast as the sink takes them."""
    for number in numbers:
        sink.put(event.make(number, time.time_ns()))


def write(order: dict[str, Any]) -> dict[str, float]:
    """Write what the order says; return the seconds it took in all, and the median of one event in milliseconds."""
    numbers = range(order["first"], order["first"] + order["events"])
    with closing(SINKS[order["sink"]](**order["arguments"])) as sink:
        timed, began = TimedSink(sink), time.perf_counter()
        if order["per_second"]:
            write_paced(timed, numbers, order["per_second"])
        else:
            write_burst(timed, numbers)
    return {"seconds": time.perf_counter() - began, "one_p50_ms": 1e3 * statistics.median(timed.seconds)}


def main() -> None:
    """Take the order from the command line: {"sink", "arguments", "first", "events", "per_second" (0: a burst)}."""
    print(json.dumps(write(json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
