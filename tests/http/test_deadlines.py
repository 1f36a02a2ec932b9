"""Deadlines: a slow query returns 503, and an abandoned request ends."""

from __future__ import annotations

import socket
import threading

import pytest

from outfeed import log_event
from outfeed.config import Settings
from outfeed.errors import QueryCancelled
from outfeed.http import deadlines
from outfeed.http.app import create_app
from outfeed.store import deadline
from tests.http.visitors import bearer, tokens
from tests.store.test_deadline import ENDLESS


def refusals(app, reason):
    registry = app.extensions["outfeed"].metrics.registry
    return registry.get_sample_value("outfeed_refusals_total", {"reason": reason}) or 0


@pytest.fixture
def app(database):
    log_event("a.b", "s")
    app = create_app(Settings(database=database.path))
    yield app
    app.extensions["outfeed"].database.close()


@pytest.fixture
def visit(app, database):
    client = bearer(app, tokens(database)["admin"])
    return lambda path: client("GET", path)


@pytest.fixture
def no_query_time(monkeypatch):
    monkeypatch.setattr(deadlines, "QUERY_SECS", 0.0)
    monkeypatch.setattr(deadline, "STEPS", 1)


@pytest.mark.parametrize(
    "path",
    ["/api/events", "/api/events?text=x", "/api/events/summary", "/swarm/events", "/api/feed?after=0", "/status"],
)
def test_a_slow_query_returns_503_and_is_counted(app, visit, no_query_time, path):
    answer = visit(path)

    assert answer.status_code == 503
    assert "took too long" in answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert refusals(app, "slow_query") >= 1


def test_a_slow_export_is_cut_off(visit, no_query_time):
    with pytest.raises(ConnectionResetError):
        visit("/api/events/export")


def test_a_query_ends_when_its_client_disconnects(app, database):
    ours, theirs = socket.socketpair()
    with ours, app.test_request_context("/", environ_overrides={"gunicorn.socket": ours}):
        threading.Timer(0.3, theirs.close).start()
        with deadlines.limited(), pytest.raises(QueryCancelled), database.connection() as connection:
            connection.execute(ENDLESS).fetchone()
        assert deadlines.QUERY_SECS > 5


def test_a_long_poll_may_exceed_the_deadline(visit, monkeypatch):
    monkeypatch.setattr(deadlines, "QUERY_SECS", 0.5)
    monkeypatch.setattr(deadline, "STEPS", 1)

    assert visit("/api/feed?after=1&epoch=x&wait=1").status_code in (200, 422)


@pytest.mark.parametrize(
    ("text", "named"), [("a* b*", "a* is too short"), (" ".join(f"w{n}" for n in range(33)), "33 words")]
)
def test_a_search_over_the_bounds_returns_422_on_every_route_of_the_api(visit, text, named):
    for path in ("/api/events", "/api/events/export"):
        for name in ("text", "q"):
            answer = visit(f"{path}?{name}={text}")
            assert answer.status_code == 422
            assert named in answer.text


def test_a_search_within_the_bounds_returns_200(visit):
    assert visit("/api/events?text=" + " ".join(f"ab{n}*" for n in range(32))).status_code == 200
