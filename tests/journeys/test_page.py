"""What a viewer sees in a real browser: the live page over restarts, gaps and resets, on a desktop and on a phone."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import time
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from app.events import Event, sentence
from tests.harness import Server, shortest, wait_until
from tests.page import DESKTOP, PATIENCE_MS, PHONE, LivePage, change, tasks, write
from tests.proxy import Proxy

# --- the main story ---------------------------------------------------------------------------------------------------


def test_a_viewer_signs_in_by_the_link_and_sees_an_event_from_another_process_within_a_second(
    browser: Browser, server: Server
) -> None:
    with contextlib.closing(browser.new_page(viewport=DESKTOP)) as page:
        page.goto(f"{server.url}/swarm/live")
        expect(page).to_have_url(re.compile("/login"))
        page.goto(server.sign_in_link())
        expect(page).to_have_url(f"{server.url}/swarm/live")
        expect(page.locator("event-feed .label")).to_have_text("Live")
        expect(page.get_by_text("Nothing has happened yet")).to_be_visible()

        newest = page.locator("event-feed .rows > .event").first
        ordinals = itertools.count(1)

        def secs_to_show() -> float:
            began, description = time.monotonic(), f"My task {next(ordinals)}"
            write(server.database, {"description": description})
            expect(newest.locator(".sentence")).to_have_text(f"New task: {description}")
            return time.monotonic() - began

        assert shortest(secs_to_show, 1) < 1
        expect(newest.locator(".icon")).to_have_text("📝")
        expect(page.get_by_text("Nothing has happened yet")).to_be_hidden()


def test_a_page_that_was_open_while_the_server_was_killed_shows_what_it_missed_once(server: Server, page: Page) -> None:
    write(server.database, *tasks(1, "before"))
    live = LivePage(page, server)
    live.expect_rows(1)
    for round_ in range(2):
        server.kill()
        live.expect_state("reconnecting")
        write(server.database, *tasks(3, f"missed in round {round_}"))
        server.start()
        if round_:
            live.hurry()
        live.expect_state("live", timeout=2 * PATIENCE_MS)  # the first time by its own backoff, of up to 20 s
        live.expect_rows(4 + round_ * 3)
    write(server.database, *tasks(1, "after"))
    live.expect_rows(8)
    assert live.seqs() == list(range(1, 9))
    expect(live.notices).to_have_count(0)


def test_a_page_comes_back_when_the_server_restarts_in_good_order(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    server.stop()
    live.expect_state("reconnecting")
    write(server.database, *tasks(2))
    server.start()
    live.hurry()
    live.expect_state("live")
    live.expect_rows(2)
    assert live.seqs() == [1, 2]


def test_what_an_event_holds_stays_text(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    attack = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    write(shared.database, {"description": attack}, source="<b>me</b>")
    expect(live.rows.locator(".sentence")).to_have_text(f"New task: {attack}")
    expect(live.rows.locator(".source")).to_have_text("<b>me</b>")
    live.rows.locator("summary").click()
    expect(live.rows.locator("pre")).to_contain_text("<script>")
    for path in ("/swarm/live", "/swarm/events"):
        page.goto(shared.url + path)
        expect(page.locator(".event .sentence").last).to_have_text(f"New task: {attack}")
        expect(page).not_to_have_title("owned")
        assert page.locator(".event script, .event img").count() == 0


def test_a_dead_connection_is_noticed_when_the_network_returns(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    assert shared.process is not None
    os.killpg(shared.process.pid, signal.SIGSTOP)
    try:
        page.evaluate("dispatchEvent(new Event('online'))")
        live.expect_state("reconnecting")
    finally:
        os.killpg(shared.process.pid, signal.SIGCONT)
    write(shared.database, *tasks(2))
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


def test_a_gap_is_shown_with_its_range(shared: Server, proxy: Proxy, page: Page) -> None:
    live = LivePage(page, shared, proxy.url)
    write(shared.database, *tasks(2))
    live.expect_rows(2)
    proxy.go_down()
    live.expect_state("reconnecting")
    write(shared.database, *tasks(5, "missed"))
    change(shared.database, f"DELETE FROM outbox WHERE seq <= {live.base + 5}")
    proxy.come_back()
    live.hurry()
    missing = f"{live.base + 3:,} to {live.base + 5:,}"
    expect(live.notices).to_contain_text(f"events {missing}")
    live.expect_rows(4)
    assert live.seqs() == [1, 2, 6, 7]
    mark = page.get_by_role("button", name=f"Gap {missing}")
    expect(mark).to_be_visible()
    mark.click()
    expect(live.notices).to_be_focused()
    expect(mark).to_be_hidden()


def test_a_reset_is_shown_and_nothing_twice(shared: Server, proxy: Proxy, page: Page) -> None:
    live = LivePage(page, shared, proxy.url)
    write(shared.database, *tasks(3))
    live.expect_rows(3)
    proxy.go_down()
    live.expect_state("reconnecting")
    change(shared.database, "UPDATE meta SET value = lower(hex(randomblob(16))) WHERE key = 'epoch'")
    proxy.come_back()
    live.hurry()
    expect(live.notices).to_contain_text("Reset")
    live.expect_state("live")
    write(shared.database, *tasks(1, "in the new history"))
    live.expect_rows(4)
    assert live.seqs() == [1, 2, 3, 4]


def test_a_page_that_is_opened_again_says_what_went_by_meanwhile(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    write(shared.database, *tasks(1))
    live.expect_rows(1)
    page.goto("about:blank")
    write(shared.database, *tasks(120, "unseen"))
    live = LivePage(page, shared)
    expect(live.notices).to_contain_text(f"Events {live.base + 2:,} to {live.base + 21:,} went by")
    live.expect_rows(100)
    page.reload()
    live.expect_rows(100)
    expect(live.notices).to_have_count(0)


# --- reading in peace -------------------------------------------------------------------------------------------------


def test_rows_wait_behind_a_pill_while_someone_reads_further_down(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(80))
    live = LivePage(page, shared)
    live.expect_rows(80)
    live.scroller.hover()
    page.mouse.wheel(0, 300)
    expect(live.rows.first).not_to_be_in_viewport()
    top = live.scroll_top()
    write(shared.database, *tasks(12, "new"))
    expect(live.pill).to_have_text("12 new")
    assert live.scroll_top() == top
    live.expect_rows(80)
    live.pill.click()
    live.expect_rows(92)
    expect(live.pill).to_be_hidden()
    assert live.scroll_top() == 0


def test_rows_wait_while_one_is_open(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(3))
    live = LivePage(page, shared)
    live.expect_rows(3)
    live.scroller.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(live.rows.nth(1).locator("pre")).to_contain_text("task 1")
    write(shared.database, *tasks(1, "new"))
    expect(live.pill).to_have_text("1 new")
    page.keyboard.press("Escape")
    live.expect_rows(4)


def test_a_paused_list_stands_still_and_counts_what_waits_over_an_outage(
    shared: Server, proxy: Proxy, page: Page
) -> None:
    write(shared.database, *tasks(2))
    live = LivePage(page, shared, proxy.url)
    live.expect_rows(2)
    live.scroller.focus()
    page.keyboard.press("Space")
    live.expect_state("paused")
    write(shared.database, *tasks(3, "new"))
    expect(live.label).to_have_text("Paused · 3 waiting")
    live.expect_rows(2)
    assert live.cursor() == 2
    proxy.go_down()
    live.expect_state("reconnecting")
    proxy.come_back()
    live.hurry()
    live.expect_state("paused")
    write(shared.database, *tasks(1, "newest"))
    expect(live.label).to_have_text("Paused · 4 waiting")
    page.get_by_role("button", name="Resume").click()
    live.expect_rows(6)
    assert live.seqs() == [1, 2, 3, 4, 5, 6]
    live.expect_state("live")


def test_a_list_that_is_paused_for_long_loses_nothing_and_stays_small(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    wait_until(lambda: live.cursor() == 0, "the list has begun")
    page.get_by_role("button", name="Pause").click()
    live.feed.evaluate(
        """feed => {
            window.shown = [];
            feed.addEventListener("event-feed:event", event => shown.push(event.detail.seq));
        }"""
    )
    for _ in range(3):
        write(shared.database, *tasks(500))
    expect(live.label).to_contain_text("+ waiting")
    for _ in range(3):
        write(shared.database, *tasks(500))
    assert live.feed.evaluate("feed => feed.waiting") <= 1500
    assert live.cursor() == 0
    page.get_by_role("button", name="Resume").click()
    expect(live.rows.first).to_have_attribute("data-seq", str(live.base + 3000))
    live.expect_rows(500)
    assert page.evaluate("shown") == list(range(live.base + 1, live.base + 3001))


# --- the filter -------------------------------------------------------------------------------------------------------


def test_the_list_is_filtered_by_kind_and_by_text(shared: Server, page: Page) -> None:
    write(shared.database, *[{"description": text} for text in ("mow the lawn", "paint the door", "paint the fence")])
    write(shared.database, {"message": "Disk full"}, event_type="system.error")
    write(shared.database, {"tool_name": "python"}, event_type="tool.called")
    live = LivePage(page, shared)
    shown = page.locator("event-feed .rows > .event:visible .sentence")
    count = page.locator("event-feed .count")
    live.expect_rows(5)
    task, system, bid = (page.get_by_role("button", name=name, exact=True) for name in ("Task", "System", "Bid"))
    expect(task).to_have_attribute("aria-pressed", "false")
    expect(bid).to_be_hidden()  # a kind that has not occurred

    system.click()
    expect(system).to_have_attribute("aria-pressed", "true")
    expect(shown).to_have_text(["Error: Disk full"])
    task.click()
    expect(shown).to_have_count(4)
    expect(count).to_have_text("4 of 5")

    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("DOOR paint")  # all words, in any case, anywhere in the row
    expect(shown).to_have_text(["New task: paint the door"])
    write(shared.database, {"description": "another door to paint"}, {"description": "another door"})
    expect(shown).to_have_text(["New task: another door to paint", "New task: paint the door"])
    expect(count).to_have_text("2 of 7")
    page.keyboard.type(" black")
    expect(page.get_by_text("No row in the list matches")).to_be_visible()

    page.keyboard.press("Escape")
    expect(shown).to_have_count(7)
    expect(system).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("searchbox")).to_have_value("")
    page.keyboard.press("Escape")
    expect(live.scroller).to_be_focused()


def test_the_keyboard_opens_a_row_whatever_text_is_selected(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(1))
    live = LivePage(page, shared)
    live.expect_rows(1)
    page.get_by_role("searchbox").fill("task")
    page.keyboard.press("ControlOrMeta+a")
    live.scroller.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(live.rows.first.locator("details")).to_have_attribute("open", "")


def test_an_open_row_that_the_filter_hides_holds_nothing_up(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(2))
    live = LivePage(page, shared)
    live.expect_rows(2)
    live.rows.first.locator("summary").click()
    page.get_by_role("searchbox").fill("task 0")
    write(shared.database, *tasks(1, "task 0, the second"))
    live.expect_rows(3)
    expect(live.pill).to_be_hidden()


def test_space_presses_a_button_in_the_list(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(1))
    live = LivePage(page, shared)
    live.expect_rows(1)
    page.get_by_role("searchbox").fill("no such text")
    page.get_by_role("button", name="Show all rows").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("searchbox")).to_have_value("")
    live.expect_state("live")


def test_a_tab_that_polls_counts_in_its_title_too(shared: Server, proxy: Proxy, page: Page) -> None:
    proxy.block()
    live = LivePage(page, shared, proxy.url, state="polling")
    title = page.title()
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true});document.dispatchEvent(new Event('visibilitychange'))"
    )
    write(shared.database, *tasks(3))
    live.expect_rows(3)
    expect(page).to_have_title(f"(3) {title}")


def test_a_slash_in_the_filter_is_text(shared: Server, page: Page) -> None:
    LivePage(page, shared)
    page.get_by_role("searchbox").focus()
    page.keyboard.type("a/b")
    expect(page.get_by_role("searchbox")).to_have_value("a/b")


# --- who may ----------------------------------------------------------------------------------------------------------


def test_signing_out_stops_the_other_tabs_and_says_so(server: Server, page: Page, context: BrowserContext) -> None:
    live = LivePage(page, server)
    other = context.new_page()
    other.goto(f"{server.url}/swarm/events")
    other.get_by_role("button", name="Sign out").click()
    expect(other).to_have_url(f"{server.url}/login")
    server.kill()  # the next handshake is refused, however long a socket outlives its session
    server.start()
    live.hurry()
    live.expect_state("signed-out")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_a_link_that_was_used_says_how_to_get_another(shared: Server, browser: Browser) -> None:
    with contextlib.closing(browser.new_page()) as page:  # a profile of its own: who signs in ends their last session
        page.request.get(shared.sign_in_link())
        answer = page.goto(shared.sign_in_link())
        assert answer is not None
        assert answer.status == 401
        expect(page.get_by_role("alert")).to_contain_text("used or has expired")


# --- the look ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/swarm/live", "/swarm/events", "/login"])
def test_a_phone_shows_every_page_without_scrolling_sideways(shared: Server, page: Page, path: str) -> None:
    write(shared.database, {"description": "a" * 300}, {"description": "many words " * 30})
    write(shared.database, {"message": "x" * 300}, event_type="system.error")
    page.set_viewport_size(PHONE)
    page.goto(shared.url + path)
    if path == "/swarm/live":
        expect(page.locator("event-feed .rows > .event")).to_have_count(3)
        scroller = page.locator("event-feed .scroller")
        assert scroller.evaluate("scroller => scroller.scrollWidth - scroller.clientWidth") == 0
        for name in ("Task", "System"):  # targets for a finger
            box = page.get_by_role("button", name=name, exact=True).bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 24
        expect(page.get_by_role("searchbox")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_row_looks_the_same_from_the_server_and_live(
    shared: Server, context: BrowserContext, page: Page, size: dict[str, int]
) -> None:
    """The server's rows are styled by outfeed.css, the live ones by the module: neither may change alone."""
    write(shared.database, {"description": "a task"})
    write(shared.database, {"message": "a failure that is told in so many words that a phone needs two lines for it"},
          event_type="system.error")  # fmt: skip
    write(shared.database, {"description": "🦆" * 150}, {"description": "🦆" * 201}, {"description": 2.0})
    page.set_viewport_size(size)  # type: ignore[arg-type]
    live = LivePage(page, shared)
    live.expect_rows(5)
    shown = [looks(live.rows.nth(index)) for index in range(5)]
    page.route("**/event-feed.js", lambda route: route.abort())
    page.reload()
    rows = page.locator("event-feed > .events > .event")
    assert [looks(rows.nth(index)) for index in range(5)] == shown


def looks(row: Locator) -> Any:
    return row.evaluate(
        """row => ["summary", ".icon", ".sentence", "b", "time", ".meta"].map(name => {
            const part = row.querySelector(name);
            const { color, fontSize, fontWeight, fontFamily, lineHeight } = getComputedStyle(part);
            const box = part.getBoundingClientRect(), outer = row.getBoundingClientRect();
            const place = [box.x - outer.x, box.y - outer.y, box.height];
            return [name, ...place, color, fontSize, fontWeight, fontFamily, lineHeight];
        }).concat([[getComputedStyle(row).borderLeftColor, row.querySelector("summary").offsetHeight]])
            .concat(row.querySelector(".sentence").textContent.split(/\\s+/).filter(Boolean).join(" "))"""
    )


def test_the_page_is_readable_without_javascript(shared: Server, browser: Browser, context: BrowserContext) -> None:
    write(shared.database, *tasks(30))
    cookies = context.storage_state()
    with contextlib.closing(browser.new_context(java_script_enabled=False, storage_state=cookies)) as plain:
        page = plain.new_page()
        page.goto(f"{shared.url}/swarm/live")
        expect(page.locator(".event")).to_have_count(20)
        expect(page.locator(".event .sentence").first).to_have_text("New task: task 29")
        page.get_by_role("link", name="Show all events").click()
        expect(page).to_have_url(f"{shared.url}/swarm/events")


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


def test_the_browser_says_what_the_terminal_says(shared: Server, page: Page) -> None:
    for event_type, data in ODD:
        write(shared.database, data, event_type=event_type)
    live = LivePage(page, shared)
    live.expect_rows(len(ODD))
    expected = [
        sentence(Event("an id", event_type, "coordinator", "task-1", None, data, "a time")) for event_type, data in ODD
    ]
    shown = live.rows.locator(".sentence").evaluate_all("parts => parts.map(part => part.textContent)")
    assert list(reversed(shown)) == expected


def test_times_are_those_of_the_viewers_zone(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(1))
    live = LivePage(page, shared)
    time = live.rows.locator("time")
    expect(time).to_have_text("15 Jan 11:30:00")
    expect(time).to_have_attribute("title", "2026-01-15T10:30:00.000Z")
    page.goto(f"{shared.url}/swarm/events")
    expect(page.locator(".event time")).to_have_text("15 Jan 11:30:00")


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_is_paged_and_filtered(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(60))
    write(shared.database, {"message": "lost"}, event_type="system.error")
    page.goto(f"{shared.url}/swarm/events")
    rows = page.locator(".event")
    expect(rows).to_have_count(50)
    expect(rows.first.locator(".sentence")).to_have_text("Error: lost")
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(11)
    expect(rows.last.locator(".sentence")).to_have_text("New task: task 0")
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    expect(page.get_by_text("Times in Europe/Berlin")).to_be_visible()  # the page's script has run
    page.keyboard.press("/")
    expect(page.get_by_label("Text")).to_be_focused()
    page.get_by_label("Type").fill("system.error")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    page.get_by_label("Type").fill("no.such")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No event matches")).to_be_visible()
    for cursor in ("nonsense", "-1", "9" * 30):
        page.goto(f"{shared.url}/swarm/events?cursor={cursor}")
        expect(rows).to_have_count(50)


def test_pages_stay_small_whatever_events_hold(shared: Server, page: Page) -> None:
    write(shared.database, *[{"description": "d" * 20_000, "name": "n" * 20_000}] * 60)
    for path in ("/swarm/live", "/swarm/events"):
        answer = page.goto(shared.url + path)
        assert answer is not None
        assert len(answer.body()) < 100_000
