"""`outfeed watch apply`: a file becomes the watches of the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from outfeed.store.database import Database
from tests.watch.watched import take_events, types

ORDERS = "[[watch]]\ntable = 'orders'\nas = 'order'\n"
USERS = "[[watch]]\ntable = 'users'\n"


@pytest.fixture
def program(database: Database) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, status)")
        connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name)")
        yield connection


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "watches.toml"


def data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def written(program: sqlite3.Connection) -> list[str]:
    program.execute("INSERT INTO orders DEFAULT VALUES")
    program.execute("INSERT INTO users DEFAULT VALUES")
    return types(take_events(program))


def test_a_file_adds_changes_and_removes_watches(outfeed, program, file):
    file.write_text(ORDERS + USERS)
    done = outfeed("watch", "apply", file)
    assert done.output.splitlines()[:2] == ["Added the watch of orders.", "Added the watch of users."]
    assert written(program) == ["order.created", "users.created"]
    file.write_text(ORDERS.replace("'order'", "'sale'"))
    done = outfeed("watch", "apply", file)
    assert done.output.splitlines()[:2] == ["Changed the watch of orders.", "Removed the watch of users."]
    assert written(program) == ["sale.created"]


def test_a_second_apply_writes_nothing(outfeed, program, file):
    file.write_text(ORDERS + "[[watch]]\ntable = 'later'\n")
    outfeed("watch", "apply", file)
    before = data_version(program)
    done = outfeed("watch", "apply", file)
    assert done.output == "The database already had the watches of the file.\n"
    assert data_version(program) == before


def test_a_watch_that_was_added_by_hand_stays(outfeed, program, file):
    outfeed("watch", "add", "users")
    file.write_text(ORDERS)
    outfeed("watch", "apply", file)
    file.write_text("")
    outfeed("watch", "apply", file)
    assert written(program) == ["users.created"]


def test_a_file_takes_over_a_watch_that_was_added_by_hand(outfeed, program, file):
    outfeed("watch", "add", "users")
    file.write_text(USERS)
    outfeed("watch", "apply", file)
    done = outfeed("watch", "add", "users", "--as", "person")
    assert done.exit_code == 1
    assert "a file defines its watch" in done.output
    file.write_text("")
    outfeed("watch", "apply", file)
    assert written(program) == []


def test_a_mistake_changes_nothing(outfeed, program, file):
    file.write_text(ORDERS + USERS + "except = ['nothing']\n")
    before = data_version(program)
    done = outfeed("watch", "apply", file)
    assert (done.exit_code, data_version(program)) == (1, before)
    assert "users: has no column nothing" in done.output


def test_a_dry_run_prints_sql_and_changes_nothing(outfeed, program, file):
    file.write_text(ORDERS)
    before = data_version(program)
    done = outfeed("watch", "apply", file, "--dry-run")
    assert "CREATE TRIGGER outfeed_watch_1_insert" in done.output
    assert data_version(program) == before
    outfeed("watch", "apply", file)
    file.write_text("")
    assert 'DROP TRIGGER "outfeed_watch_1_insert"' in outfeed("watch", "apply", file, "--dry-run").output


def test_a_table_that_does_not_exist_is_waited_for(outfeed, program, file):
    file.write_text("[[watch]]\ntable = 'later'\n")
    outfeed("watch", "apply", file)
    assert '"state": "waiting"' in outfeed("watch", "list", "--json").output


def test_types_may_move_between_watches(outfeed, program, file):
    file.write_text("[[watch]]\ntable = 'orders'\nas = 'a'\n[[watch]]\ntable = 'users'\nas = 'b'\n")
    outfeed("watch", "apply", file)
    file.write_text("[[watch]]\ntable = 'orders'\nas = 'b'\n[[watch]]\ntable = 'users'\nas = 'a'\n")
    assert outfeed("watch", "apply", file).exit_code == 0
    assert written(program) == ["b.created", "a.created"]


def test_a_type_of_another_watch_is_refused(outfeed, program, file):
    outfeed("watch", "add", "users", "--as", "order")
    file.write_text(ORDERS)
    done = outfeed("watch", "apply", file)
    assert done.exit_code == 1
    assert "users and orders would both produce this type" in done.output


def test_a_dropped_trigger_is_made_again(outfeed, program, file):
    file.write_text(ORDERS)
    outfeed("watch", "apply", file)
    program.execute("DROP TRIGGER outfeed_watch_1_insert")
    outfeed("watch", "apply", file)
    assert written(program) == ["order.created"]


def test_a_removed_watch_can_be_added_again(outfeed, program):
    outfeed("watch", "add", "orders", "--as", "order")
    outfeed("watch", "remove", "orders")
    outfeed("watch", "add", "users", "--as", "order")
    outfeed("watch", "add", "orders")
    assert written(program) == ["orders.created", "order.created"]
    assert outfeed("watch", "remove", "--all").output == "Stopped watching 2 tables. Their events stay in the log.\n"
    assert written(program) == []
