"""Activity: the last hour's events a minute, read once where they are settled, by the index on the time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from outfeed import clock
from outfeed.log.store import activity
from outfeed.log.store.activity import MINUTES, ActivityLog
from outfeed.store.database import Database

NOW = datetime(2026, 1, 31, 12, 30, 20, tzinfo=UTC)


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def write(raw: sqlite3.Connection, *ages: timedelta, event_type: str = "task.created") -> None:
    raw.executemany(
        "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (lower(hex(randomblob(8))), ?, 's', ?)",
        [(event_type, clock.isoformat(NOW - age)) for age in ages],
    )


def counts(log: ActivityLog) -> dict[int, dict[str, int]]:
    """Return what each minute has that has anything, by how many minutes ago it is."""
    minutes = log.read().minutes
    return {MINUTES - 1 - index: dict(minute) for index, minute in enumerate(minutes) if minute}


@freeze_time(NOW)
def test_it_counts_the_last_hour_by_minute_and_type(database: Database, raw: sqlite3.Connection) -> None:
    minute = timedelta(minutes=1)
    write(raw, timedelta(), timedelta(seconds=20), timedelta(seconds=21), 59 * minute, 60 * minute, -minute)
    write(raw, timedelta(seconds=19), event_type="system.error")
    raw.execute("INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('odd', x'00', 's', 'yesterday')")
    found = ActivityLog(database).read()
    assert (found.begin, len(found.minutes)) == (datetime(2026, 1, 31, 11, 31, tzinfo=UTC), MINUTES)
    assert found.seq == 8
    assert counts(ActivityLog(database)) == {
        0: {"task.created": 2, "system.error": 1},
        1: {"task.created": 1},
        59: {"task.created": 1},
    }


def test_what_is_settled_is_not_read_again(database: Database, raw: sqlite3.Connection) -> None:
    log = ActivityLog(database)
    with freeze_time(NOW) as frozen:
        write(raw, timedelta(minutes=30), timedelta(minutes=1), timedelta())
        assert counts(log) == {30: {"task.created": 1}, 1: {"task.created": 1}, 0: {"task.created": 1}}
        raw.execute("DELETE FROM event_log")
        assert counts(log) == {30: {"task.created": 1}}
        frozen.tick(timedelta(minutes=29))
        assert counts(log) == {59: {"task.created": 1}}
        frozen.tick(timedelta(minutes=1))
        assert counts(log) == {}


@freeze_time(NOW)
def test_another_history_is_read_anew(database: Database, raw: sqlite3.Connection) -> None:
    log = ActivityLog(database)
    write(raw, timedelta(minutes=30))
    assert counts(log) == {30: {"task.created": 1}}
    raw.execute("DELETE FROM event_log")
    raw.execute("UPDATE outfeed_meta SET value = 'another' WHERE key = 'epoch'")
    assert (counts(log), log.read().epoch) == ({}, "another")


def test_the_query_looks_at_the_last_hour_alone(raw: sqlite3.Connection) -> None:
    plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {activity.QUERY}", ("a", "b"))]
    assert plan[0] == "SEARCH event_log USING INDEX event_log_timestamp (timestamp>? AND timestamp<?)"
    assert not any("SCAN" in step for step in plan)
