"""Measure `log_event` beside a bare INSERT into the same table, in turns.

Prints the medians as JSON. It runs in the environment of the measured checkout, as a file, so it imports nothing of
this folder. Its order is {"path", "turns", "insert" (SQL), "row" (an event)}.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

EVENTS_A_TURN = 100


def measure(order: dict[str, Any]) -> dict[str, float]:
    """Return the medians over the turns.

    They are microseconds for one event, and the ratio of the two within a pair of turns.
    """
    os.environ["OUTFEED_DATABASE"] = order["path"]
    try:
        from outfeed import log_event
    except ImportError:  # an older checkout
        from app import log_event  # type: ignore[attr-defined, no-redef]
    row, turns = order["row"], []
    with closing(sqlite3.connect(order["path"], timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")

        def call() -> None:
            log_event(row["event_type"], row["source"], row["task_id"], row["agent_id"], row["data"])

        def insert() -> None:
            connection.execute(order["insert"], row | {"id": str(uuid.uuid4()), "data": json.dumps(row["data"])})

        for _ in range(order["turns"] + 1):
            turns.append((turn_us(call), turn_us(insert)))
    return summary(turns[1:])


def turn_us(write: Callable[[], None]) -> float:
    """Return the mean time of one write, in microseconds."""
    began = time.perf_counter()
    for _ in range(EVENTS_A_TURN):
        write()
    return 1e6 * (time.perf_counter() - began) / EVENTS_A_TURN


def summary(turns: list[tuple[float, float]]) -> dict[str, float]:
    """Return the median of each way, and the median ratio of adjacent turns."""
    figures = zip(*((call, insert, call / insert) for call, insert in turns), strict=True)
    return dict(zip(("log_event_us", "insert_us", "log_event_ratio"), map(statistics.median, figures), strict=True))


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
