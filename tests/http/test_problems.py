"""Errors as pages, when the server can't answer a browser."""

from __future__ import annotations

import pytest

from outfeed.config import Settings
from outfeed.http import logs
from outfeed.http.app import create_app
from outfeed.http.permission import public
from tests.http.visitors import bearer, signed_in

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def app(database):
    app = create_app(Settings(database=database.path))
    yield app
    app.extensions["outfeed"].database.close()


@pytest.mark.parametrize("path", ["/swarm/events?type=a.b&text=x", "/swarm/live", "/api/docs", "/login", "/nowhere"])
@pytest.mark.parametrize("visitor", ["operator", "anonymous"])
def test_the_page_of_a_missing_database_has_the_reason_and_no_path(app, database, visitor, path):
    visit = signed_in(app, database) if visitor == "operator" else bearer(app, None)
    database.path.rename(database.path.with_name("away.db"))

    answer = visit("GET", path, HTML)

    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert int(answer.headers["Retry-After"]) > 0
    assert "the database is missing" in answer.text
    assert str(database.path.parent) not in answer.text
    assert ">Try again</a>" in answer.text


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "the database has another schema"), (b"no database" * 1000, "the database is damaged"),
])  # fmt: skip
def test_the_page_of_an_unusable_file_has_the_reason(app, database, content, reason):
    away = database.path.with_name("away.db")
    database.path.rename(away)
    database.path.write_bytes(content)

    answer = bearer(app, None)("GET", "/swarm/events", HTML)

    assert answer.status_code == 503
    assert reason in answer.text
    away.replace(database.path)


def test_the_page_of_a_schema_with_a_name_that_is_not_utf_8_has_the_reason(app, database):
    database.close()
    whole = database.path.read_bytes()
    away = database.path.rename(database.path.with_name("away.db"))
    database.path.write_bytes(whole.replace(b"CREATE TABLE outbox", b"CRE\xa0TE TABLE outbox"))
    assert database.path.read_bytes() != whole

    answer = bearer(app, None)("GET", "/swarm/events", HTML)

    assert answer.status_code == 503
    assert "the database is damaged" in answer.text
    away.replace(database.path)


def test_the_page_of_an_outage_links_to_the_requested_page(app, database):
    visit = signed_in(app, database)
    database.path.rename(database.path.with_name("away.db"))

    assert 'href="?type=a.b&amp;text=x">Try again</a>' in visit("GET", "/swarm/events?type=a.b&text=x", HTML).text
    assert ">Try again</a>" not in visit("POST", "/password", HTML).text


@pytest.mark.parametrize(("role", "path", "title", "text"), [
    ("operator", "/nowhere", "Page not found", ""),
    ("viewer", "/swarm/tasks/nope", "Not found", "Task &#34;nope&#34; not found. No event mentions it."),
    ("viewer", "/status", "You don&#39;t have access",
     "You need the operator role to view this page. You&#39;re signed in as viewer0 (viewer)."),
])  # fmt: skip
def test_an_error_page_has_a_plain_text_the_role_and_a_link_back(app, database, role, path, title, text):
    page = signed_in(app, database, role)("GET", path, HTML).text

    assert f"<h1>{title}</h1>" in page
    assert text in page
    assert f"({role})." in page
    assert ">Go to the live page</a>" in page
    assert "URL manually" not in page


def test_pages_work_again_once_the_database_is_restored(app, database):
    visit = signed_in(app, database)
    away = database.path.rename(database.path.with_name("away.db"))
    assert visit("GET", "/swarm/events", HTML).status_code == 503

    away.rename(database.path)

    assert visit("GET", "/swarm/events", HTML).status_code == 200


@pytest.mark.parametrize(("accepted", "kind", "text"), [
    (HTML, "text/html", "Something went wrong on our side (request from-the-proxy.1). It has been logged."),
    ({}, "application/problem+json", "Internal server error. It was logged as request from-the-proxy.1."),
])  # fmt: skip
def test_an_internal_error_contains_the_id_of_its_logged_request(app, accepted, kind, text):
    @public()
    def broken():
        raise RuntimeError("a detail for the log alone")

    app.view_functions["health.healthz"] = broken
    answer = bearer(app, None)("GET", "/healthz", {**accepted, logs.HEADER: "from-the-proxy.1"})

    assert (answer.status_code, answer.mimetype) == (500, kind)
    assert text in answer.text
    assert "a detail" not in answer.text
