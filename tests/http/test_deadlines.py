"""Deadlines of requests: what reads for too long is 503 and says so, and an abandoned request ends."""

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
def get(app, database):
    client = bearer(app, tokens(database)["admin"])
    return lambda path: client("GET", path)


@pytest.fixture
def no_time(monkeypatch):
    monkeypatch.setattr(deadlines, "QUERY_SECS", 0.0)
    monkeypatch.setattr(deadline, "STEPS", 1)


@pytest.mark.parametrize(
    "path",
    ["/api/events", "/api/events?text=x", "/api/events/summary", "/swarm/events", "/api/feed?after=0", "/status"],
)
def test_a_query_that_takes_too_long_is_503_and_counted(app, get, no_time, path):
    answer = get(path)

    assert answer.status_code == 503
    assert "took too long" in answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert refusals(app, "slow_query") >= 1


def test_an_export_that_takes_too_long_is_cut_off(get, no_time):
    with pytest.raises(ConnectionResetError):
        get("/api/events/export")


def test_a_query_ends_when_its_client_has_gone(app, database):
    ours, theirs = socket.socketpair()
    with ours, app.test_request_context("/", environ_overrides={"gunicorn.socket": ours}):
        threading.Timer(0.3, theirs.close).start()
        with deadlines.limited(), pytest.raises(QueryCancelled), database.connection() as connection:
            connection.execute(ENDLESS).fetchone()
        assert deadlines.QUERY_SECS > 5


def test_a_long_poll_may_wait_for_longer(get, monkeypatch):
    monkeypatch.setattr(deadlines, "QUERY_SECS", 0.5)
    monkeypatch.setattr(deadline, "STEPS", 1)

    assert get("/api/feed?after=1&epoch=x&wait=1").status_code in (200, 422)


@pytest.mark.parametrize(
    ("text", "named"), [("a* b*", "a* is too short"), (" ".join(f"w{n}" for n in range(33)), "33 words")]
)
def test_a_search_for_too_much_is_422_everywhere(get, text, named):
    for path in ("/api/events", "/api/events/export", "/swarm/events"):
        answer = get(f"{path}?text={text}")
        assert answer.status_code == 422
        assert named in answer.text


def test_a_search_within_the_bounds_is_answered(get):
    assert get("/api/events?text=" + " ".join(f"ab{n}*" for n in range(32))).status_code == 200
