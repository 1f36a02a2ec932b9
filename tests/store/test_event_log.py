"""Event log: append once, and read back newest first.

With a connection, the event is in the caller's transaction.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

import outfeed
from outfeed import clock, config
from outfeed.errors import DatabaseMissing, EventConflict, InvalidEvent, SchemaMismatch
from outfeed.events import Event, EventType
from outfeed.log.store import reading
from outfeed.principal import EVERYTHING
from outfeed.store import database as db
from outfeed.store import event_log
from outfeed.store.database import Database

SAME: dict[str, Any] = {"event_type": "a.b", "source": "s", "task_id": "t", "agent_id": "a", "data": {"n": 1, "m": [2]}}


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def count(raw: sqlite3.Connection, table: str = "event_log") -> int:
    return int(raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event_type", ["access.signed_in", "access.x", "system.pruned", "system.restored", "system.backed_up"]
)
def test_no_program_writes_an_event_of_the_audit(database: Database, raw: sqlite3.Connection, event_type: str) -> None:
    for write in (
        lambda: event_log.log_event(event_type, "outfeed"),
        lambda: event_log.log_event(event_type, "outfeed", id="1"),
        lambda: event_log.log_event(event_type, "outfeed", connection=raw),
        lambda: event_log.record(database, [{"event_type": event_type, "source": "outfeed"}], 1000),
    ):
        with pytest.raises(InvalidEvent, match="event_type: is reserved"):
            write()

    assert count(raw) == 0


def test_an_event_is_in_the_log_and_the_outbox_when_the_call_returns(raw: sqlite3.Connection) -> None:
    event = outfeed.log_event("task.created", "coordinator", task_id="t", agent_id="a", data={"bid_sats": 100})
    assert raw.execute("SELECT * FROM event_log").fetchall() == [
        (event.id, "task.created", "coordinator", "t", "a", '{"bid_sats":100}', event.timestamp)
    ]
    assert raw.execute("SELECT event_id FROM outbox").fetchall() == [(event.id,)]
    assert outfeed.get_event(event.id) == event
    assert event.event_type is EventType.TASK_CREATED


def test_no_data_is_null_in_the_table(raw: sqlite3.Connection) -> None:
    outfeed.log_event("a.b", "s")
    outfeed.log_event("a.b", "s", data=False)
    assert raw.execute("SELECT data FROM event_log").fetchall() == [(None,), ("false",)]


def test_an_event_above_a_limit_is_not_written(raw: sqlite3.Connection) -> None:
    for fields in ({"event_type": "bad"}, {"source": ""}, {"data": "x" * 70_000}):
        with pytest.raises(InvalidEvent):
            outfeed.log_event(**{"event_type": "a.b", "source": "s"} | fields)
    assert count(raw) == 0


def test_the_limit_of_data_is_a_setting(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTFEED_MAX_EVENT_BYTES", "300")
    config.settings.cache_clear()
    with pytest.raises(InvalidEvent, match="at most 300"):
        outfeed.log_event("a.b", "s", data="x" * 300)


def test_a_missing_database_is_named_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(DatabaseMissing, match=str(tmp_path / "outfeed.db")):
        outfeed.log_event("a.b", "s")
    assert not (tmp_path / "outfeed.db").exists()


def test_a_database_that_is_not_upgraded_is_named(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "outfeed.db")) as other:
        other.execute("CREATE TABLE other (x)")
    with pytest.raises(SchemaMismatch, match="outfeed upgrade"):
        outfeed.log_event("a.b", "s")


# --- the id as idempotency key ----------------------------------------------------------------------------------------


def test_a_repeated_event_returns_the_one_in_the_log(raw: sqlite3.Connection) -> None:
    first = outfeed.log_event(**SAME, id="mine")
    again = outfeed.log_event(**SAME | {"data": {"m": [2], "n": 1}}, id="mine")
    assert again == first
    assert (count(raw), count(raw, "outbox")) == (1, 1)


def test_the_same_id_from_a_raw_writer_is_compared_as_parsed_json(raw: sqlite3.Connection) -> None:
    raw.execute("INSERT INTO event_log VALUES ('mine', 'a.b', 's', 't', 'a', ' {\"m\" : [2],\n\"n\": 1}', 'odd')")
    assert outfeed.log_event(**SAME, id="mine").timestamp == "odd"
    assert count(raw) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"event_type": "a.c"},
        {"source": "S"},
        {"task_id": None},
        {"agent_id": "b"},
        {"data": None},
        {"data": {"n": 1}},
        {"data": {"n": 1.0, "m": [2]}},
        {"data": {"n": True, "m": [2]}},
        {"data": {"n": "1", "m": [2]}},
        {"timestamp": "2020-01-01T00:00:00Z"},
    ],
)
def test_the_same_id_with_other_content_is_a_conflict(raw: sqlite3.Connection, other: dict[str, Any]) -> None:
    outfeed.log_event(**SAME, id="mine")
    with pytest.raises(EventConflict, match="mine"):
        outfeed.log_event(**SAME | other, id="mine")
    assert (count(raw), count(raw, "outbox")) == (1, 1)


def test_a_timestamp_is_compared_only_if_it_is_given(database: Database) -> None:
    first = outfeed.log_event(**SAME, id="mine", timestamp="2020-01-01T00:00:00Z")
    assert outfeed.log_event(**SAME, id="mine") == first
    assert outfeed.log_event(**SAME, id="mine", timestamp="2020-01-01T01:00:00+01:00") == first


def test_the_answer_to_a_writer_has_the_seq_and_epoch(database: Database, raw: sqlite3.Connection) -> None:
    (epoch,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()
    fields = {**SAME, "id": "mine"}
    assert event_log.record(database, [fields], 1000)[0][1:] == (1, epoch, True)
    assert event_log.record(database, [{**SAME, "id": "next"}], 1000)[0][1:] == (2, epoch, True)
    assert event_log.record(database, [fields], 1000)[0][1:] == (1, epoch, False)
    raw.execute("DELETE FROM outbox WHERE seq = 1")
    assert event_log.record(database, [fields], 1000)[0][1:] == (None, epoch, False)


# --- the caller's transaction -----------------------------------------------------------------------------------------


def test_with_a_connection_the_caller_commits_the_event(database: Database, raw: sqlite3.Connection) -> None:
    with contextlib.closing(sqlite3.connect(database.path)) as own:
        event = outfeed.log_event("a.b", "s", connection=own)
        assert count(raw) == 0
        own.rollback()
        assert outfeed.get_event(event.id) is None
        kept = outfeed.log_event("a.b", "s", connection=own)
        own.commit()
    assert outfeed.get_event(kept.id) == kept
    assert (count(raw), count(raw, "outbox")) == (1, 1)


def test_a_connection_with_its_own_row_factory_works(database: Database) -> None:
    with contextlib.closing(sqlite3.connect(database.path)) as own:
        own.row_factory = sqlite3.Row
        first = outfeed.log_event(**SAME, id="mine", connection=own)
        assert outfeed.log_event(**SAME, id="mine", connection=own) == first
        with pytest.raises(EventConflict):
            outfeed.log_event(**SAME | {"source": "other"}, id="mine", connection=own)
        own.commit()
    assert outfeed.get_event("mine") == first


def test_a_refused_event_leaves_the_callers_transaction_as_it_was(database: Database, raw: sqlite3.Connection) -> None:
    with contextlib.closing(sqlite3.connect(database.path)) as own:
        own.execute("CREATE TABLE job (name)")
        own.execute("INSERT INTO job VALUES ('a')")
        with pytest.raises(InvalidEvent):
            outfeed.log_event("bad", "s", connection=own)
        own.commit()
    assert count(raw, "job") == 1


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ten(database: Database) -> list[Event]:
    """Ten events with alternating types and three sources, tasks and agents."""
    return [
        outfeed.log_event(["a.b", "x.y"][n % 2], f"s{n % 3}", task_id=f"t{n % 3}", agent_id=f"a{n % 3}", data=n)
        for n in range(10)
    ]


def data_of(events: list[Event]) -> list[Any]:
    return [event.data for event in events]


def test_events_are_listed_newest_first(ten: list[Event]) -> None:
    assert outfeed.list_events() == ten[::-1]
    assert data_of(outfeed.list_events(limit=3)) == [9, 8, 7]
    assert data_of(outfeed.list_events(limit=3, offset=8)) == [1, 0]
    assert outfeed.list_events(offset=10) == []


def test_newest_means_written_last_regardless_of_the_timestamp(database: Database) -> None:
    for n, timestamp in enumerate(["2030-01-01T00:00:00Z", "2010-01-01T00:00:00Z", "2020-01-01T00:00:00Z"]):
        outfeed.log_event("a.b", "s", data=n, timestamp=timestamp)
    assert data_of(outfeed.list_events()) == [2, 1, 0]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"event_type": "a.b"}, [8, 6, 4, 2, 0]),
        ({"source": "s1"}, [7, 4, 1]),
        ({"task_id": "t1", "event_type": "a.b"}, [4]),
        ({"agent_id": "a2"}, [8, 5, 2]),
        ({"event_type": "a.b", "task_id": "t0", "agent_id": "a0", "source": "s0"}, [6, 0]),
        ({"source": ""}, []),
        ({"source": "s"}, []),
    ],
)
def test_all_filters_must_hold(ten: list[Event], filters: dict[str, str], expected: list[int]) -> None:
    assert data_of(outfeed.list_events(**filters)) == expected


def test_the_events_of_a_task_or_agent_are_complete(ten: list[Event]) -> None:
    assert data_of(outfeed.get_task_events("t1")) == [7, 4, 1]
    assert data_of(outfeed.get_agent_events("a2")) == [8, 5, 2]
    assert outfeed.get_task_events("none") == []


@pytest.mark.parametrize("size", [1, 3, 5, 10, 11])
def test_pages_by_cursor_miss_and_repeat_nothing_while_others_write(ten: list[Event], size: int) -> None:
    found: list[Event] = []
    cursor = None
    while True:
        page, cursor = reading.list_page(db.default(), EVERYTHING, limit=size, cursor=cursor)
        found += page
        outfeed.log_event("a.b", "later")
        if cursor is None:
            break
    assert found == ten[::-1]


def test_the_last_page_has_no_next_cursor(ten: list[Event]) -> None:
    assert reading.list_page(db.default(), EVERYTHING, limit=10)[1] is None
    assert reading.list_page(db.default(), EVERYTHING, limit=9)[1] is not None


def test_data_above_the_limit_is_left_out_of_lists_and_complete_in_the_event(
    raw: sqlite3.Connection, database: Database
) -> None:
    raw.execute("INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES ('big', 'a.b', 's', ?, 't')",
                ('"' + "ü" * 70_000 + '"',))  # fmt: skip
    (listed,) = outfeed.list_events()
    assert (listed.data, listed.omitted_bytes) == (None, 140_002)
    whole = outfeed.get_event("big")
    assert whole is not None
    assert (whole.data, whole.omitted_bytes) == ("ü" * 70_000, 0)


@pytest.mark.parametrize("data", ["NaN", "Infinity", "-Infinity", "[NaN]", "1e999", '"\\ud800"', "{oops", ""])
def test_every_read_value_can_be_written_as_json(raw: sqlite3.Connection, data: str) -> None:

    raw.execute(
        "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES ('x', 'a.b', 's', ?, 't')", (data,)
    )
    event = outfeed.get_event("x")
    assert event is not None
    json.dumps(event.as_dict(), allow_nan=False, ensure_ascii=False).encode()


def test_an_unknown_id_is_none(database: Database) -> None:
    assert outfeed.get_event("nobody") is None


# --- the last minutes -------------------------------------------------------------------------------------------------


def test_the_last_minutes_are_counted_by_timestamp(database: Database) -> None:
    with freeze_time("2026-01-01T12:00:00"):
        for minutes_ago, event_type in [(0, "a.b"), (59, "a.b"), (60, "x.y"), (61, "x.y"), (600, "x.y")]:
            moment = clock.now() - timedelta(minutes=minutes_ago)
            outfeed.log_event(event_type, "s", timestamp=moment, data=minutes_ago)
        assert data_of(outfeed.get_recent_events()) == [60, 59, 0]
        assert data_of(outfeed.get_recent_events(minutes=0.5)) == [0]
        assert outfeed.get_event_summary() == {"a.b": 2, "x.y": 1}
        assert list(outfeed.get_event_summary(minutes=1000)) == ["x.y", "a.b"], "the most frequent first"
        assert outfeed.get_event_summary(minutes=1) == {"a.b": 1}


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_an_invalid_time_is_refused(database: Database, minutes: float) -> None:
    with pytest.raises(ValueError, match="minutes"):
        outfeed.get_recent_events(minutes)
    with pytest.raises(ValueError, match="minutes"):
        outfeed.get_event_summary(minutes)


def test_an_aware_datetime_is_accepted_as_timestamp(database: Database) -> None:
    event = outfeed.log_event("a.b", "s", timestamp=datetime(2024, 1, 15, 10, 30, tzinfo=UTC))
    assert event.timestamp == "2024-01-15T10:30:00.000Z"
