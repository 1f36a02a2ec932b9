"""Every route and frame, asked for by every kind of visitor. A route without a row fails."""

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
VISITORS = ("stranger", "expired", "revoked", "reader", "writer", "tasks", "viewer", "producer", "operator", "forged")


def row(open_to_readers, open_to_writers=None, *, wrong_type=None):
    """Answers in the order of VISITORS: of who may read, of who may write, of who may but not events of that type.

    *forged* is an operator's request from another site's page: their cookie without the CSRF token.
    """
    reads, writes = open_to_readers, open_to_writers or open_to_readers
    if open_to_writers is None:
        return (401, 401, 401, reads, 403, wrong_type or reads, reads, reads, reads, reads)
    return (401, 401, 401, 403, writes, wrong_type or writes, 403, writes, writes, 403)


def own(answer, of_programs=None):
    """To post what is the asker's own: scope read is enough, and the CSRF token has to be there."""
    programs = of_programs or answer
    return (401, 401, 401, programs, 403, programs, answer, answer, answer, 403)


ANYBODY = (200,) * len(VISITORS)
AGENT = {"event_type": "agent.joined", "source": "s"}
# route: what is asked for, as (path, body or form), and the answers
TABLE = {
    ("GET", "/healthz"): ("/healthz", ANYBODY),
    ("GET", "/readyz"): ("/readyz", (503,) * len(VISITORS)),  # no feed runs in this test
    ("GET", "/healthz/"): ("/healthz/", ANYBODY),
    ("GET", "/docs"): ("/docs", ANYBODY),
    ("GET", "/docs/<topic>"): ("/docs/tutorial", ANYBODY),
    ("GET", "/docs/search"): ("/docs/search?q=epoch", ANYBODY),
    ("GET", "/readyz/"): ("/readyz/", (503,) * len(VISITORS)),
    ("GET", "/metrics"): ("/metrics", row(200, wrong_type=403)),
    ("GET", "/login"): ("/login", (200,) * 6 + (302,) * 4),
    ("POST", "/login"): ("/login", (403,) * 6 + (401, 401, 401, 403)),
    ("POST", "/logout"): ("/logout", own(303)),
    ("GET", "/password"): ("/password", (401, 401, 401, 403, 403, 403, 200, 200, 200, 200)),
    ("POST", "/password"): ("/password", own(422, 403)),
    ("GET", "/static/<path:name>"): ("/static/outfeed.css", ANYBODY),
    ("GET", "/static/v-<version>/<path:name>"): ("/static/v-1/outfeed.css", ANYBODY),
    ("GET", "/"): ("/", row(302)),
    ("GET", "/swarm/live"): ("/swarm/live", row(200)),
    ("GET", "/swarm/board"): ("/swarm/board", row(200)),
    ("GET", "/swarm/events"): ("/swarm/events", row(200)),
    # for operators, and programs with the scope admin
    ("GET", "/status"): ("/status", (401, 401, 401, 403, 403, 403, 403, 403, 200, 200)),
    ("GET", "/api/events"): ("/api/events", row(200)),
    ("POST", "/api/events"): ("/api/events", row(403, 201, wrong_type=403)),
    ("GET", "/api/events/summary"): ("/api/events/summary", row(200)),
    ("GET", "/swarm/events/<path:event_id>"): ("/swarm/events/agent-1", row(200, wrong_type=404)),
    ("GET", "/swarm/tasks/<path:task_id>"): ("/swarm/tasks/nobody", row(404)),
    ("GET", "/swarm/agents/<path:agent_id>"): ("/swarm/agents/nobody", row(404)),
    ("GET", "/api/events/export"): ("/api/events/export?format=csv", row(200)),
    ("GET", "/api/events/<path:event_id>"): ("/api/events/agent-1", row(200, wrong_type=404)),
    ("GET", "/api/feed"): ("/api/feed?after=0", row(200)),
    ("GET", "/api/feed/stream"): ("/api/feed/stream?after=none", row(422)),
    ("POST", "/api/consumers"): ("/api/consumers", own(422)),
    ("POST", "/api/consumers/<name>/ack"): ("/api/consumers/nobody/ack", own(404)),
    ("POST", "/api/tickets"): ("/api/tickets", own(201)),
    ("GET", "/ws"): ("/ws", row(426)),
    ("GET", "/api/openapi.json"): ("/api/openapi.json", row(200)),
    ("GET", "/api/docs"): ("/api/docs", row(200)),
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
    # what is no route
    ("GET", None): ("/nowhere", row(404)),
    ("POST", None): ("/nowhere", row(403, 404)),
    ("DELETE", None): ("/api/events", row(403, 405)),
    ("HEAD", None): ("/api/events", row(200)),
    ("OPTIONS", None): ("/api/events", row(200)),
}
BODIES = {"/api/events": AGENT, "/api/consumers/nobody/ack": {"seq": 1, "epoch": "e"}}


class House:
    """An app over a database of its own, and its visitors."""

    def __init__(self, database):
        self.database = database
        event_log.record(database, [{**AGENT, "id": "agent-1"}], 65_536)
        self.app = create_app(Settings(database=database.path, sign_ins_per_minute=0))
        show_tokens_and_names(self.app)
        self.cast = {name: bearer(self.app, secret) for name, secret in tokens(database).items()}
        self.cast |= {role: signed_in(self.app, database, role) for role in ("viewer", "producer", "operator")}
        self.cast["forged"] = signed_in(self.app, database, csrf=False)


@pytest.fixture(scope="module")
def standing(tmp_path_factory, upgraded):
    """A house for the rows that leave everybody's rights as they are."""
    path = tmp_path_factory.mktemp("standing") / "outfeed.db"
    shutil.copy(upgraded, path)
    yield House(db.at(path))
    db.at(path).close()


@pytest.fixture
def cast(database):
    return House(database).cast


class TestRoutes:
    def test_every_route_has_a_row(self, database):
        app = create_app(Settings(database=database.path))
        routes = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods}
        routes = {(method, path) for method, path in routes if method not in ("HEAD", "OPTIONS")}

        assert routes == {route for route in TABLE if route[1] is not None}

    @pytest.mark.parametrize(("route", "case"), TABLE.items(), ids=lambda value: f"{value[0]} {value[1]}")
    def test_each_visitor_gets_the_right_answer(self, standing, request, route, case):
        path, expected = case
        cast = request.getfixturevalue("cast") if path in ("/login", "/logout") else standing.cast
        is_json = route[0] == "POST" and path.startswith("/api/")
        body = {"json": BODIES.get(path, {})} if is_json else {}

        answers = {name: cast[name](route[0], path, JSON, **body).status_code for name in VISITORS}

        assert answers == dict(zip(VISITORS, expected, strict=True))

    @pytest.mark.parametrize(
        "path", ["/api/events", "/api/feed?after=0", "/api/events/summary", "/swarm/events", "/api/events/export"]
    )
    def test_what_is_seen_is_what_the_principal_may_see(self, cast, database, path):
        log_event("task.created", "s")
        account.create_token(database, "other", ["read"], by="tests")

        def seen(name):
            return set(re.findall(r"agent\.joined|task\.created|access\.token_created", _rows(cast[name]("GET", path))))

        everything = {"agent.joined", "task.created", "access.token_created"}
        assert seen("operator") == seen("admin") == everything
        assert seen("viewer") == seen("producer") == seen("reader") == {"agent.joined", "task.created"}
        assert seen("tasks") == {"task.created"}

    @pytest.mark.parametrize("event_type", ["access.signed_in", "access.x", "system.pruned", "system.restored"])
    def test_nobody_writes_an_event_of_the_audit_over_http(self, cast, event_type):
        def write(name):
            return cast[name]("POST", "/api/events", json={"event_type": event_type, "source": "s"}).status_code

        answers = {write(name) for name in ("both", "tasks", "producer", "operator", "admin")}

        assert answers == {403}
        assert list_events(event_type=event_type, source="s") == []

    def test_a_refusal_names_the_type_as_it_is_written(self):
        with pytest.raises(Forbidden, match=r"events of the type 'task\.created'$"):
            Principal("bot", ("read",), "token:1").require_write(EventType.TASK_CREATED)

    @pytest.mark.parametrize("event_type", ["system.error", "system.warning", "system.info", "accessory.sold"])
    def test_everybody_who_writes_may_write_what_only_resembles_them(self, cast, event_type):
        answer = cast["producer"]("POST", "/api/events", json={"event_type": event_type, "source": "s"})

        assert answer.status_code == 201


def _rows(response):
    assert response.status_code == 200
    # The page's filter offers all types there are.
    return re.sub(r"<datalist.*</datalist>", "", response.text, flags=re.S)


# --- frames -----------------------------------------------------------------------------------------------------------

FRAMES = {
    "subscribe": ({"action": "subscribe", "channel": "events"}, "subscribed"),
    "resume": ({"action": "subscribe", "channel": "events", "after": 0}, "subscribed"),
    "ack": ({"action": "ack", "seq": 1}, "error"),
    "unsubscribe": ({"action": "unsubscribe", "channel": "events"}, "unsubscribed"),
    "ping": ({"action": "ping"}, "pong"),
}
REFUSED = {"stranger": 401, "expired": 401, "revoked": 401, "writer": 403}


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
    def test_who_may_not_read_is_refused_before_the_handshake(self, running, secrets, visitor, status):
        with pytest.raises(InvalidStatus) as refused:
            FeedClient(running.url, secrets[visitor])

        assert refused.value.response.status_code == status

    @pytest.mark.parametrize("visitor", ["reader", "tasks", "admin", "viewer", "operator"])
    def test_who_may_read_gets_an_answer_to_each_frame(self, running, secrets, visitor):
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
