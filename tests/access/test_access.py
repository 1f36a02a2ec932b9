"""Every route and frame, requested by every kind of visitor.

A route without a row in the table fails.
"""

from __future__ import annotations

import json
import re
import shutil

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from outfeed import list_events
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.errors import Forbidden
from outfeed.events import EventType
from outfeed.http.app import create_app
from outfeed.principal import Principal
from outfeed.store import database as db
from outfeed.store import event_log
from outfeed.store.event_log import log_event
from tests.clients import FeedClient
from tests.http.visitors import bearer, show_tokens_and_names, signed_in, tokens
from tests.server import Server

JSON = {"Accept": "application/json"}
VISITORS = ("anonymous", "expired", "revoked", "reader", "writer", "tasks", "viewer", "producer", "operator", "forged")


def row(open_to_readers, open_to_writers=None, *, wrong_type=None):
    """Return the statuses in the order of VISITORS.

    *wrong_type* is for a token that lacks the types. *forged* is an operator's request from another site's page: it has
    their cookie and no CSRF token.
    """
    reads, writes = open_to_readers, open_to_writers or open_to_readers
    if open_to_writers is None:
        return (401, 401, 401, reads, 403, wrong_type or reads, reads, reads, reads, reads)
    return (401, 401, 401, 403, writes, wrong_type or writes, 403, writes, writes, 403)


def own(answer, of_programs=None):
    """Return the statuses of a POST of the caller's own object.

    It needs the scope read and the CSRF token.
    """
    programs = of_programs or answer
    return (401, 401, 401, programs, 403, programs, answer, answer, answer, 403)


def operators(answer, *, forged=None):
    """Return the statuses of a route that only operators may use."""
    return (401, 401, 401, 403, 403, 403, 403, 403, answer, forged or answer)


EVERYONE = (200,) * len(VISITORS)
AGENT = {"event_type": "agent.joined", "source": "s"}
# each route: the requested path, the body or form if there is one, and the statuses
TABLE = {
    ("GET", "/healthz"): ("/healthz", EVERYONE),
    ("GET", "/readyz"): ("/readyz", (503,) * len(VISITORS)),  # no feed runs in this test
    ("GET", "/healthz/"): ("/healthz/", EVERYONE),
    ("GET", "/docs"): ("/docs", EVERYONE),
    ("GET", "/docs/<topic>"): ("/docs/tutorial", EVERYONE),
    ("GET", "/docs/search"): ("/docs/search?q=epoch", EVERYONE),
    ("POST", "/preferences"): ("/preferences", (422,) * len(VISITORS)),
    ("GET", "/manifest.webmanifest"): ("/manifest.webmanifest", EVERYONE),
    ("GET", "/readyz/"): ("/readyz/", (503,) * len(VISITORS)),
    ("GET", "/metrics"): ("/metrics", row(200, wrong_type=403)),
    ("GET", "/login"): ("/login", (200,) * 6 + (302,) * 4),
    ("POST", "/login"): ("/login", (403,) * 6 + (401, 401, 401, 403)),
    ("POST", "/logout"): ("/logout", own(303)),
    ("GET", "/password"): ("/password", (401, 401, 401, 403, 403, 403, 200, 200, 200, 200)),
    ("POST", "/password"): ("/password", own(422, 403)),
    ("GET", "/static/<path:name>"): ("/static/outfeed.css", EVERYONE),
    ("GET", "/static/v-<version>/<path:name>"): ("/static/v-1/outfeed.css", EVERYONE),
    ("GET", "/"): ("/", row(302)),
    ("GET", "/swarm/live"): ("/swarm/live", row(200)),
    ("GET", "/swarm/board"): ("/swarm/board", row(200)),
    ("GET", "/swarm/events"): ("/swarm/events", row(200)),
    # only for operators, and programs with the scope admin
    ("GET", "/status"): ("/status", (401, 401, 401, 403, 403, 403, 403, 403, 200, 200)),
    ("GET", "/api/alerts"): ("/api/alerts", operators(200)),
    ("POST", "/api/alerts"): ("/api/alerts", operators(422, forged=403)),
    ("POST", "/api/alerts/trial"): ("/api/alerts/trial", operators(200, forged=403)),
    ("GET", "/api/alerts/<name>"): ("/api/alerts/unknown", operators(404)),
    ("PUT", "/api/alerts/<name>"): ("/api/alerts/unknown", operators(415, forged=403)),
    ("DELETE", "/api/alerts/<name>"): ("/api/alerts/unknown", operators(404, forged=403)),
    ("POST", "/api/alerts/<name>/pause"): ("/api/alerts/unknown/pause", operators(404, forged=403)),
    ("POST", "/api/alerts/<name>/resume"): ("/api/alerts/unknown/resume", operators(404, forged=403)),
    ("GET", "/api/events"): ("/api/events", row(200)),
    ("GET", "/api/types"): ("/api/types", row(200)),
    ("POST", "/api/events"): ("/api/events", row(403, 201, wrong_type=403)),
    ("GET", "/api/events/summary"): ("/api/events/summary", row(200)),
    ("GET", "/api/events/values"): ("/api/events/values?field=source", row(200)),
    ("GET", "/api/views"): ("/api/views", row(200)),
    ("POST", "/api/views"): ("/api/views", own(422)),
    ("DELETE", "/api/views/<int:view_id>"): ("/api/views/7", own(404)),
    ("GET", "/api/views/<int:view_id>/news"): ("/api/views/7/news", row(404)),
    ("PUT", "/api/views/<int:view_id>/notification"): ("/api/views/7/notification", own(404)),
    ("POST", "/swarm/views"): ("/swarm/views", own(422)),
    ("POST", "/swarm/views/<int:view_id>/delete"): ("/swarm/views/7/delete", own(404)),
    ("GET", "/swarm/events/<path:event_id>"): ("/swarm/events/agent-1", row(200, wrong_type=404)),
    ("GET", "/swarm/tasks"): ("/swarm/tasks", row(200, wrong_type=403)),
    ("GET", "/swarm/agents"): ("/swarm/agents", row(200, wrong_type=403)),
    ("GET", "/swarm/tasks/<path:task_id>"): ("/swarm/tasks/nobody", row(404)),
    ("GET", "/swarm/agents/<path:agent_id>"): ("/swarm/agents/nobody", row(404)),
    ("GET", "/api/events/export"): ("/api/events/export?format=csv", row(200)),
    ("GET", "/api/events/<path:event_id>"): ("/api/events/agent-1", row(200, wrong_type=404)),
    ("GET", "/api/feed"): ("/api/feed?after=0", row(200)),
    ("GET", "/api/feed/stream"): ("/api/feed/stream?after=none", row(422)),
    ("POST", "/api/consumers"): ("/api/consumers", own(422)),
    ("POST", "/api/consumers/<name>/ack"): ("/api/consumers/nobody/ack", own(404)),
    ("DELETE", "/api/consumers/<name>"): ("/api/consumers/unknown", own(404)),
    ("POST", "/api/tickets"): ("/api/tickets", own(201)),
    ("GET", "/ws"): ("/ws", row(426)),
    ("GET", "/api/openapi.json"): ("/api/openapi.json", row(200)),
    ("GET", "/api/docs"): ("/api/docs", row(200)),
    ("POST", "/mcp"): ("/mcp", (401, 401, 401, 415, 415, 415, 401, 401, 401, 401)),  # only tokens, of any scope
    ("GET", "/mcp"): ("/mcp", (401, 401, 401, 405, 405, 405, 401, 401, 401, 401)),
    ("DELETE", "/mcp"): ("/mcp", (401, 401, 401, 405, 405, 405, 401, 401, 401, 401)),
    ("POST", "/v1/logs"): ("/v1/logs", row(403, 415)),
    ("POST", "/v1/metrics"): ("/v1/metrics", row(403, 200)),
    ("POST", "/v1/traces"): ("/v1/traces", row(403, 200)),
    ("POST", "/in/<topic>"): ("/in/backups", row(403, 422)),
    ("POST", "/in/at/<address>"): ("/in/at/outfeed_unknown", (404,) * len(VISITORS)),
    ("GET", "/api/swarm"): ("/api/swarm", row(200, wrong_type=403)),
    ("GET", "/api/swarm/agents"): ("/api/swarm/agents", row(200, wrong_type=403)),
    ("GET", "/api/swarm/agents/<agent_id>"): ("/api/swarm/agents/1", row(404, wrong_type=403)),
    ("GET", "/api/swarm/tasks"): ("/api/swarm/tasks", row(200, wrong_type=403)),
    ("GET", "/api/swarm/tasks/<task_id>"): ("/api/swarm/tasks/1", row(404, wrong_type=403)),
    ("POST", "/api/swarm/agents"): ("/api/swarm/agents", row(403, 422, wrong_type=403)),
    ("POST", "/api/swarm/agents/<agent_id>/heartbeat"): (
        "/api/swarm/agents/1/heartbeat",
        row(403, 404, wrong_type=403),
    ),
    ("DELETE", "/api/swarm/agents/<agent_id>"): ("/api/swarm/agents/1", row(403, 404, wrong_type=403)),
    ("POST", "/api/swarm/agents/<agent_id>/tools"): ("/api/swarm/agents/1/tools", row(403, 422, wrong_type=403)),
    ("POST", "/api/swarm/tasks"): ("/api/swarm/tasks", row(403, 422, wrong_type=403)),
    ("POST", "/swarm/tasks"): ("/swarm/tasks", row(403, 422, wrong_type=403)),
    ("POST", "/api/swarm/tasks/<task_id>/bids"): ("/api/swarm/tasks/1/bids", row(403, 422, wrong_type=403)),
    ("POST", "/api/swarm/tasks/<task_id>/start"): ("/api/swarm/tasks/1/start", row(403, 404, wrong_type=403)),
    ("POST", "/api/swarm/tasks/<task_id>/complete"): ("/api/swarm/tasks/1/complete", row(403, 422, wrong_type=403)),
    ("POST", "/api/swarm/tasks/<task_id>/fail"): ("/api/swarm/tasks/1/fail", row(403, 422, wrong_type=403)),
    # paths without a route
    ("GET", None): ("/nowhere", row(404)),
    ("POST", None): ("/nowhere", row(403, 404)),
    ("DELETE", None): ("/api/events", row(403, 405)),
    ("HEAD", None): ("/api/events", row(200)),
    ("OPTIONS", None): ("/api/events", row(200)),
}
BODIES = {"/api/events": AGENT, "/api/consumers/nobody/ack": {"seq": 1, "epoch": "e"}}


ADMITTED = {200, 303, 404, 422}  # a form without its fields is refused as a form, after the check of the permission


def administration(app):
    """Return the method and the rule of each route below /admin."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.split("/")[1] == "admin"]
    return [(method, rule.rule) for rule in rules for method in sorted(rule.methods - {"HEAD", "OPTIONS"})]


class AccessApp:
    """An app over a database of its own, and its visitors."""

    def __init__(self, database):
        self.database = database
        event_log.record(database, [{**AGENT, "id": "agent-1"}], 65_536)
        self.app = create_app(Settings(database=database.path, sign_ins_per_minute=0))
        show_tokens_and_names(self.app)
        self.visitors = {name: bearer(self.app, secret) for name, secret in tokens(database).items()}
        self.visitors |= {role: signed_in(self.app, database, role) for role in ("viewer", "producer", "operator")}
        self.visitors["forged"] = signed_in(self.app, database, csrf=False)


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory, upgraded):
    """An app for the rows that change no permission."""
    path = tmp_path_factory.mktemp("shared_app") / "outfeed.db"
    shutil.copy(upgraded, path)
    yield AccessApp(db.at(path))
    db.at(path).close()


@pytest.fixture
def visitors(database):
    return AccessApp(database).visitors


class TestRoutes:
    def test_every_route_has_a_row(self, database):
        app = create_app(Settings(database=database.path))
        routes = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods}
        routes = {(method, path) for method, path in routes if method not in ("HEAD", "OPTIONS")}
        routes -= set(administration(app))

        assert routes == {route for route in TABLE if route[1] is not None}

    @pytest.mark.parametrize(("route", "case"), TABLE.items(), ids=lambda value: f"{value[0]} {value[1]}")
    def test_each_visitor_gets_the_listed_status(self, shared_app, request, route, case):
        path, expected = case
        visitors = request.getfixturevalue("visitors") if path in ("/login", "/logout") else shared_app.visitors
        is_json = route[0] == "POST" and path.startswith("/api/")
        body = {"json": BODIES.get(path, {})} if is_json else {}

        answers = {name: visitors[name](route[0], path, JSON, **body).status_code for name in VISITORS}

        assert answers == dict(zip(VISITORS, expected, strict=True))

    def test_every_page_and_form_of_the_administration_admits_operators_only(self, shared_app):
        """The routes give the rows, so a new page needs none."""
        refused = dict(zip(VISITORS, (401, 401, 401, 403, 403, 403, 403, 403), strict=False))
        for method, rule in administration(shared_app.app):
            path = re.sub(r"<[^>]+>", "1", rule)
            answers = {name: visit(method, path, JSON).status_code for name, visit in shared_app.visitors.items()}

            assert {name: answers[name] for name in refused} == refused, (method, path)
            assert {answers["operator"], answers["admin"]} <= ADMITTED, (method, path)
            assert answers["forged"] == (answers["operator"] if method == "GET" else 403), (method, path)

    @pytest.mark.parametrize(
        "path", ["/api/events", "/api/feed?after=0", "/api/events/summary", "/swarm/events", "/api/events/export"]
    )
    def test_each_visitor_sees_only_permitted_events(self, visitors, database, path):
        log_event("task.created", "s")
        account.create_token(database, "other", ["read"], by="tests")

        def seen(name):
            return set(
                re.findall(r"agent\.joined|task\.created|access\.token_created", _rows(visitors[name]("GET", path)))
            )

        everything = {"agent.joined", "task.created", "access.token_created"}
        assert seen("operator") == seen("admin") == everything
        assert seen("viewer") == seen("producer") == seen("reader") == {"agent.joined", "task.created"}
        assert seen("tasks") == {"task.created"}

    @pytest.mark.parametrize(
        "event_type", ["access.signed_in", "access.x", "system.pruned", "system.restored", "system.backed_up"]
    )
    def test_no_visitor_writes_an_audit_event_over_http(self, visitors, event_type):
        def write(name):
            return visitors[name]("POST", "/api/events", json={"event_type": event_type, "source": "s"}).status_code

        answers = {write(name) for name in ("both", "tasks", "producer", "operator", "admin")}

        assert answers == {403}
        assert list_events(event_type=event_type, source="s") == []

    def test_a_refusal_names_the_written_event_type(self):
        with pytest.raises(Forbidden, match=r"events of the type 'task\.created'$"):
            Principal("bot", ("read",), "token:1").require_write(EventType.TASK_CREATED)

    @pytest.mark.parametrize("event_type", ["system.error", "system.warning", "system.info", "accessory.sold"])
    def test_every_writer_may_write_types_that_only_resemble_audit_types(self, visitors, event_type):
        answer = visitors["producer"]("POST", "/api/events", json={"event_type": event_type, "source": "s"})

        assert answer.status_code == 201


def _rows(response):
    assert response.status_code == 200
    # The page's filter lists all types.
    return re.sub(r"<datalist.*</datalist>", "", response.text, flags=re.S)


# --- frames -----------------------------------------------------------------------------------------------------------

FRAMES = {
    "subscribe": ({"action": "subscribe", "channel": "events"}, "subscribed"),
    "resume": ({"action": "subscribe", "channel": "events", "after": 0}, "subscribed"),
    "ack": ({"action": "ack", "seq": 1}, "error"),
    "unsubscribe": ({"action": "unsubscribe", "channel": "events"}, "unsubscribed"),
    "ping": ({"action": "ping"}, "pong"),
}
REFUSED = {"anonymous": 401, "expired": 401, "revoked": 401, "writer": 403}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("access")) as server:
        yield server


@pytest.fixture(scope="module")
def secrets(running):
    found = tokens(db.at(running.database))
    db.at(running.database).close()
    return found


@pytest.fixture(scope="module")
def two_events(running, secrets):
    for event_type in ("task.created", "agent.joined"):
        headers = {"Authorization": f"Bearer {secrets['admin']}"}
        body = {"event_type": event_type, "source": "s"}
        assert httpx.post(f"{running.url}/api/events", headers=headers, json=body, verify=False).status_code == 201
    with db.at(running.database).transaction() as connection:
        event_log.append_audit(connection, "access.x", "s", None)
    db.at(running.database).close()


class TestFrames:
    @pytest.mark.parametrize(("visitor", "status"), REFUSED.items())
    def test_a_visitor_without_read_permission_is_rejected_before_the_handshake(
        self, running, secrets, visitor, status
    ):
        with pytest.raises(InvalidStatus) as refused:
            FeedClient(running.url, secrets[visitor])

        assert refused.value.response.status_code == status

    @pytest.mark.parametrize("visitor", ["reader", "tasks", "admin", "viewer", "operator"])
    def test_a_visitor_with_read_permission_gets_a_response_to_each_frame(self, running, secrets, visitor):
        is_person = visitor not in secrets
        options = {"headers": {"Cookie": f"{running.cookie_name}=" + running.sign_in(visitor)}} if is_person else {}
        with FeedClient(running.url, None if is_person else secrets[visitor], **options) as client:
            for frame, answer in FRAMES.values():
                client.socket.send(json.dumps(frame))
                while (found := client.receive())["type"] in ("event", "heartbeat"):
                    pass
                assert found["type"] == answer

    @pytest.mark.parametrize(("visitor", "types", "seen"), [
        ("reader", [], ["task.created", "agent.joined"]),
        ("reader", ["access.*", "task.*"], ["task.created"]),
        ("tasks", [], ["task.created"]),
        ("tasks", ["agent.*", "task.created"], ["task.created"]),
        ("admin", [], ["task.created", "agent.joined", "access.x"]),
        ("admin", ["access.*"], ["access.x"]),
    ])  # fmt: skip
    @pytest.mark.parametrize("way", [{"after": 0}, {"last": 100}])
    def test_a_subscription_never_shows_more_than_the_principal_may_see(
        self, running, secrets, two_events, visitor, types, seen, way
    ):
        with FeedClient(running.url, secrets[visitor]) as client:
            client.subscribe(rate=0, **way, **({"types": types} if types else {}))
            client.follow(3)

            assert [event["event_type"] for event in client.events] == seen
