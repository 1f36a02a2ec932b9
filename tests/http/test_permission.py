"""Each route declares its permission. Other paths follow similar routes."""

from __future__ import annotations

import pytest
from flask import Blueprint

from outfeed.access.store import account
from outfeed.access.tickets import post_ticket
from outfeed.config import Settings
from outfeed.errors import UndeclaredRoute
from outfeed.http.app import create_app
from outfeed.http.permission import Permission, requires
from outfeed.http.status import show
from outfeed.principal import ADMIN, READ, WRITE
from tests.http.visitors import bearer

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}


@pytest.fixture
def app(database):
    app = create_app(Settings(database=database.path))
    yield app
    app.extensions["outfeed"].database.close()


def answer(app, method, path, secret=None, **headers):
    return bearer(app, secret)(method, path, {**HTML, **headers})


class TestDeclarations:
    @pytest.mark.parametrize("view", [post_ticket, show])
    def test_an_app_with_an_undeclared_route_is_not_created(self, database, monkeypatch, view):
        monkeypatch.delattr(view, "permission")

        with pytest.raises(UndeclaredRoute, match="declares no permission"):
            create_app(Settings(database=database.path))

    def test_a_blueprint_and_an_endpoint_without_a_declaration_are_rejected(self, app):
        bare = Blueprint("bare", __name__)
        bare.add_url_rule("/bare", view_func=lambda: "", endpoint="bare")

        with pytest.raises(UndeclaredRoute, match="/bare"):
            app.register_blueprint(bare)
        with pytest.raises(UndeclaredRoute, match="/later"):
            app.add_url_rule("/later", "later")

        assert not {"/bare", "/later"} & {rule.rule for rule in app.url_map.iter_rules()}

    def test_an_undeclared_view_in_place_of_a_declared_one_is_not_called(self, app):
        app.view_functions["pages.live"] = lambda: "open to everyone"

        assert answer(app, "GET", "/swarm/live").status_code == 500

    def test_every_route_of_the_app_declares_its_permission(self, app):
        views = {rule.rule: app.view_functions[rule.endpoint] for rule in app.url_map.iter_rules()}

        assert {path for path, view in views.items() if not isinstance(view.permission, Permission)} == set()

    def test_only_these_routes_are_public(self, app):
        rules = app.url_map.iter_rules()

        assert {rule.rule for rule in rules if app.view_functions[rule.endpoint].permission.scope is None} == {
            "/healthz", "/healthz/", "/readyz", "/readyz/", "/login", "/static/<path:name>",
            "/static/v-<version>/<path:name>", "/docs", "/docs/search", "/docs/<topic>", "/preferences",
            "/manifest.webmanifest", "/in/at/<address>",
        }  # fmt: skip

    @pytest.mark.parametrize(("method", "scope", "status"), [
        ("GET", WRITE, 403), ("GET", READ, 200), ("POST", READ, 200), ("POST", ADMIN, 403),
    ])  # fmt: skip
    def test_the_declaration_decides_for_every_method(self, app, database, method, scope, status):
        app.add_url_rule("/new", view_func=requires(scope)(lambda: "seen"), methods=[method], endpoint="new")
        secret = account.create_token(database, "one", ["read"])

        assert answer(app, method, "/new", secret).status_code == status


class TestPathsWithoutARoute:
    @pytest.mark.parametrize(("method", "path", "status"), [
        ("GET", "/nowhere", 302),
        ("HEAD", "/nowhere", 302),
        ("POST", "/nowhere", 401),
        ("GET", "/swarm/nowhere", 302),
        ("GET", "/swarm/tasks", 302),
        ("GET", "/logout", 302),
        ("GET", "/login/nowhere", 302),
        ("GET", "/api", 401),
        ("GET", "/api/nowhere", 401),
        ("GET", "/api/tickets", 401),
        ("GET", "/api/docs", 302),
        ("GET", "/api/docs/", 401),
        ("DELETE", "/api/events", 401),
        ("GET", "/ws/nowhere", 401),
        ("POST", "/ws", 401),
        ("GET", "/metrics/nowhere", 401),
        ("GET", "/healthz/nowhere", 401),
        # public, so the route's own answer
        ("DELETE", "/healthz", 405),
        ("POST", "/readyz/", 405),
        ("DELETE", "/login", 405),
        ("POST", "/static/outfeed.css", 405),
        ("GET", "/static/", 404),
        ("GET", "/static/nowhere.css", 404),
        ("GET", "/static//outfeed.css", 302),
    ])  # fmt: skip
    def test_anonymous_requests_get_the_same_response_with_and_without_a_route(self, app, method, path, status):
        assert answer(app, method, path).status_code == status

    @pytest.mark.parametrize("path", ["/swarm/live", "/api/docs", "/logout", "/nowhere"])
    def test_an_anonymous_handshake_for_a_page_is_redirected_to_the_sign_in(self, app, path):
        location = answer(app, "GET", path, **UPGRADE).headers["Location"]

        assert location.startswith("/login?next=")

    @pytest.mark.parametrize(("scope", "statuses"), [("read", (405, 403, 404, 403)), ("write", (403, 405, 403, 404))])
    def test_the_method_decides_on_the_scope_if_no_view_runs(self, app, database, scope, statuses):
        secret = account.create_token(database, "one", [scope])
        asked = [("GET", "/api/tickets"), ("PUT", "/api/tickets"), ("GET", "/nowhere"), ("PUT", "/nowhere")]

        assert tuple(answer(app, method, path, secret).status_code for method, path in asked) == statuses

    @pytest.mark.parametrize("path", ["/status", "/api/tickets", "/api/events"])
    def test_a_reader_may_request_the_methods_of_a_route(self, app, database, path):
        assert answer(app, "OPTIONS", path, account.create_token(database, "one", ["read"])).status_code == 200

    @pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
    def test_connection_attempts_are_counted_for_every_method(self, database, method):
        app = create_app(Settings(database=database.path, connection_attempts_per_minute=1))

        for path in ("/ws", "/api/feed/stream"):
            answers = [answer(app, method, path).status_code for _ in range(3)]
            assert answers[-1] == 429
        app.extensions["outfeed"].database.close()
