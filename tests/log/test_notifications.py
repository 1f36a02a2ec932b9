"""Notifications of saved views: choices, and the events since a position."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from outfeed import log_event
from outfeed.access.store import account
from outfeed.log.store import notifications, views
from outfeed.store.database import Database
from tests.http.visitors import Visit, bearer


@pytest.fixture
def ann(flask_app: Flask, database: Database) -> Visit:
    return bearer(flask_app, account.create_token(database, "ann", ["read"]))


@pytest.fixture
def bob(flask_app: Flask, database: Database) -> Visit:
    return bearer(flask_app, account.create_token(database, "bob", ["admin"]))


def save(visit: Visit, query: str, **more: Any) -> int:
    return int(visit("POST", "/api/views", json={"name": query, "query": query, **more}).json["id"])


def news(visit: Visit, view: int, place: dict[str, Any] | None = None) -> dict[str, Any]:
    query = {"after": place["position"], "epoch": place["epoch"]} if place else {}
    answer = visit("GET", f"/api/views/{view}/news", query_string=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


class TestNews:
    def test_it_has_each_matching_event_once_after_the_first_request(self, ann: Visit) -> None:
        view = save(ann, "type:task.failed -source:ci since:1h")
        log_event("task.failed", source="a", data={"error": "before"})
        first = news(ann, view)
        assert (first["count"], first["events"]) == (0, [])
        log_event("task.failed", source="ci")
        log_event("task.done", source="a")
        event = log_event("task.failed", source="a", data={"error": "no \x1broute"})
        second = news(ann, view, first)
        assert second["count"] == 1
        assert [(each["id"], each["level"]) for each in second["events"]] == [(event.id, "error")]
        assert news(ann, view, second)["count"] == 0

    def test_many_events_are_a_count_and_the_newest_three(self, ann: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(notifications, "MAX_COUNT", 5)
        view = save(ann, "type:a.b")
        place = news(ann, view)
        ids = [log_event("a.b", source="s").id for _ in range(7)]
        found = news(ann, view, place)
        assert (found["count"], found["is_more"]) == (5, True)
        assert len(found["events"]) == 3
        assert {each["id"] for each in found["events"]} < set(ids)
        assert news(ann, view, found)["count"] == 0, "the others are skipped"

    def test_a_read_is_bounded_and_the_next_one_continues(self, ann: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
        view = save(ann, "data.n:7")
        place = news(ann, view)
        for number in range(10):
            log_event("a.b", source="s", data={"n": number})
        monkeypatch.setattr(notifications, "MAX_SCANNED", 2)
        counts = []
        for _ in range(12):
            place = news(ann, view, place)
            counts.append(place["count"])
        assert sum(counts) == 1

    def test_a_position_of_another_history_begins_at_the_head(self, ann: Visit) -> None:
        view = save(ann, "type:a.b")
        log_event("a.b", source="s")
        assert news(ann, view, {"position": 0, "epoch": "another"})["count"] == 0
        assert news(ann, view, {"position": 10**9, "epoch": news(ann, view)["epoch"]})["count"] == 0

    def test_an_event_that_the_caller_may_not_see_is_no_news(self, flask_app: Flask, database: Database) -> None:
        limited = bearer(flask_app, account.create_token(database, "c", ["read"], types=["a.*"]))
        view = save(limited, "source:s")
        place = news(limited, view)
        log_event("b.c", source="s")
        log_event("a.b", source="s")
        assert news(limited, view, place)["count"] == 1


class TestChoices:
    def test_a_choice_belongs_to_one_caller_and_one_view(self, ann: Visit, bob: Visit, database: Database) -> None:
        view = save(bob, "type:a.b", is_shared=True)
        choice = {"is_on": True, "has_sound": True, "is_always": False}
        assert ann("PUT", f"/api/views/{view}/notification", json=choice).json == choice
        assert stored(database) == [("token:ann", view, 1, 0)]
        ann("PUT", f"/api/views/{view}/notification", json={"is_on": False})
        assert stored(database) == []

    def test_a_view_that_the_caller_does_not_see_is_not_found(self, ann: Visit, bob: Visit) -> None:
        view = save(bob, "type:a.b")
        for number in (view, 999, 2**70):
            assert ann("GET", f"/api/views/{number}/news").status_code == 404
            assert ann("PUT", f"/api/views/{number}/notification", json={"is_on": True}).status_code == 404

    def test_the_choice_ends_with_its_view_and_with_its_user(self, ann: Visit, bob: Visit, database: Database) -> None:
        mine, shared = save(ann, "type:a.b"), save(bob, "type:c.d", is_shared=True)
        for view in (mine, shared):
            ann("PUT", f"/api/views/{view}/notification", json={"is_on": True})
        ann("DELETE", f"/api/views/{mine}")
        assert stored(database) == [("token:ann", shared, 0, 0)]
        account.revoke_token(database, "ann")
        with database.transaction() as connection:
            views.delete_ownerless(connection)
        assert stored(database) == []


def stored(database: Database) -> list[tuple[Any, ...]]:
    with database.connection() as connection:
        return connection.execute(
            "SELECT owner, view_id, has_sound, is_always FROM outfeed_view_notification"
        ).fetchall()
