"""What a viewer sees in a real browser: the live page over restarts, gaps and resets, on a desktop and on a phone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from app.events import Event, sentence
from tests.harness import PATIENCE_SECS, Server

PATIENCE_MS = PATIENCE_SECS * 1000
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}
# Nothing but the page under test may use the network.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")  # Debian's where there is one, else the one that Playwright installed
        with contextlib.closing(playwright.chromium.launch(executable_path=chromium, args=QUIET)) as running:
            yield running


@pytest.fixture
def context(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    """A browser whose cookies say that the operator has signed in."""
    with contextlib.closing(
        browser.new_context(viewport=DESKTOP, locale="en-GB", timezone_id="Europe/Berlin")  # type: ignore[arg-type]
    ) as opened:
        opened.set_default_timeout(PATIENCE_MS)
        opened.request.get(server.sign_in_link())
        yield opened


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab. An error in a script of ours, and a refusal by the Content Security Policy, fail the test."""
    complaints: list[str] = []
    opened = context.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
    yield opened
    opened.close()
    assert not complaints


class LivePage:
    """The live page in a tab, read as a viewer reads it."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.feed = page.locator("event-feed")
        self.rows = page.locator("event-feed .rows > .event")
        self.notices = page.locator("event-feed .rows > .notice")
        self.scroller = page.locator("event-feed .scroller")
        self.pill = page.locator("event-feed .pill")
        page.goto(f"{server.url}/swarm/live")
        self.expect_state("live")

    def expect_state(self, state: str) -> None:
        expect(self.page.locator("event-feed .bar")).to_have_attribute("data-state", state, timeout=PATIENCE_MS)

    def expect_rows(self, count: int) -> None:
        expect(self.rows).to_have_count(count, timeout=PATIENCE_MS)

    def seqs(self) -> list[int]:
        """The seqs in the list, oldest first."""
        found = self.rows.evaluate_all("rows => rows.map(row => Number(row.dataset.seq))")
        return list(reversed(found))

    def scroll_top(self) -> float:
        return float(self.scroller.evaluate("scroller => scroller.scrollTop"))


def write(path: Path, *data: Any, event_type: str = "task.created") -> None:
    """Log one event for each of *data*, as a raw writer in another process would, in one transaction."""
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.executemany(
            "INSERT INTO event_log (id, event_type, source, task_id, data, timestamp)"
            " VALUES (lower(hex(randomblob(8))), ?, 'coordinator', 'task-1', ?, '2026-01-15T10:30:00.000Z')",
            [(event_type, json.dumps(item)) for item in data],
        )


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(statement)


def tasks(count: int, prefix: str = "task") -> list[dict[str, str]]:
    return [{"description": f"{prefix} {number}"} for number in range(count)]


# --- the main story ---------------------------------------------------------------------------------------------------


def test_a_viewer_signs_in_by_the_link_and_sees_an_event_from_another_process_within_a_second(
    browser: Browser, server: Server
) -> None:
    with contextlib.closing(browser.new_page(viewport=DESKTOP)) as page:
        page.goto(f"{server.url}/swarm/live")
        expect(page).to_have_url(re.compile("/login"))
        page.goto(server.sign_in_link())
        expect(page).to_have_url(f"{server.url}/swarm/live")
        expect(page.locator("event-feed .label")).to_have_text("Live", timeout=PATIENCE_MS)
        expect(page.get_by_text("Nothing has happened yet")).to_be_visible()

        server.log_event("task.created", "me", {"description": "My first task"})

        row = page.locator("event-feed .rows > .event")
        expect(row.locator(".sentence")).to_have_text("New task: My first task", timeout=1000)
        expect(row.locator(".icon")).to_have_text("📝")
        expect(page.get_by_text("Nothing has happened yet")).to_be_hidden()


def test_a_page_that_was_open_while_the_server_was_killed_shows_what_it_missed_once(server: Server, page: Page) -> None:
    server.log_event("task.created", "me", {"description": "before"})
    live = LivePage(page, server)
    live.expect_rows(1)
    for round_ in range(2):
        server.kill()
        live.expect_state("reconnecting")
        write(server.database, *tasks(3, f"missed in round {round_}"))
        server.start()
        live.expect_state("live")
        live.expect_rows(4 + round_ * 3)
    server.log_event("task.created", "me", {"description": "after"})
    live.expect_rows(8)
    assert live.seqs() == list(range(1, 9))
    expect(live.notices).to_have_count(0)


def test_a_page_comes_back_when_the_server_restarts_in_good_order(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    server.stop()
    live.expect_state("reconnecting")
    write(server.database, *tasks(2))
    server.start()
    live.expect_state("live")
    live.expect_rows(2)
    assert live.seqs() == [1, 2]


def test_what_an_event_holds_stays_text(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    attack = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    server.log_event("task.created", "<b>me</b>", {"description": attack})
    expect(live.rows.locator(".sentence")).to_have_text(f"New task: {attack}")
    expect(live.rows.locator(".source")).to_have_text("<b>me</b>")
    live.rows.locator("summary").click()
    expect(live.rows.locator("pre")).to_contain_text("<script>")
    for path in ("/swarm/live", "/swarm/events"):
        page.goto(server.url + path)
        expect(page.locator(".event .sentence").last).to_have_text(f"New task: {attack}")
        expect(page).not_to_have_title("owned")
        assert page.locator(".event script, .event img").count() == 0


def test_a_dead_connection_is_noticed_when_the_network_returns(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        page.evaluate("dispatchEvent(new Event('online'))")
        live.expect_state("reconnecting")
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)
    write(server.database, *tasks(2))
    live.expect_state("live")
    live.expect_rows(2)
    assert live.seqs() == [1, 2]


def test_a_tab_that_slept_shows_what_it_missed_once(server: Server, page: Page, context: BrowserContext) -> None:
    live = LivePage(page, server)
    write(server.database, *tasks(1))
    live.expect_rows(1)
    browser_side = context.new_cdp_session(page)
    browser_side.send("Page.setWebLifecycleState", {"state": "frozen"})
    write(server.database, *tasks(3, "slept"))
    server.kill()
    write(server.database, *tasks(3, "down"))
    server.start()
    browser_side.send("Page.setWebLifecycleState", {"state": "active"})
    live.expect_rows(7)
    live.expect_state("live")
    assert live.seqs() == list(range(1, 8))


# --- gaps and resets --------------------------------------------------------------------------------------------------


def test_a_gap_is_shown_with_its_range(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    write(server.database, *tasks(2))
    live.expect_rows(2)
    server.kill()
    write(server.database, *tasks(5, "missed"))
    change(server.database, "DELETE FROM outbox WHERE seq <= 5")
    server.start()
    expect(live.notices).to_contain_text("events 3 to 5", timeout=PATIENCE_MS)
    live.expect_rows(4)
    assert live.seqs() == [1, 2, 6, 7]
    mark = page.get_by_role("button", name="Gap 3 to 5")
    expect(mark).to_be_visible()
    mark.click()
    expect(live.notices).to_be_focused()
    expect(mark).to_be_hidden()


def test_a_reset_is_shown_and_nothing_twice(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    write(server.database, *tasks(3))
    live.expect_rows(3)
    server.kill()
    change(server.database, "UPDATE meta SET value = 'another history' WHERE key = 'epoch'")
    server.start()
    expect(live.notices).to_contain_text("Reset", timeout=PATIENCE_MS)
    live.expect_state("live")
    server.log_event("task.created", "me", {"description": "in the new history"})
    live.expect_rows(4)
    assert live.seqs() == [1, 2, 3, 4]


def test_a_page_that_is_opened_again_says_what_went_by_meanwhile(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    write(server.database, *tasks(1))
    live.expect_rows(1)
    page.goto("about:blank")
    write(server.database, *tasks(120, "unseen"))
    live = LivePage(page, server)
    expect(live.notices).to_contain_text("Events 2 to 21 went by")
    live.expect_rows(100)
    page.reload()
    live.expect_rows(100)
    expect(live.notices).to_have_count(0)


# --- reading in peace -------------------------------------------------------------------------------------------------


def test_rows_wait_behind_a_pill_while_someone_reads_further_down(server: Server, page: Page) -> None:
    write(server.database, *tasks(80))
    live = LivePage(page, server)
    live.expect_rows(80)
    live.scroller.hover()
    page.mouse.wheel(0, 300)
    expect(live.rows.first).not_to_be_in_viewport()
    top = live.scroll_top()
    write(server.database, *tasks(12, "new"))
    expect(live.pill).to_have_text("12 new")
    assert live.scroll_top() == top
    live.expect_rows(80)
    live.pill.click()
    live.expect_rows(92)
    expect(live.pill).to_be_hidden()
    assert live.scroll_top() == 0


def test_rows_wait_while_one_is_open(server: Server, page: Page) -> None:
    write(server.database, *tasks(3))
    live = LivePage(page, server)
    live.scroller.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(live.rows.nth(1).locator("pre")).to_contain_text("task 1")
    write(server.database, *tasks(1, "new"))
    expect(live.pill).to_have_text("1 new")
    page.keyboard.press("Escape")
    live.expect_rows(4)


def test_a_paused_list_stands_still_and_counts_what_waits_over_a_restart(server: Server, page: Page) -> None:
    write(server.database, *tasks(2))
    live = LivePage(page, server)
    live.scroller.focus()
    page.keyboard.press("Space")
    live.expect_state("paused")
    write(server.database, *tasks(3, "new"))
    expect(page.locator("event-feed .label")).to_have_text("Paused · 3 waiting")
    live.expect_rows(2)
    assert live.feed.evaluate("feed => feed.cursor") == 2
    server.kill()
    live.expect_state("reconnecting")
    server.start()
    live.expect_state("paused")
    write(server.database, *tasks(1, "newest"))
    expect(page.locator("event-feed .label")).to_have_text("Paused · 4 waiting")
    page.get_by_role("button", name="Resume").click()
    live.expect_rows(6)
    assert live.seqs() == [1, 2, 3, 4, 5, 6]
    live.expect_state("live")


def test_a_list_that_is_paused_for_long_loses_nothing_and_stays_small(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    page.get_by_role("button", name="Pause").click()
    live.feed.evaluate(
        """feed => {
            window.shown = [];
            feed.addEventListener("event-feed:event", event => shown.push(event.detail.seq));
        }"""
    )
    for _ in range(6):
        write(server.database, *tasks(300))
    expect(page.locator("event-feed .label")).to_contain_text("+ waiting", timeout=PATIENCE_MS)
    assert live.feed.evaluate("feed => feed.waiting") < 1400
    page.get_by_role("button", name="Resume").click()
    expect(live.rows.first).to_have_attribute("data-seq", "1800", timeout=PATIENCE_MS)
    live.expect_rows(500)
    assert page.evaluate("shown") == list(range(1, 1801))


# --- who may ----------------------------------------------------------------------------------------------------------


def test_signing_out_stops_the_other_tabs_and_says_so(server: Server, page: Page, context: BrowserContext) -> None:
    live = LivePage(page, server)
    other = context.new_page()
    other.goto(f"{server.url}/swarm/events")
    other.get_by_role("button", name="Sign out").click()
    expect(other).to_have_url(f"{server.url}/login")
    server.kill()  # the next handshake is refused, however long a socket outlives its session
    server.start()
    live.expect_state("signed-out")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_a_link_that_was_used_says_how_to_get_another(server: Server, page: Page) -> None:
    answer = page.goto(server.sign_in_link())
    assert answer is not None
    assert answer.status == 401
    expect(page.get_by_role("alert")).to_contain_text("used or has expired")


# --- the look ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/swarm/live", "/swarm/events", "/login"])
def test_a_phone_shows_every_page_without_scrolling_sideways(server: Server, page: Page, path: str) -> None:
    write(server.database, {"description": "a" * 300}, {"description": "many words " * 30})
    write(server.database, {"message": "x" * 300}, event_type="system.error")
    page.set_viewport_size(PHONE)
    page.goto(server.url + path)
    if path == "/swarm/live":
        expect(page.locator("event-feed .rows > .event")).to_have_count(3)
        scroller = page.locator("event-feed .scroller")
        assert scroller.evaluate("scroller => scroller.scrollWidth - scroller.clientWidth") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_row_looks_the_same_from_the_server_and_live(
    server: Server, context: BrowserContext, page: Page, size: dict[str, int]
) -> None:
    """The server's rows are styled by outfeed.css, the live ones by the module: neither may change alone."""
    write(server.database, {"description": "a task"})
    write(server.database, {"message": "a failure that is told in so many words that a phone needs two lines for it"},
          event_type="system.error")  # fmt: skip
    page.set_viewport_size(size)  # type: ignore[arg-type]
    live = LivePage(page, server)
    live.expect_rows(2)
    shown = [looks(live.rows.nth(index)) for index in range(2)]
    page.route("**/event-feed.js", lambda route: route.abort())
    page.reload()
    rows = page.locator("event-feed > .events > .event")
    assert [looks(rows.nth(index)) for index in range(2)] == shown


def looks(row: Locator) -> Any:
    return row.evaluate(
        """row => ["summary", ".icon", ".sentence", "b", "time", ".meta"].map(name => {
            const part = row.querySelector(name);
            const { color, fontSize, fontWeight, fontFamily, lineHeight } = getComputedStyle(part);
            const box = part.getBoundingClientRect(), outer = row.getBoundingClientRect();
            const place = [box.x - outer.x, box.y - outer.y, box.height];
            return [name, ...place, color, fontSize, fontWeight, fontFamily, lineHeight];
        }).concat([[getComputedStyle(row).borderLeftColor, row.querySelector("summary").offsetHeight]])"""
    )


def test_the_page_is_readable_without_javascript(server: Server, browser: Browser, context: BrowserContext) -> None:
    write(server.database, *tasks(30))
    cookies = context.storage_state()
    with contextlib.closing(browser.new_context(java_script_enabled=False, storage_state=cookies)) as plain:
        page = plain.new_page()
        page.goto(f"{server.url}/swarm/live")
        expect(page.locator(".event")).to_have_count(20)
        expect(page.locator(".event .sentence").first).to_have_text("New task: task 29")
        page.get_by_role("link", name="Show all events").click()
        expect(page).to_have_url(f"{server.url}/swarm/events")


# Type, data: what every row of the table says, and what its rules make of the missing and the odd.
ODD = [
    ("task.created", {"description": " many\n\tspaces\u2003 and \u001f more "}),
    ("task.created", {}),
    ("task.created", {"description": "   "}),
    ("task.created", {"description": True}),
    ("task.created", {"description": ["a"]}),
    ("task.created", ["description"]),
    ("task.created", None),
    ("bid.submitted", {"bid_sats": 0, "name": "forge"}),
    ("bid.submitted", {"bid_sats": 2.5}),
    ("agent.joined", {"name": "constructor"}),
    ("agent.left", {"toString": 1}),
    ("system.info", {"source": "not asked for"}),
    ("deploy.canary_STARTED.now", {"reason": "because"}),
    ("constructor", {"name": "\ufeffmark"}),
    ("task.unheard_of", None),
]


def test_the_browser_says_what_the_terminal_says(server: Server, page: Page) -> None:
    for event_type, data in ODD:
        write(server.database, data, event_type=event_type)
    live = LivePage(page, server)
    live.expect_rows(len(ODD))
    expected = [
        sentence(Event("an id", event_type, "coordinator", "task-1", None, data, "a time")) for event_type, data in ODD
    ]
    shown = live.rows.locator(".sentence").evaluate_all("parts => parts.map(part => part.textContent)")
    assert list(reversed(shown)) == expected


def test_times_are_those_of_the_viewers_zone(server: Server, page: Page) -> None:
    write(server.database, *tasks(1))
    live = LivePage(page, server)
    time = live.rows.locator("time")
    expect(time).to_have_text("15 Jan 11:30:00")
    expect(time).to_have_attribute("title", "2026-01-15T10:30:00.000Z")
    page.goto(f"{server.url}/swarm/events")
    expect(page.locator(".event time")).to_have_text("15 Jan 11:30:00")


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_is_paged_and_filtered(server: Server, page: Page) -> None:
    write(server.database, *tasks(60))
    write(server.database, {"message": "lost"}, event_type="system.error")
    page.goto(f"{server.url}/swarm/events")
    rows = page.locator(".event")
    expect(rows).to_have_count(50)
    expect(rows.first.locator(".sentence")).to_have_text("Error: lost")
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(11)
    expect(rows.last.locator(".sentence")).to_have_text("New task: task 0")
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    expect(page.get_by_text("Times in Europe/Berlin")).to_be_visible()  # the page's script has run
    page.keyboard.press("/")
    expect(page.get_by_label("Type")).to_be_focused()
    page.keyboard.type("system.error")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    page.get_by_label("Type").fill("no.such")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No event matches")).to_be_visible()
    for cursor in ("nonsense", "-1", "9" * 30):
        page.goto(f"{server.url}/swarm/events?cursor={cursor}")
        expect(rows).to_have_count(50)


def test_pages_stay_small_whatever_events_hold(server: Server, page: Page) -> None:
    write(server.database, *[{"description": "d" * 20_000, "name": "n" * 20_000}] * 60)
    for path in ("/swarm/live", "/swarm/events"):
        answer = page.goto(server.url + path)
        assert answer is not None
        assert len(answer.body()) < 100_000
