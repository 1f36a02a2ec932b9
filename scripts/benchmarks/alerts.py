"""The rules of alerts: `scripts/bench alerts`.

One server gets the same load with all rules active and with all rules paused, in turns. The figure is the ratio of the
server's processor time in the two halves of a turn.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import click

from outfeed.alerts.rule import AlertRule, Condition
from outfeed.alerts.store import rules
from outfeed.alerts.trial import run as try_rule
from outfeed.store.database import Database
from scripts.benchmarks import process
from scripts.benchmarks.servers import THIS, Server, fill
from scripts.benchmarks.writer import INSERT

COMMIT_SIZE = 10
SETTLE_SECS = 2.5  # a change of the rules is seen after a second
KINDS, SOURCES, STATUSES = 40, 25, (200, 200, 200, 404, 500)
TEXT = "measured, not guessed"


def rule(number: int) -> AlertRule:
    """Return one of the rules: of all kinds, by type, source, task and data."""
    queries = (
        f"type:load.kind{number % KINDS}",
        f"type:load.* source:service-{number % SOURCES}",
        f"source:service-{number % SOURCES} data.status:500",
        f"type:load.kind{number % KINDS} -task:task-{number % 7}",
    )
    query = queries[number % len(queries)]
    conditions = (
        {"condition": Condition.ANY},
        {"condition": Condition.COUNT, "threshold": 20 + number, "window_secs": 60},
        {"condition": Condition.ABSENCE, "window_secs": 60},
    )
    return AlertRule(f"rule-{number}", query, pause_secs=60, **conditions[number % 3]).checked()  # type: ignore[arg-type]


def make_event(number: int) -> dict[str, object]:
    data = {"status": STATUSES[number % len(STATUSES)], "n": number, "text": TEXT}
    return {
        "id": f"{time.time_ns()}-{number}", "event_type": f"load.kind{number % KINDS}",
        "source": f"service-{number % SOURCES}", "task_id": f"task-{number % 11}", "agent_id": None,
        "data": json.dumps(data), "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
    }  # fmt: skip


def load(server: Server, per_second: int, seconds: float) -> float:
    """Write at a fixed rate; return the server's processor seconds."""
    before, begin = process.cpu_seconds(server.session), time.monotonic()
    with closing(sqlite3.connect(server.database, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        for number in range(0, round(per_second * seconds), COMMIT_SIZE):
            time.sleep(max(0.0, begin + number / per_second - time.monotonic()))
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, [make_event(number + place) for place in range(COMMIT_SIZE)])
            connection.execute("COMMIT")
    return process.cpu_seconds(server.session) - before


def set_paused(database: Database, count: int, *, is_paused: bool) -> None:
    for number in range(count):
        (rules.pause if is_paused else rules.resume)(database, rule(number).name, "bench")
    time.sleep(SETTLE_SECS)


def alerts_of(database: Database) -> int:
    """Return the number of alerts that all rules have raised."""
    return sum(each.raises for each in rules.list_alerts(database))


@click.command()
@click.option("--rules", "count", type=click.IntRange(1, 200), default=100, show_default=True)
@click.option("--per-second", type=click.IntRange(10, 5000), default=1000, show_default=True, help="Events.")
@click.option("--seconds", type=click.FloatRange(1, 60), default=8, show_default=True, help="Of each half of a turn.")
@click.option("--turns", type=click.IntRange(1, 20), default=5, show_default=True)
@click.option("--past", type=click.IntRange(0, 5_000_000), default=0, help="Also time a trial on that many events.")
def main(count: int, per_second: int, seconds: float, turns: int, past: int) -> None:
    """Measure the processor time of rules beside the same load without."""
    with tempfile.TemporaryDirectory(prefix="outfeed-bench-") as folder:
        with Server(THIS, Path(folder), 1) as server:
            database = Database(server.database)
            for number in range(count):
                rules.add(database, rule(number), "bench")
            load(server, per_second, 2)
            ratios = [turn(server, database, count, per_second, seconds, number % 2 == 1) for number in range(turns)]
            click.echo(f"{count} rules at {per_second:,} events/s: {alerts_of(database):,} alerts.")
            click.echo(
                f"Ratio of processor time: median {statistics.median(ratios):.2f}, {min(ratios):.2f}–{max(ratios):.2f}."
            )
            database.close()
        if past:
            time_trials(Path(folder), past)


def turn(server: Server, database: Database, count: int, per_second: int, seconds: float, begins_with: bool) -> float:
    """Load the server with and without rules; return the ratio."""
    used = {}
    for has_rules in (begins_with, not begins_with):
        set_paused(database, count, is_paused=not has_rules)
        used[has_rules] = load(server, per_second, seconds)
    cost = 1e6 / per_second / seconds
    click.echo(f"  without {used[False] * cost:.0f} µs an event, with {used[True] * cost:.0f} µs", err=True)
    return used[True] / used[False]


def time_trials(folder: Path, events: int) -> None:
    """Time a trial of each condition on a filled database."""
    server = Server(THIS, folder, 1, folder / "past.db")
    server.run("upgrade")
    fill(server.database, events)
    database = Database(server.database)
    for each in (
        AlertRule("none", "type:no.such"),
        AlertRule("data", "data.n:1000007"),
        AlertRule("all", "", Condition.COUNT, 1000, 60),
    ):
        began = time.monotonic()
        found = try_rule(database, each.checked())
        click.echo(f"Trial of {each.name} on {events:,} events: {time.monotonic() - began:.1f} s. {found}")
    database.close()


if __name__ == "__main__":
    main(prog_name="scripts/bench alerts")
