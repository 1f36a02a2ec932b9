"""Own errors: one redacted event a minute and place, with a count.

A failed write makes no event.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from freezegun import freeze_time

from outfeed import list_events
from outfeed.errors import DatabaseBusy, DatabaseFull
from outfeed.store import database_file
from outfeed.store.database import Database
from outfeed.store.own_errors import MAX_PLACES, OwnErrors


@pytest.fixture
def errors(database: Database) -> OwnErrors:
    return OwnErrors(database)


def error_events() -> list[tuple[str, int]]:
    return [(event.data["place"], event.data["count"]) for event in reversed(list_events(event_type="system.error"))]


def test_an_error_becomes_an_event_with_its_message_and_count(errors: OwnErrors) -> None:
    errors.note("poll", RuntimeError("planted"))
    errors.note("poll", RuntimeError("planted"))
    errors.write()

    (event,) = list_events(event_type="system.error")
    assert event.source == "outfeed"
    assert event.data == {"message": "poll: RuntimeError: planted (2 times)", "place": "poll", "count": 2}


def test_a_place_has_one_event_a_minute_with_the_count_of_its_errors(errors: OwnErrors) -> None:
    with freeze_time("2026-01-15T10:00:00Z") as frozen:
        for _ in range(3):
            errors.note("poll", RuntimeError("again"))
            errors.note("webhook", RuntimeError("other"))
            errors.write()
            frozen.tick(timedelta(seconds=20))
        assert error_events() == [("poll", 1), ("webhook", 1)]
        errors.write()
        assert error_events() == [("poll", 1), ("webhook", 1), ("poll", 2), ("webhook", 2)]


def test_two_processes_write_one_event(database: Database, errors: OwnErrors) -> None:
    other = OwnErrors(Database(database.path))
    for each in (errors, other):
        each.note("poll", RuntimeError("planted"))
        each.write()

    assert error_events() == [("poll", 1)]


def test_a_clock_that_was_set_back_does_not_suppress_events(errors: OwnErrors) -> None:
    for day in ("2026-01-15", "2026-01-14"):
        with freeze_time(f"{day}T10:00:00Z"):
            errors.note("poll", RuntimeError("planted"))
            errors.write()

    assert error_events() == [("poll", 1), ("poll", 1)]


def test_a_secret_in_the_message_is_hidden(errors: OwnErrors) -> None:
    errors.note("request", RuntimeError("GET failed with Bearer abcdef1234567890"))
    errors.write()

    assert "abcdef1234567890" not in repr(list_events())
    assert "[redacted]" in list_events(event_type="system.error")[0].data["message"]


@pytest.mark.parametrize(
    "error", [DatabaseFull("full"), DatabaseBusy("busy"), sqlite3.OperationalError("disk I/O error"), MemoryError()]
)
def test_a_database_error_makes_no_event(errors: OwnErrors, error: Exception) -> None:
    errors.note("poll", error)
    errors.write()

    assert error_events() == []


def test_errors_wait_while_nothing_can_be_written(
    database: Database, errors: OwnErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.05)
    errors.note("poll", RuntimeError("planted"))
    with closing(sqlite3.connect(database.path, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        errors.write()
        raw.execute("ROLLBACK")
    assert error_events() == []

    errors.write()
    assert error_events() == [("poll", 1)]


def test_places_above_the_limit_use_no_memory(errors: OwnErrors) -> None:
    for number in range(MAX_PLACES + 10):
        errors.note(f"place {number}", RuntimeError("x" * 100_000))
    errors.write()

    found = list_events(event_type="system.error", limit=-1)
    assert len(found) == MAX_PLACES
    assert all(len(event.data["message"]) < 600 for event in found)
