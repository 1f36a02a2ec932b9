"""A person's data, erased from the events of one row."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from outfeed.store.database import Database
from outfeed.upkeep import retention
from outfeed.upkeep.policy import Policy
from tests.watch.watched import watch

SECRET = "Ada Lovelace"


@pytest.fixture
def customers(database: Database) -> Database:
    with closing(sqlite3.connect(database.path, isolation_level=None)) as program:
        program.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name UNIQUE)")
        watch(program, "customers")
        for statement in (
            f"INSERT INTO customers VALUES (1, '{SECRET}'), (2, 'Bob')",
            "INSERT INTO customers VALUES (2, 'Ann') ON CONFLICT DO UPDATE SET name = 'Ann'",
            f"INSERT OR IGNORE INTO customers VALUES (1, '{SECRET}')",
            "UPDATE customers SET id = 7 WHERE id = 1",
            "DELETE FROM customers WHERE id = 7",
        ):
            program.execute(statement)
    return database


def contents(database: Database, *tables: str) -> str:
    with closing(sqlite3.connect(database.path)) as raw:
        return str([raw.execute(f"SELECT * FROM {table}").fetchall() for table in tables])


def test_the_events_of_a_row_are_erased_from_log_outbox_and_notes(outfeed, customers):
    assert SECRET in contents(customers, "outfeed_replaced")
    done = outfeed("prune", "--table", "customers", "--key", '{"id": 7}', "--dry-run")
    assert done.output == "Would prune 2 events of the row from the log and the outbox; nothing was deleted.\n"
    done = outfeed("prune", "--table", "customers", "--key", '{"id": 7}')
    assert done.output == "Pruned 2 events of the row from the log and the outbox.\n"
    done = outfeed("prune", "--table", "customers", "--key", '{"id": 1}', "--json")
    assert json.loads(done.output)["deleted"] == 1
    found = contents(customers, "event_log", "outbox", "outfeed_replaced")
    assert SECRET not in found
    assert "Bob" in found
    assert SECRET.encode() not in customers.path.read_bytes()


def test_a_change_of_the_key_belongs_to_both_keys(outfeed, customers):
    done = outfeed("prune", "--table", "customers", "--key", '{"id": 1}', "--json")
    assert json.loads(done.output)["deleted"] == 2


def test_a_row_without_events_is_reported(outfeed, customers):
    done = outfeed("prune", "--table", "customers", "--key", '{"id": "7"}')
    assert done.exit_code == 1
    assert "no event of table 'customers' has the key" in done.output


@pytest.mark.parametrize("key", ["7", "{}", "id=7"])
def test_a_key_that_is_no_object_is_refused(outfeed, customers, key):
    assert outfeed("prune", "--table", "customers", "--key", key).exit_code == 2


def test_table_and_key_need_each_other(outfeed, customers):
    assert outfeed("prune", "--table", "customers").exit_code == 2
    assert outfeed("prune", "--id", "x", "--key", '{"id": 7}').exit_code == 2


def test_each_retention_run_empties_the_notes(customers):
    assert contents(customers, "outfeed_replaced") != "[[]]"
    retention.prune(customers, Policy(), by="test")
    assert contents(customers, "outfeed_replaced") == "[[]]"
