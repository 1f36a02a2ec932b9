"""An operator's first day, from nothing, in a browser."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.receiver import Post, Receiver, Reply
from tests.server import Server
from tests.waits import PATIENCE_SECS, wait_until


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("operator"), webhook_allow="127.0.0.1") as running:
        yield running


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A tab of a visitor who is signed out. Script errors fail the test."""
    complaints: list[str] = []
    with contextlib.closing(browser.new_context(reduced_motion="reduce", locale="en-GB")) as own:
        page = own.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert complaints == []


def _choose(page: Page, path: str) -> None:
    """Open a page of the administration as an operator does: by its links."""
    page.get_by_role("link", name="Admin", exact=True).click()
    page.get_by_role("navigation", name="Administration").get_by_role("link", name=path, exact=True).click()


def _invite(page: Page, name: str) -> str:
    """Invite a viewer and return the sign-in link."""
    _choose(page, "Users")
    page.get_by_text("Invite a user").click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Invite").click()
    return page.locator("pre").inner_text()


def _make_token(page: Page, name: str) -> str:
    _choose(page, "Tokens")
    if not page.locator(".adding").evaluate("details => details.open"):
        page.get_by_text("Create a token").click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("checkbox", name=re.compile("^write")).check()
    page.get_by_role("button", name="Create token").click()
    return page.locator("pre").inner_text()


def _add_webhook(page: Page, name: str, url: str) -> str:
    """Add a webhook and return its secret."""
    _choose(page, "Webhooks")
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("textbox", name="Address").fill(url)
    page.get_by_role("textbox", name="Types").fill("order.*")
    page.get_by_role("button", name="Add webhook").click()
    return page.locator("pre").inner_text()


def _add_target(page: Page, name: str, url: str) -> str:
    """Add a webhook for notices and return its secret."""
    _choose(page, "Targets")
    page.get_by_role("link", name="Webhook", exact=True).click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_label("URL").fill(url)
    page.get_by_role("button", name="Add the target").click()
    return page.locator("pre").inner_text()


def _add_alert(page: Page, name: str, query: str, target: str) -> None:
    _choose(page, "Alerts")
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("textbox", name="Events").fill(query)
    page.get_by_role("textbox", name="Targets").fill(target)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text(f"The alert {name} is active")).to_be_visible()


def _post_event(server: Server, token: str, **event: object) -> None:
    body = {"event_type": "order.paid", "source": "shop", **event}
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.post(f"{server.url}/api/events", json=body, headers=headers, trust_env=False).status_code == 201


def test_from_nothing_to_a_delivery_that_is_sent_again_and_an_alert_over_a_kill(
    server: Server, tab: Page, browser: Browser
) -> None:
    tab.goto(server.sign_in_link())
    tab.get_by_role("button", name="Sign in").click()
    link = _invite(tab, "ann")
    tab.get_by_role("link", name="Done").click()
    with contextlib.closing(browser.new_context()) as other:
        colleague = other.new_page()
        colleague.goto(link)
        colleague.get_by_role("button", name="Sign in").click()
        expect(colleague.locator("header .who")).to_have_text("ann")
        expect(colleague.get_by_role("link", name="Admin", exact=True)).to_have_count(0)

    token = _make_token(tab, "shop")
    tab.get_by_role("link", name="Done").click()

    def fail_at_the_wrong_path(post: Post) -> Reply:
        return Reply(404 if post.path == "/wrong" else 200)

    with Receiver(behave=fail_at_the_wrong_path) as receiver:
        base = receiver.url.partition("/hook")[0]
        receiver.secret = _add_webhook(tab, "orders", f"{base}/wrong")
        tab.get_by_role("link", name="Done").click()
        _post_event(server, token, id="order-1", data={"amount": 129})
        _see_it_fail(tab, "404")

        tab.get_by_text("Change this webhook").click()
        tab.get_by_role("textbox", name="Address").fill(f"{base}/hook")
        tab.get_by_role("button", name="Save").click()
        expect(tab.get_by_text("Changed webhook orders.")).to_be_visible()
        _see_it_succeed(tab)
        first = tab.get_by_role("row", name=re.compile(r"^1\b"))
        first.get_by_role("button", name="Send again").click()
        expect(tab.get_by_text(re.compile("The target accepted post 1: 200"))).to_be_visible()

    assert receiver.problems == []
    accepted = [post for post in receiver.posts if post.path == "/hook"]
    assert [post.body["data"]["id"] for post in accepted] == ["order-1", "order-1"]
    assert len({post.id for post in receiver.posts}) == 1, "each attempt has the id of the message"

    is_killed = threading.Event()

    def answer_after_the_kill(_: Post) -> Reply:
        is_killed.wait(PATIENCE_SECS)
        return Reply()

    with Receiver(behave=answer_after_the_kill) as ops:
        ops.secret = _add_target(tab, "ops", ops.url)
        tab.get_by_role("link", name="Done").click()
        _add_alert(tab, "paid", "type:order.paid", "ops")
        _post_event(server, token, id="order-2", data={"amount": 15})
        wait_until(lambda: ops.posts, "the notice is in flight")
        server.kill()
        is_killed.set()
        server.start()
        wait_until(lambda: len(ops.posts) == 2, "the notice that was in flight comes again")
        tab.goto(f"{server.url}/admin/alerts/rule/paid")
        _reload_until(tab, tab.get_by_role("cell", name="delivered"))
    assert ops.problems == []
    assert len({post.id for post in ops.posts}) == 1, "the receiver can drop the repeated notice"
    assert ops.posts[0].body["data"]["event"]["id"] == "order-2"
    _see_each_step_in_the_log(tab)


def _see_it_fail(page: Page, answer: str) -> None:
    """Load the webhook's page until the log has a post with *answer*."""
    row = page.get_by_role("row", name=re.compile(r"^1\b"))
    _reload_until(page, row)
    expect(row).to_contain_text(answer)
    expect(page.get_by_text("It is blocked by seq")).to_be_visible()


def _see_it_succeed(page: Page) -> None:
    _reload_until(page, page.get_by_role("cell", name="200", exact=True))
    expect(page.get_by_text("It is blocked by seq")).to_have_count(0)


def _reload_until(page: Page, found: Locator) -> None:
    def is_there() -> int:
        page.reload()
        return found.count()

    wait_until(is_there, "the post is in the log")


def _see_each_step_in_the_log(page: Page) -> None:
    page.goto(page.url.partition("/admin")[0] + "/swarm/events?q=type:access.*")
    sentences = page.locator(".event .sentence").all_inner_texts()
    assert [re.sub(r"user:\S+", "OPERATOR", each) for each in reversed(sentences)] == [
        "operator signed in by link",
        "OPERATOR added ann as viewer",
        "ann signed in by link",
        "OPERATOR created the token shop",
        "OPERATOR added the webhook orders",
        "OPERATOR changed the webhook orders",
        "OPERATOR sent seq 6 to webhook orders again",
        "OPERATOR added the target ops",
        "OPERATOR added the alert paid",
    ]
