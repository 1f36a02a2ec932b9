"""The public address: pages, cookies, redirects and origin checks use it.

The tests serve it below a path and behind several proxies.
"""

from __future__ import annotations

import html
import logging
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from outfeed.access import passwords
from outfeed.access.store import account, user
from outfeed.config import Settings
from outfeed.config.values import OWN_SEGMENTS
from outfeed.http.app import create_app
from outfeed.http.assets import FILES
from outfeed.store.database import Database
from tests.http.visitors import HOUR, follow, show_tokens_and_names, signed_in
from tests.server import hidden_fields

PUBLIC = "https://example.com/feed"
PAGES = (
    "/swarm/live", "/swarm/events", "/status", "/password", "/api/docs", "/swarm/events/unknown", "/swarm/tasks/x",
    "/admin", "/admin/users",
)  # fmt: skip
PROXY = {"REMOTE_ADDR": "192.0.2.1"}
PASSWORD = "correct horse battery"


def make_app(database: Database, **settings: Any) -> Flask:
    return create_app(Settings(database=database.path, trusted_proxies=("192.0.2.1",), **settings))


class PrefixedClient(FlaskClient):
    """A client whose requests lie below the prefix of PUBLIC."""

    def open(self, path: str, **more: Any) -> Any:
        return super().open(path if path.startswith("/feed") else f"/feed{path}", **more)


@pytest.fixture(params=["with a proxy that removes the prefix", "with one that does not"])
def app(database: Database, request: pytest.FixtureRequest) -> Flask:
    """Return the app at PUBLIC."""
    made = make_app(database, public_url=PUBLIC)
    show_tokens_and_names(made)
    made.test_client_class = PrefixedClient
    inner = made.wsgi_app

    def remove(environ: dict[str, Any], start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/feed")
        return inner(environ, start_response)

    if "removes" in request.param:
        made.wsgi_app = remove  # type: ignore[method-assign]
    return made


def addresses_in(page: str) -> set[str]:
    return {html.unescape(found) for found in re.findall(r'(?:href|src|action|data-src)="(/[^"]*)"', page)}


def test_every_address_in_a_page_lies_below_the_prefix(app: Flask, database: Database) -> None:
    visit = signed_in(app, database)
    visit("POST", "/api/events", json={"id": "x", "event_type": "task.created", "source": "s", "task_id": "x"})
    visit("POST", "/api/swarm/tasks", json={"description": "x"})
    for path in PAGES:
        found = addresses_in(visit("GET", path, {"Accept": "text/html"}).text)
        assert found, path
        assert [each for each in found if not each.startswith("/feed/")] == [], path
    found = addresses_in(app.test_client().get("/login").text)
    assert {"/feed/login"} < found == {each for each in found if each.startswith("/feed/")}


def test_an_action_of_the_administration_stays_below_the_prefix(app: Flask, database: Database) -> None:
    visit = signed_in(app, database)
    account.create_token(database, "ci", ["read"])
    asked = visit("POST", "/admin/tokens/revoke", data={"name": "ci"})
    assert 'action="/feed/admin/tokens/revoke"' in asked.text
    assert 'href="/feed/admin/tokens" aria-current="page"' in asked.text
    answer = visit("POST", "/admin/tokens/revoke", data={"name": "ci", "confirmed": "yes"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/feed/admin/tokens")
    (link,) = re.findall(
        r"<pre[^>]*>([^<]*)</pre>", visit("POST", "/admin/users", data={"name": "b", "role": "viewer"}).text
    )
    assert link.startswith(f"{PUBLIC}/login?code=")


def test_every_address_that_a_page_loads_returns_200(app: Flask, database: Database) -> None:
    visit = signed_in(app, database)
    for found in addresses_in(visit("GET", "/swarm/live").text):
        if "/static/" in found or "/api/swarm" in found:
            assert visit("GET", found).status_code == 200, found


def test_a_sign_in_link_redirects_below_the_prefix(app: Flask, database: Database) -> None:
    client = app.test_client()
    away = client.get("/swarm/events?type=task.*", headers={"Accept": "text/html"})
    assert away.headers["Location"] == "/feed/login?next=%2Ffeed%2Fswarm%2Fevents%3Ftype%3Dtask.%2A"
    query = {"code": account.create_code(database, HOUR, None), "next": "/feed/swarm/events?type=task.*"}
    page = client.get("/login", query_string=query)
    answer = client.post("/login", data=hidden_fields(page.text))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/feed/swarm/events?type=task.*")
    assert "Path=/feed" in answer.headers["Set-Cookie"].split("; ")
    assert client.get("/", headers={"Accept": "text/html"}).headers["Location"].startswith("/feed/")


@pytest.mark.parametrize("target", ["/other/page", "//evil.example", "/feedback", "https://evil.example/feed/"])
def test_a_sign_in_redirects_to_no_other_program_on_the_host(app: Flask, database: Database, target: str) -> None:
    answer = follow(app.test_client(), account.create_code(database, HOUR), query={"next": target})
    assert answer.headers["Location"] == "/feed/swarm/live"


@pytest.mark.parametrize(
    ("path", "target"), [("/swarm", "/swarm/live"), ("/swarm/live/", "/swarm/live"), ("/", "/swarm/live")]
)
def test_redirects_lie_below_the_prefix(app: Flask, database: Database, path: str, target: str) -> None:
    assert signed_in(app, database)("GET", path).headers["Location"] == f"/feed{target}"


def test_health_answers_at_both_paths_and_the_prefix_itself_is_the_home_page(app: Flask, database: Database) -> None:
    direct = FlaskClient(make_app(database, public_url=PUBLIC))
    assert [direct.get(path).status_code for path in ("/healthz", "/feed/healthz", "/feedback")] == [200, 200, 302]
    assert signed_in(app, database)("GET", "/feed").headers["Location"] == "/feed/swarm/live"


def test_the_specification_and_the_examples_contain_the_public_address(app: Flask, database: Database) -> None:
    visit = signed_in(app, database)
    assert visit("GET", "/api/openapi.json").json["servers"] == [{"url": PUBLIC}]
    assert f"{PUBLIC}/api/events" in visit("GET", "/api/docs").text
    assert f"{PUBLIC}/api/events" in visit("GET", "/swarm/live").text


def test_no_script_contains_an_absolute_path() -> None:
    path = re.compile(rf"""["'`]/(?:{"|".join(OWN_SEGMENTS)})\b""")
    code = {name: content.decode() for name, content in FILES.items() if name.endswith(".js")}
    scripts = {name: re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL) for name, text in code.items()}
    assert {name: path.findall(text) for name, text in scripts.items() if path.search(text)} == {}


def test_no_public_path_hides_a_route(app: Flask) -> None:
    segments = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()} - {"", "csrf", "who"}
    assert segments <= set(OWN_SEGMENTS)


# --- cookies ----------------------------------------------------------------------------------------------------------


def cookie_set_by(response: TestResponse) -> str:
    found = re.match(r"(outfeed_session_[0-9a-f]{8})=", response.headers["Set-Cookie"])
    assert found
    return found[1]


def test_two_servers_on_one_host_have_separate_sessions(database: Database) -> None:
    user.add(database, "ann", "viewer")
    browser = FlaskClient(make_app(database, secret_key="one secret key of two"), use_cookies=True)
    other = make_app(database, secret_key="the other secret key")
    names = {cookie_set_by(follow(browser, account.create_code(database, HOUR, "ann")))}
    browser.application = other
    names.add(cookie_set_by(follow(browser, account.create_code(database, HOUR, "ann"))))
    assert browser.get("/swarm/events").status_code == 200
    browser.application = make_app(database, secret_key="one secret key of two")
    assert browser.get("/swarm/events").status_code == 200
    assert len(names) == 2


# --- forms behind proxies ---------------------------------------------------------------------------------------------

TLS = {"X-Forwarded-Proto": "https"}
ACCEPTED = {
    "a matching Origin and no Referer": ({}, {"Host": "feed.example", "Origin": "https://feed.example"}),
    "Sec-Fetch-Site alone": ({}, {"Host": "127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}),
    "another port, as the browser says": (
        {},
        {"Host": "feed.example", "Origin": "https://feed.example:8443", "Sec-Fetch-Site": "same-origin"},
    ),
    "the proxy's X-Forwarded-Host": (
        {},
        {"Host": "127.0.0.1:8000", "X-Forwarded-Host": "feed.example:8443", "Origin": "https://feed.example:8443"},
    ),
    "the public address": (
        {"public_url": "https://feed.example:8443"},
        {"Host": "127.0.0.1:8000", "Origin": "https://feed.example:8443"},
    ),
    "the public address as Referer": (
        {"public_url": "https://feed.example"},
        {"Host": "127.0.0.1:8000", "Referer": "https://feed.example/login"},
    ),
}
REFUSED = {
    "another host": (
        {},
        {"Host": "feed.example", "Origin": "https://evil.example"},
        "Origin is 'https://evil.example'",
    ),
    "another port": (
        {},
        {"Host": "feed.example", "Origin": "https://feed.example:8443"},
        "Origin is 'https://feed.example:8443', and this server is 'feed.example' (Host)",
    ),
    "not over TLS": (
        {},
        {"Host": "feed.example", "Origin": "http://feed.example"},
        "this server is 'feed.example' (Host) over https",
    ),
    "a page of another site": (
        {},
        {"Host": "feed.example", "Sec-Fetch-Site": "cross-site"},
        "Sec-Fetch-Site is 'cross-site', not 'same-origin'",
    ),
    "the Referer": (
        {"public_url": "https://feed.example"},
        {"Host": "127.0.0.1:8000", "Referer": "https://evil.example/"},
        "this server is '127.0.0.1:8000' (Host), 'feed.example' (OUTFEED_PUBLIC_URL)",
    ),
    "a header without a source": ({}, {"Host": "feed.example"}, "neither Sec-Fetch-Site, Origin nor Referer"),
    "markup": ({}, {"Host": "feed.example", "Origin": "https://<b>"}, "Origin is 'https://<b>'"),
}


def sign_in(app: Flask, headers: dict[str, str], **more: Any) -> Any:
    client = app.test_client()
    base = {"headers": TLS | headers, "environ_base": PROXY, "base_url": "http://" + headers["Host"]}
    page = client.get("/login", **base)
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    base["headers"] |= {"Cookie": cookie}
    return client.post("/login", data={**hidden_fields(page.text), "name": "ann", "password": PASSWORD, **more}, **base)


@pytest.fixture
def ann(database: Database) -> None:
    user.add(database, "ann", "viewer")
    user.set_password(database, "ann", passwords.hash_of(PASSWORD), by="tests")


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_password_signs_in_behind_a_proxy_with(database: Database, ann: None, name: str) -> None:
    settings, headers = ACCEPTED[name]
    assert sign_in(make_app(database, **settings), headers).status_code == 303


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_mismatch(
    database: Database, ann: None, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings, headers, said = REFUSED[name]
    app = make_app(database, **settings)
    answer = sign_in(app, headers)
    assert answer.status_code == 403
    assert html.escape(said, quote=False) in answer.text.replace("&#39;", "'").replace("&#34;", '"')
    (line,) = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert "reason=origin" in line
    assert said in line
    assert refusals(app) == {"origin": 1}


def refusals(app: Flask) -> dict[str, float]:
    (family,) = app.extensions["outfeed"].metrics.refusals.collect()
    return {one.labels["reason"]: one.value for one in family.samples if one.name.endswith("_total")}


def test_a_wrong_token_and_a_missing_cookie_have_different_messages(
    database: Database, ann: None, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(database)
    headers = {"Host": "feed.example", "Origin": "https://feed.example"}
    assert "The CSRF token is invalid." in sign_in(app, headers, csrf_token="wrong").text
    answer = app.test_client(use_cookies=False).post("/login", data={"csrf_token": "x"})
    name = app.config["SESSION_COOKIE_NAME"]
    assert f"The cookie {name} is missing." in answer.text
    assert refusals(app) == {"csrf": 2}
    lines = [each.getMessage() for each in caplog.records if "reason=csrf" in each.getMessage()]
    assert len(lines) == 1  # a minute
    assert "The CSRF token is invalid." in lines[0]


def test_only_a_trusted_proxy_sets_the_host(database: Database) -> None:
    app = make_app(database)
    headers = {"Host": "feed.example", "Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}
    for address, status in (("198.51.100.7", 403), ("192.0.2.1", 401)):
        answer = app.test_client().get("/ws", headers=UPGRADE | headers, environ_base={"REMOTE_ADDR": address})
        assert answer.status_code == status


def test_a_rejected_socket_is_logged_and_counted(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The request is plain HTTP on port 8080 behind nginx's `$host`."""
    app = make_app(database)
    headers = {"Host": "feed.example", "Origin": "http://feed.example:8080"}
    with caplog.at_level(logging.WARNING):
        answer = app.test_client().get("/ws", headers=UPGRADE | headers)
    said = "Origin is 'http://feed.example:8080', and this server is 'feed.example' (Host)"
    assert answer.status_code == 403
    assert said in answer.json["detail"]
    assert said in caplog.text
    assert refusals(app) == {"origin": 1}
    with_url = make_app(database, public_url="http://feed.example:8080")
    assert with_url.test_client().get("/ws", headers=UPGRADE | headers).status_code == 401


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
