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
from outfeed.log.store import activity, survey
from outfeed.log.store.activity import HOUR, RANGES, Activity, ActivityLog, Written
from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.reading import get_event_summary
from outfeed.principal import EVERYTHING
from outfeed.store import instants
from outfeed.store.database import Database
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
    """Return the counts by type of each bar with events, by its age in bars."""
    found = read(log, database)
    types = [by_type(bar) for bar in found.counts]
    return {found.range.bars - 1 - index: each for index, each in enumerate(types) if each}


def by_type(bar: Counter[Written]) -> dict[str, int]:
    found = Counter[str]()
    for written, count in bar.items():
        found[written.event_type] += count
    return dict(found)


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
    assert (found.begin, len(found.counts)) == (datetime(2026, 1, 31, 11, 31, tzinfo=UTC), HOUR.bars)
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
@pytest.mark.parametrize(
    ("name", "ages"),
    [
        ("15m", {0: (0, 5), 1: (6, 20), 59: (14 * 60 + 40,)}),
        ("6h", {0: (0, 20), 1: (21, 300), 71: (5 * 3600 + 3300,)}),
        ("24h", {0: (0, 20), 1: (21, 900), 95: (23 * 3600 + 2700,)}),
    ],
)
def test_each_range_counts_by_its_own_bars(
    database: Database, raw: sqlite3.Connection, name: str, ages: dict[int, tuple[int, ...]]
) -> None:
    write(raw, *(timedelta(seconds=secs) for each in ages.values() for secs in each), timedelta(days=2))
    expected = {age: len(secs) for age, secs in ages.items()}
    log = ActivityLog(RANGES[name])
    assert {age: found["task.created"] for age, found in counts(log, database).items()} == expected
    write(raw, timedelta())  # is added, not recounted
    assert counts(log, database)[0] == {"task.created": 3}


@freeze_time(NOW)
def test_events_are_counted_by_source_and_by_the_level_in_their_data(
    database: Database, raw: sqlite3.Connection
) -> None:
    data = ['{"level": "ERROR"}', '{"level": 5}', '{"a": {"level": "error"}}', '["level"]', '{"level', None, b"\xff"]
    raw.executemany(
        "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (?, 'a.b', ?, ?, ?)",
        [(str(index), f"s{index}", text, clock.isoformat(NOW)) for index, text in enumerate(data)],
    )
    found = sum(read(ActivityLog(), database).counts, Counter())
    levels = {written.source: written.said_level for written in found}
    assert levels == {"s0": "error"} | {f"s{index}": None for index in range(1, len(data))}


@freeze_time(NOW)
def test_activity_summary_and_log_agree_about_late_events(database: Database, raw: sqlite3.Connection) -> None:
    log, minute = ActivityLog(), timedelta(minutes=1)
    write(raw, timedelta(), event_type="tool.called")
    read(log, database)
    write(raw, *[age * minute for age in range(10, 50)] * 80)
    found = by_type(sum(read(log, database).counts, Counter()))
    in_log, _ = survey.take(database, LogFilter(EVERYTHING, since=clock.isoformat(NOW - 60 * minute)))
    assert found == get_event_summary(60, database) == {"task.created": 3200, "tool.called": 1}
    assert in_log.total == 3201


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
        (activity.QUERY, (16, "a", "b"), "event_log USING INDEX event_log_timestamp (timestamp>? AND timestamp<?)"),
        (activity.ADDED_QUERY, (16, 1), "outbox USING INTEGER PRIMARY KEY (rowid>?)"),
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
