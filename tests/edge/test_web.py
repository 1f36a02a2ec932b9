"""The app of an edge.

Its routes, whom it admits, and what it says while the engine is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from outfeed.access import auth
from outfeed.access.store import account, user
from outfeed.config import Settings
from outfeed.display import Display
from outfeed.edge import displays
from outfeed.edge.grants import publish
from outfeed.edge.web import FEED_PATHS, OWN_PATHS, create_edge
from outfeed.http.app import create_app
from outfeed.store.displays import MadeBy, put
from tests.database_file import write_events
from tests.edge.origin_in_process import OriginInProcess
from tests.engines import GRANTS, RedisServer

ORIGIN = "https://feed.example"
KEY = "a key of sixteen characters"
UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip
# A handshake that is admitted ends here: the test's client lends no socket.
ADMITTED = {"/ws": 501, "/api/feed": 200, "/api/feed/stream": 501, "/api/types": 200, "/metrics": 200}


class EdgeInProcess:
    """An edge without threads, beside an origin that has filled the engine."""

    def __init__(self, origin: OriginInProcess, **settings: Any) -> None:
        self.origin = origin
        database = origin.services.database
        values = {"engine": origin.engine.url, "origin_url": ORIGIN, "secret_key": KEY, **settings}
        self.app = create_edge(Settings(**values))
        self.services = self.app.extensions["outfeed"]
        self.tokens = {
            scope: account.create_token(database, scope, [scope]) for scope in ("read", "write", "admin")
        } | {"none": "outfeed_" + "x" * 43}
        self.sessions = {}
        for role in ("viewer", "producer", "operator"):
            user.add(database, role, role)
            self.sessions[role] = account.create_session(database, role, timedelta(hours=1))
        self.publish()

    def publish(self) -> None:
        publish(self.origin.engine, self.origin.services.database, 60)
        displays.publish(self.origin.engine, self.origin.services.displays.current())

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def get(self, path: str, who: str | None = None, **more: Any) -> Any:
        headers = {**(UPGRADE if path.startswith("/ws") else {}), **more.pop("headers", {})}
        client = self.client
        if who in self.tokens:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        elif who is not None:
            with client.session_transaction() as session:
                session["_user_id"], session["_fresh"] = self.sessions[who], True
        return client.get(path, headers=headers, **more)


@pytest.fixture
def edge(origin_in_process: OriginInProcess) -> Iterator[EdgeInProcess]:
    write_events(origin_in_process.path, 5)
    origin_in_process.bring_up()
    found = EdgeInProcess(origin_in_process)
    yield found
    found.services.engine.close()


@pytest.mark.parametrize("path", ADMITTED)
@pytest.mark.parametrize(
    ("who", "is_admitted"),
    [
        ("read", True), ("admin", True), ("viewer", True), ("producer", True), ("operator", True), ("write", False),
        ("none", False), (None, False),
    ],
)  # fmt: skip
def test_each_route_admits_whom_the_origin_admits(
    edge: EdgeInProcess, path: str, who: str | None, is_admitted: bool
) -> None:
    refused = 403 if who == "write" else 401
    assert edge.get(path, who).status_code == (ADMITTED[path] if is_admitted else refused)


def test_each_route_of_an_edge_is_listed_here(edge: EdgeInProcess) -> None:
    rules = {rule.rule for rule in edge.app.url_map.iter_rules()}
    assert rules == set(OWN_PATHS)
    assert set(ADMITTED) | {"/healthz", "/readyz"} == {path.rstrip("/") for path in OWN_PATHS}


@pytest.mark.parametrize("path", ["/", "/status", "/api/events", "/login", "/api/consumers/x", "/static/page.js"])
def test_any_other_path_is_the_origins_before_any_grant_is_looked_up(
    edge: EdgeInProcess, redis_server: RedisServer, path: str
) -> None:
    redis_server.client.delete(GRANTS)
    answer = edge.get(path, "none")
    assert (answer.status_code, answer.get_json()["origin"], answer.get_json()["code"]) == (421, ORIGIN, "not_here")
    assert edge.client.post(path).status_code == 421
    page = edge.get(f"{path}?a=1", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["Location"]) == (302, f"{ORIGIN}{path}?a=1")


def test_the_same_page_as_at_the_origin(edge: EdgeInProcess) -> None:
    page = edge.get("/api/feed?after=0&limit=3", "read")
    assert [event["seq"] for event in page.get_json()["events"]] == [1, 2, 3]
    last = edge.get("/api/feed?last=2", "read").get_json()
    assert [event["seq"] for event in last["events"]] == [4, 5]


def test_displays_are_those_of_the_origin_with_its_counter(edge: EdgeInProcess) -> None:
    origin = create_app(edge.origin.settings).test_client()
    token = {"Authorization": f"Bearer {edge.tokens['read']}"}
    answers = []
    for label in ("Paid {amount}", "Paid {sats} sats"):
        with edge.origin.services.database.transaction() as connection:
            put(connection, {"order.paid": Display(None, label)}, MadeBy.COMMAND)
        edge.publish()
        edge.services.relay.poll()
        answers.append(edge.get("/api/types", "read"))
        assert answers[-1].data == origin.get("/api/types", headers=token).data
        assert edge.get("/api/feed?after=0", "read").get_json()["types"] == answers[-1].get_json()["types"]
    tags = [answer.headers["ETag"] for answer in answers]
    assert tags[0] != tags[1]
    assert edge.get("/api/types", "read", headers={"If-None-Match": tags[1]}).status_code == 304


def test_consumers_are_the_origins(edge: EdgeInProcess) -> None:
    for path in ("/api/feed?consumer=x", "/api/feed/stream?consumer=x"):
        answer = edge.get(path, "read")
        assert (answer.status_code, answer.get_json()["code"]) == (422, "origin_only")
        assert ORIGIN in answer.get_json()["detail"]


@pytest.mark.parametrize("path", FEED_PATHS)
@pytest.mark.parametrize("loss", ["all", "grants", "events"])
def test_a_new_viewer_gets_503_from_an_engine_without_what_it_needs(
    edge: EdgeInProcess, redis_server: RedisServer, path: str, loss: str
) -> None:
    if loss == "events":
        redis_server.client.delete("{outfeed}:events")
    elif loss == "grants":
        redis_server.client.delete(GRANTS)
    else:
        redis_server.client.flushall()
    for who in ("read", "viewer", "none"):
        answer = edge.get(path, who)
        expected = 401 if (loss, who) == ("events", "none") else 503
        assert answer.status_code == expected
        assert expected == 401 or answer.headers["Retry-After"]
    assert edge.get("/healthz").status_code == 200
    assert edge.get("/readyz").status_code == 503


def test_an_engine_that_is_away_refuses_and_never_admits(origin_in_process: OriginInProcess) -> None:
    app = create_edge(Settings(engine="redis://127.0.0.1:1/0", origin_url=ORIGIN, secret_key=KEY))  # type: ignore[arg-type]
    client = app.test_client()
    for path in FEED_PATHS:
        headers = {"Authorization": "Bearer outfeed_x", **(UPGRADE if path == "/ws" else {})}
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "engine_unavailable")
    app.extensions["outfeed"].relay.poll()
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "Connection refused" in ready.get_data(as_text=True)


def test_the_cookie_has_the_origins_name(edge: EdgeInProcess) -> None:
    assert edge.app.config["SESSION_COOKIE_NAME"] == auth.cookie_name(KEY)


def test_an_edge_with_a_prefix_serves_below_it(origin_in_process: OriginInProcess) -> None:
    origin_in_process.bring_up()
    edge = EdgeInProcess(origin_in_process, public_url="https://edge.example/feed")
    assert edge.get("/feed/api/feed?after=0", "read").status_code == 200
    assert edge.get("/feed/status", headers={"Accept": "text/html"}).headers["Location"] == f"{ORIGIN}/status"
    edge.services.engine.close()


def test_a_changed_rule_or_an_erasure_drops_what_was_read(edge: EdgeInProcess, redis_server: RedisServer) -> None:
    edge.services.relay.poll()
    core = edge.services.core
    before = core.pages.erasures
    redis_server.client.hset("{outfeed}:head", "rules", "other")
    edge.services.relay.poll()
    assert core.pages.erasures == before + 1
    redis_server.client.hset("{outfeed}:head", "erasures", "3")
    edge.services.relay.poll()
    assert (core.pages.erasures, core.hub.erased) == (before + 2, 3)
