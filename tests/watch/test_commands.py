"""`outfeed watch`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from outfeed.store.database import Database
from tests.watch.watched import take_events, types


@pytest.fixture
def orders(database: Database) -> Path:
    with closing(sqlite3.connect(database.path)) as program:
        program.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT NOT NULL DEFAULT 'open', api_token TEXT)"
        )
    return database.path


def events_of(path: Path, *statements: str):
    with closing(sqlite3.connect(path, isolation_level=None)) as program:
        for statement in statements:
            program.execute(statement)
        return take_events(program)


def test_a_watched_table_reports_its_changes(outfeed, orders):
    done = outfeed("watch", "add", "orders")
    assert done.exit_code == 0
    assert "Hidden columns: api_token." in done.output
    assert "Key: id." in done.output
    found = events_of(
        orders, "INSERT INTO orders DEFAULT VALUES", "UPDATE orders SET status = 'paid'", "DELETE FROM orders"
    )
    assert types(found) == ["orders.created", "orders.updated", "orders.deleted"]
    assert found[1].data["was"] == {"status": "open"}


def test_a_watch_of_no_table_is_refused(outfeed, database):
    done = outfeed("watch", "add", "orders")
    assert done.exit_code == 1
    assert "no such table" in done.output


def test_a_dry_run_prints_triggers_and_changes_nothing(outfeed, orders):
    done = outfeed("watch", "add", "orders", "--dry-run")
    assert "CREATE TRIGGER outfeed_watch_1_insert" in done.output
    assert events_of(orders, "INSERT INTO orders DEFAULT VALUES") == []


def test_a_removed_watch_reports_nothing(outfeed, orders):
    outfeed("watch", "add", "orders")
    done = outfeed("watch", "remove", "orders")
    assert done.output == "Stopped watching orders. Its events stay in the log.\n"
    assert events_of(orders, "INSERT INTO orders DEFAULT VALUES") == []
    assert outfeed("watch", "list").output == "There are 0 watched tables.\n"


def test_a_pause_ends_with_a_gap(outfeed, orders):
    outfeed("watch", "add", "orders")
    outfeed("watch", "pause", "orders")
    assert events_of(orders, "INSERT INTO orders DEFAULT VALUES") == []
    outfeed("watch", "resume", "orders")
    found = events_of(orders, "INSERT INTO orders DEFAULT VALUES")
    assert types(found) == ["orders.gap", "orders.created"]
    assert found[0].data["from"] < found[0].data["to"]


def test_the_list_names_each_watch(outfeed, orders):
    outfeed("watch", "add", "orders", "--as", "order")
    (found,) = json.loads(outfeed("watch", "list", "--json").output)
    assert (found["table"], found["type"], found["state"]) == ("orders", "order", "active")
    assert "order.created" in outfeed("watch", "list").output


def test_sql_prints_the_triggers_in_the_file(outfeed, orders):
    outfeed("watch", "add", "orders")
    assert 'AFTER DELETE ON "orders"' in outfeed("watch", "sql", "orders").output


def test_a_watch_sets_displays_and_leaves_those_of_a_command(outfeed, orders):
    outfeed("type", "set", "orders.deleted", "--label", "Gone: {id}")
    outfeed("watch", "add", "orders", "--message", "Order {id}")
    outfeed("watch", "remove", "orders")
    found = {each["name"]: each for each in json.loads(outfeed("type", "list", "--json").output)}
    assert found["orders.created"]["label"] == "Order {id}"
    assert found["orders.gap"]["level"] == "warning"
    assert found["orders.deleted"]["label"] == "Gone: {id}"
    outfeed("watch", "add", "orders")
    found = {each["name"]: each for each in json.loads(outfeed("type", "list", "--json").output)}
    assert sorted(found) == ["orders.deleted", "orders.gap"]


@pytest.mark.parametrize("label", ["{nope}", "{Status}", "{nope|id}", "{was.nope}", "{total}"])
def test_a_label_that_shows_no_value_of_the_events_is_refused(outfeed, orders, label):
    with closing(sqlite3.connect(orders)) as program:
        program.execute("ALTER TABLE orders ADD COLUMN total AS (id * 2)")
    done = outfeed("watch", "add", "orders", "--message", f"Order {label}")
    assert done.exit_code == 1
    assert "no event has a value for {" in done.output
    assert done.output.endswith("its columns are id, status, api_token\n")


def test_a_label_may_show_columns_their_old_values_and_fields_of_the_event(outfeed, orders):
    message = "{op} of {table} {id|source}: {status:20}, before {was.status}, {api_token} {timestamp}"
    assert outfeed("watch", "add", "orders", "--message", message).exit_code == 0
