"""REPLACE, UPSERT, ignored inserts, and triggers of the program."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from outfeed.config import settings
from outfeed.watch.store import repair
from tests.watch.watched import new_database, run, types, watch


@pytest.fixture
def program() -> Iterator[sqlite3.Connection]:
    made = new_database(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT UNIQUE, c TEXT NOT NULL DEFAULT 'x' UNIQUE)",
        "INSERT INTO t VALUES (1, 'a', 'b1', 'c1'), (2, 'a', 'b2', 'c2')",
    )
    with closing(made):
        watch(made, "t")
        yield made


def test_replacing_the_row_of_the_same_key_is_an_update(program):
    (found,) = run(program, "REPLACE INTO t VALUES (1, 'z', 'b1', 'c1')")
    assert found.type == "t.updated"
    assert found.data == {
        "op": "update", "table": "t", "key": {"id": 1}, "was": {"a": "a"},
        "row": {"id": 1, "a": "z", "b": "b1", "c": "c1"},
    }  # fmt: skip


def test_replacing_another_row_by_a_unique_value_deletes_it_first(program):
    found = run(program, "REPLACE INTO t VALUES (3, 'a', 'b1', 'c3')")
    assert types(found) == ["t.deleted", "t.created"]
    assert found[0].data["key"] == {"id": 1}
    assert found[0].data["row"] == {"id": 1, "a": "a", "b": "b1", "c": "c1"}


def test_replacing_two_rows_by_two_unique_values_deletes_both_with_different_ids(program):
    found = run(program, "REPLACE INTO t VALUES (3, 'a', 'b1', 'c2')")
    assert types(found) == ["t.deleted", "t.deleted", "t.created"]
    assert len({event.id for event in found}) == 3


def test_replacing_a_row_by_an_identical_one_has_no_event(program):
    assert run(program, "REPLACE INTO t VALUES (1, 'a', 'b1', 'c1')") == []


def test_a_null_that_replace_stores_as_its_default_is_compared_as_the_default(program):
    run(program, "UPDATE t SET c = 'x' WHERE id = 1")
    assert run(program, "REPLACE INTO t VALUES (1, 'a', 'b1', NULL)") == []
    assert types(run(program, "REPLACE INTO t VALUES (2, 'a', 'b2', NULL)")) == ["t.deleted", "t.updated"]


def test_an_ignored_insert_leaves_no_trace_in_later_events(program):
    assert run(program, "INSERT OR IGNORE INTO t VALUES (1, 'z', 'b9', 'c9')") == []
    assert types(run(program, "DELETE FROM t WHERE id = 1")) == ["t.deleted"]
    assert types(run(program, "INSERT INTO t VALUES (1, 'z', 'b9', 'c9')")) == ["t.created"]


def test_update_or_replace_deletes_the_row_whose_key_it_takes(program):
    found = run(program, "UPDATE OR REPLACE t SET id = 2 WHERE id = 1")
    assert types(found) == ["t.deleted", "t.updated"]
    assert found[1].data["was"] == {"id": 1}


def test_an_update_of_the_key_has_the_new_key_and_the_old_one_in_was(program):
    (found,) = run(program, "UPDATE t SET id = 7 WHERE id = 1")
    assert (found.type, found.data["key"], found.data["was"]) == ("t.updated", {"id": 7}, {"id": 1})


def test_an_upsert_is_an_insert_or_an_update(program):
    upsert = "INSERT INTO t VALUES (?, 'u', ?, ?) ON CONFLICT (b) DO UPDATE SET a = excluded.a"
    assert types(run(program, upsert, 5, "b5", "c5")) == ["t.created"]
    (found,) = run(program, upsert, 6, "b1", "c6")
    assert (found.type, found.data["key"], found.data["was"]) == ("t.updated", {"id": 1}, {"a": "a"})
    assert run(program, upsert.partition(" DO ")[0] + " DO NOTHING", 6, "b1", "c6") == []


def test_with_recursive_triggers_a_replacement_is_a_delete_and_an_insert(program):
    program.execute("PRAGMA recursive_triggers = ON")
    assert types(run(program, "REPLACE INTO t VALUES (1, 'z', 'b1', 'c1')")) == ["t.deleted", "t.created"]


def test_a_row_with_the_rowid_minus_one_is_not_taken_for_a_replaced_one():
    with closing(
        new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (-1, 'a')")
    ) as program:
        watch(program, "t")
        (found,) = run(program, "REPLACE INTO t (a) VALUES ('b')")
        assert (found.type, found.data["key"]) == ("t.created", {"id": 0})
        (found,) = run(program, "REPLACE INTO t VALUES (-1, 'c')")
        assert (found.type, found.data["was"]) == ("t.updated", {"a": "a"})


def test_the_row_minus_one_that_a_unique_value_removes_is_deleted():
    table = "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)"
    with closing(new_database(table, "INSERT INTO t VALUES (-1, 'a'), (5, 'b')")) as program:
        watch(program, "t")
        found = run(program, "REPLACE INTO t (a) VALUES ('a')")
        assert [(event.type, event.data["key"]["id"]) for event in found] == [("t.deleted", -1), ("t.created", 6)]
        run(program, "INSERT INTO t VALUES (-1, 'c')")
        assert types(run(program, "REPLACE INTO t (a) VALUES ('d')")) == ["t.created"]
        (found,) = run(program, "REPLACE INTO t VALUES (-1, 'e')")
        assert (found.type, found.data["was"]) == ("t.updated", {"a": "c"})


def test_insert_rules_alone_take_no_replaced_row_for_a_new_one(program):
    watch(program, "t", rules=[{"on": "insert", "type": "t.new"}])
    assert run(program, "REPLACE INTO t VALUES (1, 'z', 'b1', 'c1')") == []
    assert types(run(program, "REPLACE INTO t VALUES (3, 'z', 'b1', 'c1')")) == ["t.new"]


def test_notes_are_bounded_and_hold_no_hidden_value():
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a, api_token TEXT UNIQUE)")) as program:
        watch(program, "t")
        program.executemany("INSERT INTO t VALUES (?, 'a', ?)", [(n, f"secret-{n}") for n in range(1500)])
        program.executemany(
            "INSERT INTO t VALUES (?, 'a', ?) ON CONFLICT DO NOTHING", [(n, f"secret-{n}") for n in range(1500)]
        )
        (count,) = program.execute("SELECT count(*) FROM outfeed_replaced").fetchone()
        assert 0 < count <= 1000 + 64
        assert "secret" not in str(program.execute("SELECT * FROM outfeed_replaced").fetchall())


# --- the program's own triggers ---


@pytest.mark.parametrize("when", ["before the watch", "after the watch"])
def test_a_trigger_that_inserts_another_row_into_the_same_table(when):
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")) as program:
        trigger = """
            CREATE TRIGGER own BEFORE INSERT ON t WHEN NEW.id < 100
            BEGIN INSERT INTO t VALUES (NEW.id + 100 + (SELECT count(*) FROM t), 'inner'); END
        """
        if when == "before the watch":
            program.execute(trigger)
        watch(program, "t")
        if when == "after the watch":
            program.execute(trigger)
        found = run(program, "INSERT INTO t VALUES (1, 'outer')")
        assert [(event.type, event.data["row"]["a"]) for event in found] == [
            ("t.created", "inner"), ("t.created", "outer")
        ]  # fmt: skip
        found = run(program, "REPLACE INTO t VALUES (1, 'again')")
        assert [(event.type, event.data["row"]["a"]) for event in found] == [
            ("t.created", "inner"), ("t.updated", "again")
        ]  # fmt: skip
        assert found[1].data["was"] == {"a": "outer"}


def test_the_last_event_shows_the_row_as_a_trigger_of_the_program_left_it():
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a, total)")) as program:
        program.execute(
            "CREATE TRIGGER own AFTER INSERT ON t BEGIN UPDATE t SET total = NEW.a * 2 WHERE id = NEW.id; END"
        )
        watch(program, "t")
        found = run(program, "INSERT INTO t (a) VALUES (4)")
        assert types(found) == ["t.created", "t.updated"]
        assert found[-1].data["row"] == {"id": 1, "a": 4, "total": 8}


@pytest.mark.parametrize("action", ["IGNORE", "FAIL, 'no'", "ABORT, 'no'", "ROLLBACK, 'no'"])
@pytest.mark.parametrize("time", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("is_older", [True, False], ids=["before the watch", "after the watch"])
def test_events_are_exactly_those_of_rows_that_stay(time, action, is_older):
    own = f"CREATE TRIGGER own {time} INSERT ON t WHEN NEW.a = 2 BEGIN SELECT RAISE({action}); END"
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")) as program:
        if is_older:
            program.execute(own)
        watch(program, "t")
        if not is_older:
            program.execute(own)
            repair.repair(program, settings(), is_start=False)
        with suppress(sqlite3.IntegrityError):
            program.execute("INSERT INTO t (a) VALUES (1), (2), (3)")
        rows = [{"id": row[0], "a": row[1]} for row in program.execute("SELECT id, a FROM t ORDER BY id")]
        assert [event.data["row"] for event in run(program, "SELECT 1")] == rows


@pytest.mark.parametrize("statement", ["DELETE FROM parent", "REPLACE INTO parent VALUES (1)", "DROP TABLE parent"])
def test_a_cascade_reports_the_children_first(statement):
    with closing(
        new_database(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
            "CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent ON DELETE CASCADE)",
            "INSERT INTO parent VALUES (1)",
            "INSERT INTO child VALUES (1, 1), (2, 1)",
            "PRAGMA foreign_keys = ON",
        )
    ) as program:
        watch(program, "parent")
        watch(program, "child")
        found = types(run(program, statement))
        assert found[:2] == ["child.deleted", "child.deleted"]
        assert found[2:] == (["parent.deleted"] if statement.startswith("DELETE") else [])


def test_the_program_sees_its_own_rows_only():
    plain, watched = (new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)") for _ in range(2))
    with closing(plain), closing(watched):
        watch(watched, "t")
        watched.execute("CREATE TABLE other (a)")
        for program in (plain, watched):
            program.execute("INSERT INTO outfeed_arrival VALUES ('x', 'y')")  # last_insert_rowid() begins equal
        for statement in (
            "INSERT INTO t (a) VALUES ('a'), ('b') RETURNING id, a",
            "REPLACE INTO t (a) VALUES ('a') RETURNING *",
            "UPDATE t SET a = a || 'x' RETURNING a",
            "INSERT INTO t VALUES (3, 'n') ON CONFLICT DO UPDATE SET a = 'm' RETURNING a",
            "DELETE FROM t WHERE id > 2 RETURNING id",
        ):
            seen = []
            for program in (plain, watched):
                cursor = program.execute(statement)
                rows = cursor.fetchall()
                counts = program.execute("SELECT changes(), last_insert_rowid()").fetchone()
                seen.append((rows, cursor.rowcount, cursor.lastrowid, counts))
            assert seen[0] == seen[1], statement
