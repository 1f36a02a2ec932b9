"""Reading the live list: no motion, keyboard, filter and opened rows."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.page import LivePage, tasks, write
from tests.proxy import Proxy
from tests.server import Server
from tests.waits import wait_until

# --- no motion --------------------------------------------------------------------------------------------------------


def test_rows_wait_behind_a_pill_while_the_list_is_scrolled(shared: Server, page: Page) -> None:
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


@pytest.mark.parametrize("width", [390, 768, 1024, 1150, 1440])
def test_the_pill_hides_no_row_and_moves_none(shared: Server, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for event_type in ("task.created", "agent.joined", "bid.submitted", "tool.called", "system.info"):
        write(shared.database, {"name": "one"}, event_type=event_type)
    live = LivePage(page, shared)
    live.expect_rows(5)
    live.rows.first.locator("summary").click()
    before = live.rows.first.bounding_box()
    write(shared.database, *tasks(12, "new"))
    expect(live.pill).to_have_text("12 new")
    pill, row = live.pill.bounding_box(), live.rows.first.bounding_box()
    assert pill is not None
    assert row is not None
    assert before is not None
    assert pill["y"] + pill["height"] <= row["y"] == before["y"]
    assert pill["height"] >= 24


def test_rows_wait_while_a_row_is_open(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(3))
    live = LivePage(page, shared)
    live.expect_rows(3)
    live.scroller.focus()
    for key in ("ArrowDown", "j", "j", "k"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(live.rows.nth(1).locator("pre")).to_contain_text("task 1")
    write(shared.database, *tasks(1, "new"))
    expect(live.pill).to_have_text("1 new")
    page.keyboard.press("Escape")  # closes the row
    page.keyboard.press("Escape")  # leaves the row
    live.expect_rows(4)


@pytest.mark.parametrize("keys", [["Escape"], ["ArrowUp", "ArrowUp"], ["Home"], ["Shift+Tab"]])
def test_rows_wait_until_the_keyboard_focus_leaves_a_row(shared: Server, page: Page, keys: list[str]) -> None:
    write(shared.database, *tasks(4))
    live = LivePage(page, shared)
    live.expect_rows(4)
    live.scroller.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    focused = live.rows.nth(1).locator("summary")
    expect(focused).to_be_focused()
    write(shared.database, *tasks(2, "new"))
    expect(live.pill).to_have_text("2 new")
    live.expect_rows(4)
    expect(focused).to_be_focused()
    for key in keys:
        page.keyboard.press(key)
    live.expect_rows(6)
    expect(live.pill).to_be_hidden()
    write(shared.database, *tasks(1, "newest"))
    live.expect_rows(7)


def test_a_closed_row_and_a_focused_list_do_not_delay_rows(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(2))
    live = LivePage(page, shared)
    live.expect_rows(2)
    for _ in range(2):
        live.rows.first.locator("summary").click()
    expect(live.rows.first.locator("summary")).to_be_focused()
    write(shared.database, *tasks(1, "new"))
    live.expect_rows(3)
    live.scroller.focus()
    write(shared.database, *tasks(1, "newest"))
    live.expect_rows(4)


def test_a_paused_list_counts_waiting_events_across_an_outage(shared: Server, proxy: Proxy, page: Page) -> None:
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
    live.connect_now()
    live.expect_state("paused")
    write(shared.database, *tasks(1, "newest"))
    expect(live.label).to_have_text("Paused · 4 waiting")
    page.get_by_role("button", name="Resume").click()
    live.expect_rows(6)
    assert live.seqs() == [1, 2, 3, 4, 5, 6]
    live.expect_state("live")


def test_a_list_that_is_paused_for_long_loses_no_event_and_stays_small(shared: Server, page: Page) -> None:
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
    expect(page.get_by_text("Nothing in this list matches")).to_be_visible()

    page.keyboard.press("Escape")
    expect(shown).to_have_count(7)
    expect(system).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("searchbox")).to_have_value("")
    page.keyboard.press("Escape")
    expect(live.scroller).to_be_focused()


def test_the_keyboard_opens_a_row_even_if_text_is_selected(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(1))
    live = LivePage(page, shared)
    live.expect_rows(1)
    page.get_by_role("searchbox").fill("task")
    page.keyboard.press("ControlOrMeta+a")
    live.scroller.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(live.rows.first.locator("details")).to_have_attribute("open", "")


# Ids that need different encodings in an address.
IDS = ["task-1", "a:b@c~d.e-f_g", "a/b", "/lead", "..", ".hidden", "a?b&c=d#e", "100%", "ü ö+x", "a\nb"]
IDS += ["x" * 200, "x" * 201]


def test_an_opened_row_has_the_links_of_the_logs_row(shared: Server, page: Page) -> None:
    with contextlib.closing(sqlite3.connect(shared.database)) as raw, raw:
        raw.executemany(
            "INSERT INTO event_log (id, event_type, source, task_id, agent_id, timestamp) VALUES (?, ?, ?, ?, ?, 't')",
            [(each, "odd.type", each, each, each) for each in IDS],
        )
    live = LivePage(page, shared)
    live.expect_rows(len(IDS))
    live.rows.evaluate_all("rows => rows.forEach(row => row.querySelector('details').open = true)")
    expect(live.rows.locator("dl")).to_have_count(len(IDS))
    links = links_of(live.rows)
    page.goto(f"{shared.url}/swarm/events")
    assert links_of(page.locator("#rows > .event")) == links
    assert len(links[-1]) == 5


def links_of(rows: Locator) -> Any:
    """Return the links of each row's fields: path and query."""
    return rows.evaluate_all(
        """rows => rows.map(row => Array.from(row.querySelectorAll("dd a"), ({parentElement, href}) => {
            const {origin, pathname, searchParams} = new URL(href);
            const {textContent} = parentElement.previousElementSibling;
            return [textContent, origin, decodeURIComponent(pathname), ...searchParams];
        }).sort())"""
    )


def test_the_keyboard_reaches_the_links_of_an_open_row_and_comes_back(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(3))
    live = LivePage(page, shared)
    live.expect_rows(3)
    live.scroller.focus()
    link = live.rows.nth(1).get_by_role("link", name="task.created")

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("ArrowDown", "ArrowDown", "Enter")
    expect(link).to_be_visible()
    press("Tab", "Tab")
    expect(link).to_be_focused()
    press("Escape")
    expect(live.rows.nth(1).locator("summary")).to_be_focused()
    expect(link).to_be_hidden()
    press("Enter")
    expect(link).to_be_visible()
    press("Tab", "ArrowDown")
    expect(live.rows.nth(2).locator("summary")).to_be_focused()
    press("ArrowUp", "Tab", "Tab", "Enter")
    expect(page).to_have_url(f"{shared.url}/swarm/events?type=task.created")


def test_an_open_row_that_the_filter_hides_does_not_delay_rows(shared: Server, page: Page) -> None:
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
    page.get_by_role("button", name="Clear filter").focus()
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
