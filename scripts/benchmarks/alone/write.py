"""Writing: `log_event` beside a bare INSERT, and producers over HTTP."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from scripts.benchmarks.alone.case import Alone, Figure
from scripts.benchmarks.cases import COMMIT_SIZE, Figures
from scripts.benchmarks.errors import SequenceError
from scripts.benchmarks.servers import HOST, Outfeed
from scripts.benchmarks.session import run
from scripts.benchmarks.stage import Stage

TIMEOUT_SECS = 300.0
# Posts of one event each: so many fewer events.
SINGLES = 20


def measure(stage: Stage, _: int) -> Figures:
    """First without a server, then with one; nobody watches."""
    return calls(stage) | posts(stage)


def calls(stage: Stage) -> Figures:
    """`log_event` and INSERT take turns in one process, each on its own connection, every event a commit."""
    maker = stage.outfeed(1)
    maker.upgrade()
    order = {"path": str(maker.database), "turns": stage.sizes.turns, "inserts": 100, "first": stage.round % 2}
    return run("calls", order, TIMEOUT_SECS)


def posts(stage: Stage) -> Figures:
    """Producers that post batches of 100, and single events: four, one alone, a hundred together."""
    events = stage.sizes.posted_events
    with stage.outfeed(1) as server:
        post(server, 1, COMMIT_SIZE, 10)
        four = post(server, 4, COMMIT_SIZE, events)
        batches = {n: post(server, n, COMMIT_SIZE, events) for n in stage.in_turn(1, 100)}
        singles = {n: post(server, n, 1, events // SINGLES) for n in stage.in_turn(1, 100)}
    return {
        "posted_per_s": four,
        "one_per_s": batches[1],
        "hundred_per_s": batches[100],
        "hundred_ratio": batches[100] / batches[1],
        "one_singles_per_s": singles[1],
        "hundred_singles_per_s": singles[100],
        "hundred_singles_ratio": singles[100] / singles[1],
    }


def post(server: Outfeed, producers: int, batch: int, events: int) -> float:
    """Have *producers* together post at least *events*, *batch* in a call; return events/s."""
    each = -(-events // (producers * batch))
    order = {"address": f"{HOST}:{server.port}", "token": server.token, "batch": batch, "producers": producers}
    before = count(server.database)
    answer: dict[str, Any] = run("producers", order | {"posts": each}, TIMEOUT_SECS)
    posted, stored = each * producers * batch, count(server.database) - before
    if stored != posted:
        raise SequenceError(f"{posted} events were posted and {stored} are in the outbox")
    return posted / float(answer["seconds"])


def count(database: Path) -> int:
    """Return how many events the outbox has."""
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])


WRITE = Alone(
    "write",
    (0,),
    measure,
    {
        "log_event_us": Figure("log_event, µs"),
        "insert_us": Figure("the bare INSERT, µs"),
        "log_event_ratio": Figure("log_event ÷ INSERT", "≤ 1.4"),
        "posted_per_s": Figure("POST of 100 events, 4 producers: events/s", "≥ 10,000"),
        "one_per_s": Figure("POST of 100 events, 1 producer: events/s"),
        "hundred_per_s": Figure("POST of 100 events, 100 producers: events/s"),
        "hundred_ratio": Figure("a hundred producers ÷ one", "≥ 1"),
        "one_singles_per_s": Figure("POST of one event, 1 producer: events/s"),
        "hundred_singles_per_s": Figure("POST of one event, 100 producers: events/s"),
        "hundred_singles_ratio": Figure("a hundred producers ÷ one", "≥ 1"),
    },
)
