"""The baseline's oldest browsers (Safari 16.4, Firefox 115, Chrome 111).

Also steps that fail once.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.journeys.test_embedding import site
from tests.page import PATIENCE_MS, LivePage, tasks, write
from tests.proxy import Proxy
from tests.server import Server
from tests.waits import wait_until

# The entries of scripts/baseline.py that a script can remove from a browser.
OLDER = """
    const newer = [
        [AbortSignal, "any"], [Promise, "withResolvers", "try"], [Object, "groupBy"], [Map, "groupBy"],
        [Array, "fromAsync"], [URL, "canParse", "parse"], [JSON, "rawJSON", "isRawJSON"], [Response, "json"],
        [RegExp, "escape"], [String.prototype, "isWellFormed", "toWellFormed"], [Element.prototype, "checkVisibility"],
        [URLSearchParams.prototype, "size"], [Document.prototype, "startViewTransition"],
        [Set.prototype, "union", "intersection", "difference", "symmetricDifference", "isSubsetOf", "isSupersetOf",
            "isDisjointFrom"],
        [HTMLElement.prototype, "popover", "showPopover", "hidePopover", "togglePopover"],
        [Object.getPrototypeOf(Object.getPrototypeOf([].values())), "map", "filter", "take", "drop", "flatMap",
            "reduce", "toArray", "forEach", "some", "every", "find"],
        [Element.prototype, ...Object.keys(Element.prototype).filter(name => /^(role|aria[A-Z].*)$/.test(name))],
        [window, "scheduler", "navigation", "requestIdleCallback"],
    ];
    for (const [owner, ...names] of newer) for (const name of names) delete owner[name];
    const { supports } = CSS;
    CSS.supports = (...asked) => !asked.join().includes("light-dark") && supports.apply(CSS, asked);
"""


@pytest.fixture
def older(page: Page) -> Page:
    page.add_init_script(OLDER)
    return page


def test_an_older_browser_is_live_again_after_a_downtime(server: Server, older: Page) -> None:
    live = LivePage(older, server)
    server.stop()
    live.expect_state("reconnecting")
    write(server.database, *tasks(2))
    server.start()
    live.expect_state("live", timeout=2 * PATIENCE_MS)
    live.expect_rows(2)


def test_an_older_browser_polls_if_websockets_are_forbidden(shared: Server, proxy: Proxy, older: Page) -> None:
    proxy.block()
    live = LivePage(older, shared, proxy.url, state="polling")
    write(shared.database, *tasks(2))
    live.expect_rows(2)
    proxy.unblock()
    live.expect_state("live", timeout=2 * PATIENCE_MS)


def test_an_older_browser_names_the_parts_of_the_page_for_screen_readers(shared: Server, older: Page) -> None:
    write(shared.database, *tasks(1))
    live = LivePage(older, shared)
    live.expect_rows(1)
    expect(older.get_by_role("region", name="Events, newest first")).to_be_visible()
    expect(older.get_by_role("searchbox", name="Filter the rows by text")).to_be_visible()
    chip = older.get_by_role("button", name="Task", exact=True)
    chip.click()
    expect(chip).to_have_attribute("aria-pressed", "true")
    older.goto(f"{shared.url}/swarm/events")
    older.get_by_role("switch", name="Live").check()
    write(shared.database, *tasks(1, "in the log"))
    expect(older.locator("#rows .sentence").first).to_have_text("New task: in the log 0")


def test_an_older_browser_has_the_colours_of_the_page_and_the_system(shared: Server, proxy: Proxy, older: Page) -> None:
    dark, light = "rgb(22, 27, 34)", "rgb(255, 255, 255)"
    proxy.pages["/"] = site(
        '<event-feed id="plain"></event-feed><event-feed id="dark" theme="dark"></event-feed>'
        '<event-feed id="light" theme="light"></event-feed><event-feed id="auto" theme="auto"></event-feed>'
    )
    older.emulate_media(color_scheme="dark")
    older.goto(proxy.url)
    for name, ground in (("plain", light), ("dark", dark), ("light", light), ("auto", dark)):
        expect(older.locator(f"#{name}")).to_have_css("background-color", ground)
    older.emulate_media(color_scheme="light")
    expect(older.locator("#auto")).to_have_css("background-color", light)
    older.locator("#light").evaluate("feed => feed.setAttribute('theme', 'dark')")
    expect(older.locator("#light")).to_have_css("background-color", dark)


# --- steps that fail once ---------------------------------------------------------------------------------------------

ONCE = """
    window.failed = 0;
    window.failOnce = (owner, name, isAsync = false) => {
        const kept = owner[name];
        owner[name] = function (...given) {
            owner[name] = kept;
            failed += 1;
            const error = new Error("this step failed once");
            if (isAsync) return Promise.reject(error);
            throw error;
        };
        owner[name].prototype = kept.prototype;
        Object.assign(owner[name], kept);
    };
"""
BY_WEBSOCKET = {
    "making the socket": "failOnce(window, 'WebSocket')",
    "sending": "failOnce(WebSocket.prototype, 'send')",
    "writing a message": "failOnce(JSON, 'stringify')",
    "parsing a frame": "failOnce(JSON, 'parse')",
    "storing the cursor": "failOnce(Storage.prototype, 'setItem')",
    "making a row": "failOnce(document, 'createElement')",
    "firing an event": "failOnce(EventTarget.prototype, 'dispatchEvent')",
}
BY_POLL = {
    "fetching": "failOnce(window, 'fetch', true)",
    "beginning to fetch": "failOnce(window, 'fetch')",
    "making the query": "failOnce(window, 'URLSearchParams')",
    "reading the answer": "failOnce(Response.prototype, 'text', true)",
    "parsing the answer": "failOnce(JSON, 'parse')",
    "reading the storage": "failOnce(Storage.prototype, 'getItem')",
    "writing the storage": "failOnce(Storage.prototype, 'setItem')",
}


def embed(page: Page, proxy: Proxy, state: str, attributes: str = "") -> Locator:
    """Open a page with only the element. Return its bar."""
    page.add_init_script(ONCE)
    proxy.pages["/"] = site(f"<event-feed {attributes}></event-feed>")
    page.goto(proxy.url)
    bar = page.locator("event-feed .bar")
    expect(bar).to_have_attribute("data-state", state)
    return bar


@pytest.mark.parametrize("step", BY_WEBSOCKET.values(), ids=BY_WEBSOCKET)
def test_a_step_that_fails_once_leaves_the_page_live(shared: Server, proxy: Proxy, page: Page, step: str) -> None:
    bar = embed(page, proxy, "live")
    page.evaluate(step)
    proxy.cut()
    write(shared.database, *tasks(1))
    wait_until(lambda: page.evaluate("failed") == 1, "the step has failed")
    write(shared.database, *tasks(1))
    expect(page.locator("event-feed .rows > li")).to_have_count(2, timeout=2 * PATIENCE_MS)
    expect(bar).to_have_attribute("data-state", "live", timeout=2 * PATIENCE_MS)


@pytest.mark.parametrize("step", BY_POLL.values(), ids=BY_POLL)
def test_a_step_of_a_poll_that_fails_once_leaves_the_page_polling(
    shared: Server, proxy: Proxy, page: Page, step: str
) -> None:
    proxy.block()
    if "getItem" in step:
        page.add_init_script("delete Navigator.prototype.locks")  # with locks, no poll reads the storage
    bar = embed(page, proxy, "polling")
    page.evaluate(step)
    write(shared.database, *tasks(1))
    wait_until(lambda: page.evaluate("failed") == 1, "the step has failed")
    write(shared.database, *tasks(1))
    expect(page.locator("event-feed .rows > li")).to_have_count(2, timeout=2 * PATIENCE_MS)
    expect(bar).to_have_attribute("data-state", "polling", timeout=2 * PATIENCE_MS)


@pytest.mark.parametrize("step", ["failOnce(window, 'fetch')", "failOnce(Response.prototype, 'text', true)"])
def test_a_ticket_that_fails_once_is_requested_again(shared: Server, proxy: Proxy, page: Page, step: str) -> None:
    proxy.pages["/ticket"] = ("application/json", '{"ticket": "one"}')
    bar = embed(page, proxy, "live", attributes='ticket-url="/ticket"')
    page.evaluate(step)
    proxy.cut()
    wait_until(lambda: page.evaluate("failed") == 1, "the step has failed")
    expect(bar).to_have_attribute("data-state", "live", timeout=2 * PATIENCE_MS)
    wait_until(lambda: len(proxy.asked("/ticket")) >= 2, "another ticket is requested")


def test_a_page_whose_storage_is_forbidden_is_live(shared: Server, proxy: Proxy, page: Page) -> None:
    page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, {get() { throw new DOMException('no', 'SecurityError'); }});"
    )
    live = LivePage(page, shared, proxy.url)
    proxy.block()
    live.expect_state("polling")
    write(shared.database, *tasks(2))
    live.expect_rows(2)
