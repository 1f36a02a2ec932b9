"""Snapshots: the rows that a table has already, as events."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest

from outfeed.store.database import Database
from outfeed.watch.store import schema, snapshot, watches
from tests.watch.watched import events, take_events, types, watch

TABLES = {
    "an INTEGER PRIMARY KEY": "(id INTEGER PRIMARY KEY, a)",
    "a TEXT key": "(id TEXT PRIMARY KEY, a)",
    "no key": "(id, a)",
    "no rowid": "(id, a, PRIMARY KEY (id, a)) WITHOUT ROWID",
    "a key with another order": "(a, id TEXT COLLATE NOCASE, PRIMARY KEY (id, a)) WITHOUT ROWID",
}


def program(database: Database) -> sqlite3.Connection:
    return sqlite3.connect(database.path, isolation_level=None)


def begin(database: Database, table: str = "t", **options: object) -> None:
    with database.transaction() as connection:
        snapshot.begin(connection, watch(connection, table, **options), schema.required(connection, table))


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
def test_each_row_is_reported_once_with_its_key(database, columns):
    with closing(program(database)) as raw:
        raw.execute(f"CREATE TABLE t {columns}")
        raw.executemany("INSERT INTO t (id, a) VALUES (?, ?)", [(f"{n:04}", n) for n in range(1, 1204)])
        begin(database)
        snapshot.run(database)
        found = take_events(raw)
    assert set(types(found)) == {"t.existing"}
    assert sorted(event.data["row"]["a"] for event in found) == list(range(1, 1204))
    assert len({event.id for event in found}) == 1203
    assert {event.data["op"] for event in found} == {"read"}


def test_a_row_that_no_insert_rule_matches_is_not_reported(database):
    with closing(program(database)) as raw:
        raw.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        raw.execute("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
        begin(database, where={"a": ["y"]})
        snapshot.run(database)
        assert [event.data["key"] for event in take_events(raw)] == [{"id": 2}]


def test_rows_that_come_later_are_left_to_the_triggers(database):
    with closing(program(database)) as raw:
        raw.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        raw.execute("INSERT INTO t VALUES (1, 'x')")
        begin(database)
        raw.execute("INSERT INTO t VALUES (2, 'y')")
        raw.execute("UPDATE t SET a = 'z' WHERE id = 1")
        snapshot.run(database)
        found = take_events(raw)
    assert types(found) == ["t.created", "t.updated", "t.existing"]
    assert found[-1].data["row"] == {"id": 1, "a": "z"}


def test_a_stopped_snapshot_goes_on_where_it_was(database):
    with closing(program(database)) as raw:
        raw.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        raw.executemany("INSERT INTO t VALUES (?, 'x')", [(n,) for n in range(1, 1501)])
        begin(database)
        assert snapshot.advance(database, threading.Event(), 0)
        first = len(events(raw))
        assert 0 < first < 1500
        snapshot.run(database)
        assert [event.data["key"]["id"] for event in events(raw)] == list(range(1, 1501))


def test_rows_with_new_rowids_are_reported_from_the_first_on(database):
    with closing(program(database)) as raw:
        raw.execute("CREATE TABLE t (a)")
        raw.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1, 1501)])
        raw.execute("DELETE FROM t WHERE a % 2 = 0 AND a < 600")
        take_events(raw)
        begin(database)
        assert snapshot.advance(database, threading.Event(), 0)
        raw.execute("VACUUM")
        snapshot.run(database)
        assert {event.data["row"]["a"] for event in events(raw)} == set(range(1, 1501)) - set(range(2, 600, 2))


def test_a_snapshot_names_what_it_can_not_read(database):
    with closing(program(database)) as raw:
        raw.create_function("twice", 1, lambda value: 2 * value, deterministic=True)
        raw.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b AS (twice(a)) STORED, c AS (twice(a)))")
        raw.execute("INSERT INTO t (a) VALUES (1)")
        begin(database)
        snapshot.run(database)
        with database.snapshot() as connection:
            state = snapshot.describe(watches.find(connection, "t"))
    assert state in ("", "ended early: no such function: twice")


def test_the_command_reports_the_rows_again(outfeed, database):
    with closing(program(database)) as raw:
        raw.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        raw.execute("INSERT INTO t VALUES (1, 'x')")
        assert outfeed("watch", "add", "t", "--from-start").exit_code == 0
        assert types(take_events(raw)) == ["t.existing"]
        assert outfeed("watch", "snapshot", "t").exit_code == 0
        assert types(take_events(raw)) == ["t.existing"]


def test_a_paused_watch_takes_no_snapshot(outfeed, database: Database):
    with closing(program(database)) as raw:
        raw.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
    outfeed("watch", "add", "t")
    outfeed("watch", "pause", "t")
    done = outfeed("watch", "snapshot", "t")
    assert (done.exit_code, "paused" in done.output) == (1, True)
