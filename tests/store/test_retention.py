"""Retention: what is old goes, in chunks, and nothing else does."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import timedelta, timezone

import pytest

import app
from app import clock
from app.store import retention
from app.store.database import Database
from app.store.retention import prune


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def write(raw: sqlite3.Connection, **timestamps: str) -> None:
    for event_id, timestamp in timestamps.items():
        raw.execute(
            "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', ?)", (event_id, timestamp)
        )


def ids(raw: sqlite3.Connection) -> list[str]:
    return [row[0] for row in raw.execute("SELECT id FROM event_log ORDER BY rowid")]


def days_ago(days: float) -> str:
    return clock.isoformat(clock.now() - timedelta(days=days))


def test_what_is_older_goes_and_the_count_is_told(database: Database, raw: sqlite3.Connection) -> None:
    write(raw, older=days_ago(31), edge=days_ago(29.9), younger=days_ago(29), future=days_ago(-5))
    assert app.prune_events(older_than_days=30) == 1
    assert ids(raw) == ["edge", "younger", "future"]
    assert app.prune_events(older_than_days=30) == 0


def test_a_dry_run_counts_and_deletes_nothing(database: Database, raw: sqlite3.Connection) -> None:
    write(raw, one=days_ago(31), two=days_ago(400), three=days_ago(1))
    assert prune(database, 30, dry_run=True) == 2
    assert len(ids(raw)) == 3
    assert prune(database, 30) == 2


def test_a_timestamp_that_is_no_date_is_nobodys_to_judge(database: Database, raw: sqlite3.Connection) -> None:
    write(raw, empty="", word="ancient", number="0", early="-1", almost="2020-13-45T00:00:00Z", old="2020-01-01")
    raw.execute("INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('blob', 'a.b', 's', x'00ff')")
    before = set(ids(raw))
    assert prune(database, 30, dry_run=True) == prune(database, 30)
    assert before - set(ids(raw)) <= {"old", "number"}
    assert "old" not in ids(raw)


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"])
def test_dates_in_other_forms_are_read(database: Database, raw: sqlite3.Connection, form: str) -> None:
    write(raw, old=(clock.now() - timedelta(days=31.5)).strftime(form))
    assert prune(database, 30) == 1


def test_a_date_of_another_zone_is_not_taken_for_older_than_it_is(database: Database, raw: sqlite3.Connection) -> None:
    zone = timezone(timedelta(hours=-12))  # its text is older than the moment
    write(raw, younger=(clock.now() - timedelta(days=29.8)).astimezone(zone).isoformat())
    assert prune(database, 30) == 0


def test_the_outbox_keeps_its_copy(database: Database, raw: sqlite3.Connection) -> None:
    write(raw, old=days_ago(31))
    prune(database, 30)
    assert raw.execute("SELECT event_id FROM outbox").fetchall() == [("old",)]


def test_it_deletes_in_chunks_and_lets_writers_in_between(
    database: Database, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given more than a few chunks
    monkeypatch.setattr(retention, "CHUNK_ROWS", 10)
    write(raw, **{f"old-{n}": days_ago(31 + n) for n in range(35)})
    left: list[int] = []

    def write_between(_: float) -> None:
        left.append(sum(event_id.startswith("old") for event_id in ids(raw)))
        write(raw, **{f"between-{len(left)}": days_ago(0)})

    monkeypatch.setattr("app.store.retention.time.sleep", write_between)
    # when they are pruned, then each chunk is committed by itself
    assert prune(database, 30) == 35
    assert left == [25, 15, 5, 0]
    assert ids(raw) == ["between-1", "between-2", "between-3", "between-4"]


def test_killed_half_way_what_is_gone_is_gone_and_the_rest_stays(
    database: Database, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNK_ROWS", 10)
    write(raw, **{f"old-{n}": days_ago(31) for n in range(35)})

    def die(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.store.retention.time.sleep", die)
    with pytest.raises(KeyboardInterrupt):
        prune(database, 30)
    assert len(ids(raw)) == 25


def test_the_file_gives_its_pages_back(database: Database, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN")
    for n in range(400):
        raw.execute("INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (?, 'a.b', 's', ?, ?)",
                    (f"old-{n}", '"' + "x" * 4000 + '"', days_ago(31)))  # fmt: skip
    raw.execute("COMMIT")
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    prune(database, 30)
    (fewer,) = raw.execute("PRAGMA page_count").fetchone()
    assert fewer < pages
    assert raw.execute("PRAGMA freelist_count").fetchone() == (0,)


@pytest.mark.parametrize("days", [-1, -0.001, float("nan")])
def test_a_negative_age_is_refused(database: Database, raw: sqlite3.Connection, days: float) -> None:
    write(raw, one=days_ago(1))
    with pytest.raises(ValueError, match="older_than_days"):
        prune(database, days)
    assert ids(raw) == ["one"]


def test_an_age_of_nothing_takes_all_that_has_happened(database: Database, raw: sqlite3.Connection) -> None:
    write(raw, past=days_ago(0.001), future=days_ago(-1))
    assert prune(database, 0) == 1
    assert ids(raw) == ["future"]


@pytest.mark.parametrize("days", [1e6, 1e12, float("inf")])
def test_an_age_beyond_every_calendar_deletes_nothing(database: Database, raw: sqlite3.Connection, days: float) -> None:
    write(raw, one="0001-01-01T00:00:00Z")
    with contextlib.suppress(ValueError, OverflowError):
        assert prune(database, days) == 0
    assert ids(raw) == ["one"]
