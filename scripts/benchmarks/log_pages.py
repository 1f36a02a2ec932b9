"""The log's page on a large database: `scripts/bench log [options]`.

It fills a database by SQL, indexes it, and asks for the page of each case in this process. So the figures are those of
the server alone, from the request to the complete answer.
"""

from __future__ import annotations

import gc
import os
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import click
from flask.testing import FlaskClient

from outfeed import config
from outfeed.access.store import account
from outfeed.http.app import create_app
from outfeed.log.store.indexer import Indexer
from outfeed.store import database as db
from outfeed.store import migrate

# An event each 0.7 s until now. Every type, source and agent is frequent, except for the rare ones in CASES.
FILL = """
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :events)
    INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp)
    SELECT
        printf('event-%08d', n),
        CASE WHEN n = 1500 THEN 'backup.failed' WHEN n % 100000 = 77 THEN 'deploy.failed'
            WHEN n % 20 = 0 THEN 'task.completed' WHEN n % 7 = 0 THEN 'payment.succeeded'
            WHEN n % 3 = 0 THEN 'tool.called' ELSE 'page.viewed' END,
        CASE n % 11 WHEN 0 THEN 'ci' WHEN 1 THEN 'billing' WHEN 2 THEN 'coordinator' ELSE 'web' END,
        CASE WHEN n % 4 = 0 THEN 'task-' || (n / 40) END,
        CASE WHEN n % 4 = 0 THEN 'agent-' || (n % 40) END,
        json_object('n', n, 'path', '/items/' || (n % 977), 'status', CASE WHEN n % 50 = 0 THEN 500 ELSE 200 END,
            'message', 'request served in ' || (n % 311) || ' ms'
                || CASE WHEN n % 200000 = 5 THEN ' out of memory' ELSE '' END,
            'user', json_object('name', 'user' || (n % 5000))),
        strftime('%Y-%m-%dT%H:%M:%fZ', unixepoch() - (:events - n) * 0.7, 'unixepoch')
    FROM n
"""
CASES = {
    "everything": "",
    "one frequent type": "type:page.viewed",
    "one agent in forty": "agent:agent-4",
    "no match: two frequent values": "source:ci type:deploy.failed data.n:1",
    "no match: unknown type": "type:no.such",
    "a rare type": "type:deploy.failed",
    "the oldest event": "type:backup.failed",
    "a frequent word": "request",
    "a frequent prefix": "user1*",
    "a rare phrase": '"out of memory"',
    "an unknown word": "nosuchword",
    "not a word of every event": "-request",
    "nearly all types excluded": "-type:page.viewed -type:tool.* -type:payment.* -type:task.*",
    "all sources excluded": "-source:web -source:ci -source:billing -source:coordinator",
    "all agents excluded": " ".join(f"-agent:agent-{number}" for number in range(0, 40, 4)),
    "a value in the data": "data.status:500",
    "a rare value in the data": "data.n:1234567",
    "all values in the data excluded": "-data.status:200 -data.status:500",
    "the last 15 minutes": "since:15m",
    "a frequent word in the last 7 days": "request since:7d",
}


class Figure(NamedTuple):
    """The median times of one case in milliseconds, and its count."""

    wall_ms: float
    cpu_ms: float
    count: str


@contextmanager
def filled(events: int) -> Iterator[Path]:
    """Provide a database with *events* and its search index."""
    with tempfile.TemporaryDirectory(prefix="outfeed-bench-") as folder:
        path = Path(folder) / "outfeed.db"
        os.environ["OUTFEED_DATABASE"] = str(path)
        migrate.upgrade(path)
        with closing(sqlite3.connect(path)) as raw, raw:
            raw.execute("PRAGMA synchronous = OFF")
            _fill_without_triggers(raw, events)
        Indexer(db.at(path), pause_factor=0).run()
        yield path


def _fill_without_triggers(raw: sqlite3.Connection, events: int) -> None:
    """Insert rows that the outbox has pruned.

    With triggers and indexes it would take ten times as long.
    """
    sql = "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = 'event_log' AND type <> 'table' AND sql NOT NULL"
    found = raw.execute(sql).fetchall()
    for kind, name, _ in found:
        raw.execute(f"DROP {kind} {name}")
    raw.execute(FILL, {"events": events})
    for _, _, text in found:
        raw.execute(text)


def measured(client: FlaskClient, token: str, query: str, rounds: int) -> Figure:
    """Return the figures of one query."""
    wall, cpu, text = list[float](), list[float](), ""
    for _ in range(rounds):
        began, used = time.perf_counter(), time.thread_time()
        answer = client.get("/swarm/events", query_string={"q": query}, headers={"Authorization": f"Bearer {token}"})
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.thread_time() - used))
        text = answer.text
    [count] = re.findall("<strong>(.*?) events?(?: so far)?</strong>", text)
    return Figure(statistics.median(wall), statistics.median(cpu), count)


@click.command(epilog="Example: scripts/bench log --events 3000000")
@click.option("--events", type=click.IntRange(1, 5_000_000), default=3_000_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=9, show_default=True)
@click.option("--limit-ms", type=float, default=50, show_default=True, help="CPU time that no case may exceed.")
def main(events: int, rounds: int, limit_ms: float) -> None:
    """Measure the log's page for each kind of query."""
    with filled(events) as path:
        client = create_app(config.load()).test_client()
        token = account.create_token(db.at(path), "bench", ["read"])
        measured(client, token, "", 2)  # loads templates
        gc.freeze()  # as `outfeed serve` does
        figures = {name: measured(client, token, query, rounds) for name, query in CASES.items()}
    click.echo(f"| {events:,} events | matches | median ms | CPU ms |\n|---|---|---|---|")
    for name, each in figures.items():
        click.echo(f"| {name} | {each.count} | {each.wall_ms:.1f} | {each.cpu_ms:.1f} |")
    sys.exit(any(each.cpu_ms > limit_ms for each in figures.values()))


if __name__ == "__main__":
    main(prog_name="scripts/bench log")
