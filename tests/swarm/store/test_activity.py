"""Activity: the last hour's events per minute, by their own time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from outfeed import clock
from outfeed.log.store import log_page
from outfeed.log.store.log_page import LogFilter
from outfeed.log.store.reading import get_event_summary
from outfeed.principal import EVERYTHING
from outfeed.store import instants
from outfeed.store.database import Database
from outfeed.swarm.store import activity
from outfeed.swarm.store.activity import MINUTES, Activity, ActivityLog
from outfeed.upkeep.erasure import erase

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


def read(log: ActivityLog, database: Database) -> Activity:
    with database.snapshot() as connection:
        return log.read(connection)


def counts(log: ActivityLog, database: Database) -> dict[int, dict[str, int]]:
    """Return the counts of each minute with events, by its age in minutes."""
    minutes = read(log, database).minutes
    return {MINUTES - 1 - index: dict(minute) for index, minute in enumerate(minutes) if minute}


@freeze_time(NOW)
def test_a_type_of_bytes_is_counted_under_the_name_that_the_log_shows(
    database: Database, raw: sqlite3.Connection
) -> None:
    log = ActivityLog()
    raw.execute("INSERT INTO event_log VALUES ('odd', x'ff', 's', NULL, NULL, NULL, ?)", (clock.isoformat(NOW),))
    assert counts(log, database) == {0: {"FF": 1}}
    write(raw, timedelta(), event_type="FF")
    assert counts(log, database) == {0: {"FF": 2}}


@freeze_time(NOW)
def test_activity_counts_the_last_hour_by_minute_and_type(database: Database, raw: sqlite3.Connection) -> None:
    minute = timedelta(minutes=1)
    write(raw, timedelta(), timedelta(seconds=20), timedelta(seconds=21), 59 * minute, 60 * minute, -minute)
    write(raw, timedelta(seconds=19), event_type="system.error")
    raw.execute("INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('odd', x'00', 's', 'yesterday')")
    found = read(ActivityLog(), database)
    assert (found.begin, len(found.minutes)) == (datetime(2026, 1, 31, 11, 31, tzinfo=UTC), MINUTES)
    assert found.seq == 8
    assert counts(ActivityLog(), database) == {
        0: {"task.created": 2, "system.error": 1},
        1: {"task.created": 1},
        59: {"task.created": 1},
    }


def test_a_late_event_is_counted_at_its_own_time(database: Database, raw: sqlite3.Connection) -> None:
    log, minute = ActivityLog(), timedelta(minutes=1)
    with freeze_time(NOW) as frozen:
        write(raw, minute)
        assert counts(log, database) == {1: {"task.created": 1}}
        write(raw, 50 * minute, 30 * minute, minute, 61 * minute, -minute)
        assert counts(log, database) == {50: {"task.created": 1}, 30: {"task.created": 1}, 1: {"task.created": 2}}
        frozen.tick(minute)
        assert counts(log, database)[0] == {"task.created": 1}
        frozen.tick(10 * minute)
        assert counts(log, database) == {41: {"task.created": 1}, 12: {"task.created": 2}, 10: {"task.created": 1}}
        frozen.tick(-11 * minute)
        assert counts(log, database)[50] == {"task.created": 1}


@freeze_time(NOW)
def test_activity_summary_and_log_agree_about_late_events(database: Database, raw: sqlite3.Connection) -> None:
    log, minute = ActivityLog(), timedelta(minutes=1)
    write(raw, timedelta(), event_type="tool.called")
    read(log, database)
    write(raw, *[age * minute for age in range(10, 50)] * 80)
    found = sum(read(log, database).minutes, Counter())
    facets = log_page.count(database, LogFilter(EVERYTHING, since=clock.isoformat(NOW - 60 * minute)))
    assert found == get_event_summary(60, database) == facets.by_type == {"task.created": 3200, "tool.called": 1}


@freeze_time(NOW)
def test_many_new_events_cost_no_more_than_a_recount(
    database: Database, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "MAX_ADDED", 2)
    log = ActivityLog()
    read(log, database)
    write(raw, *[timedelta()] * 3)
    assert counts(log, database) == {0: {"task.created": 3}}


@freeze_time(NOW)
def test_pruned_and_erased_events_are_not_counted(database: Database, raw: sqlite3.Connection) -> None:
    log = ActivityLog()
    write(raw, timedelta(minutes=30), timedelta())
    assert counts(log, database) == {30: {"task.created": 1}, 0: {"task.created": 1}}
    (event_id,) = raw.execute("SELECT id FROM event_log ORDER BY rowid LIMIT 1").fetchone()
    assert erase(database, event_id)
    assert counts(log, database) == {0: {"task.created": 1}}
    raw.execute("DELETE FROM outbox")
    raw.execute("DELETE FROM event_log")
    write(raw, timedelta())
    raw.execute("DELETE FROM outbox")  # the outbox has no trace of the deleted rows
    assert counts(log, database) == {0: {"task.created": 1}}


@freeze_time(NOW)
def test_another_history_is_recounted(database: Database, raw: sqlite3.Connection) -> None:
    log = ActivityLog()
    write(raw, timedelta(minutes=30))
    assert counts(log, database) == {30: {"task.created": 1}}
    raw.execute("DELETE FROM event_log")
    raw.execute("UPDATE outfeed_meta SET value = 'another' WHERE key = 'epoch'")
    assert (counts(log, database), read(log, database).epoch) == ({}, "another")


TIMES, VALUES = next(iter(instants.within("2026-01-31T11:31:00.000Z", None).items()))


@pytest.mark.parametrize(
    ("query", "values", "step"),
    [
        (activity.QUERY, ("a", "b"), "event_log USING INDEX event_log_timestamp (timestamp>? AND timestamp<?)"),
        (activity.ADDED_QUERY, (1,), "outbox USING INTEGER PRIMARY KEY (rowid>?)"),
    ],
    ids=["the hour", "what is new"],
)
def test_a_query_reads_only_its_events(
    raw: sqlite3.Connection, query: str, values: tuple[str | int, ...], step: str
) -> None:
    instants.register(raw)
    rows = raw.execute(f"EXPLAIN QUERY PLAN {query.format(times=TIMES)}", (*values, *VALUES)).fetchall()
    plan = [row[3] for row in rows]
    assert plan[0] == f"SEARCH {step}"
    assert not any("SCAN" in step for step in plan)
