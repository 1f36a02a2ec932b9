"""Time writes to a table: unwatched, logged by hand, and watched.

Runs in the measured checkout's Python. Its argument is JSON: the path of an upgraded database, and the number of rows.
Prints JSON: CPU microseconds a row in bulk, wall-clock microseconds a commit, and ratios.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from outfeed.config import settings
from outfeed.store.database import Database
from outfeed.watch import definition
from outfeed.watch.store import schema, snapshot, watches

COMMITS = 300
COLUMNS = ("name", "quantity", "price", "note", "status", "created_at", "kind", "address", "flag")
TABLE = f"CREATE TABLE orders (id INTEGER PRIMARY KEY, {', '.join(COLUMNS)})"
INSERT = f"INSERT INTO orders VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
LOGGED = "SELECT id, event_type, source, task_id, agent_id, data, timestamp FROM event_log WHERE rowid > ?"
BY_HAND = "INSERT INTO event_log VALUES (?, ?, ?, ?, ?, ?, ?)"
VARIANTS = ("unwatched", "by hand", "watched")

# A program that logs its rows by hand writes the data as an object.
OBJECT = ", ".join(f"'{name}', {name}" for name in ("id", *COLUMNS))
COPY = f"""
    INSERT INTO event_log SELECT 'by-hand-' || id, 'orders.existing', 'orders', NULL, NULL,
        json_object('op', 'read', 'table', 'orders', 'key', json_object('id', id), 'row', json_object({OBJECT})),
        strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    FROM orders
"""
# Five columns with a TEXT key and a UNIQUE column: these need the longest triggers.
FIVE = "CREATE TABLE five (id TEXT PRIMARY KEY, status TEXT, amount INTEGER, email TEXT UNIQUE, note TEXT)"

Run = Callable[[sqlite3.Connection], object]


def rows(count: int) -> Iterator[tuple[object, ...]]:
    for number in range(1, count + 1):
        yield (
            number,
            f"name {number}",
            number * 7,
            number / 3,
            None,
            "open",
            "2026-01-01T00:00:00Z",
            5,
            "a street",
            "x",
        )


def operations(count: int) -> dict[str, Run]:
    """Return the writes in their order; each needs the rows of earlier ones."""
    return {
        "insert": lambda program: program.executemany(INSERT, rows(count)),
        "update": lambda program: program.execute("UPDATE orders SET status = 'paid', quantity = quantity + 1"),
        "no-op": lambda program: program.executemany(
            "UPDATE orders SET status = 'paid' WHERE id = ?", ((number,) for number in range(1, count + 1))
        ),
        "replace": lambda program: program.executemany(INSERT.replace("INSERT", "REPLACE"), rows(count)),
        "upsert": lambda program: program.executemany(
            f"{INSERT} ON CONFLICT DO UPDATE SET status = 'sent'", rows(count)
        ),
        "delete": lambda program: program.execute("DELETE FROM orders WHERE id > 0"),
    }


def dumped(event: tuple[Any, ...]) -> tuple[object, ...]:
    """Return the values of BY_HAND.

    A program that logs by hand has the data as an object.
    """
    return (*event[:5], json.dumps(event[5]), event[6])


def prepare(source: Path, variant: str) -> Path:
    path = source.with_name(f"{variant.replace(' ', '-')}.db")
    shutil.copy(source, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(TABLE)
        if variant == "watched":
            made = definition.from_values({"table": "orders"})
            watches.put(connection, made, made_by=watches.COMMAND, settings=settings())
    return path


def in_bulk(source: Path, count: int) -> dict[str, dict[str, float]]:
    """Return the CPU seconds of each operation in one transaction, by variant."""
    secs: dict[str, dict[str, float]] = {variant: {} for variant in VARIANTS}
    logged: dict[str, list[tuple[Any, ...]]] = {}
    for variant in ("watched", "by hand", "unwatched"):  # the first makes the events that the second writes
        with closing(sqlite3.connect(prepare(source, variant), isolation_level=None)) as program:
            for name, run in operations(count).items():
                (last,) = program.execute("SELECT coalesce(max(rowid), 0) FROM event_log").fetchone()
                began = time.process_time()
                program.execute("BEGIN")
                run(program)
                if variant == "by hand":
                    program.executemany(BY_HAND, map(dumped, logged[name]))
                program.execute("COMMIT")
                secs[variant][name] = time.process_time() - began
                if variant == "watched":
                    logged[name] = [
                        (*event[:5], json.loads(event[5]), event[6]) for event in program.execute(LOGGED, (last,))
                    ]
    return secs


def one_by_one(source: Path, count: int, synchronous: str) -> dict[str, float]:
    """Return the median seconds of a commit of one row, by variant."""
    secs = {}
    for variant in ("unwatched", "watched"):
        with closing(sqlite3.connect(prepare(source, variant), isolation_level=None)) as program:
            program.execute(f"PRAGMA synchronous = {synchronous}")
            taken = []
            for row in rows(min(count, COMMITS)):
                began = time.perf_counter()
                program.execute(INSERT, row)
                taken.append(time.perf_counter() - began)
            secs[variant] = statistics.median(taken)
    return secs


def unmatched(source: Path, count: int) -> dict[str, float]:
    """Return the CPU seconds of updates that match no rule, by variant."""
    secs = {}
    for variant in ("unwatched", "watched"):
        with closing(sqlite3.connect(prepare(source, variant), isolation_level=None)) as program:
            program.executemany(INSERT, rows(count))
            if variant == "watched":
                made = definition.from_values({"table": "orders", "only_changes": ["status"]})
                watches.put(program, made, made_by=watches.COMMAND, settings=settings())
            began = time.process_time()
            program.execute("BEGIN")
            for number in range(1, count + 1):
                program.execute("UPDATE orders SET quantity = quantity + 1 WHERE id = ?", (number,))
            program.execute("COMMIT")
            secs[variant] = time.process_time() - began
    return secs


def snapshot_secs(source: Path, count: int) -> dict[str, float]:
    """Return the seconds to log all rows by one statement and by a snapshot."""
    path = prepare(source, "watched")
    with closing(sqlite3.connect(path, isolation_level=None)) as program:
        program.execute("BEGIN")
        program.executemany(INSERT, rows(count))
        program.execute("COMMIT")
        began = time.perf_counter()
        program.execute(COPY)
        by_hand = time.perf_counter() - began
    database = Database(path)
    with closing(database):
        with database.transaction() as connection:
            snapshot.begin(connection, watches.find(connection, "orders"), schema.required(connection, "orders"))
        began = time.perf_counter()
        snapshot.run(database)
        return {"by hand": by_hand, "snapshot": time.perf_counter() - began}


def trigger_kb(source: Path) -> float:
    """Return the size of the triggers of a table of five columns, in KB."""
    with closing(sqlite3.connect(prepare(source, "unwatched"), isolation_level=None)) as program:
        program.execute(FIVE)
        made = definition.from_values({"table": "five"})
        number = watches.put(program, made, made_by=watches.COMMAND, settings=settings()).number
        return sum(map(len, watches.present_triggers(program, number).values())) / 1000


def measure(source: Path, count: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    bulk = in_bulk(source, count)
    for name in operations(0):
        figures |= {f"{name} {variant} us": bulk[variant][name] / count * 1e6 for variant in VARIANTS}
        base = "unwatched" if name == "no-op" else "by hand"
        figures[f"{name.replace('-', '')}_ratio"] = bulk["watched"][name] / bulk[base][name]
    for synchronous in ("FULL", "NORMAL"):
        commits = one_by_one(source, count, synchronous)
        figures |= {f"{synchronous} {variant} us": secs * 1e6 for variant, secs in commits.items()}
        figures[f"{synchronous.lower()}_ratio"] = commits["watched"] / commits["unwatched"]
    updates = unmatched(source, count)
    figures["unmatched_ratio"] = updates["watched"] / updates["unwatched"]
    secs = snapshot_secs(source, count)
    figures["snapshot_ratio"] = secs["by hand"] / secs["snapshot"]
    figures["trigger_kb"] = trigger_kb(source)
    return figures


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    print(json.dumps(measure(Path(order["path"]), order["rows"])))
