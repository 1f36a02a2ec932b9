"""Repairs of a watch's triggers after the program has changed its schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from outfeed.config import Settings, settings
from outfeed.store import database as db
from outfeed.watch import definition
from outfeed.watch.store import repair, watches
from tests.watch.watched import new_database, run, take_events, types, watch

ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT, note TEXT)"
REBUILD = (
    "CREATE TABLE new_orders (id INTEGER PRIMARY KEY, status TEXT, note TEXT)",
    "INSERT INTO new_orders SELECT id, status, note FROM orders",
    "DROP TABLE orders",
    "ALTER TABLE new_orders RENAME TO orders",
)


@pytest.fixture
def program() -> Iterator[sqlite3.Connection]:
    with closing(new_database(ORDERS)) as connection:
        watch(connection, "orders")
        repair.note(connection)
        yield connection


def mend(program: sqlite3.Connection, *, is_start: bool = False, **changed: object) -> list[str]:
    program.execute("BEGIN IMMEDIATE")
    done = repair.repair(program, Settings(**changed) if changed else settings(), is_start=is_start)
    program.execute("COMMIT")
    return done


def state(program: sqlite3.Connection) -> str:
    return str(program.execute("SELECT state FROM outfeed_watch").fetchone()[0])


def test_triggers_that_are_as_they_must_be_are_left_alone(program):
    before = watches.present_triggers(program)
    assert mend(program) == []
    assert watches.present_triggers(program) == before
    assert take_events(program) == []


def test_a_rebuilt_table_gets_its_triggers_back_and_a_gap(program):
    program.execute("INSERT INTO orders VALUES (1, 'open', NULL)")
    repair.note(program)
    take_events(program)
    for statement in REBUILD:
        assert run(program, statement) == []
    program.execute("INSERT INTO orders VALUES (2, 'open', NULL), (3, 'paid', NULL)")
    assert mend(program) == ["orders has lost triggers"]
    found = take_events(program)
    assert types(found) == ["orders.created", "orders.created", "orders.gap"]
    assert [event.data["key"] for event in found[:2]] == [{"id": 2}, {"id": 3}]
    gap = found[2].data
    assert (gap["added"], gap["uncertain"]) == (2, False)
    assert gap["from"] <= gap["to"]
    assert types(run(program, "INSERT INTO orders VALUES (4, 'open', NULL)")) == ["orders.created"]


@pytest.mark.parametrize("cause", ["a kill", "an event since the last note"])
def test_inserts_are_not_reported_again_if_the_last_key_is_uncertain(program, cause):
    if cause != "a kill":
        program.execute("INSERT INTO orders VALUES (1, 'open', NULL)")
    for statement in REBUILD:
        program.execute(statement)
    program.execute("INSERT INTO orders VALUES (9, 'open', NULL)")
    program.execute("DELETE FROM event_log WHERE event_type = 'never'")
    mend(program, is_start=cause == "a kill")
    (gap,) = [event for event in take_events(program) if event.type == "orders.gap"]
    assert (gap.data["added"], gap.data["uncertain"]) == (0, True)


def test_after_a_clean_stop_the_inserts_are_reported_at_the_next_start(program):
    repair.note(program, is_clean=True)
    for statement in REBUILD:
        program.execute(statement)
    program.execute("INSERT INTO orders VALUES (9, 'open', NULL)")
    mend(program, is_start=True)
    assert types(take_events(program)) == ["orders.created", "orders.gap"]


def test_a_new_column_is_watched_and_named_in_a_warning(program):
    program.execute("ALTER TABLE orders ADD COLUMN total INTEGER")
    assert mend(program) == ["orders has triggers that do not fit its columns"]
    (warning,) = take_events(program)
    assert (warning.type, "orders.total" in warning.data["message"]) == ("system.warning", True)
    (event,) = run(program, "INSERT INTO orders (id, total) VALUES (1, 5)")
    assert event.data["row"]["total"] == 5


def test_a_renamed_column_is_reported_under_its_new_name(program):
    program.execute("ALTER TABLE orders RENAME COLUMN note TO memo")
    mend(program)
    take_events(program)
    (event,) = run(program, "INSERT INTO orders (id, memo) VALUES (1, 'x')")
    assert event.data["row"] == {"id": 1, "status": None, "memo": "x"}


def test_a_watch_follows_a_renamed_table(program):
    program.execute("ALTER TABLE orders RENAME TO purchases")
    assert mend(program) == ["purchases has another name"]
    (event,) = run(program, "INSERT INTO purchases VALUES (1, 'open', NULL)")
    assert (event.type, event.data["table"]) == ("orders.created", "purchases")
    assert mend(program) == []


def test_a_table_that_is_gone_is_waited_for_and_comes_back_with_a_gap(program):
    program.execute("DROP TABLE orders")
    take_events(program)
    assert mend(program) == ["orders no longer exists"]
    assert state(program) == "waiting"
    assert types(take_events(program)) == ["system.warning"]
    program.execute(ORDERS)
    assert mend(program) == ["orders has appeared"]
    assert state(program) == "active"
    assert types(take_events(program)) == ["orders.gap"]
    assert types(run(program, "INSERT INTO orders VALUES (1, 'open', NULL)")) == ["orders.created"]


@pytest.mark.parametrize(("rows", "expected"), [(0, []), (3, ["later.created"] * 3), (1001, ["later.gap"])])
def test_a_table_that_appears_for_the_first_time_reports_up_to_1000_rows(program, rows, expected):
    wanted = definition.from_toml('[[watch]]\ntable = "later"\n')
    watches.apply(program, [definition.from_toml('[[watch]]\ntable = "orders"\n')[0], *wanted], settings())
    take_events(program)
    program.execute("CREATE TABLE later (id INTEGER PRIMARY KEY, a)")
    program.executemany("INSERT INTO later VALUES (?, 'x')", [(number,) for number in range(1, rows + 1)])
    assert mend(program) == ["later has appeared"]
    found = take_events(program)
    assert types(found) == expected
    if rows == 3:
        assert found[0].data["row"] == {"id": 1, "a": "x"}


def test_a_rule_without_its_column_is_skipped_until_the_column_returns(program):
    watch(
        program, "orders",
        rules=[
            {"on": "insert", "when": {"note": ["x"]}, "type": "orders.marked"},
            {"on": "insert", "type": "orders.created"},
        ],
    )  # fmt: skip
    take_events(program)
    program.execute("ALTER TABLE orders DROP COLUMN note")
    mend(program)
    (warning,) = take_events(program)
    assert "note" in warning.data["message"]
    assert types(run(program, "INSERT INTO orders (id) VALUES (1)")) == ["orders.created"]
    program.execute("ALTER TABLE orders ADD COLUMN note TEXT")
    mend(program)
    take_events(program)
    assert types(run(program, "INSERT INTO orders (id, note) VALUES (2, 'x')")) == ["orders.marked"]


@pytest.mark.parametrize("name", repair.NEEDED)
def test_without_a_table_that_the_triggers_need_the_program_writes_again(program, name):
    saved = [row[0] for row in program.execute(
        "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL", (name,)
    )]  # fmt: skip
    program.execute(f"DROP TABLE {name}")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        program.execute("INSERT INTO orders VALUES (1, 'open', NULL)")
    assert mend(program) != []
    program.execute("INSERT INTO orders VALUES (1, 'open', NULL)")
    for sql in saved:
        program.execute(sql)
    assert mend(program) == ["orders has lost triggers"]
    assert types(run(program, "INSERT INTO orders VALUES (2, 'open', NULL)"))[-1] == "orders.created"


def test_a_trigger_without_a_watch_is_dropped(program):
    program.execute("DELETE FROM outfeed_watch")
    mend(program)
    assert watches.present_triggers(program) == {}


def test_triggers_become_the_newest_of_their_table_again(program):
    program.execute(
        "CREATE TRIGGER stamp AFTER INSERT ON orders WHEN NEW.note IS NULL"
        " BEGIN UPDATE orders SET note = 'stamped' WHERE id = NEW.id; END"
    )
    assert "newer trigger" in mend(program)[0]
    found = run(program, "INSERT INTO orders VALUES (1, 'open', NULL)")
    assert types(found) == ["orders.created", "orders.updated"]
    assert found[-1].data["row"]["note"] == "stamped"
    assert mend(program) == []


def test_a_longer_list_of_secrets_hides_more_and_a_shorter_one_shows_no_more(program):
    assert mend(program, redact_keys=["status"]) != []
    assert run(program, "INSERT INTO orders VALUES (1, 'open', NULL)")[0].data["row"]["status"] == "[redacted]"
    assert mend(program, redact_keys=["note"]) != []
    row = run(program, "INSERT INTO orders VALUES (2, 'open', 'x')")[0].data["row"]
    assert (row["status"], row["note"]) == ("[redacted]", "[redacted]")
    assert mend(program) == []


def test_triggers_of_a_newer_version_are_not_rewritten(program):
    program.execute("UPDATE outfeed_watch SET generator = 99")
    program.execute("ALTER TABLE orders ADD COLUMN total INTEGER")
    assert mend(program) == []


def test_a_paused_watch_stays_without_triggers(program):
    watches.pause(program, "orders")
    take_events(program)
    program.execute("ALTER TABLE orders ADD COLUMN total INTEGER")
    assert mend(program) == []
    assert db.meta(program, repair.NOTED) is not None
