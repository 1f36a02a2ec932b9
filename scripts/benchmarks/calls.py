"""`log_event` beside a bare INSERT into the same table, in turns; prints the means of both as JSON.

The order: {"path", "turns", "inserts" (in a turn), "first" (1: log_event has the first turn)}.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from scripts.benchmarks import event
from scripts.benchmarks.writer import INSERT


def measure(order: dict[str, Any]) -> dict[str, float]:
    """Return the medians over the turns: microseconds for one event, and their ratio within a pair of turns."""
    os.environ["OUTFEED_DATABASE"] = order["path"]
    from outfeed import log_event

    def call(row: dict[str, Any]) -> None:
        log_event(row["event_type"], row["source"], row["task_id"], row["agent_id"], row["data"])

    with closing(sqlite3.connect(order["path"], timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")

        def insert(row: dict[str, Any]) -> None:
            connection.execute(INSERT, row | {"data": json.dumps(row["data"])})

        names = ("log_event_us", "insert_us") if order["first"] else ("insert_us", "log_event_us")
        ways = {"log_event_us": call, "insert_us": insert}
        turns: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(order["turns"] + 1):
            for name in names:
                turns[name].append(turn_us(ways[name], 2 * turn * order["inserts"] + 1, order["inserts"]))
    return summary({name: means[1:] for name, means in turns.items()})


def turn_us(write: Callable[[dict[str, Any]], None], first: int, events: int) -> float:
    """Write *events* and return the mean of one, in microseconds."""
    rows = [event.make(number, time.time_ns()) for number in range(first, first + events)]
    began = time.perf_counter()
    for row in rows:
        write(row)
    return 1e6 * (time.perf_counter() - began) / events


def summary(turns: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each way, and that of the ratios of turns that followed each other."""
    calls, inserts = turns["log_event_us"], turns["insert_us"]
    ratios = [call / insert for call, insert in zip(calls, inserts, strict=True)]
    return {
        "log_event_us": statistics.median(calls),
        "insert_us": statistics.median(inserts),
        "log_event_ratio": statistics.median(ratios),
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
