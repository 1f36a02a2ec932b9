"""Search in the log: filters, text, links, live rows and export."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.accessible import problems
from tests.page import DESKTOP, PHONE, change, sign_out, tasks, write
from tests.server import Server
from tests.waits import wait_until

REASON = "Timeout while the <model> was asked"
ROWS = "#rows > .event"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("log")) as running:
        yield running


@pytest.fixture(autouse=True)
def night(server: Server) -> None:
    """A night's events: 70 tasks, one of which failed."""
    for table in ("event_log", "outbox"):
        change(server.database, f"DELETE FROM {table}")
    write(server.database, *[{"description": f"task {number}"} for number in range(70)])
    with contextlib.closing(sqlite3.connect(server.database)) as raw, raw:
        raw.executemany(
            "INSERT INTO event_log VALUES (?, ?, 'coordinator', 'night-7', 'forge', ?, ?)",
            [
                ("n1", "task.created", '{"description": "Translate the manual"}', "2026-01-15T01:00:00.000Z"),
                ("n2", "task.assigned", '{"name": "Forge", "bid_sats": 40}', "2026-01-15T01:00:15.000Z"),
                ("n3", "tool.called", '{"tool_name": "translate"}', "2026-01-15T01:00:16.500Z"),
                (
                    "n4",
                    "task.failed",
                    json.dumps({"reason": REASON, "attempts": [1, 2, 3]}),
                    "2026-01-15T02:30:00.000Z",
                ),
            ],
        )
    write(server.database, *[{"description": f"later {number}"} for number in range(20)])


def accessible(page: Page) -> None:
    # Rows in an animation have other colours than at its end.
    page.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")
    assert problems(page) == ""


def small_targets(page: Page) -> list[str]:
    """Return the visible links and fields that are too low for touch.

    They are less than 24 px high."""
    found: list[str] = page.locator("a, button, input, summary").evaluate_all(
        "all => all.filter(one => one.checkVisibility() && !one.matches('.skip, .switch input')"
        " && one.getBoundingClientRect().height < 24).map(one => one.outerHTML)"
    )
    return found


def switch_on(page: Page) -> None:
    page.get_by_role("switch", name="Live").check()
    page.locator("event-feed").evaluate(
        "feed => feed.state === 'live' || new Promise(met => feed.addEventListener('event-feed:state',"
        " ({detail}) => detail.state === 'live' && met()))"
    )


def test_a_failed_task_is_found_by_text_and_the_view_can_be_shared(
    server: Server, page: Page, browser: Browser, context: BrowserContext
) -> None:
    page.goto(f"{server.url}/swarm/events")
    expect(page.locator(ROWS)).to_have_count(50)
    accessible(page)
    page.keyboard.press("/")
    page.keyboard.type("timeout model")
    page.keyboard.press("Enter")
    row = page.locator(ROWS)
    expect(row).to_have_count(1)
    page.get_by_text("All time", exact=True).first.click()
    page.get_by_label("Since").fill("2026-01-15T03:00:00")  # in Berlin
    page.get_by_role("button", name="Show period").click()
    expect(row).to_have_count(1)
    expect(row.locator(".sentence")).to_have_text(f"Task failed: {REASON}")
    assert re.search(r"/events\?q=timeout\+model&from=2026-01-15T02%3A00%3A00$", page.url)
    expect(page.locator("#times > summary")).to_have_text("15 Jan 03:00:00 – now")
    accessible(page)

    with contextlib.closing(browser.new_context(timezone_id="America/New_York", locale="en-GB")) as other:
        other.add_cookies(context.cookies())  # type: ignore[arg-type]
        tab = other.new_page()
        tab.goto(page.url)
        expect(tab.locator(f"{ROWS} .sentence")).to_have_text(f"Task failed: {REASON}")
        expect(tab.get_by_label("Since")).to_have_value("2026-01-14T21:00")

    row.locator("summary").click()
    row.get_by_role("link", name="n4", exact=True).click()
    expect(page.locator("pre")).to_contain_text('"attempts": [')
    accessible(page)
    page.get_by_role("link", name="night-7").click()
    expect(page.locator(".timeline .event")).to_have_count(4)
    expect(page.locator(".timeline .after")).to_have_text(["+15.0 s", "+1.5 s", "+90 min"])
    accessible(page)


def test_a_filtered_view_can_be_exported(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/swarm/events?task=night-7")
    for name in ("CSV", "NDJSON"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        text = Path(download.value.path()).read_text()
        assert download.value.suggested_filename == f"events.{name.lower()}"
        assert re.findall(r"\bn\d\b", text) == ["n4", "n3", "n2", "n1"]


def test_new_rows_appear_on_top_while_the_switch_is_on(server: Server, page: Page) -> None:
    page.clock.set_fixed_time("2026-01-16T12:00:00Z")
    page.goto(f"{server.url}/swarm/events?text=alpha&type=task.*")
    expect(page.get_by_text("No events match these filters")).to_be_visible()
    switch_on(page)
    expect(page).to_have_url(re.compile("live=1"))
    write(server.database, {"description": "alpha one"}, {"description": "beta"})
    write(server.database, {"message": "alpha, of another type"}, event_type="system.info")
    rows = page.locator(f"{ROWS} .sentence")
    expect(rows).to_have_text(["New task: alpha one"])
    write(server.database, {"description": "alpha two"})
    expect(rows).to_have_text(["New task: alpha two", "New task: alpha one"])
    expect(page.locator("#counts strong")).to_have_text("2 events")
    expect(page.locator(f"{ROWS} time").first).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    expect(page.locator("#rows .day")).to_have_text(["Yesterday"])
    accessible(page)

    page.locator(f"{ROWS} summary").first.click()
    write(server.database, {"description": "alpha three"})
    expect(page.locator("body > .pill")).to_have_text("↑ 1 new")
    expect(rows).to_have_count(2)
    page.locator("body > .pill").click()
    expect(rows).to_have_count(3)

    page.reload()
    expect(page.get_by_role("switch", name="Live")).to_be_checked()
    page.get_by_role("switch", name="Live").uncheck()
    expect(page).not_to_have_url(re.compile("live"))
    write(server.database, {"description": "alpha four"})
    expect(page.locator("event-feed")).to_have_count(0)
    expect(rows).to_have_count(3)


def test_a_rejected_request_is_repeated(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/swarm/events")
    switch_on(page)
    with page.expect_response(lambda answer: answer.status == 503):
        page.route("**/swarm/events?live=1", lambda route: route.fulfill(status=503, body="busy"))
        write(server.database, {"description": "while it was busy"})
    page.unroute("**/swarm/events?live=1")
    expect(page.locator(f"{ROWS} .sentence").first).to_have_text("New task: while it was busy")


def test_live_rows_match_the_filter_and_the_viewers_permissions(server: Server, page: Page) -> None:
    write(server.database, {"description": "mine"}, source="me")
    page.goto(f"{server.url}/swarm/events?source=me+")
    rows = page.locator(f"{ROWS} .sentence")
    expect(rows).to_have_text(["New task: mine"])
    with page.expect_response(re.compile("live=1")):  # the request when the feed begins
        switch_on(page)
    write(server.database, {"by": "Ann", "name": "Bob"}, event_type="access.user_disabled", source="me")
    expect(rows.first).to_have_text("Ann disabled Bob")


def test_the_pill_disappears_with_its_rows_and_the_focus_stays(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/swarm/events")
    switch_on(page)
    page.locator("#facets a").first.focus()
    page.locator(f"{ROWS} details").first.evaluate("details => details.open = true")
    write(server.database, {"description": "first"})
    expect(page.locator("body > .pill")).to_have_text("↑ 1 new")
    expect(page.locator("#facets a").first).to_be_focused()
    page.locator(f"{ROWS} details[open]").evaluate("details => details.open = false")
    write(server.database, {"description": "second"})
    expect(page.locator(f"{ROWS} .sentence").first).to_have_text("New task: second")
    expect(page.locator("body > .pill")).to_have_count(0)


def test_rows_wait_while_a_row_has_the_keyboard_focus(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/swarm/events?source=gamma")
    switch_on(page)
    write(server.database, {"description": "one"}, source="gamma")
    rows = page.locator(f"{ROWS} summary")
    expect(rows).to_have_count(1)
    page.get_by_role("link", name="NDJSON").focus()
    page.keyboard.press("Tab")
    expect(rows).to_be_focused()
    write(server.database, {"description": "two"}, source="gamma")
    expect(page.locator("body > .pill")).to_have_text("↑ 1 new")
    expect(rows).to_have_count(1)
    page.locator("body > .pill").click()
    expect(rows).to_have_count(2)


def test_more_new_rows_than_a_page_replace_the_list(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/swarm/events")
    switch_on(page)
    write(server.database, *[{"description": f"flood {number}"} for number in range(80)])
    sentences = page.locator(f"{ROWS} .sentence")
    expect(sentences.first).to_have_text("New task: flood 79")
    shown = sentences.all_text_contents()
    assert shown == [f"New task: flood {number}" for number in range(79, 79 - len(shown), -1)]
    page.get_by_role("link", name="Older").click()
    expect(sentences.first).to_have_text(f"New task: flood {79 - len(shown)}")


# For a screen reader: the announced counts and their times, by the page's clock.
RECORD_ANNOUNCEMENTS = """() => {
    window.told = [];
    const place = document.getElementById("news");
    const note = () => told.push({count: parseInt(place.textContent), at: performance.now()});
    new MutationObserver(note).observe(place, {childList: true});
}"""


def test_all_new_rows_are_announced_at_intervals(server: Server, page: Page) -> None:
    page.clock.install()
    page.goto(f"{server.url}/swarm/events")
    with page.expect_response(re.compile("live=1")):
        switch_on(page)
    newest = page.locator(f"{ROWS} .sentence").first
    page.evaluate(RECORD_ANNOUNCEMENTS)
    write(server.database, {"description": "one"})
    expect(page.get_by_role("status")).to_have_text("1 new event")
    for number in range(2):
        write(server.database, {"description": f"then {number}"})
        expect(newest).to_have_text(f"New task: then {number}")
    write(server.database, *[{"description": f"many {number}"} for number in range(120)])
    expect(newest).to_have_text("New task: many 119")
    page.clock.fast_forward(10_000)
    wait_until(lambda: sum(page.evaluate("told.map(({count}) => count)")) == 123, "all rows are announced")
    moments = page.evaluate("told.map(({at}) => at)")
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) > 9_990


def test_a_signed_out_viewer_is_led_to_the_sign_in_and_back(server: Server, browser: Browser) -> None:
    with contextlib.closing(browser.new_context()) as own:
        own.add_cookies([{"name": server.cookie_name, "value": server.sign_in("viewer"), "url": server.url}])
        page, other = own.new_page(), own.new_page()
        page.goto(f"{server.url}/swarm/events?type=task.*")
        switch_on(page)
        link = page.get_by_role("link", name="Sign in")
        expect(link).to_be_hidden()
        other.goto(f"{server.url}/swarm/events")
        sign_out(other)
        expect(link).to_be_visible()
        expect(page.get_by_role("status")).to_have_text("Signed out")
        link.click()
        expect(page).to_have_url(re.compile(r"/login\?next=%2Fswarm%2Fevents%3Ftype%3Dtask\.\*%26live%3D1$"))


def test_the_log_and_an_event_are_printed_in_full(server: Server, page: Page) -> None:
    reason = "many words " * 18
    write(server.database, {"reason": reason, "lines": [*range(100)]}, event_type="task.failed", source="printer")
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 between its margins
    page.goto(f"{server.url}/swarm/events?source=printer")
    expect(page.locator(".sentence")).to_contain_text(reason.strip())
    assert page.locator(".sentence").evaluate("sentence => sentence.scrollHeight <= sentence.clientHeight")
    expect(page.locator(".pill-term")).to_contain_text("source:printer")
    for hidden in (page.get_by_label("Search"), page.get_by_role("navigation"), page.locator("button")):
        expect(hidden.filter(visible=True)).to_have_count(0)
    href = page.locator("dd a").first.get_attribute("href")
    page.goto(f"{server.url}{href}")
    assert page.locator("pre").evaluate("pre => pre.scrollHeight <= pre.clientHeight")
    expect(page.locator("body")).to_have_css("color", "rgb(27, 36, 48)")


def test_the_log_works_on_a_phone_and_without_javascript(
    server: Server, browser: Browser, context: BrowserContext
) -> None:
    options: dict[str, Any] = {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    for is_scripted in (True, False):
        with contextlib.closing(browser.new_context(**options, java_script_enabled=is_scripted)) as phone:
            phone.add_cookies(context.cookies())  # type: ignore[arg-type]
            page = phone.new_page()
            page.goto(f"{server.url}/swarm/events")
            page.get_by_label("Search").fill("timeout")
            page.get_by_role("button", name="Search").tap()
            expect(page.locator(ROWS)).to_have_count(1)
            expect(page.get_by_role("switch")).to_have_count(1 if is_scripted else 0)
            page.locator(f"{ROWS} summary").tap()
            assert small_targets(page) == []
            page.get_by_role("link", name="n4", exact=True).tap()
            expect(page.locator("pre")).to_contain_text("attempts")
            for path in ("events", "events/n4", "tasks/night-7", "agents/forge"):
                page.goto(f"{server.url}/swarm/{path}")
                if is_scripted:
                    accessible(page)
                    assert small_targets(page) == []
                    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize(("width", "text_size"), [(320, "100%"), (390, "200%")])
def test_the_tools_wrap_in_a_narrow_window(server: Server, page: Page, width: int, text_size: str) -> None:
    page.set_viewport_size({"width": width, "height": 640})
    page.goto(f"{server.url}/swarm/events")
    switch_on(page)
    page.evaluate("size => (document.documentElement.style.fontSize = size)", text_size)
    page.locator("#live-state").evaluate("state => (state.textContent = 'reconnecting')")
    page.locator(".fold > summary").click()
    box = page.locator(".export").bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("path", ["/login", "/password", "/swarm/live", "/swarm/events"])
def test_a_phone_does_not_zoom_into_a_field(
    server: Server, browser: Browser, context: BrowserContext, path: str
) -> None:
    with contextlib.closing(browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)) as phone:  # type: ignore[arg-type]
        if path != "/login":
            phone.add_cookies(context.cookies())  # type: ignore[arg-type]
        page = phone.new_page()
        page.goto(server.url + path)
        fields = page.locator("input:not([type=hidden], [type=checkbox])")
        expect(fields.filter(visible=True).first).to_be_visible()
        sizes = fields.evaluate_all("all => all.map(field => parseFloat(getComputedStyle(field).fontSize))")
        assert min(sizes) >= 16  # with less, iOS zooms


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
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("type:system.error")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    page.get_by_label("Search").fill("no-such")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("No events match these filters")).to_be_visible()
    for cursor in ("nonsense", "-" + "9" * 30, "9" * 30):
        page.goto(f"{shared.url}/swarm/events?cursor={cursor}")
        expect(rows).to_have_count(50)


def test_more_rows_load_in_place_and_a_return_shows_them_again(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(170))
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    page.goto(f"{shared.url}/swarm/events")
    rows, button = page.locator("#rows > .event"), page.get_by_role("button", name="Load more")
    places = page.locator(".place")
    expect(places).to_have_text(["1–50 of 170"] * 2)
    heights = rows.evaluate_all("all => all.map(row => row.offsetHeight)")
    page.route("**/swarm/events?cursor=*", lambda route: route.abort())
    button.click()
    again = page.get_by_role("button", name="Not loaded. Try again")
    expect(again).to_be_visible()
    page.unroute("**/swarm/events?cursor=*")
    again.click()
    expect(places).to_have_text(["1–100 of 170"] * 2)  # the end of the list is out of sight
    expect(page.locator(".day")).to_have_count(1)
    rows.last.scroll_into_view_if_needed()
    expect(places).to_have_text(["1–150 of 170"] * 2)  # without another click
    rows.last.scroll_into_view_if_needed()
    expect(places).to_have_text(["1–170 of 170"] * 2)
    expect(rows.last.locator(".sentence")).to_have_text("New task: task 0")
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    expect(page.locator(".more-rows")).to_be_hidden()

    rows.nth(120).scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    for leave_and_return in (lambda: (page.goto(f"{shared.url}/docs"), page.go_back()), page.reload):
        leave_and_return()
        expect(places).to_have_text(["1–170 of 170"] * 2)
        wait_until(lambda: page.evaluate("scrollY") == place, "the list is at its place")

    page.goto(f"{shared.url}/swarm/events")
    expect(button).to_be_visible()
    page.emulate_media(media="print")
    expect(button).to_be_hidden()
    page.emulate_media(media="screen")
    page.locator("header .menu > summary").click()
    page.get_by_role("button", name="Compact").click()
    compact = rows.evaluate_all("all => all.slice(0, 50).map(row => row.offsetHeight)")
    assert 24 <= max(compact) <= min(heights) - 6


def test_pages_stay_small_with_large_events(shared: Server, page: Page) -> None:
    write(shared.database, *[{"description": "d" * 20_000, "name": "n" * 20_000}] * 60)
    for path in ("/swarm/live", "/swarm/events"):
        answer = page.goto(shared.url + path)
        assert answer is not None
        assert len(answer.body()) < 120_000
