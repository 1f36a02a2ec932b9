"""Who may, asked of every kind of visitor on every kind of path; signing in and out; what defends a browser."""

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest
from flask import Flask
from flask_wtf.csrf import generate_csrf

from app.config import Settings
from app.errors import ConfigError
from app.store import account
from app.web import auth

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Accept": "application/json"}


@pytest.fixture
def flask_app(tmp_path, database):
    """An app with a route of each kind; each answers with who asked."""
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "login.html").write_text("sign in: {{ problem or 'no problem' }}")
    app = Flask(__name__, template_folder=str(templates), static_folder=str(templates), static_url_path="/static")
    app.secret_key = "only for this test"
    app.extensions["outfeed"] = SimpleNamespace(database=database)
    auth.init_app(app)
    for path in ("/healthz", "/readyz", "/swarm/live", "/api/events", "/ws"):
        app.add_url_rule(path, path, who, methods=["GET", "POST"])
    app.add_url_rule("/csrf", view_func=generate_csrf)
    return app


def who():
    principal = auth.current_principal()
    return principal.name if principal else "nobody"


@pytest.fixture
def cast(flask_app, database):
    """The visitors, by name: each a function (method, path, headers) -> response."""
    secrets = {name: account.create_token(database, name, [name]) for name in ("read", "write", "admin")}
    secrets["revoked"] = account.create_token(database, "revoked", ["read", "write", "admin"])
    account.revoke_token(database, "revoked")
    visitors = {name: token_visitor(flask_app, secret) for name, secret in secrets.items()}
    visitors["stranger"] = token_visitor(flask_app, None)
    visitors["operator"] = signed_in(flask_app, database)
    visitors["without_csrf"] = signed_in(flask_app, database, csrf=False)
    return visitors


def token_visitor(app, secret):
    credentials = {"Authorization": f"Bearer {secret}"} if secret else {}

    def visit(method, path, headers=JSON):
        return app.test_client(use_cookies=False).open(
            path, method=method, headers={**credentials, **headers}, buffered=True
        )

    return visit


def signed_in(app, database, *, csrf=True):
    client = app.test_client()
    assert client.get(f"/login?code={account.create_code(database, timedelta(hours=1))}").status_code == 302
    token = {"X-CSRFToken": client.get("/csrf").text} if csrf else {}

    def visit(method, path, headers=JSON):
        return client.open(path, method=method, headers={**token, **headers}, buffered=True)

    visit.client = client
    return visit


def cookie_of(visitor):
    return "outfeed_session=" + visitor.client.get_cookie("outfeed_session").value


VISITORS = ("stranger", "revoked", "read", "write", "admin", "without_csrf", "operator")
TABLE = {
    # method, path              stranger revoked read write admin without_csrf operator
    ("GET", "/healthz"): (200, 200, 200, 200, 200, 200, 200),
    ("GET", "/readyz"): (200, 200, 200, 200, 200, 200, 200),
    ("GET", "/login"): (200, 200, 200, 200, 200, 302, 302),
    ("GET", "/static/login.html"): (200, 200, 200, 200, 200, 200, 200),
    ("GET", "/static/../login.html"): (404, 404, 404, 404, 404, 404, 404),
    ("GET", "/api/events"): (401, 401, 200, 403, 200, 200, 200),
    ("HEAD", "/api/events"): (401, 401, 200, 403, 200, 200, 200),
    ("POST", "/api/events"): (401, 401, 403, 200, 200, 403, 200),
    ("GET", "/swarm/live"): (401, 401, 200, 403, 200, 200, 200),
    ("GET", "/ws"): (401, 401, 200, 403, 200, 200, 200),
    ("GET", "/nowhere"): (401, 401, 404, 403, 404, 404, 404),
    ("POST", "/nowhere"): (401, 401, 403, 404, 404, 403, 404),
    ("DELETE", "/api/events"): (401, 401, 403, 405, 405, 403, 405),
    ("GET", "/healthz/"): (401, 401, 404, 403, 404, 404, 404),
    ("GET", "/static"): (401, 401, 404, 403, 404, 404, 404),
    ("POST", "/logout"): (401, 401, 403, 303, 303, 403, 303),
}


class TestWhoMay:
    @pytest.mark.parametrize(("route", "row"), TABLE.items())
    def test_each_visitor_gets_the_right_answer_on_each_route(self, cast, route, row):
        assert {name: cast[name](*route).status_code for name in VISITORS} == dict(zip(VISITORS, row, strict=True))

    @pytest.mark.parametrize(("route", "row"), [item for item in TABLE.items() if item[0][0] in ("GET", "HEAD")])
    def test_asked_by_a_browser_only_a_stranger_and_only_for_a_page_is_answered_otherwise(self, cast, route, row):
        is_page = row[0] == 401 and not route[1].startswith(("/api", "/ws"))

        answers = {name: cast[name](*route, HTML).status_code for name in VISITORS}

        assert answers == dict(zip(VISITORS, row, strict=True)) | ({"stranger": 302} if is_page else {})

    @pytest.mark.parametrize("visitor", ["stranger", "revoked"])
    def test_a_refusal_names_the_scheme_and_is_a_problem_document(self, cast, visitor):
        response = cast[visitor]("GET", "/api/events")

        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert response.mimetype == "application/problem+json"
        assert response.json["status"] == 401

    def test_the_principal_is_the_token_or_the_operator(self, cast):
        names = {visitor: cast[visitor]("GET", "/swarm/live").text for visitor in ("read", "admin", "operator")}

        assert names == {"read": "read", "admin": "admin", "operator": "operator"}
        assert cast["operator"]("GET", "/healthz").text == "nobody"

    @pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer a=b", "Bearer outfeed_x", "bearer \udcff"])
    def test_a_bad_token_is_refused_also_beside_a_good_session(self, cast, header):
        response = cast["operator"]("GET", "/api/events", {"Authorization": header.encode("utf-8", "replace").decode()})

        assert response.status_code == 401 or header == "Bearer"

    def test_a_token_needs_no_csrf_token_and_leaves_no_cookie(self, cast):
        response = cast["write"]("POST", "/api/events")

        assert response.status_code == 200
        assert "Set-Cookie" not in response.headers

    def test_a_token_revoked_while_the_server_runs_is_refused_at_once(self, cast, database):
        assert cast["read"]("GET", "/api/events").status_code == 200

        account.revoke_token(database, "read")

        assert cast["read"]("GET", "/api/events").status_code == 401


class TestPages:
    @pytest.mark.parametrize(("path", "target"), [
        ("/", "next=%2F"),
        ("/swarm/live", "next=%2Fswarm%2Flive"),
        ("/swarm/events?type=task.created&page=2", "next=%2Fswarm%2Fevents%3Ftype%3Dtask.created%26page%3D2"),
        ("/a%0d%0aSet-Cookie:x", "next=%2Fa%250D%250ASet-Cookie%253Ax"),
    ])  # fmt: skip
    def test_a_stranger_is_sent_to_the_sign_in_and_back_afterwards(self, cast, path, target):
        response = cast["stranger"]("GET", path, HTML)

        assert response.status_code == 302
        assert response.headers["Location"] == f"/login?{target}"

    @pytest.mark.parametrize("path", ["/api", "/api/nothing", "/ws", "/metrics"])
    def test_what_machines_ask_for_is_refused_even_in_a_browser(self, cast, path):
        assert cast["stranger"]("GET", path, HTML).status_code == 401


class TestOrigin:
    @pytest.mark.parametrize(("host", "origin", "status"), [
        ("feed.example:8000", None, 200),
        ("feed.example:8000", "http://feed.example:8000", 200),
        ("feed.example", "https://feed.example", 200),
        ("feed.example", "https://feed.example:443", 200),
        ("feed.example:443", "https://feed.example", 200),
        ("FEED.example", "https://feed.EXAMPLE", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("feed.example:8000", "http://feed.example:8001", 403),
        ("feed.example:8000", "http://feed.example", 403),
        ("feed.example", "https://evil.example", 403),
        ("feed.example", "https://feed.example.evil.example", 403),
        ("feed.example", "https://feed.example@evil.example", 403),
        ("feed.example", "http://feed.example:443", 403),
        ("feed.example", "null", 403),
        ("feed.example", "", 403),
        ("feed.example", "feed.example", 403),
        ("feed.example", "file://feed.example", 403),
    ])  # fmt: skip
    @pytest.mark.parametrize("visitor", ["read", "operator"])
    def test_a_page_of_another_host_may_not_open_the_feed(self, flask_app, database, host, origin, status, visitor):
        headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
        if visitor == "operator":
            headers["Cookie"] = cookie_of(signed_in(flask_app, database))
        else:
            headers["Authorization"] = "Bearer " + account.create_token(database, "one", ["read"])

        assert token_visitor(flask_app, None)("GET", "/ws", headers).status_code == status


class TestSigningIn:
    def sign_in(self, client, database, **query):
        code = account.create_code(database, timedelta(hours=1))
        return client.get("/login", query_string={"code": code, **query}), code

    def test_the_link_signs_in_once_and_leads_home(self, flask_app, database):
        first, second = flask_app.test_client(), flask_app.test_client()

        response, code = self.sign_in(first, database)

        assert (response.status_code, response.headers["Location"]) == (302, "/swarm/live")
        assert first.get("/api/events").text == "operator"
        assert second.get(f"/login?code={code}").status_code == 401
        assert second.get("/api/events").status_code == 401

    def test_without_a_code_the_page_explains(self, flask_app):
        response = flask_app.test_client().get("/login")

        assert (response.status_code, response.text) == (200, "sign in: no problem")

    @pytest.mark.parametrize("code", ["", "wrong", "%ff", "x" * 2000])
    def test_a_wrong_code_is_refused_and_says_so(self, flask_app, code):
        client = flask_app.test_client()

        response = client.get(f"/login?code={code}")

        assert response.status_code == 401
        assert "expired" in response.text
        assert client.get("/api/events").status_code == 401

    def test_a_look_ahead_does_not_use_the_code_up(self, flask_app, database):
        client, code = flask_app.test_client(), account.create_code(database, timedelta(hours=1))

        assert client.head(f"/login?code={code}").status_code == 200

        assert client.get(f"/login?code={code}").status_code == 302

    @pytest.mark.parametrize(("target", "location"), [
        ("/swarm/events?page=2", "/swarm/events?page=2"),
        ("/", "/"),
        ("https://evil.example/", "/swarm/live"),
        ("//evil.example", "/swarm/live"),
        ("/\\evil.example", "/swarm/live"),
        ("/\t/evil.example", "/swarm/live"),
        ("\\\\evil.example", "/swarm/live"),
        ("javascript:alert(1)", "/swarm/live"),
        ("/a\r\nSet-Cookie: x=y", "/swarm/live"),
        ("", "/swarm/live"),
    ])  # fmt: skip
    def test_it_never_leads_to_another_site(self, flask_app, database, target, location):
        response, _ = self.sign_in(flask_app.test_client(), database, next=target)

        assert response.headers["Location"] == location

    def test_a_session_planted_before_is_not_the_one_afterwards(self, flask_app, database):
        client = flask_app.test_client()
        with client.session_transaction() as planted:
            planted["_user_id"] = "planted"
            planted["csrf_token"] = "planted"

        self.sign_in(client, database)

        with client.session_transaction() as session:
            assert session["_user_id"] != "planted"
            assert session.get("csrf_token") != "planted"
        assert not account.has_session(database, "planted")

    @pytest.mark.parametrize(("scheme", "is_secure"), [("http", False), ("https", True)])
    def test_the_cookie_is_kept_from_scripts_other_sites_and_plain_http(self, flask_app, database, scheme, is_secure):
        client = flask_app.test_client()
        code = account.create_code(database, timedelta(hours=1))

        cookie = client.get(f"/login?code={code}", base_url=f"{scheme}://localhost").headers["Set-Cookie"]

        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert ("Secure" in cookie) is is_secure

    def test_signing_out_ends_the_session_for_copies_of_its_cookie_too(self, cast, flask_app):
        operator = cast["operator"]
        thief, copy = token_visitor(flask_app, None), {"Cookie": cookie_of(operator)}
        assert thief("GET", "/api/events", copy).status_code == 200

        assert operator("POST", "/logout").headers["Location"] == "/login"

        assert operator("GET", "/api/events").status_code == 401
        assert thief("GET", "/api/events", copy).status_code == 401

    def test_a_form_may_carry_the_csrf_token_and_a_wrong_one_is_refused(self, cast):
        client = cast["operator"].client

        assert client.post("/api/events", data={"csrf_token": client.get("/csrf").text}).status_code == 200
        assert client.post("/api/events", data={"csrf_token": "wrong"}).status_code == 403

    def test_neither_codes_nor_tokens_are_logged(self, flask_app, database, caplog):
        caplog.set_level("DEBUG")
        client = flask_app.test_client()

        _, code = self.sign_in(client, database)
        client.get("/login?code=guessed-wrong")
        client.get("/api/events", headers={"Authorization": "Bearer outfeed_secret"})

        assert "signed in name=operator address=127.0.0.1" in caplog.text
        assert "sign-in refused address=127.0.0.1" in caplog.text
        assert not re.search(f"{re.escape(code)}|guessed-wrong|outfeed_secret", caplog.text)


class TestHeaders:
    @pytest.mark.parametrize("path", ["/healthz", "/login", "/static/login.html", "/api/events", "/nowhere"])
    def test_every_answer_defends_the_browser(self, cast, path):
        for visitor in ("stranger", "operator"):
            headers = cast[visitor]("GET", path).headers

            assert "default-src 'self'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Referrer-Policy"] == "same-origin"

    def test_what_was_shown_is_not_kept_by_caches(self, cast):
        assert cast["operator"]("GET", "/swarm/live").headers["Cache-Control"] == "no-store"
        assert cast["operator"]("GET", "/static/login.html").headers["Cache-Control"] != "no-store"


class TestSecretKey:
    def settings(self, tmp_path, **more):
        return Settings(database=tmp_path / "outfeed.db", **more)

    def test_a_given_key_is_used_and_none_is_made(self, tmp_path):
        assert auth.secret_key(self.settings(tmp_path, secret_key="a key of one's own")) == "a key of one's own"
        assert list(tmp_path.iterdir()) == []

    def test_it_is_made_once_for_the_owner_only(self, tmp_path):
        key = auth.secret_key(self.settings(tmp_path))

        assert auth.secret_key(self.settings(tmp_path)) == key
        assert len(key) >= 43
        (file,) = tmp_path.iterdir()
        assert file.name == "outfeed.db.secret"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_processes_that_start_at_once_get_the_same_one(self, tmp_path):
        with ThreadPoolExecutor(16) as threads:
            keys = set(threads.map(lambda _: auth.secret_key(self.settings(tmp_path)), range(64)))

        assert len(keys) == 1
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("content", ["", "short", "\xff" * 30])
    def test_an_unusable_file_is_an_error_that_names_it(self, tmp_path, content):
        (tmp_path / "outfeed.db.secret").write_text(content)

        with pytest.raises(ConfigError, match=r"outfeed\.db\.secret"):
            auth.secret_key(self.settings(tmp_path))

    def test_a_folder_that_cannot_be_written_is_an_error_that_says_what_to_do(self, tmp_path):
        with pytest.raises(ConfigError, match="OUTFEED_SECRET_KEY"):
            auth.secret_key(Settings(database=tmp_path / "missing" / "outfeed.db"))
