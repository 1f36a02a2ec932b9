"""The swarm over HTTP: answers, refusals, the form and the lists."""

import re
from datetime import timedelta

import pytest
from freezegun import freeze_time

from outfeed import clock, config
from outfeed.access.store import account
from outfeed.http.app import create_app
from outfeed.log.store.reading import list_events
from outfeed.swarm.part import SwarmPart
from tests.http.visitors import follow


@pytest.fixture
def app(database):
    return create_app(config.settings())


@pytest.fixture
def api(app, database):
    """Return a function that calls the API: (method, path, body) -> response."""
    headers = {"Authorization": f"Bearer {account.create_token(database, 'tests', ['read', 'write'])}"}

    def call(method, path, body=None):
        sent = {} if body is None else {"json": body}
        path = f"/api/swarm{path}".replace("/swarm/..", "")
        return app.test_client(use_cookies=False).open(path, method=method, headers=headers, **sent)

    return call


@pytest.fixture
def agent(api):
    return api("POST", "/agents", {"name": "Forge"}).json


@pytest.fixture
def task(api):
    return api("POST", "/tasks", {"description": "Write the docs"}).json


def close_auctions(app):
    coordinator = app.extensions["outfeed"].part(SwarmPart).coordinator
    with freeze_time(clock.now() + timedelta(seconds=coordinator.auction_secs)):
        for task_id in coordinator.due_auctions():
            coordinator.close_auction(task_id)


@pytest.fixture
def held(app, api, agent, task):
    """A task that is assigned to the agent."""
    api("POST", f"/tasks/{task['id']}/bids", {"agent_id": agent["id"], "bid_sats": 50})
    close_auctions(app)
    return api("GET", f"/tasks/{task['id']}").json


def test_a_task_passes_through_all_states(app, api, agent, held):
    path, body = f"/tasks/{held['id']}", {"agent_id": agent["id"]}
    assert (held["state"], held["agent_id"], held["bid_sats"]) == ("assigned", agent["id"], 50)
    assert api("POST", f"{path}/start", body).json["state"] == "started"
    tool = {"tool_name": "web_search", "status": "called", "task_id": held["id"], "details": {"arguments": {"q": 1}}}
    assert api("POST", f"/agents/{agent['id']}/tools", tool).status_code == 201
    done = api("POST", f"{path}/complete", body | {"result": {"pages": 12}})
    assert (done.status_code, done.json["state"], done.json["result"]) == (200, "completed", {"pages": 12})
    assert api("GET", path).json["bids"][0]["agent_name"] == "Forge"
    assert api("DELETE", f"/agents/{agent['id']}").json["state"] == "left"
    assert {event.event_type for event in list_events(task_id=held["id"])} == {
        "task.created", "task.bidding", "bid.submitted", "auction.closed", "task.assigned", "task.started",
        "tool.called", "task.completed", "agent.status_changed",
    }  # fmt: skip


def test_creation_returns_201_with_the_object(api):
    made = api("POST", "/agents", {"name": " Forge "})
    assert (made.status_code, made.json["name"], made.json["state"]) == (201, "Forge", "idle")
    assert made.json["expires_at"] > made.json["seen_at"] == made.json["joined_at"]
    made = api("POST", "/tasks", {"description": "Write the docs"})
    assert (made.status_code, made.json["state"], made.json["bid_count"]) == (201, "bidding", 0)
    assert 0 < made.json["seconds_left"] <= 15


def test_a_token_for_other_types_cannot_read_the_swarm(app, database):
    secret = account.create_token(database, "builds", ["read", "write"], types=["build.*", "task.*"])
    client, headers = app.test_client(), {"Authorization": f"Bearer {secret}"}
    assert client.get("/api/swarm", headers=headers).status_code == 403
    assert client.post("/api/swarm/tasks", json={"description": "x"}, headers=headers).status_code == 403
    assert list_events(event_type="task.created") == []


def test_a_whole_number_is_accepted_in_any_notation(api, agent, task):
    body = {"agent_id": agent["id"], "bid_sats": 50.0}
    assert api("POST", f"/tasks/{task['id']}/bids", body).json["lowest_bid_sats"] == 50


def test_a_task_can_be_started_without_naming_its_agent(api, held):
    assert api("POST", f"/tasks/{held['id']}/start").json["state"] == "started"


REFUSALS = [
    # call, body, status, text in the problem
    ("POST /agents", {}, 422, "name: Field required"),
    ("POST /agents", {"name": ""}, 422, "name: must have 1 to 50 characters"),
    ("POST /agents", {"name": 7}, 422, "name: Input should be a valid string"),
    ("POST /agents", {"name": "x", "id": "y"}, 422, "id: Extra inputs"),
    ("POST /agents", ["x"], 400, "must be a JSON object"),
    ("POST /agents", {"\ud800": 1}, 422, "Input should be a valid string"),
    ("POST /tasks", {"description": "x" * 2001}, 422, "description: must have 1 to 2,000"),
    ("POST /tasks", {"description": "\ud800"}, 422, "description: must be storable"),
    ("POST /tasks/{task}/bids", {"agent_id": "{agent}", "bid_sats": -1}, 422, "bid_sats: must be a whole number"),
    ("POST /tasks/{task}/bids", {"agent_id": "{agent}", "bid_sats": 1.5}, 422, "bid_sats: Input should be"),
    ("POST /tasks/{task}/bids", {"agent_id": "{agent}", "bid_sats": True}, 422, "bid_sats: Input should be"),
    ("POST /tasks/{task}/bids", {"agent_id": "{agent}", "bid_sats": 2**63}, 422, "bid_sats"),
    ("POST /tasks/{task}/bids", {"agent_id": "\ud800", "bid_sats": 1}, 404, "agent not found"),
    ("POST /tasks/{task}/bids", {"agent_id": "nobody", "bid_sats": 1}, 404, "agent not found: 'nobody'"),
    ("POST /tasks/nothing/bids", {"agent_id": "{agent}", "bid_sats": 1}, 404, "task not found: 'nothing'"),
    ("POST /tasks/{task}/start", {"agent_id": "{agent}"}, 409, "is bidding; only what is assigned"),
    ("POST /tasks/{task}/complete", {"agent_id": "{agent}"}, 409, "only what is started"),
    ("POST /tasks/{task}/fail", {"agent_id": "{agent}", "reason": "x"}, 409, "it isn't assigned to an agent yet"),
    ("POST /tasks/{task}/fail", {"agent_id": "{agent}"}, 422, "reason: Field required"),
    ("POST /agents/nobody/heartbeat", None, 404, "agent not found: 'nobody'"),
    ("DELETE /agents/nobody", None, 404, "agent not found: 'nobody'"),
    ("POST /agents/{agent}/tools", {"tool_name": "x", "status": "lost"}, 422, "status: Input should be"),
    ("POST /agents/{agent}/tools", {"tool_name": "x", "status": "called", "task_id": "{task}"}, 409, "is bidding"),
    ("POST /agents/{agent}/tools", {"tool_name": "x", "status": "called", "details": {"a": 1}}, 422, "details"),
    ("GET /agents/nobody", None, 404, "agent not found"),
    ("GET /tasks/nothing", None, 404, "task not found"),
    ("GET /tasks?state=lost", None, 422, "state: Input should be"),
    ("GET /agents?limit=0", None, 422, "limit"),
]


@pytest.mark.parametrize(("call", "body", "status", "detail"), REFUSALS)
def test_a_refusal_names_its_reason(api, agent, task, call, body, status, detail):
    def named(text):
        return text.replace("{task}", task["id"]).replace("{agent}", agent["id"])

    if isinstance(body, dict):
        body = {key: named(value) if isinstance(value, str) else value for key, value in body.items()}
    before = len(list_events())
    response = api(*named(call).split(" ", 1), body)
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    assert detail in response.json["detail"]
    assert ("state" in response.json) == (status == 409)
    assert len(list_events()) == before


def test_a_body_that_is_not_json_is_rejected(app, api, agent):
    headers = {"Authorization": f"Bearer {account.create_token(app.extensions['outfeed'].database, 'x', ['write'])}"}
    client = app.test_client()
    for body, kind, status in ((b"{", "application/json", 400), (b"a=b", "text/plain", 415)):
        sent = client.post("/api/swarm/agents", data=body, content_type=kind, headers=headers)
        assert sent.status_code == status
    deep = b'{"agent_id": "x", "result": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    sent = client.post("/api/swarm/tasks/x/complete", data=deep, content_type="application/json", headers=headers)
    assert sent.status_code == 422


def test_the_lists_are_paged_and_filtered(api, task):
    names = ["a", "b", "c"]
    ids = [api("POST", "/agents", {"name": name}).json["id"] for name in names]
    api("DELETE", f"/agents/{ids[1]}")

    page = api("GET", "/agents?limit=2").json
    assert [agent["name"] for agent in page["agents"]] == ["c", "b"]
    page = api("GET", f"/agents?limit=2&cursor={page['next']}").json
    assert ([agent["name"] for agent in page["agents"]], page["next"]) == (["a"], None)
    assert [agent["name"] for agent in api("GET", "/agents?state=left").json["agents"]] == ["b"]
    assert api("GET", f"/agents/{ids[1]}").json["reason"] == "signed off"
    assert [found["id"] for found in api("GET", "/tasks?state=bidding").json["tasks"]] == [task["id"]]
    assert api("GET", "/tasks?state=failed").json == {"tasks": [], "next": None}


def test_the_snapshot_of_the_swarm_has_the_position_of_the_feed(api, agent, held):
    found = api("GET", "").json
    assert found["seq"] == len(list_events())
    assert [each["state"] for each in found["agents"]] == ["busy"]
    assert [each["id"] for each in found["tasks"]["assigned"]] == [held["id"]]
    assert found["counts"] == {"bidding": 0, "assigned": 1, "started": 0, "completed": 0, "failed": 0}
    api("POST", f"/tasks/{held['id']}/start")
    page = api("GET", f"/../feed?after={found['seq']}&epoch={found['epoch']}").json
    assert (page["verdict"], [event["event_type"] for event in page["events"]]) == ("resumed", ["task.started"])


class TestTheForm:
    @pytest.fixture
    def browser(self, app, database):
        client = app.test_client()
        follow(client, account.create_code(database, timedelta(hours=1)))
        return client

    @pytest.fixture
    def csrf_token(self, browser):
        return re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/swarm/live").text)[1]

    def test_the_form_posts_a_task_and_redirects_to_the_page(self, browser, csrf_token):
        sent = browser.post("/swarm/tasks", data={"description": "Write the docs", "csrf_token": csrf_token})
        assert (sent.status_code, sent.location) == (303, "/swarm/live")
        assert list_events(event_type="task.created")[0].data == {"description": "Write the docs"}

    def test_a_post_without_a_csrf_token_is_rejected(self, browser):
        assert browser.post("/swarm/tasks", data={"description": "x"}).status_code == 403
        assert list_events(event_type="task.created") == []

    @pytest.mark.parametrize("fields", [{"description": " "}, {}])
    def test_an_empty_description_is_explained_on_a_page(self, browser, csrf_token, fields):
        sent = browser.post("/swarm/tasks", data={**fields, "csrf_token": csrf_token}, headers={"Accept": "text/html"})
        assert (sent.status_code, sent.mimetype) == (422, "text/html")
        assert "description: must have 1 to 2,000 characters" in sent.text

    def test_an_unauthenticated_visitor_is_rejected(self, app):
        assert app.test_client().post("/swarm/tasks", data={"description": "x"}).status_code == 401
