"""Refusals: each is counted, and the first of a minute is logged."""

from __future__ import annotations

import logging

import pytest

from outfeed import list_events
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.metrics import Metrics
from tests.http.visitors import bearer, tokens


def count(metrics, reason):
    return metrics.registry.get_sample_value("outfeed_refusals_total", {"reason": reason}) or 0


def logged(caplog):
    return [str(record.msg) for record in caplog.records if record.name == "outfeed.metrics"]


@pytest.fixture
def app(database):
    app = create_app(Settings(database=database.path, requests_per_minute=5, max_consumers_per_owner=1))
    yield app
    app.extensions["outfeed"].database.close()


@pytest.fixture
def visit(app, database):
    secrets = tokens(database)
    return lambda name, *request, **more: bearer(app, secrets[name])(*request, **more)


def test_the_first_refusal_of_a_reason_in_a_minute_is_logged_and_all_are_counted(caplog, monkeypatch):
    metrics, now = Metrics(), [1000.0]
    monkeypatch.setattr("outfeed.clock.monotonic", lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            metrics.note_refusal("forbidden", path="/a")
            metrics.note_refusal("requests")
        now[0] += 60
        metrics.note_refusal("forbidden", path="/b")

    assert count(metrics, "forbidden") == 4
    assert logged(caplog) == [
        "refused reason=forbidden path=/a",
        "refused reason=requests",
        "refused reason=forbidden path=/b unlogged=2",
    ]


def test_refusals_by_permission_and_rate_are_counted_and_logged(app, visit, caplog):
    metrics = app.extensions["outfeed"].metrics
    with caplog.at_level(logging.WARNING):
        assert visit("reader", "POST", "/api/events", json={}).status_code == 403
        assert visit("tasks", "POST", "/api/events", json={"event_type": "bid.x", "source": "s"}).status_code == 403
        answers = [visit("reader", "GET", "/api/events").status_code for _ in range(6)]

    assert answers[-1] == 429
    assert count(metrics, "forbidden") == 2
    assert count(metrics, "requests") >= 1
    assert any("reason=forbidden path=/api/events principal=reader scope=write" in line for line in logged(caplog))
    assert any(line.startswith("refused reason=requests ") for line in logged(caplog))


def test_refusals_by_ownership_are_counted_and_logged(app, visit, caplog):
    with caplog.at_level(logging.WARNING):
        assert visit("both", "POST", "/api/consumers", json={"name": "cron"}).status_code == 201
        assert visit("reader", "GET", "/api/feed?consumer=cron").status_code == 403

    assert count(app.extensions["outfeed"].metrics, "ownership") == 1
    assert any(line.startswith("refused reason=ownership path=/api/feed") for line in logged(caplog))


def test_no_secret_of_an_anonymous_request_is_logged(app, database, caplog):
    secret = account.create_token(database, "gone", ["read"])
    account.revoke_token(database, "gone")
    with caplog.at_level(logging.WARNING):
        assert bearer(app, secret)("GET", "/api/events").status_code == 401

    assert secret not in caplog.text
    assert any("reason=unauthorized" in line for line in logged(caplog))


def test_an_error_in_a_request_or_job_becomes_an_event(app, visit, monkeypatch):
    services = app.extensions["outfeed"]

    def broken(*_, **__):
        raise RuntimeError("planted")

    monkeypatch.setattr("outfeed.log.store.log_page.list_page", broken)
    assert visit("admin", "GET", "/api/events").status_code == 500
    services.metrics.note_error("job search", RuntimeError("planted"))
    services.own_errors.write()

    found = {event.data["message"] for event in list_events(event_type="system.error")}
    assert found == {"request: RuntimeError: planted", "job search: RuntimeError: planted"}


def test_an_error_in_the_relay_becomes_an_event(app, monkeypatch):
    services = app.extensions["outfeed"]

    def broken():
        raise RuntimeError("planted")

    monkeypatch.setattr(services.hub, "send_first_heartbeats", broken)
    services.relay.start()
    services.relay.poll()
    services.relay.poll()
    services.own_errors.write()

    (event,) = list_events(event_type="system.error")
    assert event.data == {"message": "poll: RuntimeError: planted (2 times)", "place": "poll", "count": 2}
