"""Saved views: of one user or shared, safe, and gone with their owner."""

from __future__ import annotations

from typing import Any

import pytest

from outfeed.access.store import account, user
from outfeed.config import settings
from outfeed.features import FEATURES
from outfeed.log.feature import LogFeature
from outfeed.log.store import views
from outfeed.principal import READ, SCOPES, Principal
from outfeed.store.database import Database
from outfeed.upkeep import backup
from tests.app_fixtures import Api
from tests.http.visitors import bearer

FAILED = {"name": "Failed tasks", "query": "type:task.failed since:24h"}


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [view["name"] for view in answer.json["views"]]


def reader(api: Api, database: Database, name: str, *scopes: str) -> Any:
    return bearer(api.app, account.create_token(database, name, list(scopes or [READ])))


def test_a_view_is_its_owners_until_an_operator_shares_one(api: Api, database: Database) -> None:
    ann, bob, boss = reader(api, database, "ann"), reader(api, database, "bob"), reader(api, database, "boss", "admin")
    created = ann("POST", "/api/views", json=FAILED)
    assert (created.status_code, created.json) == (
        201, {"id": 1, "owner": "token:ann", "is_shared": False} | FAILED
    )  # fmt: skip
    assert names(bob("GET", "/api/views")) == []
    assert ann("POST", "/api/views", json=FAILED | {"is_shared": True}).status_code == 403
    assert boss("POST", "/api/views", json={"name": "All", "query": "", "is_shared": True}).status_code == 201
    assert names(bob("GET", "/api/views")) == ["All"]
    assert names(ann("GET", "/api/views")) == ["All", "Failed tasks"]
    assert bob("DELETE", "/api/views/1").status_code == bob("DELETE", "/api/views/2").status_code == 404
    assert names(ann("DELETE", "/api/views/1")) == ["All"]
    assert names(boss("DELETE", "/api/views/2")) == []


def test_a_view_of_the_same_name_is_replaced(api: Api) -> None:
    first = api.post("/api/views", json=FAILED)
    second = api.post("/api/views", json=FAILED | {"query": "source:ci"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert [view["query"] for view in api.get("/api/views").json["views"]] == ["source:ci"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": " "}, "name: must have 1 to 60 printable characters"),
        ({"name": "two\nlines"}, "name: must have"),
        ({"query": "tpye:x"}, "query: Unknown filter tpye. Did you mean type?"),
        ({"query": '"password=hunter2hunter2" AKIAIOSFODNN7EXAMPLE'}, "query: contains a secret"),
    ],
)
def test_an_invalid_or_secret_view_is_refused(api: Api, change: dict[str, str], problem: str) -> None:
    answer = api.post("/api/views", json=FAILED | change)
    assert answer.status_code == 422
    assert problem in answer.json["detail"]
    assert names(api.get("/api/views")) == []


def test_an_owner_has_a_limited_number_of_views(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_VIEWS", 1)
    api.post("/api/views", json=FAILED)
    assert api.post("/api/views", json=FAILED | {"name": "Second"}).status_code == 422
    assert api.post("/api/views", json=FAILED).status_code == 200


def test_a_view_is_gone_with_its_user_and_not_the_next_users(database: Database) -> None:
    user.add(database, "ann", "viewer")
    ann = Principal("ann", SCOPES, "session:x")
    views.save(database, ann, "Mine", "source:ci", is_shared=True)
    assert [view.name for view in views.list_views(database, ann)] == ["Mine"]
    with database.transaction() as connection:
        connection.execute("DELETE FROM outfeed_user WHERE name = 'ann'")
        connection.execute("INSERT INTO outfeed_user (name, role, created_at) VALUES ('ann', 'viewer', '2999-01-01')")
    assert views.list_views(database, ann) == []
    [finding] = LogFeature().check_health(database, settings())["views"]
    assert finding.what == "saved views of the log without an owner: 1"
    assert finding.fix is not None
    finding.fix()
    assert views.count_ownerless(database) == 0


def test_a_retention_run_deletes_views_without_an_owner(database: Database) -> None:
    account.create_token(database, "robot", [READ])
    views.save(database, Principal("robot", (READ,), "token:robot"), "Mine", "source:ci", is_shared=False)
    account.revoke_token(database, "robot")
    with database.transaction() as connection:
        for feature in FEATURES:
            feature.clean(connection)
    assert views.count_ownerless(database) == 0


def test_a_restore_keeps_the_views_of_now() -> None:
    assert views.TABLE in backup.kept_tables()


def test_the_page_lists_saves_and_deletes_views(api: Api, database: Database) -> None:
    saved = api.post("/swarm/views", data={"name": "Failed", "q": "type:task.failed"})
    assert (saved.status_code, saved.location) == (303, "/swarm/events?q=type:task.failed")
    page = api.get(saved.location).text
    assert "<summary><bdi>Failed</bdi></summary>" in page
    assert 'title="Delete Failed"' in page
    other = reader(api, database, "other")
    assert "Failed" not in other("GET", "/swarm/events").text
    assert other("POST", "/swarm/views/1/delete").status_code == 404
    assert api.post("/swarm/views/1/delete", data={"q": "source:ci"}).location == "/swarm/events?q=source:ci"
    assert "<summary><bdi>Views</bdi></summary>" in api.get("/swarm/events?q=type:task.failed").text
