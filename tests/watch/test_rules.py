"""Rules and shorthands: which change has an event, and of which type."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.watch.watched import new_database, run, types, watch


@pytest.fixture
def program() -> Iterator[sqlite3.Connection]:
    made = new_database(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT COLLATE NOCASE NOT NULL DEFAULT 'open',"
        " amount, kind TEXT, number INTEGER)"
    )
    with closing(made):
        yield made


@pytest.mark.parametrize(
    ("before", "after", "count"), [("'a'", "'a'", 0), ("NULL", "NULL", 0), ("'a'", "'A'", 1), ("1", "1.0", 0)]
)
def test_an_update_is_a_change_of_a_value(before, after, count):
    with closing(new_database("CREATE TABLE t (a COLLATE NOCASE)", f"INSERT INTO t VALUES ({before})")) as program:
        watch(program, "t")
        assert len(run(program, f"UPDATE t SET a = {after}")) == count


def test_only_changes_names_the_columns_that_make_an_update(program):
    watch(program, "orders", only_changes=["status"])
    assert types(run(program, "INSERT INTO orders (amount) VALUES (1)")) == ["orders.created"]
    assert run(program, "UPDATE orders SET amount = 2") == []
    (found,) = run(program, "UPDATE orders SET amount = 3, status = 'paid'")
    assert found.data["was"] == {"status": "open", "amount": 2}


def test_states_give_each_value_its_own_type(program):
    watch(program, "orders", states={"status": ["paid", "sent out"]})
    run(program, "INSERT INTO orders (amount) VALUES (1)")
    assert types(run(program, "UPDATE orders SET status = 'paid'")) == ["orders.paid"]
    assert types(run(program, "UPDATE orders SET status = 'sent out', amount = 9")) == ["orders.sent_out"]
    assert types(run(program, "UPDATE orders SET amount = 2")) == ["orders.updated"]
    assert types(run(program, "UPDATE orders SET status = 'open'")) == ["orders.updated"]
    assert types(run(program, "UPDATE orders SET status = 'PAID'")) == ["orders.updated"]


def test_where_reports_rows_that_enter_stay_and_leave(program):
    watch(program, "orders", where={"kind": ["big"]})
    assert run(program, "INSERT INTO orders (kind) VALUES ('small'), (NULL)") == []
    assert types(run(program, "UPDATE orders SET kind = 'big' WHERE id = 1")) == ["orders.updated"]
    assert types(run(program, "UPDATE orders SET amount = 2 WHERE id = 1")) == ["orders.updated"]
    assert types(run(program, "UPDATE orders SET kind = 'small' WHERE id = 1")) == ["orders.updated"]
    assert run(program, "UPDATE orders SET amount = 3 WHERE id = 1") == []
    assert run(program, "DELETE FROM orders") == []
    assert types(run(program, "INSERT INTO orders (kind) VALUES ('big')")) == ["orders.created"]
    assert types(run(program, "DELETE FROM orders")) == ["orders.deleted"]


def test_where_and_states_both_count(program):
    watch(program, "orders", where={"kind": ["big"]}, states={"status": ["paid"]})
    run(program, "INSERT INTO orders (kind) VALUES ('small'), ('big')")
    assert types(run(program, "UPDATE orders SET status = 'paid'")) == ["orders.paid"]


def test_where_counts_for_replaced_rows(program):
    watch(program, "orders", where={"kind": ["big"]})
    run(program, "INSERT INTO orders (id, kind) VALUES (1, 'small'), (2, 'big')")
    assert types(run(program, "REPLACE INTO orders (id, kind) VALUES (1, 'big')")) == ["orders.updated"]
    assert types(run(program, "REPLACE INTO orders (id, kind) VALUES (2, 'small')")) == ["orders.updated"]
    assert run(program, "REPLACE INTO orders (id, kind, amount) VALUES (2, 'small', 5)") == []


def test_the_first_rule_that_matches_gives_the_type(program):
    rules = [
        {"on": "update", "when": {"status": ["paid"]}, "was": {"status": ["open"]}, "type": "order.paid_at_once"},
        {"on": "update", "when": {"status": ["paid"]}, "changed": ["status"], "type": "order.paid"},
        {"on": "update", "changed": ["amount"], "type": "order.changed"},
    ]
    watch(program, "orders", rules=rules)
    assert run(program, "INSERT INTO orders (amount) VALUES (1)") == []
    assert types(run(program, "UPDATE orders SET status = 'paid', amount = 2")) == ["order.paid_at_once"]
    run(program, "UPDATE orders SET status = 'new'")
    assert types(run(program, "UPDATE orders SET status = 'paid', amount = 3")) == ["order.paid"]
    assert types(run(program, "UPDATE orders SET amount = 4")) == ["order.changed"]
    assert run(program, "UPDATE orders SET kind = 'x'") == []


@pytest.mark.parametrize(
    ("column", "given"), [("kind", "1"), ("kind", 1), ("number", 1), ("number", "1"), ("number", True)]
)
def test_values_are_compared_as_the_column_stores_them(program, column, given):
    watch(program, "orders", rules=[{"on": "insert", "when": {column: [given]}, "type": "order.one"}])
    assert types(run(program, f"INSERT INTO orders ({column}) VALUES (1)")) == ["order.one"]
    assert types(run(program, f"INSERT INTO orders ({column}) VALUES ('1')")) == ["order.one"]
    assert run(program, f"INSERT INTO orders ({column}) VALUES (2), (NULL)") == []


def test_a_column_without_a_type_tells_text_from_numbers(program):
    watch(program, "orders", rules=[{"on": "insert", "when": {"amount": [1]}, "type": "order.one"}])
    assert types(run(program, "INSERT INTO orders (amount) VALUES (1), (1.0)")) == ["order.one", "order.one"]
    assert run(program, "INSERT INTO orders (amount) VALUES ('1')") == []


def test_rules_may_name_columns_that_the_event_omits(program):
    watch(program, "orders", columns=["id"], rules=[{"on": "update", "changed": ["amount"], "type": "order.changed"}])
    run(program, "INSERT INTO orders (amount) VALUES (1)")
    (found,) = run(program, "UPDATE orders SET amount = 2")
    assert (found.data["was"], found.data["row"]) == ({}, {"id": 1})


def test_source_task_and_agent_come_from_columns(program):
    watch(program, "orders", source={"column": "kind"}, task_id="number", agent_id="amount")
    (found,) = run(program, "INSERT INTO orders (kind, number, amount) VALUES ('shop', 7, ?)", "x" * 300)
    assert (found.source, found.task_id, found.agent_id) == ("shop", "7", "x" * 200)
    (found,) = run(program, "INSERT INTO orders (kind) VALUES (NULL)")
    assert (found.source, found.task_id, found.agent_id) == ("orders", None, None)
    (found,) = run(program, "DELETE FROM orders WHERE kind = 'shop'")
    assert (found.source, found.task_id) == ("shop", "7")


def test_a_fixed_source_is_that_of_each_event(program):
    watch(program, "orders", source="shop")
    (found,) = run(program, "INSERT INTO orders (id) VALUES (1)")
    assert found.source == "shop"
