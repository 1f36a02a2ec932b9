"""Definitions: shorthands become rules, and mistakes are named."""

from __future__ import annotations

import re

import pytest

from outfeed.display import Level
from outfeed.errors import InvalidDisplay, InvalidWatch
from outfeed.watch import displays
from outfeed.watch.definition import Definition, Rule, derived, from_json, from_toml, from_values


def rules(**values: object) -> list[tuple[str, str]]:
    return [(rule.on, rule.type) for rule in from_values({"table": "orders", **values}).rules]


def test_without_options_each_operation_has_a_type():
    assert rules() == [("insert", "orders.created"), ("update", "orders.updated"), ("delete", "orders.deleted")]


def test_states_come_before_the_other_rules():
    assert rules(states={"status": ["paid", "Sent out"]})[:3] == [
        ("update", "orders.paid"), ("update", "orders.sent_out"), ("insert", "orders.created"),
    ]  # fmt: skip


def test_only_changes_is_the_changed_of_each_update_rule_without_one():
    definition = from_values(
        {
            "table": "orders",
            "only_changes": ["a"],
            "rules": [
                {"on": "update", "type": "o.one"},
                {"on": "update", "changed": ["b"], "type": "o.two"},
                {"on": "insert", "type": "o.three"},
            ],
        }
    )
    assert [rule.changed for rule in definition.rules] == [("a",), ("b",), None]


def test_where_doubles_each_update_rule():
    definition = from_values({"table": "orders", "where": {"kind": ["big"]}})
    test = (("kind", ("big",)),)
    assert definition.rules == (
        Rule("insert", "orders.created", when=test),
        Rule("update", "orders.updated", when=test),
        Rule("update", "orders.updated", was=test),
        Rule("delete", "orders.deleted", when=test),
    )


def test_a_message_is_the_label_of_each_type():
    definition = from_values({"table": "orders", "message": "Order {id}"})
    assert {name: each.label for name, each in displays.of(definition).items()} == {
        "orders.created": "Order {id}", "orders.updated": "Order {id}", "orders.deleted": "Order {id}",
        "orders.gap": None,
    }  # fmt: skip


def test_a_gap_is_a_warning():
    assert displays.of(from_values({"table": "orders"}))["orders.gap"].level is Level.WARNING


def test_a_type_of_outfeeds_own_keeps_its_display():
    rules = [{"on": "insert", "type": "task.created", "icon": "🎉"}]
    with pytest.raises(InvalidDisplay, match="Outfeed defines this type"):
        displays.of(from_values({"table": "tasks", "rules": rules}))


@pytest.mark.parametrize(
    ("table", "word"),
    [("Order Items", "order_items"), ("2fa", "t_2fa"), ("_x", "t__x"), ("größe", "gr__e"), ("orders", "orders")],
)
def test_the_type_is_derived_from_the_name(table, word):
    assert derived(table) == word


@pytest.mark.parametrize("table", ["task", "Agent", "bid", "tool", "auction", "system", "alert"])
def test_a_table_with_a_word_of_outfeed_gets_another_type(table):
    assert from_values({"table": table}).type == f"table_{table.lower()}"


def test_a_word_of_the_swarm_can_be_given():
    assert from_values({"table": "task", "as": "task"}).type == "task"


def test_a_definition_survives_its_json():
    definition = from_values(
        {
            "table": "orders", "as": "order", "except": ["note"], "show": ["token"], "source": {"column": "shop"},
            "task_id": "t", "agent_id": "a", "keep_days": 7, "from_start": True, "only_changes": ["b"],
            "rules": [
                {"on": "update", "when": {"s": ["x", 1, True]}, "was": {"s": [2.5]}, "type": "order.x", "icon": "⚡"}
            ],
        }
    )  # fmt: skip
    assert from_json("orders", "order", definition.as_json()) == definition
    assert from_json("orders", "order", definition.as_json()).as_json() == definition.as_json()


def rule(**values: object) -> dict[str, object]:
    return {"rules": [{"on": "insert", "type": "o.new", **values}]}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"tables": 1}, "unknown key 'tables'"),
        ({"as": "Order"}, "as: must be lower-case words"),
        ({"as": "system"}, "as: types that begin with system are Outfeed's own"),
        ({"columns": ["a"], "except": ["b"]}, "only one of them"),
        ({"columns": "a"}, "columns: must be a list of columns"),
        ({"except": []}, "except: names no column"),
        ({"no_key": 1}, "no_key: must be true or false"),
        ({"keep_days": -1}, "keep_days: must be a number of days"),
        ({"keep_days": True}, "keep_days: must be a number of days"),
        ({"source": {"col": "a"}}, "source: must be text or"),
        ({"source": "x" * 201}, "source: must have at most 200 characters"),
        ({"states": {"s": ["created"]}}, "another meaning"),
        ({"states": {"s": ["a b", "a-b"]}}, "two values would give orders.a_b"),
        ({"states": {"s": ["a"], "t": ["b"]}}, "states: must name one column"),
        ({"states": {"s": ["a"]}, "where": {"S": ["b"]}}, "must name different columns"),
        ({"where": {"s": []}}, "must be a list of values"),
        ({"where": {"s": ["v"] * 101}}, "at most 100 values"),
        ({"where": {"s": [None]}}, "a value must be text"),
        ({"where": {"s": [2**63]}}, "a value must be text"),
        ({"message": "x" * 201}, "message: must have at most 200 characters"),
        ({"message": "{a}" * 21}, "message: must have at most 20 places"),
        ({"rules": []}, "at least one rule"),
        ({**rule(), "where": {"s": ["a"]}}, "where: can't be combined with rules"),
        (rule(on="change"), "rule 1: on: must be insert, update or delete"),
        ({"rules": [{"on": "insert"}]}, "rule 1: type: is missing"),
        (rule(type="created"), "rule 1: type: must be lower-case words joined by dots"),
        (rule(type="access.x"), "begin with access"),
        (rule(type=f"o.{'x' * 64}"), "at most 64 characters"),
        (rule(type="orders.gap"), "orders.gap has another meaning"),
        (rule(was={"a": ["b"]}), 'was: only a rule with on = "update"'),
        (rule(changed=["a"]), 'changed: only a rule with on = "update"'),
        (rule(level="loud"), "level: must be info, warning or error"),
        (rule(icon="x" * 17), "icon: must have at most 16 characters"),
        (rule(colour="red"), "unknown key 'colour'"),
        ({"rules": [{"on": "insert", "type": "o.new"}] * 51}, "at most 50"),
        (
            {"rules": [{"on": "insert", "type": "o.x"}, {"on": "delete", "type": "o.x", "icon": "!"}]},
            "must have the same icon, label and level",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named(values, problem):
    with pytest.raises(InvalidWatch, match=re.escape(problem)):
        from_values({"table": "orders", **values})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[watch]", "not TOML"),
        ("watches = 1", "unknown key 'watches'"),
        ("[watch]\ntable = 'a'", "each watch is a table [[watch]]"),
        ("[[watch]]\nas = 'a'", "watch 1: table: is missing"),
        ("[[watch]]\ntable = 'a'\nas = 'X'", "watch 1 (a): as:"),
        ("[[watch]]\ntable = 'a'\n[[watch]]\ntable = 'A'", "table A: is watched twice"),
        ("[[watch]]\ntable = 'a'\n[[watch]]\ntable = 'b'\nas = 'a'", "would both produce"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_watch(text, problem):
    with pytest.raises(InvalidWatch, match=re.escape(problem)):
        from_toml(text)


def test_an_empty_file_has_no_watch():
    assert from_toml("") == []


def test_a_file_has_all_keys():
    (found,) = from_toml(
        """
        [[watch]]
        table = "ledger"
        as = "payment"
        only_changes = ["status"]
        columns = ["id", "status", "amount_sats", "memo"]
        source = {column = "source"}
        rules = [
          {on="insert", when={tx_type=["incoming"]}, type="payment.invoiced", icon="🧾", label="Invoice: {memo}"},
          {on="update", when={status=["failed"]}, type="payment.failed", label="Failed: {memo}", level="error"},
        ]
        """
    )
    assert isinstance(found, Definition)
    assert (found.type, found.source_column, found.columns) == (
        "payment",
        "source",
        ("id", "status", "amount_sats", "memo"),
    )
    assert [rule.level for rule in found.rules] == [None, "error"]
