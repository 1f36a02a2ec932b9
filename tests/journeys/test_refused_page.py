"""A permanent refusal is shown once, and no request is repeated."""

from __future__ import annotations

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect

from tests.journeys.test_embedding import TAG, site
from tests.page import tasks, write
from tests.proxy import Proxy
from tests.server import Server

SET_TICKET_URL = "This page can't open the feed: set ticket-url"
HOURS_MS = 3 * 3_600_000


def warnings_of(page: Page) -> list[str]:
    found: list[str] = []

    def note(said: ConsoleMessage) -> None:
        if said.type == "warning" and "event-feed" in said.text:
            found.append(said.text)

    page.on("console", note)
    return found


@pytest.fixture
def patient(page: Page) -> Page:
    """A tab whose clock the test moves."""
    page.clock.install()
    return page


def test_a_page_on_another_site_without_tickets_names_the_attribute(
    shared: Server, proxy: Proxy, patient: Page
) -> None:
    proxy.pages["/"] = site(f'<event-feed src="{shared.url}/ws"></event-feed>', head="")
    sockets: list[str] = []
    patient.on("websocket", lambda socket: sockets.append(socket.url))
    warnings = warnings_of(patient)
    patient.goto(proxy.url)
    expect(patient.locator("event-feed .label")).to_have_text(SET_TICKET_URL)
    patient.clock.fast_forward(HOURS_MS)
    patient.evaluate("dispatchEvent(new Event('online'))")
    expect(patient.locator("event-feed .label")).to_have_text(SET_TICKET_URL)
    assert len(warnings) == 1, warnings
    assert SET_TICKET_URL in warnings[0]
    assert len(sockets) <= 2


NO_TICKETS = {
    "an address that is not there": None,
    "a page in place of an answer": ("text/html", "<!doctype html><title>Home</title>"),
    "an answer without a ticket": ("application/json", '{"error": "no such user"}'),
}


@pytest.mark.parametrize("answer", NO_TICKETS.values(), ids=NO_TICKETS)
def test_a_ticket_url_without_tickets_is_reported_once(
    shared: Server, proxy: Proxy, patient: Page, answer: tuple[str, str] | None
) -> None:
    if answer:
        proxy.pages["/ticket"] = answer
    proxy.pages["/"] = site('<event-feed ticket-url="/ticket"></event-feed>')
    warnings = warnings_of(patient)
    patient.goto(proxy.url)
    expect(patient.locator("event-feed .label")).to_have_text(SET_TICKET_URL)
    patient.clock.fast_forward(HOURS_MS)
    expect(patient.locator("event-feed .bar")).to_have_attribute("data-state", "refused")
    assert len(proxy.asked("/ticket")) == 1
    assert len(warnings) == 1


def test_an_address_without_a_feed_is_reported_once(shared: Server, proxy: Proxy, patient: Page) -> None:
    proxy.pages["/"] = site('<event-feed src="/elsewhere/ws"></event-feed>')
    warnings = warnings_of(patient)
    patient.goto(proxy.url)
    expect(patient.locator("event-feed .label")).to_contain_text("the server returned 404")
    patient.clock.fast_forward(HOURS_MS)
    assert len(proxy.asked("/elsewhere/api/feed")) == 1
    assert len(proxy.asked("/elsewhere/ws")) == 1
    assert len(warnings) == 1


@pytest.mark.parametrize("way", ["WebSocket", "long poll"])
def test_a_refused_subscription_is_not_sent_again(shared: Server, proxy: Proxy, patient: Page, way: str) -> None:
    if way == "long poll":
        proxy.block()
    proxy.pages["/"] = site('<event-feed types="*"></event-feed>')
    patient.goto(proxy.url)
    expect(patient.locator("event-feed .label")).to_have_text("Refused")
    expect(patient.locator("event-feed .notice")).to_contain_text("types")
    patient.clock.fast_forward(HOURS_MS)
    assert proxy.handshakes == 1
    assert len(proxy.asked("/api/feed")) == (1 if way == "long poll" else 0)
    write(shared.database, *tasks(1))
    proxy.unblock()
    patient.locator("event-feed").evaluate("feed => feed.setAttribute('types', 'task.*')")  # corrects the request
    expect(patient.locator("event-feed .rows > .event")).to_have_count(1)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_temporary_refusal_is_retried(shared: Server, proxy: Proxy, page: Page, status: int) -> None:
    proxy.block()
    proxy.answer = b"HTTP/1.1 %d -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
    proxy.pages["/"] = ("text/html", f"<!doctype html>{TAG}<event-feed></event-feed>")
    page.goto(proxy.url)
    bar = page.locator("event-feed .bar")
    expect(bar).to_have_attribute("data-state", "reconnecting")
    proxy.come_back()
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(bar).to_have_attribute("data-state", "live")
