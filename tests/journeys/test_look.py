"""The look: phones, zoom, forced colours, right-to-left texts and zones."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from outfeed.display import look_of
from outfeed.events import Event
from tests.page import DESKTOP, PHONE, LivePage, change, tasks, write
from tests.proxy import Proxy
from tests.server import Server


@pytest.mark.parametrize("width", [320, PHONE["width"]])
@pytest.mark.parametrize("path", ["/swarm/live", "/swarm/events", "/status", "/api/docs", "/password", "/nowhere"])
def test_a_phone_shows_every_page_without_scrolling_sideways(shared: Server, page: Page, path: str, width: int) -> None:
    write(shared.database, {"description": "a" * 300}, {"description": "many words " * 30})
    write(shared.database, {"message": "x" * 300}, event_type="system.error")
    page.set_viewport_size({"width": width, "height": PHONE["height"]})
    page.goto(shared.url + path)
    for link in page.get_by_role("navigation", name="Pages").get_by_role("link").all():
        expect(link).to_be_in_viewport(ratio=1)
    if path == "/swarm/live":
        expect(page.locator("event-feed .rows > .event")).to_have_count(3)
        scroller = page.locator("event-feed .scroller")
        assert scroller.evaluate("scroller => scroller.scrollWidth - scroller.clientWidth") == 0
        for part in (page.get_by_role("button", name="Pause"), page.get_by_role("searchbox")):  # touch targets
            box = part.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 24
        expect(page.get_by_role("searchbox")).to_be_in_viewport(ratio=1)
    if path == "/api/docs":
        operations = page.get_by_role("navigation", name="Operations").get_by_role("link")
        expect(operations.first).to_be_hidden()
        page.get_by_text("Operations", exact=True).click()
        expect(operations.first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_first_tab_stop_skips_the_menu_and_moves_nothing(shared: Server, page: Page) -> None:
    page.goto(f"{shared.url}/swarm/events")
    place = page.locator(".brand").bounding_box()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport(ratio=1)
    assert page.locator(".brand").bounding_box() == place
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Search")).to_be_focused()


def test_a_long_id_stays_within_the_window(shared: Server, page: Page) -> None:
    event, task = "e" * 200, "t" * 200
    change(
        shared.database,
        "INSERT INTO event_log (id, event_type, source, task_id, timestamp)"
        f" VALUES ('{event}', 'task.created', 's', '{task}', '2026-01-15T10:30:00.000Z')",
    )
    page.set_viewport_size(PHONE)
    for path in (f"tasks/{task}", f"events/{event}", "events"):
        page.goto(f"{shared.url}/swarm/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_list_has_space_for_rows_at_a_zoom_of_four(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(30))
    page.set_viewport_size({"width": 320, "height": 256})
    live = LivePage(page, shared)
    live.expect_rows(30)
    assert live.scroller.bounding_box()["height"] >= 2 * live.rows.first.bounding_box()["height"]  # type: ignore[index]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_server_row_and_a_live_row_look_the_same(
    shared: Server, context: BrowserContext, page: Page, size: dict[str, int]
) -> None:
    """The styles of the server's rows and of the module's rows match."""
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


def test_forced_colours_still_distinguish_on_and_off(shared: Server, page: Page) -> None:
    for event_type in ("task.created", "tool.called"):
        shared.log_event(event_type, "coordinator")
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    live = LivePage(page, shared)
    live.expect_rows(2)
    chip = page.get_by_role("button", name="Task", exact=True)
    canvas = colour(page.locator("body"), "background")
    chip.click()
    page.mouse.move(0, 0)
    assert colour(chip, "background") != canvas
    page.get_by_role("button", name="Pause").click()
    resume = page.get_by_role("button", name="Resume")
    assert colour(resume, "border-top", "::before") == "rgba(0, 0, 0, 0)"  # two sides of a triangle
    assert colour(resume, "border-left", "::before") not in ("rgba(0, 0, 0, 0)", canvas)
    for kind in ("task", "tool"):
        bars = page.locator(f".chart path[data-kind={kind}]").evaluate("path => getComputedStyle(path).fill")
        assert colour(page.locator(f".legend [data-kind={kind}]"), "background", "::before") == bars

    page.goto(f"{shared.url}/swarm/events")
    switch = page.get_by_role("switch", name="Live")
    assert colour(switch, "background", "::before") != canvas  # its knob
    switch.check()
    assert colour(switch, "background") != canvas


def colour(part: Locator, of: str, pseudo: str = "") -> str:
    return str(part.evaluate(f"part => getComputedStyle(part, '{pseudo}').getPropertyValue('{of}-color')"))


def test_right_to_left_texts_run_so_everywhere_and_move_nothing_else(shared: Server, page: Page) -> None:
    text, task = "שלום build 42", "מזהה id 7"
    for number in range(3):
        change(
            shared.database,
            "INSERT INTO event_log (id, event_type, source, task_id, data, timestamp) VALUES"
            f""" ('{number}', 'task.created', 's', '{task}', '{{"description": "{text}"}}',"""
            f" '2026-01-15T10:3{number}:00Z')",
        )
    live = LivePage(page, shared)
    live.expect_rows(3)
    live.rows.first.locator("summary").click()
    for name, written in (("b", text), (".task_id", task), ("dd", task)):
        assert runs_from_right(live.rows.first.locator(name).get_by_text(written))
    page.goto(f"{shared.url}/swarm/events")
    row = page.locator(".event").first
    row.locator("summary").click()
    for name, written in (("b", text), (".task_id", task), ("dd", task)):
        assert runs_from_right(row.locator(name).get_by_text(written))
    page.goto(f"{shared.url}/swarm/events/1")
    for name, written in ((".sentence b", text), (".facts dd", task), ("[rel=next] bdi", text)):
        assert runs_from_right(page.locator(name).get_by_text(written).first)
    page.goto(f"{shared.url}/swarm/tasks/{task}")
    assert runs_from_right(page.locator("h1"))


def runs_from_right(part: Locator) -> bool:
    """Return whether the first character is right of the last one.

    The last one has the other direction.
    """
    return bool(
        part.evaluate(
            """part => {
                const text = document.createTreeWalker(part, NodeFilter.SHOW_TEXT).nextNode();
                const left = index => {
                    const range = document.createRange();
                    range.setStart(text, index);
                    range.setEnd(text, index + 1);
                    return range.getBoundingClientRect().left;
                };
                return left(0) > left(text.length - 1);
            }"""
        )
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


# Type and data: a row for each entry of the table, and for missing and unusual values.
ODD = [
    ("task.created", {"description": " many\n\tspaces\u2003 and \u001f more "}),
    ("task.created", {}),
    ("task.created", {"description": "   "}),
    ("task.created", {"description": True}),
    ("task.created", {"description": ["a"]}),
    ("task.created", ["description"]),
    ("task.created", {"description": 2**53 + 1}),
    ("task.created", {"description": -(10**40) - 1}),
    ("task.created", None),
    ("bid.submitted", {"bid_sats": 0, "name": "forge"}),
    ("bid.submitted", {"bid_sats": 2.5}),
    ("bid.submitted", {"amount": 50, "agent": "forge"}),
    ("task.assigned", {"bid_sats": 50, "name": "forge"}),
    ("task.assigned", {"bid_sats": " ", "name": "forge"}),
    ("agent.joined", {"name": "forge", "persona": "careful"}),
    ("system.info", {"description": "Upgrade proposed"}),
    ("agent.joined", {"name": "constructor"}),
    ("agent.left", {"toString": 1}),
    ("system.info", {"source": "not asked for"}),
    ("deploy.canary_STARTED.now", {"reason": "because"}),
    ("constructor", {"name": "\ufeffmark"}),
    ("task.unheard_of", None),
]


def test_the_browser_and_the_terminal_show_the_same_sentence(shared: Server, page: Page) -> None:
    for event_type, data in ODD:
        write(shared.database, data, event_type=event_type)
    live = LivePage(page, shared)
    live.expect_rows(len(ODD))
    events = (Event("an id", event_type, "coordinator", "task-1", None, data, "a time") for event_type, data in ODD)
    expected = [look_of(event, {}).text for event in events]
    shown = live.rows.locator(".sentence").evaluate_all("parts => parts.map(part => part.textContent)")
    assert list(reversed(shown)) == expected


def test_an_integer_is_shown_with_all_its_digits_by_every_transport(shared: Server, proxy: Proxy, page: Page) -> None:
    numbers = {"id": 2**53 + 1, "ids": [-(2**63), 12345678901234567890123], "short": 5, "part": 0.12345678901234567}
    write(shared.database, numbers)
    live = LivePage(page, shared, proxy.url)
    live.expect_rows(1)
    proxy.block()
    live.expect_state("polling")
    write(shared.database, numbers)
    live.expect_rows(2)
    for row in live.rows.all():
        row.locator("summary").click()
        expect(row.locator("pre")).to_have_text(json.dumps(numbers, indent=2))


def test_times_are_shown_in_the_viewers_zone(shared: Server, page: Page) -> None:
    page.clock.set_fixed_time("2026-12-31T22:59:59Z")
    write(shared.database, *tasks(1), timestamp="2026-01-15T10:30:00.000Z")
    live = LivePage(page, shared)
    time = live.rows.locator("time")
    expect(time).to_have_text("15 Jan 11:30:00")
    expect(time).to_have_attribute("title", "2026-01-15T10:30:00.000Z")
    page.goto(f"{shared.url}/swarm/events")
    expect(page.locator(".event time")).to_have_text("11:30:00")
    expect(page.locator("#rows .day")).to_contain_text("15 January")


def test_a_time_of_another_year_has_its_year(shared: Server, page: Page) -> None:
    page.clock.set_fixed_time("2026-12-31T23:00:01Z")  # New Year in Berlin, where the viewer is
    write(shared.database, *tasks(1), timestamp="2026-01-15T10:30:00.000Z")
    live = LivePage(page, shared)
    expect(live.rows.locator("time")).to_have_text("15 Jan 2026 11:30:00")
    assert live.rows.locator("time").evaluate("time => time.scrollWidth <= time.clientWidth")  # in full
    page.goto(f"{shared.url}/swarm/events")
    expect(page.locator("#rows .day")).to_contain_text("15 January 2026")


# --- columns, keys and print ------------------------------------------------------------------------------------------


def write_at(server: Server, *moments: str) -> None:
    for moment in moments:
        change(
            server.database,
            "INSERT INTO event_log (id, event_type, source, task_id, data, timestamp) VALUES"
            " (lower(hex(randomblob(8))), 'task.created', 'days', 'days',"
            f""" '{{"description": "a task"}}', '{moment}')""",
        )


@pytest.mark.parametrize("locale", ["en-GB", "en-US", "de-DE", "ja-JP"])
def test_icons_and_sentences_form_columns_on_any_day(
    shared: Server, browser: Browser, context: BrowserContext, locale: str
) -> None:
    days = ("2024-02-29T01:00:00Z", "2026-01-15T10:30:00Z", "2026-06-14T23:59:00Z", "nonsense", "2026-06-15T09:00:00Z")
    write_at(shared, *days)
    state = context.storage_state()
    with contextlib.closing(browser.new_context(viewport=DESKTOP, locale=locale, storage_state=state)) as own:  # type: ignore[arg-type]
        page = own.new_page()
        page.clock.set_fixed_time("2026-06-15T12:00:00Z")
        for path in ("/swarm/live", "/swarm/events", "/swarm/tasks/days"):
            page.goto(shared.url + path)
            rows = page.locator(".rows > .event" if path == "/swarm/live" else ".events > .event")
            expect(rows).to_have_count(len(days))
            for part in (".icon", ".sentence"):
                lefts = rows.locator(part).evaluate_all("all => all.map(one => one.getBoundingClientRect().left)")
                assert len(set(lefts)) == 1, (path, part, lefts)
            cut = rows.locator("time").evaluate_all(
                "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
            )
            assert cut == 0, path


def test_a_live_row_of_another_day_keeps_the_columns(shared: Server, page: Page) -> None:
    page.clock.set_fixed_time("2026-06-15T12:00:00Z")
    write_at(shared, "2026-06-15T09:00:00Z")
    page.goto(f"{shared.url}/swarm/events?live=1")
    rows = page.locator("#rows > .event")
    expect(rows).to_have_count(1)
    page.locator("event-feed").evaluate(
        "feed => feed.state === 'live' || new Promise(met => feed.addEventListener('event-feed:state', met))"
    )
    write_at(shared, "2025-12-31T09:00:00Z")
    expect(rows).to_have_count(2)
    lefts = rows.locator(".sentence").evaluate_all("all => all.map(one => one.getBoundingClientRect().left)")
    assert lefts[0] == lefts[1]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_title_of_the_chart_ends_before_its_ranges(shared: Server, page: Page, size: dict[str, int]) -> None:
    shared.log_event("task.created", "coordinator")
    LivePage(page, shared)
    page.set_viewport_size(size)  # type: ignore[arg-type]
    end = page.locator(".chart h2").evaluate(
        "title => { const text = document.createRange(); text.selectNodeContents(title);"
        " return text.getBoundingClientRect().right }"
    )
    box = page.locator(".ranges a").first.bounding_box()
    assert box is not None
    assert end + 4 <= box["x"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_keyboard_reaches_ranges_table_and_picker_of_the_chart_in_order(
    shared: Server, page: Page, size: dict[str, int]
) -> None:
    page.set_viewport_size(size)  # type: ignore[arg-type]
    shared.log_event("task.created", "coordinator")
    LivePage(page, shared)
    summary, picker = page.locator(".chart summary"), page.locator(".chart .picker")
    page.locator(".ranges a").last.focus()
    page.keyboard.press("Tab")
    expect(summary).to_be_focused()
    page.keyboard.press("Tab")
    expect(picker).to_be_focused()
    assert summary.bounding_box()["y"] < picker.bounding_box()["y"]  # type: ignore[index]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    table, plot = page.locator(".chart table"), page.locator(".chart svg")
    expect(table).to_be_visible()
    assert table.bounding_box()["y"] > plot.bounding_box()["y"]  # type: ignore[index]


def test_a_password_manager_finds_the_name_where_a_password_is_set(shared: Server, page: Page) -> None:
    page.goto(f"{shared.url}/password")
    field = page.locator("input[autocomplete=username]")
    expect(field).to_have_attribute("value", re.compile("^operator-"))
    assert field.evaluate("field => field.type") == "text"
    box = field.bounding_box()
    assert box is not None
    assert box["width"] <= 1
    page.get_by_label("New password").focus()
    page.keyboard.press("Shift+Tab")
    expect(field).not_to_be_focused()  # and screen readers skip it
    expect(field).to_have_attribute("aria-hidden", "true")


def test_live_is_printed_with_its_colours_in_full_and_without_its_controls(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(60))
    write(shared.database, {"message": "many words " * 20}, event_type="system.error")
    with shared.http() as http:
        for number in range(30):
            http.post("/api/swarm/agents", json={"name": f"agent {number}"}).raise_for_status()
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 between its margins
    live = LivePage(page, shared)
    page.emulate_media(media="print", color_scheme="dark", reduced_motion="reduce")
    for hidden in ("button", "input", "nav"):
        expect(page.locator(hidden).filter(visible=True)).to_have_count(0)
    for part in (
        ".row .mark",
        ".rows > .event",
        ".event-feed .dot, event-feed .dot",
        ".chart path[data-kind]",
        ".counts div",
    ):
        assert page.locator(part).first.evaluate("part => getComputedStyle(part).printColorAdjust") == "exact", part
    for list_ in page.locator(".list .scroll, event-feed .scroller").all():
        assert list_.evaluate("list => list.scrollHeight <= list.clientHeight + 1")
    expect(live.rows.last).to_be_visible()
    bottoms = page.locator(".list, event-feed").evaluate_all(
        "all => all.every(one => [...one.querySelectorAll('.row')].every(row =>"
        " row.getBoundingClientRect().bottom <= one.getBoundingClientRect().bottom + 1))"
    )
    assert bottoms
    expect(page.locator("body")).to_have_css("color", "rgb(27, 36, 48)")
