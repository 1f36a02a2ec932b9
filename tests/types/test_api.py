"""GET /api/types, for principals that may read events."""

from __future__ import annotations

import pytest

from outfeed.access.store import account
from outfeed.display import Display, Level
from outfeed.feature import shipped_displays
from outfeed.store import displays
from outfeed.store.displays import MadeBy
from tests.app_fixtures import Api

SET = {"order.paid": Display("⚡", "Paid {amount}"), "bill.failed": Display(level=Level.ERROR)}


@pytest.fixture(autouse=True)
def some(database):
    with database.transaction() as connection:
        displays.put(connection, SET, MadeBy.COMMAND)


def test_it_answers_with_the_displays_and_the_number_of_the_last_change(api: Api):
    answer = api.get("/api/types")

    assert answer.status_code == 200
    assert (
        answer.json["displays"].items()
        >= {
            "order.paid": {"icon": "⚡", "label": "Paid {amount}", "level": "info"},
            "bill.failed": {"level": "error"},
        }.items()
    )
    assert answer.json["types"] == 2


def test_it_answers_with_the_displays_that_features_bring_unless_others_were_set(api: Api, database):
    assert set(shipped_displays()) == set(api.get("/api/types").json["displays"]) - set(SET)
    found = api.get("/api/types").json["displays"]["claude_code.tool_result"]
    assert (found["icon"], "level" in found) == ("🔧", False)

    with database.transaction() as connection:
        displays.put(connection, {"claude_code.tool_result": Display("⚡")}, MadeBy.COMMAND)
    assert api.get("/api/types").json["displays"]["claude_code.tool_result"] == {"icon": "⚡", "level": "info"}


def test_the_same_answer_is_not_sent_again_until_something_changes(api: Api, database):
    first = api.get("/api/types")
    tag = {"If-None-Match": first.headers["ETag"], **api.headers}
    again = api.client.get("/api/types", headers=tag)
    assert (again.status_code, again.data) == (304, b"")

    with database.transaction() as connection:
        displays.remove(connection, ["order.paid"])
    changed = api.client.get("/api/types", headers=tag).json
    assert (changed["types"], "order.paid" in changed["displays"]) == (3, False)


def test_a_token_that_is_limited_to_types_gets_their_displays_only(api: Api, database):
    token = account.create_token(database, "limited", ["read"], types=["order.*"])
    answer = api.client.get("/api/types", headers={"Authorization": f"Bearer {token}"})
    assert list(answer.json["displays"]) == ["order.paid"]


@pytest.mark.parametrize("scopes", [None, ["write"]])
def test_without_the_permission_to_read_there_are_no_displays(api: Api, database, scopes):
    headers = {"Authorization": f"Bearer {account.create_token(database, 'other', scopes)}"} if scopes else {}
    assert api.client.get("/api/types", headers=headers).status_code == (403 if scopes else 401)
