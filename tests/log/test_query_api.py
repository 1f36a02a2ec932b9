"""Queries over HTTP: the query language in the API and the export."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from outfeed.access.store import account
from outfeed.log.store.search import path_of
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.store.event_log import log_event
from tests.app_fixtures import Api
from tests.http.visitors import bearer


@pytest.fixture(autouse=True)
def closed(database: Database) -> Iterator[None]:
    yield
    db.at(path_of(database.path)).close()


class TestTheQuery:
    def found(self, api: Api, **query: str) -> list[str]:
        answer = api.get("/api/events", query_string=query)
        assert answer.status_code == 200, answer.text
        return [event["id"] for event in answer.json["events"]]

    def test_a_query_excludes_and_finds_values_of_the_data(self, api: Api) -> None:
        log_event("a.b", "s", data={"status": 500, "user": {"name": "ann"}, "tags": ["x", "y"], "ok": None}, id="one")
        log_event("a.c", "s", data={"status": 200, "user": {"name": "bob"}, "tags": [], "ok": True}, id="two")
        log_event("a.c", "t", data="status 500", id="three")
        for query, wanted in {
            "-type:a.b": ["three", "two"],
            "-source:t -type:a.b": ["two"],
            "type:a.b type:a.c source:s": ["two", "one"],
            "data.status:500": ["one"],
            "-data.status:500": ["three", "two"],
            "data.user.name:bob data.ok:true": ["two"],
            "data.ok:null data.tags.1:y": ["one"],
            "500 -data.status:500": ["three"],
            "since:1h": ["three", "two", "one"],
            "until:1h": [],
        }.items():
            assert self.found(api, q=query) == wanted, query
        assert self.found(api, q="-type:a.b", source="s") == ["two"]
        lines = api.get("/api/events/export", query_string={"q": "data.status:200"}).text
        assert json.loads(lines)["id"] == "two"

    def test_no_query_finds_out_a_secret(self, api: Api, database: Database) -> None:
        with database.transaction() as connection:
            connection.execute(
                "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES"
                """ ('x', 'a.b', 's', '{"password": "hunter2", "n": "1"}', '2026-01-31T12:00:00.000Z')"""
            )
        assert self.found(api, q="data.n:1") == ["x"]
        for guess in ("hunter2", "wrong"):
            assert self.found(api, q=f"data.password:{guess}") == []
            assert self.found(api, q=f"-data.password:{guess}") == ["x"]

    @pytest.mark.parametrize(
        ("query", "problem"),
        [
            ({"q": "tpye:a"}, "q: Unknown filter tpye. Did you mean type?"),
            ({"q": "since:yesterday"}, 'q: "yesterday" isn\'t a date'),
            ({"q": "type:a.b", "event_type": "a.c"}, "q: has a condition on types, which another parameter sets, too"),
            ({"q": "a*"}, "a* is too short"),
        ],
    )
    def test_an_invalid_query_is_refused_with_its_problem(self, api: Api, query: dict[str, str], problem: str) -> None:
        answer = api.get("/api/events", query_string=query)
        assert answer.status_code == 422
        assert problem in answer.json["detail"]

    def test_values_are_completed_from_events_that_the_principal_sees(self, api: Api, database: Database) -> None:
        for source, event_type in (("ci", "a.b"), ("cron", "a.c"), ("web", "a.b"), ("cage", "access.signed_in")):
            with database.transaction() as connection:
                connection.execute(
                    "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, ?, ?, 'x')",
                    (source, event_type, source),
                )

        def values(**query: str) -> list[str]:
            found: list[str] = api.get("/api/events/values", query_string=query).json["values"]
            return found

        assert values(field="source", prefix="c") == ["ci", "cron"]
        assert values(prefix="a") == values(field="type", prefix="a") == ["a.b", "a.c"]
        assert values(field="agent") == []
        assert api.get("/api/events/values?field=data").status_code == 422
        few = bearer(api.app, account.create_token(database, "few", ["read"], types=["a.c"]))
        assert few("GET", "/api/events/values?field=source").json == {"values": ["cron"]}
