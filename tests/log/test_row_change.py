"""The change of a watched row, as the page of its event shows it."""

from __future__ import annotations

import pytest

from outfeed.log.row_change import change_in

UPDATE = {
    "op": "update", "table": "orders", "key": {"id": 7}, "was": {"status": "open", "note": None},
    "row": {"id": 7, "status": "paid", "note": "thanks"},
}  # fmt: skip


def columns(data):
    return [(column.name, column.before, column.after, column.is_changed) for column in change_in(data).columns]


def test_an_update_has_both_sides_with_the_changed_columns_first():
    found = change_in(UPDATE)

    assert (found.operation, found.table, found.key) == ("Updated", "orders", "id = 7")
    assert columns(UPDATE) == [
        ("status", "open", "paid", True), ("note", "null", "thanks", True), ("id", "7", "7", False),
    ]  # fmt: skip
    assert (found.has_before, found.has_after) == (True, True)


@pytest.mark.parametrize(("operation", "name", "expected"), [
    ("insert", "Inserted", ("status", None, "open", False)),
    ("read", "Existing", ("status", None, "open", False)),
    ("delete", "Deleted", ("status", "open", None, False)),
])  # fmt: skip
def test_a_row_without_a_change_has_one_side(operation, name, expected):
    data = {"op": operation, "table": "orders", "key": None, "row": {"status": "open"}}

    assert (change_in(data).operation, change_in(data).key) == (name, "")
    assert columns(data) == [expected]


@pytest.mark.parametrize("data", [
    None, "text", [UPDATE], {"op": "update"}, UPDATE | {"op": "gap"}, UPDATE | {"table": 5}, UPDATE | {"row": "x"},
    UPDATE | {"was": ["x"]}, UPDATE | {"op": ["update"]},
])  # fmt: skip
def test_other_data_is_no_change(data):
    assert change_in(data) is None


def test_nested_values_and_long_ones_are_shown_as_text():
    data = UPDATE | {"row": {"list": [1, {"a": "b"}], "long": "x" * 5000}, "was": {}, "key": ["7"]}

    assert columns(data)[0] == ("list", '[1, {"a": "b"}]', '[1, {"a": "b"}]', False)
    assert len(columns(data)[1][1]) < 2100
