"""The live page with any events: figures, chart, rows and address."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from outfeed import clock
from tests.accessible import problems
from tests.page import DESKTOP, PHONE, LivePage, begin_swarm, change, tasks, write
from tests.server import Server
from tests.tab import Tab
from tests.waits import wait_until

SHOP = ("shop.sold", "shop.returned", "card.failed")


@pytest.fixture(autouse=True)
def recounted(shared: Server) -> None:
    """Count the events again: those of earlier tests were deleted."""
    change(shared.database, "UPDATE outfeed_meta SET value = value + 1 WHERE key = 'erasures'")
    with contextlib.closing(sqlite3.connect(shared.database)) as raw, shared.http() as http:
        (count,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'erasures'").fetchone()
        # Otherwise a page that has just opened learns of it, and reads its list again.
        wait_until(lambda: http.get("/api/feed").json().get("erasures") == int(count), "the server knows")


@pytest.fixture
def errors(page: Page) -> list[str]:
    """The errors on the page's console."""
    found: list[str] = []
    page.on("console", lambda said: found.append(said.text) if said.type == "error" else None)
    return found


def write_shop(server: Server, *minutes_ago: int) -> datetime:
    """Log three events for each of *minutes_ago*; return the present minute."""
    now = clock.now().replace(second=0, microsecond=0)
    for minutes in minutes_ago:
        at = clock.isoformat(now - timedelta(minutes=minutes))
        for event_type in SHOP:
            write(
                server.database, {"amount": minutes}, event_type=event_type, source="till", timestamp=at, task_id=None
            )
    return now


def address(page: Page) -> dict[str, str]:
    """Return the parameters of the page's address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_figures_chips_and_chart_follow_the_types_sources_and_levels(
    shared: Server, page: Page, errors: list[str]
) -> None:
    write_shop(shared, 5, 30, 200)
    live = LivePage(page, shared)
    figures = page.locator(".counts dd")
    expect(figures).to_have_text(["6", "2", "0", "3", "1"])
    expect(page.locator("[data-panel=types] .row a")).to_have_text(["card.failed", "shop.returned", "shop.sold"])
    expect(page.locator("[data-panel=sources] .row")).to_contain_text(["till"])
    expect(page.locator("[data-panel=agents]")).to_have_count(0)
    chips = page.locator("event-feed .chips button")
    expect(chips).to_have_text(["Shop4", "Card2"])
    assert colours(page, ".plot path[data-kind]", "fill") == colours(page, "event-feed .chips button", "color")
    failed = figures.nth(1).get_by_role("link").get_attribute("href") or ""
    assert failed.startswith("/swarm/events?type=card.failed&from=")

    write(shared.database, {"level": "warning"}, event_type="disk.checked", source="host", timestamp=clock.timestamp())
    expect(figures).to_have_text(["7", "2", "1", "4", "2"])
    expect(chips).to_have_text(["Shop4", "Card2", "Disk1"])
    live.expect_state("live")
    assert errors == []


def colours(page: Page, selector: str, name: str) -> list[str]:
    """Return the colours of elements, of a chip that of its mark."""
    return list(
        page.locator(selector).evaluate_all(
            "(all, name) => all.map(one => name === 'fill' ? getComputedStyle(one).fill"
            " : getComputedStyle(one, '::before').backgroundColor)",
            name,
        )
    )


def test_filter_and_range_stand_in_the_address(shared: Server, page: Page, errors: list[str]) -> None:
    write_shop(shared, 1, 5, 30, 200)
    live = LivePage(page, shared)
    live.expect_rows(12)
    shop = page.get_by_role("button", name="Shop", exact=True)
    shop.click()
    card = page.locator('.plot path[data-kind="card"]')
    expect(card).to_have_attribute("d", "")
    page.get_by_placeholder("Filter…").fill("sold")
    page.get_by_role("link", name="6 h").click()
    expect(page.locator(".chart h2")).to_have_text("Events per 5 min")
    assert address(page) == {"kind": "shop", "text": "sold", "range": "6h"}
    visible = page.locator("event-feed .rows > .event:visible")
    expect(visible).to_have_count(4)

    page.reload()
    expect(visible).to_have_count(4)
    expect(shop).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_placeholder("Filter…")).to_have_value("sold")
    expect(page.locator(".chart h2")).to_have_text("Events per 5 min")
    expect(card).to_have_attribute("d", "")
    shop.click()
    page.get_by_placeholder("Filter…").fill("")
    expect(card).not_to_have_attribute("d", "")
    assert address(page) == {"range": "6h"}
    assert errors == []


def test_the_chart_answers_the_pointer_and_the_keyboard_and_opens_the_log(shared: Server, page: Page) -> None:
    now = write_shop(shared, 5, 30)
    LivePage(page, shared)
    picker, tip = page.locator(".picker"), page.locator(".tip")
    box = picker.bounding_box()
    assert box is not None

    def x_of(minutes_ago: int) -> float:
        """Return the middle of the bar of that minute."""
        newest = datetime.fromisoformat(page.locator(".chart").get_attribute("data-begin") or "")
        bar = (now - timedelta(minutes=minutes_ago) - newest) / timedelta(minutes=1)
        return float(box["x"] + (bar + 0.5) * box["width"] / 60)

    page.mouse.move(x_of(30), box["y"] + 20)
    expect(tip).to_contain_text(": 3 events")
    expect(tip.locator("li")).to_have_text(["shop 2", "card 1"])
    page.mouse.click(x_of(30), box["y"] + 20)
    page.wait_for_url("**/swarm/events?*")
    begin = now - timedelta(minutes=30)
    assert address(page) == {"from": f"{begin:%Y-%m-%dT%H:%M}", "to": f"{begin + timedelta(minutes=1):%Y-%m-%dT%H:%M}"}
    expect(page.locator(".event")).to_have_count(3)

    page.goto(f"{shared.url}/swarm/live?kind=shop")
    expect(page.locator('.plot path[data-kind="card"]')).to_have_attribute("d", "")
    page.mouse.move(x_of(31), box["y"] + 20)
    page.mouse.down()
    page.mouse.move(x_of(4), box["y"] + 40)
    expect(tip).to_contain_text(": 4 events")
    page.mouse.up()
    page.wait_for_url("**/swarm/events?*")
    assert address(page)["type"] == "shop.*"
    assert address(page)["from"] == f"{now - timedelta(minutes=31):%Y-%m-%dT%H:%M}"
    expect(page.locator(".event")).to_have_count(4)

    page.goto(f"{shared.url}/swarm/live")
    page.locator(".chart summary").focus()
    page.keyboard.press("Tab")
    expect(picker).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    expect(picker).to_have_attribute("aria-valuetext", re.compile(r"\d\d:\d\d – \d\d:\d\d: 0 events"))
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url("**/swarm/events?from=*")


FOLDED = [
    ("task.created", 0.0, {"description": "Fix it"}),
    ("task.bidding", 0.0, {"description": "Fix it"}),
    ("bid.submitted", 5.0, {"name": "Quill", "bid_sats": 5, "description": "Fix it"}),
    ("auction.closed", 10.0, {"bid_sats": 5, "description": "Fix it"}),
    ("task.assigned", 10.0, {"name": "Quill", "bid_sats": 5, "description": "Fix it"}),
    ("agent.status_changed", 10.4, {"name": "Quill", "status": "busy", "description": "Fix it"}),
    ("task.failed", 20.0, {"reason": "too hard", "description": "Fix it"}),
    ("agent.status_changed", 20.0, {"name": "Quill", "status": "idle", "description": "Fix it"}),
    ("task.completed", 21.1, {"description": "Fix it"}),
    ("gemini_cli.tool_call", 30.0, {"function_name": "run_shell_command", "decision": "accept"}),
    ("gemini_cli.api_request", 30.1, {"model": "gemini-3.8-flash"}),
    ("gemini_cli.user_prompt", 40.0, {"prompt_length": 18, "prompt": "Fix the test"}),
    ("gemini_cli.api_request", 40.1, {"model": "gemini-3.8-flash"}),
]
LEADS = [
    "Prompt of 18 characters: Fix the test +1",
    "run_shell_command: accept +1",
    "Task completed · Fix it",
    "Task failed: too hard · Fix it +1",
    "Task assigned to Quill (5 sats) · Fix it +2",
    "Bid: 5 sats from Quill · Fix it",
    "Open for bids: Fix it +1",
]


def test_events_of_one_task_within_a_second_are_one_row_that_names_the_task(
    shared: Server, page: Page, browser: Browser
) -> None:
    begin = datetime(2026, 1, 15, 10, 30, tzinfo=clock.now().tzinfo)
    live = LivePage(page, shared)
    for event_type, secs, data in FOLDED:
        at = clock.isoformat(begin + timedelta(seconds=secs))
        write(shared.database, data, event_type=event_type, timestamp=at, task_id="task-0123456789abcdef")
    sentences = live.rows.locator("> details > summary .sentence")
    expect(sentences).to_have_text(LEADS)
    failed = live.rows.nth(3)
    expect(failed).to_have_attribute("data-level", "error")
    expect(live.rows.locator("> details > summary .meta")).to_have_text(["coordinator"] * 7)
    expect(live.rows.nth(4).locator(".members > .event")).to_have_count(3)
    live.rows.nth(4).locator("summary").first.click()
    expect(live.rows.nth(4).locator(".members > .event").last).to_be_visible()
    page.reload()  # all come at once
    expect(sentences).to_have_text(LEADS)
    with contextlib.closing(
        browser.new_context(java_script_enabled=False, storage_state=page.context.storage_state())
    ) as plain:
        other = plain.new_page()
        for name in ("live", "events"):
            other.goto(f"{shared.url}/swarm/{name}")
            expect(other.locator(".events > .event > details > summary .sentence")).to_have_text(LEADS)


def test_scrolling_back_continues_into_the_log_to_its_beginning(shared: Server, page: Page) -> None:
    write(shared.database, {"description": "alpha"}, *tasks(258), {"description": "alpha two"})
    with contextlib.closing(sqlite3.connect(shared.database)) as raw, raw:
        raw.execute("DELETE FROM outbox WHERE seq <= ?", (shared.base + 150,))  # the log has more than the feed
    live = LivePage(page, shared)
    live.expect_rows(100)
    end = page.locator("event-feed .past span")
    page.get_by_role("button", name="Show earlier events").dispatch_event("click")  # a real one scrolls to it
    live.expect_rows(200)
    live.scroller.evaluate("scroller => scroller.scrollTo(0, scroller.scrollHeight)")
    live.expect_rows(260)
    expect(end).to_have_text("This is the beginning of the log.")
    expect(page.get_by_role("button", name="Show earlier events")).to_be_hidden()
    expect(live.rows.last.locator(".sentence")).to_have_text("New task: alpha")
    write(shared.database, {"description": "meanwhile"})
    expect(live.pill).to_have_text("1 new")
    live.pill.click()
    live.expect_rows(261)
    page.get_by_placeholder("Filter…").fill("alpha")
    expect(page.locator("event-feed .rows > .event:visible")).to_have_count(2)


def test_the_empty_page_waits_for_an_event_and_turns_into_it(
    shared: Server, page: Page, browser: Browser, errors: list[str]
) -> None:
    with shared.http() as http:  # a board of before the events were deleted is kept for a second
        wait_until(lambda: "data-figure" not in http.get("/swarm/board").text, "the board is empty")
    live = LivePage(page, shared)
    waiting = page.get_by_text("Waiting for your event…")
    expect(waiting).to_be_visible()
    expect(page.locator(".chart")).to_be_hidden()
    lines = page.locator(".way pre:visible")
    terminal = lines.inner_text()
    page.get_by_label("Terminal").focus()
    page.keyboard.press("ArrowRight")
    expect(lines).to_contain_text("curl -H")
    page.keyboard.press("ArrowRight")
    expect(lines).to_contain_text("from outfeed import log_event")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_text("Terminal", exact=True).click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == terminal
    assert problems(page) == ""
    with contextlib.closing(browser.new_context()) as own:
        viewer = shared.sign_in("viewer")
        own.add_cookies([{"name": shared.cookie_name, "value": viewer, "url": shared.url}])
        log = own.new_page()
        log.goto(f"{shared.url}/swarm/events")
        expect(log.get_by_text("Waiting for your event…")).to_be_visible()
        write(shared.database, {"amount": 5}, event_type="shop.sold", timestamp=clock.timestamp())
        live.expect_rows(1)
        expect(waiting).to_be_hidden()
        expect(page.locator(".counts dd").first).to_have_text("1")
        expect(page.locator(".chart")).to_be_visible()
        expect(log.locator(".event")).to_have_count(1)
    assert errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_desktop_and_a_phone_with_the_list_first(
    shared: Server, page: Page, scheme: Any, errors: list[str]
) -> None:
    write_shop(shared, *range(40))
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    live = LivePage(page, shared)
    for is_swarm in (False, True):
        if is_swarm:
            begin_swarm(shared.database)
            with shared.http() as http:
                for number in range(9):
                    http.post("/api/swarm/agents", json={"name": f"agent {number}"}).raise_for_status()
                    http.post("/api/swarm/tasks", json={"description": "many words " * 20}).raise_for_status()
            expect(page.locator("[data-panel=agents] .row")).to_have_count(9)
            expect(page.get_by_placeholder("New task…")).to_be_visible()
            expect(page.locator("[data-panel=types]")).to_have_count(0)
        page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
        assert cut_rows(page) == []
        bar = page.locator("event-feed .bar").bounding_box()
        assert bar is not None
        assert bar["height"] < 60  # one line
        assert problems(page) == ""
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        order = ["event-feed", ".counts", ".chart", ".side"]
        tops = [page.locator(name).first.bounding_box()["y"] for name in order]  # type: ignore[index]
        assert tops == sorted(tops)
        first = live.rows.first.bounding_box()
        assert first is not None
        assert first["y"] < PHONE["height"] / 3
        assert page.locator(".plot svg").bounding_box()["height"] == 48  # type: ignore[index]
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert cut_rows(page) == []
        assert problems(page) == ""
    assert errors == []


def cut_rows(page: Page) -> Any:
    """Return the rows that the edge of a panel cuts."""
    return page.locator(".list .scroll").evaluate_all(
        """all => all.flatMap(list => {
            const end = list.getBoundingClientRect().bottom;
            const edge = list.closest(".list").getBoundingClientRect().bottom;
            const boxes = [...list.querySelectorAll(".row")].map(row => [row.textContent, row.getBoundingClientRect()]);
            return boxes.filter(([, box]) => box.top < end - 1 && box.bottom > Math.min(end, edge) + 1);
        })"""
    )


def test_a_tab_with_many_events_keeps_its_memory_and_answers_at_once(shared: Server, page: Page) -> None:
    """`scripts/soak` does the same with the events of eight hours."""
    LivePage(page, shared)
    tab = Tab(page, shared.database)
    tab.write(2_000)
    before = tab.memory()
    tab.write(4_000)
    after = tab.memory()
    assert after.heap_bytes - before.heap_bytes < 2e6
    assert after.nodes - before.nodes < 2_000
    assert tab.answer_millis() < 100
