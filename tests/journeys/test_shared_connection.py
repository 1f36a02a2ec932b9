"""One connection for all tabs and elements of a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.journeys.test_embedding import RECORD_EVENTS, recorded, recorded_seqs, site
from tests.page import tasks, write
from tests.proxy import Proxy
from tests.server import Server
from tests.waits import wait_until


# Keeps the sockets of the page.
RECORD_SOCKETS = """
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...given) {
            super(...given);
            sockets.push(this);
        }
    };
"""


class Tabs:
    """Tabs of one browser with a feed each, and their open sockets."""

    def __init__(self, context: BrowserContext, server: Server, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self.errors: list[str] = []
        self._context = context
        context.add_init_script(RECORD_EVENTS + RECORD_SOCKETS)

    def open(self, feeds: str = "<event-feed></event-feed>", path: str = "/", state: str = "live") -> Page:
        """Open a tab with *feeds*. It is returned when they are in *state*."""
        self.proxy.pages[path] = site(feeds, head="")
        page = self._context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(self.proxy.url + path)
        for feed in page.locator("event-feed").all():
            expect(feed.locator(".bar")).to_have_attribute("data-state", state)
        return page

    def expect_sockets(self, count: int) -> None:
        wait_until(lambda: self.proxy.sockets == count, f"{count} sockets are open")


@pytest.fixture
def tabs(context: BrowserContext, shared: Server, proxy: Proxy) -> Tabs:
    return Tabs(context, shared, proxy)


def seqs(feed: Locator | Page, base: int) -> list[int]:
    found = feed.locator(".rows > .event").evaluate_all("rows => rows.map(row => Number(row.dataset.seq))")
    return [seq - base for seq in reversed(found)]


def set_visible(page: Page, is_visible: bool) -> None:
    page.evaluate(
        "isHidden => { Object.defineProperty(document, 'hidden', {value: isHidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        not is_visible,
    )


def test_tabs_with_different_filters_share_one_connection(tabs: Tabs) -> None:
    server = tabs.server
    write(server.database, *tasks(3))
    first = tabs.open('<event-feed types="task.*"></event-feed>', "/tasks")
    second = tabs.open('<event-feed types="system.*"></event-feed><event-feed source="monitor"></event-feed>', "/two")
    third = tabs.open()
    tabs.expect_sockets(1)
    errors, monitor = second.locator("event-feed").all()
    for number in range(3):
        write(server.database, *tasks(1))
        write(server.database, {"message": "Disk full"}, event_type="system.error")
        write(server.database, {"message": str(number)}, event_type="system.info", source="monitor")
    for feed, wanted in (
        (first.locator("event-feed"), [1, 2, 3, 4, 7, 10]),
        (errors, [5, 6, 8, 9, 11, 12]),
        (monitor, [6, 9, 12]),
        (third.locator("event-feed"), list(range(1, 13))),
    ):
        expect(feed.locator(".rows > .event")).to_have_count(len(wanted))
        assert seqs(feed, server.base) == wanted
        wait_until(lambda feed=feed: feed.evaluate("feed => feed.cursor") - server.base == 12, "the cursor is at the head")
    tabs.expect_sockets(1)
    assert tabs.errors == []
    assert recorded_seqs(third, server.base) == list(range(1, 13))
    assert {each["state"] for each in recorded(third, "state")} <= {"connecting", "catching-up", "live"}


# --- changes of the leader --------------------------------------------------------------------------------------------


def leads(page: Page) -> bool:
    """Return whether a socket of this tab is open."""
    return bool(page.evaluate("sockets.some(socket => socket.readyState === WebSocket.OPEN)"))


def expect_leader(page: Page) -> None:
    wait_until(lambda: leads(page), "the tab has the connection")


def expect_complete(pages: list[Page], base: int, count: int) -> None:
    """Each tab has shown each event once, in order, and its state was never another than live."""
    for page in pages:
        expect(page.locator("event-feed .rows > .event")).to_have_count(count)
        assert seqs(page, base) == recorded_seqs(page, base) == list(range(1, count + 1))
        assert {each["state"] for each in recorded(page, "state")} <= {"connecting", "catching-up", "live"}


def test_a_visible_tab_leads_and_no_tab_notices_the_change(tabs: Tabs) -> None:
    server = tabs.server
    one, two, three = (tabs.open() for _ in range(3))
    expect_leader(one)
    write(server.database, *tasks(1))
    set_visible(two, False)
    set_visible(one, False)  # three is the only visible one
    expect_leader(three)
    write(server.database, *tasks(1))
    set_visible(one, True)
    write(server.database, *tasks(1))
    assert leads(three)  # it is visible too
    set_visible(three, False)
    expect_leader(one)
    write(server.database, *tasks(1))
    expect_complete([one, two, three], server.base, 4)
    tabs.expect_sockets(1)


def test_another_tab_leads_when_the_leader_is_closed_reloaded_or_hangs(tabs: Tabs) -> None:
    server = tabs.server
    one, two, three = (tabs.open() for _ in range(3))
    one.close()
    expect_leader(two)
    write(server.database, *tasks(1))
    two.reload()
    expect_leader(three)
    write(server.database, *tasks(1))
    expect(two.locator("event-feed .rows > .event")).to_have_count(2)
    three.evaluate("setTimeout(() => { const end = Date.now() + 8_000; while (Date.now() < end); })")
    expect_leader(two)
    write(server.database, *tasks(1))
    expect_complete([two, three], server.base, 3)
    tabs.expect_sockets(1)
