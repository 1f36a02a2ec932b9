"""The administration in a browser: sizes, themes, keys, and no JavaScript."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from outfeed.access.store import account, user
from outfeed.alerts.rule import AlertRule
from outfeed.alerts.store import rules as alerts
from outfeed.alerts.targets import AlertTarget
from outfeed.alerts.targets import store as targets
from outfeed.gateways.incoming import store as addresses
from outfeed.store import checkpoint
from outfeed.store import database as db
from tests.accessible import check_everywhere, operator_tab
from tests.page import DESKTOP, PHONE
from tests.server import Server

LONG = "a-program-with-a-name-that-is-longer-than-a-phone-is-wide@example.com"

LONG_TARGET = "a-target-with-a-name-of-the-greatest-length-that-one-ha"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with rows on every page of the administration."""
    with Server(tmp_path_factory.mktemp("admin")) as running:
        database = db.at(running.database)
        user.add(database, "ann", "viewer")
        user.add(database, LONG, "producer")
        user.set_disabled(database, LONG, True)
        account.create_token(database, LONG, ["read", "write"], types=["task.*", "bid.submitted"])
        account.create_token(database, "ci", ["read"])
        checkpoint.add(database, "bot", is_protected=True, owner="token:ci")
        addresses.add(database, "repo", topic="github", source="repo", mapping="github", signing_secret="s" * 20)
        alerts.add(database, AlertRule("errors", "type:a.b", targets=(LONG,)).checked(), "tests")
        alerts.add(database, AlertRule("a" * 55, "data.name:" + "x" * 60).checked(), "tests")
        alerts.pause(database, "errors", "tests")
        mail = {"to": LONG, "from": "o@example.com", "server": "smtp.example.com", "security": "tls"}
        targets.add(database, AlertTarget(LONG_TARGET, "email", mail), "tests")
        running.log_event("a.b", "s")
        database.close()
        yield running


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    with operator_tab(browser, server) as page:
        yield page


@pytest.fixture(autouse=True)
def _desktop(tab: Page) -> None:
    tab.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    tab.emulate_media(color_scheme="light")


def _sign_in(context: BrowserContext, server: Server, role: str) -> None:
    context.add_cookies([{"name": server.cookie_name, "value": server.sign_in(role), "url": server.url}])


def _manage(page: Page, name: str) -> None:
    page.get_by_role("row", name=re.compile(rf"^{re.escape(name)}\b")).locator("summary").click()


def test_every_page_is_accessible_and_fits_with_open_forms_and_menus(server: Server, tab: Page) -> None:
    of_targets = ("/targets", "/targets/add?kind=email", f"/targets/edit?name={LONG_TARGET}")
    for path in ("", "/users", "/tokens", "/consumers", "/addresses", "/alerts", "/alerts/rule/errors", *of_targets):
        tab.goto(f"{server.url}/admin{path}")
        for summary in tab.locator(".adding summary, .acts summary").all()[:2]:
            summary.click()
        check_everywhere(tab, path)


def test_an_error_a_confirmation_and_a_secret_are_accessible_and_fit(server: Server, tab: Page) -> None:
    tab.goto(f"{server.url}/admin/users")
    tab.get_by_text("Invite a user").click()
    tab.get_by_label("Name").fill("ann")
    tab.get_by_role("button", name="Invite").click()
    expect(tab.get_by_label("Name")).to_have_value("ann")
    expect(tab.get_by_label("Name")).to_have_accessible_description(re.compile("already a user named 'ann'"))
    check_everywhere(tab, "an error")

    tab.goto(f"{server.url}/admin/tokens")
    _manage(tab, LONG)
    tab.get_by_role("button", name="New secret…").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text(f"Rotate the token {LONG}?")
    check_everywhere(tab, "a confirmation")
    tab.get_by_role("button", name="Make a new secret").click()
    expect(tab.locator("pre")).to_have_text(re.compile(r"^outfeed_[\w-]{43}$"))
    check_everywhere(tab, "a secret")


def test_keys_alone_invite_a_user_and_copy_the_link(server: Server, tab: Page, browser: Browser) -> None:
    tab.goto(f"{server.url}/admin/users")
    tab.get_by_text("Invite a user").focus()
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    tab.keyboard.type("bob")
    tab.keyboard.press("Enter")
    link = tab.locator("pre").inner_text()
    tab.get_by_role("button", name="Copy").press("Enter")
    expect(tab.get_by_role("button", name="Copied")).to_be_visible()
    assert tab.evaluate("navigator.clipboard.readText()") == link
    tab.get_by_role("link", name="Done").press("Enter")
    expect(tab.get_by_role("row", name="bob")).to_contain_text("no password yet")

    with contextlib.closing(browser.new_context()) as other:
        invited = other.new_page()
        invited.goto(link)
        invited.get_by_role("button", name="Sign in").click()
        expect(invited.locator("header .who")).to_have_text("bob")
        expect(invited.get_by_role("link", name="Admin")).to_have_count(0)
        answer = invited.goto(f"{server.url}/admin/users")
        assert answer is not None
        assert answer.status == 403
        expect(invited.locator("main")).not_to_contain_text("ann")


def test_keys_alone_open_a_menu_change_a_role_and_close_the_menu(server: Server, tab: Page) -> None:
    tab.goto(f"{server.url}/admin/users")
    menu = tab.get_by_role("row", name=re.compile("^ann")).locator("summary")
    menu.press("Enter")
    tab.keyboard.press("Escape")
    expect(menu).to_be_focused()
    expect(tab.get_by_role("button", name="Change role")).to_be_hidden()
    menu.press("Enter")
    tab.keyboard.press("Tab")
    tab.keyboard.press("p")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("status").filter(has_text="ann has the role producer.")).to_be_visible()
    tab.reload()
    expect(tab.get_by_text("ann has the role producer.")).to_have_count(0)  # a reload repeats nothing
    expect(tab.get_by_role("row", name=re.compile("^ann"))).to_contain_text("producer")


def test_a_cancelled_confirmation_changes_nothing_and_a_confirmed_one_is_shown(server: Server, tab: Page) -> None:
    tab.goto(f"{server.url}/admin/consumers")
    for answer in ("Cancel", "Remove bot"):
        _manage(tab, "bot")
        tab.get_by_role("button", name="Remove…").click()
        tab.get_by_text(answer, exact=True).click()
        tab.wait_for_url(f"{server.url}/admin/consumers")
        expect(tab.get_by_role("row", name=re.compile("^bot"))).to_have_count(int(answer == "Cancel"))
    expect(tab.get_by_role("status").filter(has_text="The consumer bot is removed.")).to_be_visible()


def test_the_pages_work_without_javascript(server: Server, browser: Browser) -> None:
    with contextlib.closing(browser.new_context(java_script_enabled=False, viewport=PHONE)) as plain:  # type: ignore[arg-type]
        _sign_in(plain, server, "operator")
        page = plain.new_page()
        page.goto(f"{server.url}/swarm/events")
        page.get_by_role("link", name="Admin").click()
        page.get_by_role("link", name="Tokens").last.click()
        page.get_by_text("Create a token").click()
        page.get_by_label("Name").fill("plain")
        page.get_by_role("button", name="Create token").click()
        expect(page.locator("pre")).to_have_text(re.compile(r"^outfeed_[\w-]{43}$"))
        expect(page.get_by_role("button", name="Copy")).to_have_count(0)
        page.get_by_role("link", name="Done").click()
        _manage(page, "plain")
        page.get_by_role("button", name="Revoke…").click()
        page.get_by_role("button", name="Revoke plain").click()
        expect(page.get_by_text("The token plain is revoked.")).to_be_visible()
        expect(page.get_by_role("row", name="plain")).to_have_count(0)


def test_an_alert_is_tried_while_its_form_is_filled_in(server: Server, tab: Page) -> None:
    tab.goto(f"{server.url}/admin/alerts")
    tab.get_by_text("Add an alert").click()
    tab.get_by_label("Name").fill("orders")
    tab.locator("#field-query").fill("type:a.b")
    tab.locator("#field-query").press("Tab")
    result = tab.locator(".trial [role=status]")
    expect(result).to_contain_text("Would have raised once since")
    tab.locator("#field-query").fill("out of memory")
    tab.get_by_role("button", name="Try on the past").click()
    expect(result).to_contain_text("can't search for text")
    expect(tab.get_by_label("Name")).to_have_value("orders")
    tab.locator("#field-query").fill("type:no.such")
    tab.get_by_label("More than a number").check()
    expect(result).to_contain_text("Would not have raised")
    tab.get_by_role("button", name="Add").click()
    expect(tab.locator(".notice")).to_have_text("The alert orders is active: more than 10 events in 5 min.")
