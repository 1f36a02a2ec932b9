"""Authentication of every kind of visitor on every kind of path.

Sign-in, sign-out, and the headers that protect a browser are included.
"""

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from outfeed.access import auth, passwords
from outfeed.access.rights import Rights
from outfeed.access.store import account, user
from outfeed.config import Settings
from outfeed.errors import ConfigError
from outfeed.http.app import create_app
from outfeed.log.store.reading import list_events
from tests.http.modules import paths_read_by
from tests.http.visitors import bearer, follow, show_tokens_and_names, signed_in, tokens
from tests.server import hidden_fields

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Accept": "application/json"}
STATIC = Path(auth.__file__).parents[1] / "static"


@pytest.fixture
def flask_app(database):
    """Return the app with the test routes /who and /csrf."""
    app = create_app(Settings(database=database.path, sign_ins_per_minute=0, allowed_origins=("https://shop.example",)))
    show_tokens_and_names(app)
    yield app
    app.extensions["outfeed"].database.close()


@pytest.fixture
def visitors(flask_app, database):
    """Return the visitors by name.

    Each is a function (method, path, headers) -> response.
    """
    visitors = {name: bearer(flask_app, secret) for name, secret in tokens(database).items()}
    return visitors | {"operator": signed_in(flask_app, database)}


def cookie_of(visitor):
    name = visitor.client.application.config["SESSION_COOKIE_NAME"]
    return f"{name}={visitor.client.get_cookie(name).value}"


class TestCredentials:
    @pytest.mark.parametrize("visitor", ["anonymous", "revoked", "expired"])
    def test_a_refusal_contains_the_scheme_and_is_a_problem(self, visitors, visitor):
        response = visitors[visitor]("GET", "/api/events")

        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert response.mimetype == "application/problem+json"
        assert response.json["status"] == 401

    def test_the_principal_is_the_token_or_the_person(self, visitors):
        assert [visitors[name]("GET", "/who").text for name in ("reader", "operator")] == ["reader", "operator0"]

    @pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer a=b", "Bearer outfeed_x", "bearer \udcff"])
    def test_an_invalid_token_is_rejected_even_with_a_valid_session(self, visitors, header):
        response = visitors["operator"]("GET", "/who", {"Authorization": header.encode("utf-8", "replace").decode()})

        assert response.status_code == 401 or header == "Bearer"

    def test_a_token_needs_no_csrf_token_and_leaves_no_cookie(self, visitors):
        response = visitors["both"]("POST", "/who")

        assert response.status_code == 200
        assert "Set-Cookie" not in response.headers

    def test_a_token_revoked_on_a_running_server_is_rejected_at_once(self, visitors, database):
        assert visitors["reader"]("GET", "/api/events").status_code == 200

        account.revoke_token(database, "reader")

        assert visitors["reader"]("GET", "/api/events").status_code == 401

    def test_a_token_in_a_url_is_ignored(self, flask_app, database):
        secret = account.create_token(database, "one", ["read"])

        for name in ("token", "access_token", "ticket"):
            assert bearer(flask_app, None)("GET", f"/api/events?{name}={secret}").status_code == 401
            assert bearer(flask_app, None)("GET", f"/ws?{name}={secret}").status_code == 401

    def test_the_last_use_of_a_token_is_written_by_a_job(self, visitors, flask_app, database):
        visitors["reader"]("GET", "/api/events")
        flask_app.extensions["outfeed"].part(Rights).write_uses()

        used = [token.name for token in account.list_tokens(database) if token.last_used_at]
        assert used == ["reader"]


class TestPages:
    @pytest.mark.parametrize(("path", "target"), [
        ("/", "next=%2F"),
        ("/swarm/live", "next=%2Fswarm%2Flive"),
        ("/swarm/events?type=task.created&page=2", "next=%2Fswarm%2Fevents%3Ftype%3Dtask.created%26page%3D2"),
        ("/a%0d%0aSet-Cookie:x", "next=%2Fa%250D%250ASet-Cookie%253Ax"),
    ])  # fmt: skip
    def test_an_anonymous_visitor_is_redirected_to_the_sign_in_and_back(self, visitors, path, target):
        response = visitors["anonymous"]("GET", path, HTML)

        assert response.status_code == 302
        assert response.headers["Location"] == f"/login?{target}"

    @pytest.mark.parametrize("path", ["/logout", "/swarm/tasks", "/password"])
    def test_a_form_sent_after_its_session_ended_asks_for_a_sign_in(self, visitors, path):
        response = visitors["anonymous"]("POST", path, HTML)

        assert response.status_code == 401
        assert response.mimetype == "text/html"
        assert "Your session ended; nothing was saved." in response.text
        assert 'href="/login">Sign in</a>' in response.text
        assert "Sign out" not in response.text
        assert "outfeed_…" in visitors["anonymous"]("POST", path).json["detail"]

    @pytest.mark.parametrize("path", ["/api", "/api/nothing", "/ws", "/metrics"])
    def test_anonymous_requests_for_programs_get_401_even_from_a_browser(self, visitors, path):
        assert visitors["anonymous"]("GET", path, HTML).status_code == 401


class TestOrigin:
    @pytest.mark.parametrize(("host", "origin", "status"), [
        ("feed.example:8000", None, 426),
        ("feed.example:8000", "http://feed.example:8000", 426),
        ("feed.example", "https://feed.example", 426),
        ("feed.example", "https://feed.example:443", 426),
        ("feed.example:443", "https://feed.example", 426),
        ("FEED.example", "https://feed.EXAMPLE", 426),
        ("[::1]:8000", "http://[::1]:8000", 426),
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

        assert bearer(flask_app, None)("GET", "/ws", headers).status_code == status

    @pytest.mark.parametrize(("credentials", "status"), [("cookie", 401), ("bearer", 426), ("ticket", 426)])
    def test_a_page_of_an_allowed_site_needs_a_ticket_instead_of_the_cookie(
        self, flask_app, visitors, database, credentials, status
    ):
        headers, query = {"Origin": "https://Shop.example"}, ""
        if credentials == "cookie":
            headers["Cookie"] = cookie_of(visitors["operator"])
        elif credentials == "bearer":
            headers["Authorization"] = "Bearer " + account.create_token(database, "one", ["read"])
        else:
            query = "?ticket=" + visitors["reader"]("POST", "/api/tickets").json["ticket"]

        assert bearer(flask_app, None)("GET", f"/ws{query}", headers).status_code == status

    def test_a_ticket_is_valid_once_and_only_for_the_socket(self, flask_app, visitors):
        answer = visitors["reader"]("POST", "/api/tickets")
        ticket, anonymous = answer.json["ticket"], bearer(flask_app, None)

        assert (answer.status_code, answer.json["expires_in"]) == (201, 60)
        assert anonymous("GET", f"/api/feed?ticket={ticket}").status_code == 401
        assert [anonymous("GET", f"/ws?ticket={ticket}").status_code for _ in range(2)] == [426, 401]

    @pytest.mark.parametrize("path", ["/static/event-feed.js", "/static/event-types.json", "/api/feed", "/api/types"])
    def test_an_allowed_site_may_read_its_files_without_a_cookie(self, visitors, path):
        mine = visitors["reader"]("GET", path, {"Origin": "https://shop.example"}).headers
        others = visitors["reader"]("GET", path, {"Origin": "https://evil.example"}).headers

        assert mine["Access-Control-Allow-Origin"] == "https://shop.example"
        assert "Access-Control-Allow-Credentials" not in mine
        assert "Access-Control-Allow-Origin" not in others
        assert "Origin" in mine["Vary"]
        assert "Origin" in others["Vary"]

    def test_an_allowed_site_may_read_every_module_of_the_feed(self, visitors):
        read = paths_read_by(visitors["anonymous"], "/static/event-feed.js")
        answers = {path: visitors["anonymous"]("GET", path, {"Origin": "https://shop.example"}) for path in read}

        assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(read, 200)
        assert [path for path in read if "Access-Control-Allow-Origin" not in answers[path].headers] == []
        assert "/static/event-types.json" in read
        assert {f"/static/event-feed/{file.name}" for file in (STATIC / "event-feed").glob("*.js")} < read

    @pytest.mark.parametrize("path", [
        "/api/events", "/swarm/live", "/login", "/api/tickets", "/static/outfeed.css", "/static/live.js",
        "/static/swarm/chart.js", "/static/event-feed/", "/static/event-feed/../outfeed.css",
    ])  # fmt: skip
    def test_an_allowed_site_may_read_no_other_path(self, visitors, path):
        headers = visitors["reader"]("GET", path, {"Origin": "https://shop.example"}).headers

        assert "Access-Control-Allow-Origin" not in headers

    @pytest.mark.parametrize(("path", "origin", "method", "status"), [
        ("/api/feed", "https://shop.example", "GET", 204),
        ("/api/feed", "https://shop.example", "POST", 401),
        ("/api/feed", "https://evil.example", "GET", 401),
        ("/api/events", "https://shop.example", "GET", 401),
    ])  # fmt: skip
    def test_a_preflight_gets_the_permission(self, flask_app, path, origin, method, status):
        headers = {"Origin": origin, "Access-Control-Request-Method": method}

        assert bearer(flask_app, None)("OPTIONS", path, headers).status_code == status


class TestSigningIn:
    def sign_in(self, client, database, **query):
        code = account.create_code(database, timedelta(hours=1))
        return follow(client, code, query=query), code

    def test_the_link_signs_in_once_and_redirects_to_the_home_page(self, flask_app, database):
        first, second = flask_app.test_client(), flask_app.test_client()

        response, code = self.sign_in(first, database)

        assert (response.status_code, response.headers["Location"]) == (303, "/swarm/live")
        assert first.get("/who").text == "operator"
        assert second.get(f"/login?code={code}").status_code == 401
        assert second.get("/api/events").status_code == 401

    def test_without_a_code_the_page_explains_the_sign_in(self, flask_app):
        response = flask_app.test_client().get("/login")

        assert response.status_code == 200
        assert "Look for the sign-in link" in response.text

    @pytest.mark.parametrize("code", ["", "wrong", "%ff", "x" * 2000])
    def test_a_wrong_code_is_rejected_with_the_reason(self, flask_app, code):
        client = flask_app.test_client()

        response = client.get(f"/login?code={code}")

        assert response.status_code == 401
        assert "expired" in response.text
        assert client.get("/api/events").status_code == 401

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_opening_a_link_neither_uses_it_nor_starts_a_session(self, flask_app, database, method):
        user.add(database, "ann", "viewer")
        code = account.create_code(database, timedelta(hours=1), "ann")
        scanner, ann = flask_app.test_client(), flask_app.test_client()

        for _ in range(3):
            assert scanner.open(f"/login?code={code}", method=method).status_code == 200

        assert scanner.get("/who", headers=JSON).status_code == 401
        assert follow(ann, code).status_code == 303
        assert ann.get("/who").text == "ann"

    def test_the_page_of_a_link_names_its_user_and_the_ended_session(self, flask_app, visitors, database):
        user.add(database, "ann", "viewer")
        codes = [account.create_code(database, timedelta(hours=1), name) for name in ("ann", None)]

        invited, first = (flask_app.test_client().get(f"/login?code={code}").text for code in codes)
        elsewhere = visitors["operator"]("GET", f"/login?code={codes[0]}").text

        assert "This link signs <b>ann</b> in" in invited
        assert "This link signs <b>operator0</b> in" in first
        assert "You are signed in as <b>operator0</b>" in elsewhere
        assert "You are signed in" not in invited
        assert "operator" not in [each.name for each in user.list_all(database)]

    def test_another_site_can_neither_post_a_code_nor_read_one_from_a_referrer(self, flask_app, database):
        code = account.create_code(database, timedelta(hours=1))
        client = flask_app.test_client()
        page = client.get(f"/login?code={code}")

        forged = client.post("/login", data={"code": code, "csrf_token": "wrong", "next": "/swarm/events"})

        assert page.headers["Referrer-Policy"] == "strict-origin"
        assert forged.status_code == 403
        assert "The form expired" in forged.text
        assert hidden_fields(forged.text)["next"] == "/swarm/events"
        assert client.get("/who", headers=JSON).status_code == 401
        assert follow(client, code).status_code == 303

    def test_a_code_redeemed_between_page_and_button_is_rejected(self, flask_app, database):
        code = account.create_code(database, timedelta(hours=1))
        client = flask_app.test_client()
        fields = hidden_fields(client.get(f"/login?code={code}").text)
        follow(flask_app.test_client(), code)

        late = client.post("/login", data=fields)

        assert late.status_code == 401
        assert "is used or expired" in late.text
        assert list_events()[0].event_type == "access.sign_in_refused"

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
    def test_a_sign_in_never_redirects_to_another_site(self, flask_app, database, target, location):
        response, _ = self.sign_in(flask_app.test_client(), database, next=target)

        assert response.headers["Location"] == location

    def test_a_sign_in_replaces_a_session_planted_before(self, flask_app, database):
        client = flask_app.test_client()
        with client.session_transaction() as planted:
            planted["_user_id"] = "planted"
            planted["csrf_token"] = "planted"

        self.sign_in(client, database)

        with client.session_transaction() as session:
            assert session["_user_id"] != "planted"
            assert session.get("csrf_token") != "planted"
        assert not account.find_session(database, "planted")

    @pytest.mark.parametrize(("scheme", "is_secure"), [("http", False), ("https", True)])
    def test_the_cookie_is_hidden_from_scripts_other_sites_and_plain_http(self, flask_app, database, scheme, is_secure):
        client = flask_app.test_client()
        code = account.create_code(database, timedelta(hours=1))

        base_url = f"{scheme}://localhost"
        cookie = follow(client, code, base_url=base_url, headers={"Referer": f"{base_url}/"}).headers["Set-Cookie"]

        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert ("Secure" in cookie) is is_secure

    def test_signing_out_ends_the_session_for_every_copy_of_its_cookie(self, visitors, flask_app):
        operator = visitors["operator"]
        thief, copy = bearer(flask_app, None), {"Cookie": cookie_of(operator)}
        assert thief("GET", "/api/events", copy).status_code == 200

        assert operator("POST", "/logout").headers["Location"] == "/login"

        assert operator("GET", "/api/events").status_code == 401
        assert thief("GET", "/api/events", copy).status_code == 401

    def test_a_form_may_contain_the_csrf_token_and_a_wrong_one_is_rejected(self, visitors):
        client = visitors["operator"].client

        assert client.post("/who", data={"csrf_token": client.get("/csrf").text}).status_code == 200
        assert client.post("/who", data={"csrf_token": "wrong"}).status_code == 403
        assert "reload the page" in client.post("/who", data={"csrf_token": "wrong"}, headers=HTML).text

    def test_the_constant_part_of_a_csrf_token_is_not_a_valid_token(self, visitors):
        client = visitors["operator"].client
        with freeze_time() as clock:
            first = client.get("/csrf").text
            clock.tick(timedelta(seconds=1))
            second = client.get("/csrf").text
            (constant, _, old), (same, time, signature) = first.rsplit(".", 2), second.rsplit(".", 2)

            assert constant == same
            assert old != signature
            for forged in (constant, f"{constant}.{time}", f"{constant}.{time}.{old}"):
                assert client.post("/who", data={"csrf_token": forged}).status_code == 403

    def test_neither_codes_nor_tokens_are_logged(self, flask_app, database, caplog):
        caplog.set_level("DEBUG")
        client = flask_app.test_client()

        _, code = self.sign_in(client, database)
        client.get("/login?code=guessed-wrong")
        client.post("/login", data={"code": "guessed-wrong", "csrf_token": csrf_of(client, "/password")})
        client.get("/api/events", headers={"Authorization": "Bearer outfeed_secret"})

        assert "signed in name=operator how=link address=127.0.0.1" in caplog.text
        assert "sign-in refused how=link address=127.0.0.1" in caplog.text
        assert not re.search(f"{re.escape(code)}|guessed-wrong|outfeed_secret", caplog.text)


class TestPasswords:
    PASSWORD = "correct horse"

    @pytest.fixture
    def ann(self, database):
        user.add(database, "ann", "viewer")
        user.set_password(database, "ann", passwords.hash_of(self.PASSWORD))
        return "ann"

    def sign_in(self, client, name, password, **more):
        form = {"name": name, "password": password, "csrf_token": csrf_of(client), **more}
        return client.post("/login", data=form)

    def test_name_and_password_sign_in(self, flask_app, database, ann):
        client = flask_app.test_client()

        response = self.sign_in(client, ann, self.PASSWORD, next="/swarm/events?type=a.b")

        assert (response.status_code, response.headers["Location"]) == (303, "/swarm/events?type=a.b")
        assert client.get("/who").text == "ann"
        assert list_events()[0].data == {"name": "ann", "how": "password", "by": "ann", "address": "127.0.0.1"}

    def test_a_wrong_name_and_a_wrong_password_get_the_same_response(self, flask_app, database, ann):
        user.add(database, "new", "viewer")
        user.add(database, "out", "viewer")
        user.set_password(database, "out", passwords.hash_of(self.PASSWORD))
        user.set_disabled(database, "out", True)
        answers = []
        for name, password in (
            ("ann", "wrong horse"), ("bob", self.PASSWORD), ("new", ""), ("out", self.PASSWORD), ("", "")
        ):  # fmt: skip
            response = self.sign_in(flask_app.test_client(), name, password)
            assert f'name="name" value="{name}"' in response.text
            answers.append((response.status_code, re.sub(r'value="[^"]*"|autofocus', "", response.text)))

        assert len(set(answers)) == 1
        assert answers[0][0] == 401

    def test_an_unknown_name_costs_a_password_check_too(self, flask_app, ann, monkeypatch):
        checked = []
        monkeypatch.setattr(passwords, "check_password_hash", lambda *pair: checked.append(pair) or False)

        for name in ("ann", "bob"):
            self.sign_in(flask_app.test_client(), name, "wrong horse")

        assert [password for _, password in checked] == ["wrong horse", "wrong horse"]
        assert {stored.split("$")[0] for stored, _ in checked} == {"scrypt:32768:8:1"}

    def test_a_typed_unknown_name_is_not_stored(self, flask_app, database, ann, caplog):
        caplog.set_level("DEBUG")
        self.sign_in(flask_app.test_client(), self.PASSWORD, "x")

        assert list_events()[0].data["name"] is None
        assert self.PASSWORD not in repr(list_events()) + caplog.text

    @pytest.mark.parametrize("more", [{"csrf_token": "wrong"}, {"csrf_token": ""}])
    def test_another_site_can_not_sign_a_visitor_in(self, flask_app, ann, more):
        client = flask_app.test_client()

        assert self.sign_in(client, ann, self.PASSWORD, **more).status_code == 403
        assert client.get("/who").status_code == 401 or client.get("/who").status_code == 302

    def test_sign_in_attempts_are_limited_by_address_even_with_the_right_password(self, database, ann):
        app = create_app(Settings(database=database.path, sign_ins_per_minute=3))
        for _ in range(3):
            assert self.sign_in(app.test_client(), "bob", "wrong").status_code == 401

        response = self.sign_in(app.test_client(), ann, self.PASSWORD)
        other = app.test_client()
        other.environ_base["REMOTE_ADDR"] = "192.0.2.7"

        assert response.status_code == 429
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        linked = app.test_client()
        assert linked.post("/login", data={"code": "x", "csrf_token": csrf_of(linked)}).status_code == 429
        assert self.sign_in(other, ann, self.PASSWORD).status_code == 303
        app.extensions["outfeed"].database.close()

    def test_the_first_operator_is_offered_a_password_and_it_ends_the_links(self, flask_app, database):
        client, codes = flask_app.test_client(), [account.create_code(database, timedelta(hours=1)) for _ in range(2)]
        follow(client, codes[0])
        assert "Set a password" in client.get("/swarm/live").text

        form = {"password": "a new horse", "again": "a new horse", "csrf_token": csrf_of(client, "/password")}
        assert client.post("/password", data=form).status_code == 303

        assert client.get("/who").text == "operator"
        assert "Set a password" not in client.get("/swarm/live").text
        assert flask_app.test_client().get(f"/login?code={codes[1]}").status_code == 401
        assert self.sign_in(flask_app.test_client(), "operator", "a new horse").status_code == 303

    def test_a_new_password_needs_the_old_one_and_ends_other_sessions(self, flask_app, ann):
        here, there = flask_app.test_client(), flask_app.test_client()
        for client in (here, there):
            self.sign_in(client, ann, self.PASSWORD)
        form = {"password": "another horse", "again": "another horse", "csrf_token": csrf_of(here, "/password")}

        assert here.post("/password", data={**form, "current": "wrong horse"}).status_code == 403
        assert here.post("/password", data={**form, "current": self.PASSWORD, "again": "b" * 9}).status_code == 422
        assert here.post("/password", data={**form, "current": self.PASSWORD, "password": "a", "again": "a"}
            ).status_code == 422  # fmt: skip
        assert there.get("/who").status_code == 200
        assert here.post("/password", data={**form, "current": self.PASSWORD}).status_code == 303

        assert (here.get("/who").status_code, there.get("/who", headers=JSON).status_code) == (200, 401)

    def test_a_session_ends_after_its_lifetime(self, database, ann):
        app = create_app(Settings(database=database.path, session_days=1, sign_ins_per_minute=0))
        show_tokens_and_names(app)
        with freeze_time("2024-01-15 10:00") as clock:
            client = app.test_client()
            self.sign_in(client, ann, self.PASSWORD)
            clock.tick(timedelta(hours=23))
            assert client.get("/who").status_code == 200
            clock.tick(timedelta(hours=1))
            assert client.get("/who", headers=JSON).status_code == 401
        app.extensions["outfeed"].database.close()


def csrf_of(client, path="/login"):
    return re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)[1]


class TestProtection:
    @pytest.mark.parametrize("path", [
        "/static/../auth.py", "/static/..%2fconfig.py", "/static/%2e%2e/%2e%2e/setup.cfg", "/static//etc/passwd",
        "/static/....//config.py", "/static/..\\config.py", "/static/%00", "/static/outfeed.css/../../config.py",
    ])  # fmt: skip
    def test_static_serves_only_static_files(self, visitors, path):
        response = visitors["anonymous"]("GET", path)

        assert response.status_code in (302, 401, 404)  # 302: a double slash becomes a single one
        assert "Settings" not in response.text

    @pytest.mark.parametrize("path", [
        "/login?next=/a%0d%0aSet-Cookie:%20x=y", "/a%0d%0aSet-Cookie:%20x=y", "/swarm/events?type=%0d%0aSet-Cookie:x=y",
        "/api/events/%0d%0aSet-Cookie:%20x=y",
    ])  # fmt: skip
    def test_no_header_can_be_injected_into_a_response(self, visitors, path):
        for visitor in ("anonymous", "operator"):
            headers = visitors[visitor]("GET", path, HTML).headers

            assert not any("x=y" in value and name != "Location" for name, value in headers)
            assert not any("\r" in value or "\n" in value for _, value in headers)

    def test_no_redirect_leads_to_another_host(self, visitors):
        location = visitors["anonymous"]("GET", "/swarm/live", {**HTML, "Host": "evil.example"}).headers["Location"]

        assert location.startswith("/login?")

    def test_behind_tls_the_response_has_strict_transport_security(self, flask_app):
        client = flask_app.test_client()

        assert "Strict-Transport-Security" in client.get("/login", base_url="https://localhost").headers
        assert "Strict-Transport-Security" not in client.get("/login").headers


class TestHeaders:
    @pytest.mark.parametrize("path", ["/healthz", "/login", "/static/outfeed.css", "/api/events", "/nowhere"])
    def test_every_response_has_the_headers_that_protect_browsers(self, visitors, path):
        for visitor in ("anonymous", "operator"):
            headers = visitors[visitor]("GET", path).headers

            assert "default-src 'self'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Referrer-Policy"] == "same-origin"

    def test_responses_are_not_cached(self, visitors):
        assert visitors["operator"]("GET", "/swarm/live").headers["Cache-Control"] == "no-store"
        assert visitors["operator"]("GET", "/static/outfeed.css").headers["Cache-Control"] != "no-store"


class TestSecretKey:
    def settings(self, tmp_path, **more):
        return Settings(database=tmp_path / "outfeed.db", **more)

    def test_a_configured_key_is_used_and_no_file_is_made(self, tmp_path):
        assert auth.secret_key(self.settings(tmp_path, secret_key="a key of one's own")) == "a key of one's own"
        assert list(tmp_path.iterdir()) == []

    def test_the_key_file_is_made_once_with_mode_0600(self, tmp_path):
        key = auth.secret_key(self.settings(tmp_path))

        assert auth.secret_key(self.settings(tmp_path)) == key
        assert len(key) >= 43
        (file,) = tmp_path.iterdir()
        assert file.name == "outfeed.db.secret"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_processes_that_start_at_the_same_time_get_the_same_key(self, tmp_path):
        with ThreadPoolExecutor(16) as threads:
            keys = set(threads.map(lambda _: auth.secret_key(self.settings(tmp_path)), range(64)))

        assert len(keys) == 1
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("content", ["", "short", "\xff" * 30])
    def test_an_unusable_key_file_is_an_error_with_its_path(self, tmp_path, content):
        (tmp_path / "outfeed.db.secret").write_text(content)

        with pytest.raises(ConfigError, match=r"outfeed\.db\.secret"):
            auth.secret_key(self.settings(tmp_path))

    def test_a_read_only_folder_is_an_error_with_the_setting_to_use(self, tmp_path):
        with pytest.raises(ConfigError, match="OUTFEED_SECRET_KEY"):
            auth.secret_key(Settings(database=tmp_path / "missing" / "outfeed.db"))
