"""The shell of the pages: menu, theme, zone and manifest."""

from __future__ import annotations

import re

import pytest

from outfeed.access.store import account
from outfeed.http import shell
from tests.http.visitors import bearer, signed_in
from tests.server import hidden_fields
from tests.test_colours import theme

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def links_of(page):
    return re.findall(r">([^<>]+)</a>", page)


@pytest.mark.parametrize(("role", "has_status"), [("viewer", False), ("operator", True)])
def test_the_menu_has_the_name_the_role_and_the_pages_of_the_visitor(flask_app, database, role, has_status):
    visit = signed_in(flask_app, database, role)

    for path in ("/swarm/events", "/docs", "/nowhere"):
        page = visit("GET", path, HTML).text
        assert f"<b>{visit.name}</b> <span>{role}</span>" in page
        assert ("Status" in links_of(page)) is has_status
        assert ">Sign out</button>" in page


def test_a_visitor_who_is_signed_out_gets_the_preferences_and_a_link_to_sign_in(flask_app):
    page = bearer(flask_app, None)("GET", "/docs/webhooks", HTML).text

    assert ">Preferences</span>" in page
    assert 'href="/login?next=/docs/webhooks">Sign in</a>' in page
    assert "Sign out" not in page


def test_the_documentation_needs_no_account_that_can_be_read(flask_app, database):
    visit = signed_in(flask_app, database)
    away = database.path.rename(database.path.with_name("away.db"))

    assert visit("GET", "/docs/webhooks", HTML).status_code == 200
    away.rename(database.path)


@pytest.mark.parametrize(("theme", "media", "scheme"), [
    ("system", "screen and (prefers-color-scheme: dark)", "light dark"),
    ("dark", "screen", "dark"),
    ("light", None, "light"),
    ("another", "screen and (prefers-color-scheme: dark)", "light dark"),
])  # fmt: skip
def test_the_theme_of_the_cookie_decides_on_the_dark_stylesheet(flask_app, theme, media, scheme):
    client = flask_app.test_client()
    client.set_cookie("outfeed_theme", theme)

    page = client.get("/docs", headers=HTML).text

    found = re.search(r'dark\.css" media="([^"]+)"', page)
    assert (found and found[1]) == media
    assert f'<meta name="color-scheme" content="{scheme}">' in page


def test_a_choice_is_kept_for_a_year_and_leads_back_to_its_page(flask_app):
    client = flask_app.test_client()

    answer = client.post("/preferences", data={"theme": "dark", "next": "/docs/webhooks?a=b"})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/docs/webhooks?a=b")
    cookie = client.get_cookie("outfeed_theme")
    assert (cookie.value, cookie.max_age, cookie.http_only) == ("dark", shell.YEAR_SECS, True)
    assert 'data-theme="dark"' in client.get("/docs", headers=HTML).text
    assert 'data-density="normal"' in client.get("/docs", headers=HTML).text
    client.post("/preferences", data={"zone": "utc"})
    client.post("/preferences", data={"density": "compact"})
    page = client.get("/docs", headers=HTML).text
    assert 'data-theme="dark" data-zone="utc" data-density="compact"' in page
    assert 'name="density" value="compact" aria-pressed="true"' in page


@pytest.mark.parametrize("target", ["https://example.com/", "//example.com", "/\\example.com", ""])
def test_a_choice_leads_to_no_other_site(flask_app, target):
    answer = flask_app.test_client().post("/preferences", data={"zone": "utc", "next": target})

    assert answer.headers["Location"] == "/swarm/live"


def test_an_unknown_choice_is_refused(flask_app):
    answer = flask_app.test_client().post("/preferences", data={"theme": "pink"}, headers=HTML)

    assert answer.status_code == 422
    assert "Theme: system, light, dark; zone: local, utc; density: normal, compact." in answer.text
    assert answer.headers.getlist("Set-Cookie") == []


def test_the_manifest_has_icons_that_exist_and_the_colour_of_the_stylesheet(flask_app):
    client = flask_app.test_client()

    answer = client.get("/manifest.webmanifest")

    assert answer.mimetype == "application/manifest+json"
    found = answer.get_json(force=True)
    assert found["start_url"] == "/swarm/live"
    assert {icon["sizes"] for icon in found["icons"]} == {"192x192", "512x512"}
    assert {client.get(icon["src"]).mimetype for icon in found["icons"]} == {"image/png"}
    assert {name: theme(name)["ground"] for name in ("light", "dark")} == shell.GROUNDS


def test_a_saved_password_is_confirmed(flask_app, database):
    client = signed_in(flask_app, database).client
    token = hidden_fields(client.get("/password").text)["csrf_token"]

    saved = client.post("/password", data={"password": "a new horse", "again": "a new horse", "csrf_token": token})

    assert ">Password saved." in client.get(saved.headers["Location"]).text
    assert ">Password saved." not in client.get("/password").text


@pytest.mark.parametrize(("scopes", "role"), [
    (["read"], "viewer"), (["read", "write"], "producer"), (["admin"], "operator"),
])  # fmt: skip
def test_the_menu_names_the_role_that_a_token_corresponds_to(flask_app, database, scopes, role):
    secret = account.create_token(database, "bot", scopes)

    assert f"<b>bot</b> <span>{role}</span>" in bearer(flask_app, secret)("GET", "/swarm/events", HTML).text
