"""The writer: a process that inserts events one after the other.

It reads an order as JSON and prints its durations as JSON. An event's `t_ns` is the time just before its INSERT. At a
fixed rate, an event that is written more than an interval late counts from its due time, so that the figures include
the time for which the server delayed the writer.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import time
from contextlib import closing
from importlib import import_module
from typing import Any, Protocol

from scripts.benchmarks import event

INSERT = (
    "INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp)"
    " VALUES (:id, :event_type, :source, :task_id, :agent_id, :data, :timestamp)"
)


class SqliteSink:
    """Rows in `event_log`, at `synchronous=FULL`, *commit_size* per commit.

    It does not use Outfeed's code.
    """

    def __init__(self, path: str, commit_size: int) -> None:
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._commit_size = commit_size
        self._pending = 0
        self.seconds: list[float] = []

    def put(self, row: dict[str, Any]) -> None:
        """Insert a row, commit if it fills a commit, and record the duration."""
        began = time.perf_counter()
        if self._commit_size > 1 and not self._pending:
            self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(INSERT, row | {"data": json.dumps(row["data"])})
        self._pending += 1
        if self._pending == self._commit_size:
            self._commit()
        self.seconds.append(time.perf_counter() - began)

    def close(self) -> None:
        """Commit the pending rows."""
        self._commit()
        self._connection.close()

    def _commit(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
        self._pending = 0


class Sink(Protocol):
    """Takes rows one after the other, and records the seconds of each."""

    seconds: list[float]

    def put(self, row: dict[str, Any]) -> None:
        """Write a row. Return when the server has acknowledged it."""

    def close(self) -> None:
        """Write what is pending."""


def open_sink(order: dict[str, Any]) -> Sink:
    """Return the sink of the order's *module*, by default Outfeed's."""
    if "module" not in order:
        return SqliteSink(order["path"], order["commit_size"])
    sink: Sink = import_module(f"scripts.benchmarks.{order['module']}").Sink(order)
    return sink


def write_paced(sink: Sink, numbers: range, per_second: float) -> None:
    """Write at a fixed rate. A late event does not shift the schedule."""
    interval_ns = round(1e9 / per_second)
    start_ns = time.time_ns() + interval_ns
    for place, number in enumerate(numbers):
        due_ns = start_ns + place * interval_ns
        time.sleep(max(0, due_ns - time.time_ns()) / 1e9)
        now_ns = time.time_ns()
        sink.put(event.make(number, now_ns if now_ns - due_ns < interval_ns else due_ns))


def write(order: dict[str, Any]) -> dict[str, float]:
    """Write the order's events. Return the seconds and the median ms."""
    numbers = range(order["first"], order["first"] + order["events"])
    with closing(open_sink(order)) as sink:
        began = time.perf_counter()
        if order["per_second"]:
            write_paced(sink, numbers, order["per_second"])
        else:
            for number in numbers:
                sink.put(event.make(number, time.time_ns()))
    return {"seconds": time.perf_counter() - began, "one_p50_ms": 1e3 * statistics.median(sink.seconds)}


if __name__ == "__main__":
    # The order: {"path" or that of a peer's "module", "commit_size", "first", "events", "per_second" (0: a burst)}.
    print(json.dumps(write(json.loads(sys.argv[1]))))
