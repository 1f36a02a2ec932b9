"""Durable consumers over HTTP: who may create, read and acknowledge one."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from typing import Any

import pytest

from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.store import checkpoint
from outfeed.store.database import Database
from tests.http.visitors import Visit, bearer, show_tokens_and_names, signed_in

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
FORBIDDEN = "forbidden_consumer"
GETS = ["/api/feed?consumer=cron", "/api/feed?consumer=cron&wait=5", "/api/feed/stream?consumer=cron"]
# A server without access to its sockets can't stream. That error comes after all checks.
IS_ADMITTED = {200: True, 501: True, 403: False}


class ConsumerApp:
    """An app and its visitors, of which `bot` owns the consumer `cron`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.app = create_app(Settings(database=database.path, max_consumers_per_owner=3, sign_ins_per_minute=0))
        show_tokens_and_names(self.app)
        self.app.extensions["outfeed"].hub.close()  # otherwise a long poll would wait for events
        scopes = {"bot": ["read"], "reader": ["read"], "writer": ["read", "write"], "admin": ["admin"]}
        made = {name: account.create_token(database, name, wanted) for name, wanted in scopes.items()}
        self.visits: dict[str, Visit] = {name: bearer(self.app, secret) for name, secret in made.items()}
        self.visits |= {role: signed_in(self.app, database, role) for role in ("viewer", "operator")}

    def create(self, who: str, name: str = "cron") -> Any:
        return self.visits[who]("POST", "/api/consumers", json={"name": name})

    def get(self, who: str, path: str, headers: dict[str, str] | None = None) -> Any:
        return self.visits[who]("GET", path, headers or OWN_PAGE)

    def ack(self, who: str, seq: int = 0, name: str = "cron") -> Any:
        epoch = self.app.extensions["outfeed"].outbox.window().epoch
        return self.visits[who]("POST", f"/api/consumers/{name}/ack", json={"seq": seq, "epoch": epoch})

    def names(self) -> set[str]:
        return {each.name for each in checkpoint.list_checkpoints(self.database)}


@pytest.fixture(scope="module")
def consumer_app(tmp_path_factory: pytest.TempPathFactory, upgraded: Any) -> Any:
    path = tmp_path_factory.mktemp("consumers") / "outfeed.db"
    shutil.copy(upgraded, path)
    database = Database(path)
    yield ConsumerApp(database)
    database.close()


@pytest.fixture(autouse=True)
def no_consumers(consumer_app: ConsumerApp) -> None:
    for name in consumer_app.names():
        checkpoint.remove(consumer_app.database, name)


class TestCreate:
    @pytest.mark.parametrize(("who", "owner"), [("bot", "token:bot"), ("viewer", "user:viewer0")])
    def test_a_post_creates_a_consumer_at_the_head_for_the_caller(
        self, consumer_app: ConsumerApp, who: str, owner: str
    ) -> None:
        first, again = consumer_app.create(who), consumer_app.create(who)
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json == again.json
        head = consumer_app.app.extensions["outfeed"].outbox.window()
        assert first.json == {
            "name": "cron", "owner": owner, "epoch": head.epoch, "seq": head.last_seq, "is_protected": False,
        }  # fmt: skip

    def test_a_consumer_of_another_principal_is_rejected(self, consumer_app: ConsumerApp) -> None:
        consumer_app.create("bot")
        answer = consumer_app.create("reader")
        assert (answer.status_code, answer.json["code"]) == (403, FORBIDDEN)
        assert consumer_app.create("operator").json["owner"] == "token:bot"

    def test_each_owner_has_its_limit(self, consumer_app: ConsumerApp) -> None:
        assert [consumer_app.create("bot", f"c{n}").status_code for n in range(4)] == [201, 201, 201, 422]
        answer = consumer_app.create("bot", "c4")
        assert answer.json["code"] == "too_many_consumers"
        assert "the limit is 3" in answer.json["detail"]
        assert consumer_app.create("reader").status_code == 201
        assert consumer_app.names() == {"c0", "c1", "c2", "cron"}

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"name": "webhook:ops"}, 422),
            ({"name": ""}, 422),
            ({"name": "cron", "is_protected": True}, 422),
            ({}, 422),
            (["cron"], 400),
        ],
    )
    def test_an_invalid_name_is_rejected(self, consumer_app: ConsumerApp, body: Any, status: int) -> None:
        assert consumer_app.visits["admin"]("POST", "/api/consumers", json=body).status_code == status
        assert consumer_app.names() == set()

    @pytest.mark.parametrize("path", ["/api/consumers", "/api/consumers/cron/ack"])
    def test_a_body_nested_too_deeply_is_rejected(self, consumer_app: ConsumerApp, path: str) -> None:
        deep = "[" * 100_000 + "]" * 100_000
        answer = consumer_app.visits["bot"]("POST", path, data=deep, content_type="application/json")
        assert (answer.status_code, answer.json["detail"]) == (
            422,
            "the body is nested too deeply; data may have 64 levels",
        )


class TestUse:
    @pytest.mark.parametrize("name", ["nobody", "-odd", "x" * 3000])
    def test_an_ack_for_an_unknown_consumer_returns_a_short_404(self, consumer_app: ConsumerApp, name: str) -> None:
        answer = consumer_app.ack("bot", name=name)
        assert answer.status_code == 404
        assert name[:20] in answer.text
        assert len(answer.text) < 500

    @pytest.mark.parametrize("path", GETS)
    def test_a_get_creates_no_consumer_and_names_the_call_that_does(self, consumer_app: ConsumerApp, path: str) -> None:
        for who in ("bot", "operator"):
            answer = consumer_app.get(who, path)
            assert answer.status_code == 404
            assert "POST /api/consumers" in answer.json["detail"]
        assert consumer_app.names() == set()

    @pytest.mark.parametrize("path", GETS)
    def test_only_the_owner_and_operators_read_a_consumer(self, consumer_app: ConsumerApp, path: str) -> None:
        consumer_app.create("bot")
        answers = {who: consumer_app.get(who, path) for who in consumer_app.visits}
        assert {who: IS_ADMITTED[answer.status_code] for who, answer in answers.items()} == {
            "bot": True, "admin": True, "operator": True, "reader": False, "writer": False, "viewer": False,
        }  # fmt: skip
        assert answers["reader"].json["code"] == FORBIDDEN

    def test_only_the_owner_and_operators_acknowledge(self, consumer_app: ConsumerApp) -> None:
        consumer_app.create("bot")
        answers = {who: consumer_app.ack(who) for who in consumer_app.visits}
        assert {who: answer.status_code for who, answer in answers.items()} == {
            "bot": 200, "admin": 200, "operator": 200, "reader": 403, "writer": 403, "viewer": 403,
        }  # fmt: skip
        assert answers["reader"].json["code"] == FORBIDDEN

    def test_a_users_consumer_is_not_that_of_a_token_with_the_same_name(self, consumer_app: ConsumerApp) -> None:
        name = consumer_app.visits["viewer"].name  # type: ignore[attr-defined]
        consumer_app.create("viewer")
        namesake = bearer(consumer_app.app, account.create_token(consumer_app.database, name, ["read"]))
        assert namesake("GET", GETS[0]).status_code == 403
        assert consumer_app.get("viewer", GETS[0]).status_code == 200


class TestRemove:
    def test_only_the_owner_and_operators_remove_a_consumer(self, consumer_app: ConsumerApp) -> None:
        for who, status in {"reader": 403, "bot": 200, "admin": 200}.items():
            consumer_app.create("bot")
            answer = consumer_app.visits[who]("DELETE", "/api/consumers/cron")
            assert answer.status_code == status
            assert consumer_app.names() == (set() if status == 200 else {"cron"})
        assert answer.json["owner"] == "token:bot"
        with contextlib.closing(sqlite3.connect(consumer_app.database.path)) as raw:
            rows = raw.execute(
                "SELECT data FROM event_log WHERE event_type = 'access.consumer_removed' ORDER BY rowid DESC LIMIT 2"
            ).fetchall()
        removed = {"name": "cron", "owner": "token:bot"}
        assert [json.loads(data) for (data,) in rows] == [{"by": by, **removed} for by in ("token:admin", "token:bot")]

    def test_an_unknown_consumer_is_404(self, consumer_app: ConsumerApp) -> None:
        assert consumer_app.visits["bot"]("DELETE", "/api/consumers/unknown").status_code == 404


class TestOtherSites:
    """A page of another site can make a browser send the cookie with a GET."""

    HOST = "http://localhost"
    REFUSED = (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "null"},
        {"Referer": "https://elsewhere.example/page"},
        {"Referer": "http://localhost.elsewhere.example/"},
        {"Referer": "http://["},
        {},
    )
    ADMITTED = (
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": HOST},
        {"Referer": f"{HOST}/swarm/live"},
    )

    @pytest.mark.parametrize("path", GETS)
    @pytest.mark.parametrize("headers", REFUSED, ids=str)
    def test_pages_of_other_sites_use_no_consumer_by_a_session(
        self, consumer_app: ConsumerApp, path: str, headers: dict[str, str]
    ) -> None:
        consumer_app.create("operator")
        answer = consumer_app.visits["operator"]("GET", path, headers)
        assert answer.status_code == 403
        assert "only from a page of this site" in answer.json["detail"]

    @pytest.mark.parametrize("headers", REFUSED, ids=str)
    def test_a_get_from_another_site_gives_no_consumer_an_owner(
        self, consumer_app: ConsumerApp, headers: dict[str, str]
    ) -> None:
        checkpoint.add(consumer_app.database, "cron", is_protected=None)
        consumer_app.visits["viewer"]("GET", GETS[0], headers)
        assert [each.owner for each in checkpoint.list_checkpoints(consumer_app.database)] == [None]

    @pytest.mark.parametrize("headers", ADMITTED, ids=str)
    def test_pages_of_this_site_use_a_consumer_by_a_session(
        self, consumer_app: ConsumerApp, headers: dict[str, str]
    ) -> None:
        consumer_app.create("operator")
        assert consumer_app.visits["operator"]("GET", GETS[0], headers).status_code == 200

    @pytest.mark.parametrize("headers", REFUSED, ids=str)
    def test_a_token_needs_no_origin(self, consumer_app: ConsumerApp, headers: dict[str, str]) -> None:
        consumer_app.create("bot")
        assert consumer_app.visits["bot"]("GET", GETS[0], headers).status_code == 200

    @pytest.mark.parametrize("headers", REFUSED, ids=str)
    def test_without_a_consumer_the_origin_is_not_checked(
        self, consumer_app: ConsumerApp, headers: dict[str, str]
    ) -> None:
        assert consumer_app.visits["viewer"]("GET", "/api/feed?after=0", headers).status_code == 200
