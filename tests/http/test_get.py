"""GET is safe: requests that follow or preview a link change no data."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from outfeed.access.rights import Rights
from outfeed.access.store import account, user
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.log.store import views
from outfeed.principal import READ, Principal
from outfeed.store import event_log
from outfeed.swarm.part import SwarmPart
from tests.http.visitors import HOUR, bearer, signed_in

# The exceptions and their reasons. A WebSocket begins with a GET, and its ticket is valid once.
EXCEPTIONS = {"/ws": "uses up the ticket in its query, which lives for a minute and is never in a link"}
ACCEPTS = {"a browser": "text/html,*/*;q=0.8", "a program": "application/json"}


@pytest.fixture
def app(database):
    app = create_app(Settings(database=database.path))
    yield app
    app.extensions["outfeed"].database.close()


@pytest.fixture
def urls(app, database):
    """Return a URL for each route that takes GET, and each sign-in link.

    The arguments of the routes name existing objects.
    """
    user.add(database, "invited", "viewer")
    codes = [account.create_code(database, HOUR, name) for name in ("invited", None)]
    coordinator = app.extensions["outfeed"].part(SwarmPart).coordinator
    agent, task = coordinator.join("Forge"), coordinator.post("Write the docs")
    event_log.record(database, [{"id": "known", "event_type": "job.done", "source": "cron"}], 65_536)
    view, _ = views.save(database, Principal("invited", (READ,), "session:x"), "Jobs", "job", is_shared=True)
    values = {
        "view_id": view.id,
        "event_id": "known", "agent_id": agent.id, "task_id": task.id, "name": "outfeed.css", "version": "1",
        "topic": "tutorial",
    }  # fmt: skip
    routes = [rule for rule in app.url_map.iter_rules() if "GET" in rule.methods and rule.rule not in EXCEPTIONS]
    adapter = app.url_map.bind("localhost")
    found = [adapter.build(rule.endpoint, {name: values[name] for name in rule.arguments}) for rule in routes]
    queries = ["/api/feed?last=10", "/api/events/export?format=csv", "/swarm/events?id=known", "/api/events?text=done"]
    return [
        *found,
        *queries,
        *(f"/login?code={code}&next=/status" for code in codes),
        "/login?code=guessed",
        "/nowhere",
    ]


def content(database):
    """Return all content of the database, except the tokens' last use."""
    with contextlib.closing(sqlite3.connect(database.path)) as raw:
        raw.execute("BEGIN")
        raw.execute("UPDATE outfeed_token SET last_used_at = NULL")
        return list(raw.iterdump())


@pytest.mark.parametrize("accept", ACCEPTS.values(), ids=ACCEPTS)
@pytest.mark.parametrize("visitor", ["operator", "token", "anonymous"])
def test_no_get_or_head_request_changes_the_database(app, database, urls, visitor, accept):
    visits = {
        "operator": signed_in(app, database),
        "token": bearer(app, account.create_token(database, "tests", ["admin"])),
        "anonymous": bearer(app, None),
    }
    before = content(database)

    for url in urls:
        for method in ("GET", "HEAD"):
            status = visits[visitor](method, url, {"Accept": accept}).status_code
            app.extensions["outfeed"].part(Rights).write_uses()
            assert content(database) == before, f"{method} {url}"
            assert status != 500, f"{method} {url}"


def test_each_get_that_may_write_is_an_existing_route(app):
    assert EXCEPTIONS.keys() <= {rule.rule for rule in app.url_map.iter_rules()}
