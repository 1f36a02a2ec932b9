"""The OpenAPI document is complete and valid, and responses match it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.api import openapi
from outfeed.http.app import create_app
from tests.app_fixtures import Api

load_all_checks()
OPERATIONS = [
    ("POST", "/api/events"),
    ("GET", "/api/events"),
    ("GET", "/api/events/summary"),
    ("GET", "/api/events/export"),
    ("GET", "/api/events/values"),
    ("GET", "/api/events/{event_id}"),
    ("GET", "/api/views"),
    ("POST", "/api/views"),
    ("DELETE", "/api/views/{view_id}"),
    ("PUT", "/api/views/{view_id}/notification"),
    ("GET", "/api/views/{view_id}/news"),
    ("GET", "/api/alerts"),
    ("POST", "/api/alerts"),
    ("POST", "/api/alerts/trial"),
    ("GET", "/api/alerts/{name}"),
    ("PUT", "/api/alerts/{name}"),
    ("DELETE", "/api/alerts/{name}"),
    ("POST", "/api/alerts/{name}/pause"),
    ("POST", "/api/alerts/{name}/resume"),
    ("GET", "/api/feed"),
    ("GET", "/api/types"),
    ("POST", "/api/consumers"),
    ("POST", "/api/consumers/{name}/ack"),
    ("DELETE", "/api/consumers/{name}"),
    ("POST", "/api/tickets"),
    ("POST", "/in/{topic}"),
    ("POST", "/in/at/{address}"),
    ("POST", "/v1/logs"),
    ("POST", "/v1/metrics"),
    ("POST", "/v1/traces"),
    ("GET", "/api/swarm"),
    ("GET", "/api/swarm/agents"),
    ("POST", "/api/swarm/agents"),
    ("GET", "/api/swarm/agents/{agent_id}"),
    ("DELETE", "/api/swarm/agents/{agent_id}"),
    ("POST", "/api/swarm/agents/{agent_id}/heartbeat"),
    ("POST", "/api/swarm/agents/{agent_id}/tools"),
    ("GET", "/api/swarm/tasks"),
    ("POST", "/api/swarm/tasks"),
    ("GET", "/api/swarm/tasks/{task_id}"),
    ("POST", "/api/swarm/tasks/{task_id}/bids"),
    ("POST", "/api/swarm/tasks/{task_id}/start"),
    ("POST", "/api/swarm/tasks/{task_id}/complete"),
    ("POST", "/api/swarm/tasks/{task_id}/fail"),
]
# This route never ends, and needs the server's own socket.
STREAM = ("GET", "/api/feed/stream")
# These need the scope admin.
FOR_OPERATORS = "/api/alerts"
# JSON Schema can't express that a cursor needs its epoch, which seqs were sent, what a topic or a valid query is, or
# which address exists.
HAS_MORE_RULES = {
    "/api/feed", "/api/consumers/{name}/ack", "/in/{topic}", "/in/at/{address}", "/api/events", "/api/events/export",
    "/api/views", "/v1/logs", "/api/alerts", "/api/alerts/trial", "/api/alerts/{name}",
}  # fmt: skip


def test_every_route_of_the_api_is_documented(api: Api) -> None:
    document = api.get("/api/openapi.json").json
    described = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    routes = [
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in api.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(("/api/", "/in/", "/v1/")) and not rule.endpoint.startswith("docs.")
    ]
    assert document["openapi"] == "3.1.0"
    assert sorted(described) == sorted(routes) == sorted([*OPERATIONS, STREAM])
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def schema() -> BaseSchema:
    """The document of an app without a database.

    Cases have values from the code of that app, which takes as long to find as to try them.
    """
    app = create_app(Settings(database=Path("/nowhere/outfeed.db"), secret_key="0" * 64))
    found = schemathesis.openapi.from_dict(json.loads(json.dumps(openapi.document(app))))
    found.app = app
    return found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_response_matches_its_schema(
    api: Api, schema: BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    api.post("/api/events", json=[{"event_type": "a.b", "source": "s", "data": data} for data in ({"n": 1}, None, [1])])
    if path.startswith(FOR_OPERATORS):
        api.headers = {"Authorization": f"Bearer {account.create_token(api.services.database, 'ops', ['admin'])}"}
    if path == "/api/feed":
        api.services.hub.close()  # a long poll would wait for events
    excluded = [positive_data_acceptance] if path in HAS_MORE_RULES else []

    @hypothesis.settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(schema[path][method].as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        case.call_and_validate(app=api.app, headers=api.headers, excluded_checks=excluded)

    run()


class TestThePage:
    @pytest.fixture
    def page(self, api: Api) -> str:
        answer = api.get("/api/docs")
        assert (answer.status_code, answer.mimetype) == (200, "text/html")
        text: str = answer.text
        return text

    def test_each_operation_has_an_id_of_its_own(self, api: Api) -> None:
        paths = api.get("/api/openapi.json").json["paths"]
        ids = [one["operationId"] for methods in paths.values() for one in methods.values()]
        assert len(ids) == len(set(ids))

    def test_the_page_shows_every_operation_and_shape(self, api: Api, page: str) -> None:
        document = api.get("/api/openapi.json").json
        for path, methods in document["paths"].items():
            assert f"<code>{path.replace('/', '/<wbr>')}</code>" in page
            assert all(one["summary"].split("`")[0] in html.unescape(page) for one in methods.values())
        assert all(f'id="shape-{name}"' in page for name in document["components"]["schemas"])
        anchors = set(re.findall(r'href="#([^"]+)"', page))
        assert anchors <= set(re.findall(r' id="([^"]+)"', page))

    def test_the_page_loads_no_external_and_no_inline_resource(self, page: str) -> None:
        assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []
        assert re.findall(r"<script>|<style|\bstyle=|\bon\w+=", page) == []

    def test_a_call_that_needs_no_value_can_be_tried_and_every_call_copied(self, api: Api, page: str) -> None:
        tried = re.findall(r'class="button try" href="([^"]+)">Try it', page)
        assert {"/api/feed", "/api/events", "/api/events/summary", "/api/swarm"} <= set(tried)
        assert {api.get(path).status_code for path in tried} <= {200, 403}
        calls = re.findall(r'<pre class="copy" tabindex="0" id="(call-[^"]+)"', page)
        assert calls == re.findall(r'data-copies="(call-[^"]+)"', page)
        assert len(calls) == len(set(calls)) > 2 * len(OPERATIONS)

    def test_the_commands_on_the_page_contain_this_servers_address(self, page: str) -> None:
        assert "http://localhost/api/feed" in page

    def test_an_anonymous_visitor_is_redirected_to_the_sign_in(self, api: Api) -> None:
        answer = api.client.get("/api/docs", headers={"Accept": "text/html"})
        assert answer.headers["Location"] == "/login?next=%2Fapi%2Fdocs"
        assert api.client.get("/api/openapi.json").status_code == 401
