"""Guessed addresses redirect to a similar route on the same host."""

from __future__ import annotations

import pytest

from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.app import create_app
from tests.http.visitors import bearer, show_tokens_and_names, signed_in

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def operator(database):
    app = create_app(Settings(database=database.path))
    show_tokens_and_names(app)
    yield signed_in(app, database)
    app.extensions["outfeed"].database.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("path", "location"), [
    ("/swarm", "/swarm/live"),
    ("/swarm/", "/swarm/live"),
    ("/swarm/agents/", "/swarm/agents"),
    ("/swarm/live/", "/swarm/live"),
    ("/swarm//live", "/swarm/live"),
    ("/static//outfeed.css", "/static/outfeed.css"),
    ("/swarm/events/?type=task.*&text=a%20b", "/swarm/events?type=task.*&text=a%20b"),
    ("/status/", "/status"),
    ("/api/docs/", "/api/docs"),
    ("/api/events/?limit=1", "/api/events?limit=1"),
    ("/api/feed/", "/api/feed"),
])  # fmt: skip
def test_a_guessed_address_redirects_to_a_similar_route(operator, method, path, location):
    answer = operator(method, path, HTML)

    assert (answer.status_code, answer.headers["Location"]) == (302, location)


@pytest.mark.parametrize("path", ["/nowhere/", "/nowhere//evil.example/", "/swarm/nowhere", "/ws//x"])
def test_an_address_without_a_similar_route_returns_404(operator, path):
    answer = operator("GET", path, HTML)

    assert answer.status_code == 404
    assert "Location" not in answer.headers


@pytest.mark.parametrize("path", ["/static//x", "/swarm//live", "/swarm/live/", "/static//v-1//x"])
def test_no_redirect_contains_the_requested_host(operator, path):
    for headers in (HTML, {**HTML, "Host": "evil.example"}):
        assert "evil.example" not in operator("GET", path, headers).headers.get("Location", "/")


@pytest.mark.parametrize("path", ["/api/events/", "/swarm/live", "/swarm/"])
def test_a_request_that_may_write_is_not_redirected(operator, path):
    assert operator("POST", path, json={}).status_code in (404, 405)


def test_a_refusal_of_the_swarm_names_the_written_event_type(database):
    app = create_app(Settings(database=database.path))
    reader = bearer(app, account.create_token(database, "some", ["read"], types=["agent.*"]))

    assert "type 'task.created'," in reader("GET", "/api/swarm").json["detail"]
    app.extensions["outfeed"].database.close()
