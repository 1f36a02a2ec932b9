"""Displays in a browser, and changes that reach open pages."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests import looks
from tests.gateways import otlp_samples
from tests.page import LivePage, change, tasks, write
from tests.proxy import Proxy
from tests.server import Server

AT = "2026-01-15T10:30:00.000Z"

LOOKS = """async ([cases, own]) => {
    const { Sentences } = await import("/static/event-feed/sentences.js");
    return cases.map(({ event, display }) => {
        const sentences = new Sentences();
        sentences.own = own;
        sentences.displays = display ? { [event.event_type]: display } : {};
        const { kind, colour, icon, level, parts } = sentences.lookOf(event);
        return { text: parts.map(([text]) => text).join(""), parts, look: [kind, icon, level], colour };
    });
}"""


def test_the_browser_gives_every_event_of_the_table_of_cases_its_look(shared: Server, page: Page) -> None:
    page.goto(f"{shared.url}/docs")
    own = page.request.get(f"{shared.url}/static/event-types.json").json()
    cases = [{"event": looks.event_of(case), "display": looks.display_of(case)} for case in looks.CASES]
    found = page.evaluate(LOOKS, [cases, own])

    shown = [{name: one[name] for name in looks.expected(case)} for case, one in zip(looks.CASES, found, strict=True)]
    assert shown == [looks.expected(case) for case in looks.CASES]


@pytest.fixture(autouse=True)
def without_displays(shared: Server) -> None:
    change(shared.database, "DELETE FROM outfeed_type")


def set_display(server: Server, name: str, **options: str) -> None:
    done = server.run("type", "set", name, *(part for name, value in options.items() for part in (f"--{name}", value)))
    assert done.returncode == 0, done.stderr


def colour(part: Locator, of: str) -> str:
    return str(part.evaluate(f"part => getComputedStyle(part).getPropertyValue('{of}')"))


def test_a_tool_call_of_a_coding_agent_reads_as_a_sentence_on_an_open_page(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    run, failed = otlp_samples.CLAUDE_CALLS
    later = failed | {"timeUnixNano": str(int(otlp_samples.TIME) + 2_000_000_000)}  # events of one second are one row
    sent = httpx.post(
        f"{shared.url}/v1/logs",
        json=otlp_samples.request(run, later, resource=otlp_samples.CLAUDE),
        headers={"Authorization": f"Bearer {shared.token}"},
        trust_env=False,
    )
    assert (sent.status_code, sent.json()) == (200, {})
    expect(live.rows.filter(has_text="Bash: git status --short")).to_have_attribute("data-level", "info")
    expect(live.rows.filter(has_text="Read failed: /src/shop.py")).to_have_attribute("data-level", "warning")


# --- displays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["live", "polling"])
def test_a_display_that_is_set_reaches_an_open_page(shared: Server, proxy: Proxy, page: Page, way: str) -> None:
    write(shared.database, {"amount": 5}, event_type="shop.paid")
    live = LivePage(page, shared, proxy.url)
    row = live.rows.first
    expect(row.locator(".sentence")).to_have_text("shop.paid amount=5")
    if way == "polling":
        proxy.block()
        live.expect_state("polling")
    set_display(shared, "shop.paid", icon="⚡", label="Paid {amount} by {source}", level="warning")

    expect(row.locator(".sentence")).to_have_text("Paid 5 by coordinator")
    expect(row.locator(".icon")).to_have_text("⚡")
    expect(row).to_have_attribute("data-level", "warning")
    expect(row.locator(".source")).to_have_count(0)  # the sentence names it
    shared.run("type", "remove", "shop.paid")
    expect(row.locator(".sentence")).to_have_text("shop.paid amount=5")


def test_a_display_is_on_every_page_of_the_server(shared: Server, page: Page) -> None:
    set_display(shared, "shop.paid", icon="⚡", label="Paid <b>{amount}</b>", level="error")
    write(shared.database, {"amount": 5}, event_type="shop.paid")
    for path in ("swarm/live", "swarm/events", "swarm/tasks/task-1"):
        page.goto(f"{shared.url}/{path}")
        row = page.locator(".event").first
        expect(row.locator(".sentence")).to_have_text("Paid <b>5</b>")
        expect(row).to_have_attribute("data-level", "error")
    row.locator("summary").click()
    row.get_by_role("link").first.click()
    expect(page.locator("h1")).to_have_text("⚡ Paid <b>5</b>")


def test_the_live_log_shows_a_display_that_is_set_and_leaves_an_open_row(shared: Server, page: Page) -> None:
    for amount in (1, 2):
        write(shared.database, {"amount": amount}, event_type="shop.paid")
    page.goto(f"{shared.url}/swarm/events?live=1")
    sentences = page.locator("#rows > .event .sentence")
    expect(sentences).to_have_text(["shop.paid amount=2", "shop.paid amount=1"])
    expect(page.locator("event-feed")).to_have_js_property("state", "live")
    page.locator("#rows > .event summary").nth(1).click()
    set_display(shared, "shop.paid", label="Paid {amount}")

    expect(sentences).to_have_text(["Paid 2", "shop.paid amount=1"])


def test_a_page_on_another_site_has_displays_by_a_ticket(shared: Server, page: Page) -> None:
    set_display(shared, "shop.paid", label="Paid {amount}")
    with shared.http() as http:
        ticket = http.post("/api/tickets").json()["ticket"]
    answer = page.request.get(
        f"{shared.url}/api/types?ticket={ticket}", headers={"Origin": "https://elsewhere.example"}
    )
    assert (answer.status, answer.json()["displays"]["shop.paid"]["label"]) == (200, "Paid {amount}")
    page.goto(f"{shared.url}/docs")
    again = page.request.get(f"{shared.url}/api/types", headers={"Origin": "https://elsewhere.example"})
    assert again.status == 401


# --- levels, kinds and colours ----------------------------------------------------------------------------------------


def test_warnings_and_errors_are_coloured_alike_in_the_list_and_in_the_log(shared: Server, page: Page) -> None:
    for level in ("info", "warning", "error"):
        write(shared.database, {"message": "m", "level": level}, event_type="shop.told")
    live = LivePage(page, shared)
    live.expect_rows(3)
    in_list = [[colour(row, name) for name in ("background-color", "border-left-color")] for row in live.rows.all()]
    page.goto(f"{shared.url}/swarm/events")
    rows = page.locator("#rows > .event").all()
    assert [[colour(row, name) for name in ("background-color", "border-left-color")] for row in rows] == in_list
    assert len({tuple(each) for each in in_list}) == 3


def test_filter_and_legend_have_the_kinds_that_occur_in_their_colours(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    for event_type in ("shop.sold", "bank_account.opened", "task.created", "Odd one"):
        write(shared.database, {}, event_type=event_type, timestamp="now" if event_type == "Odd one" else None)
    live.expect_rows(4)
    chips = page.locator("event-feed .chips button")
    expect(chips).to_have_text(["Task", "Shop", "Bank account", "Other"])
    chips.nth(1).click()
    expect(page.locator("event-feed .rows > .event:visible")).to_have_count(1)
    shop = live.rows.filter(has_text="shop.sold")
    assert colour(shop, "border-left-color") == colour(chips.nth(1), "border-left-color")
    shared.log_event("shop.sold", "coordinator")  # the chart has the last hour, and the other events are older
    labels = page.locator(".legend li")
    expect(labels).to_have_text(["shop 1"])
    assert labels.get_attribute("data-colour") == shop.first.get_attribute("data-colour")


# --- groups -----------------------------------------------------------------------------------------------------------


def test_rows_of_one_statement_are_one_row_that_opens(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    write(shared.database, *tasks(4), timestamp=AT, task_id=None)
    live.expect_rows(4)
    write(shared.database, *tasks(3, "more"), timestamp=AT, task_id=None)
    live.expect_rows(1)
    group = live.rows.first
    expect(group.locator(".sentence").first).to_have_text("7 events New task: more 2")
    inner = group.locator("ol > .event")
    expect(inner.first).to_be_hidden()

    group.locator("summary").first.click()
    expect(inner).to_have_count(7)
    expect(inner.first).to_be_visible()
    inner.first.locator("summary").click()
    expect(inner.first.locator("pre")).to_contain_text("more 2")
    page.keyboard.press("Home")
    expect(inner.first).to_be_hidden()


def test_a_group_counts_what_the_filter_lets_through(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(5), {"description": "needle"}, timestamp=AT, task_id=None)
    live = LivePage(page, shared)
    live.expect_rows(1)
    field = page.get_by_placeholder("Filter…")
    field.fill("needle")
    expect(live.rows.first.locator(".sentence").first).to_have_text("1 event New task: needle")
    field.fill("nothing has this")
    expect(live.rows.first).to_be_hidden()


def test_the_keyboard_goes_through_an_open_group_and_past_a_closed_one(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(1, "older"))
    write(shared.database, *tasks(5), timestamp=AT, task_id=None)
    live = LivePage(page, shared)
    live.expect_rows(2)
    live.scroller.focus()
    focused = page.locator("event-feed summary:focus .sentence")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_text("5 events New task: task 4")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_text("New task: older 0")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_text("New task: task 4")
    page.keyboard.press("Escape")
    expect(focused).to_have_text("5 events New task: task 4")


def test_a_list_of_groups_holds_no_more_events_than_a_list_of_rows(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    write(shared.database, *tasks(400, "first"), timestamp=AT, task_id=None)
    write(shared.database, *tasks(300, "second"), timestamp="2026-01-15T10:30:01.000Z", task_id=None)
    expect(live.rows.nth(1).locator(".many")).to_have_text("200 events")
    expect(live.rows.nth(0).locator(".many")).to_have_text("300 events")


def test_the_log_and_stories_fold_them_without_a_script(shared: Server, page: Page, browser: Browser) -> None:
    write(shared.database, *tasks(6), timestamp=AT)
    write(shared.database, *tasks(4, "few"), timestamp="2026-01-15T10:30:02.000Z")
    with contextlib.closing(
        browser.new_context(java_script_enabled=False, storage_state=page.context.storage_state())
    ) as plain:
        other = plain.new_page()
        # The steps of a task's story stay apart, except if one statement wrote five or more.
        for path, first, rows in (("events", "task 5", 2), ("tasks/task-1", "task 0", 5), ("live", "task 5", 2)):
            other.goto(f"{shared.url}/swarm/{path}")
            expect(other.locator(".events > .event")).to_have_count(rows)
            group = other.locator(".event.group").filter(has_text="task 3")
            expect(group.locator(".sentence").first).to_have_text(f"6 events New task: {first}")
            group.locator("summary").first.click()
            expect(group.locator("ol > .event").last).to_be_visible()


def test_the_live_log_puts_new_rows_above_a_group_that_its_page_cuts(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(60), timestamp=AT, task_id=None)
    page.goto(f"{shared.url}/swarm/events?live=1")
    rows = page.locator("#rows > .event")
    expect(rows).to_have_count(1)
    expect(page.locator("event-feed")).to_have_js_property("state", "live")
    write(shared.database, *tasks(1, "new"))
    expect(rows).to_have_count(2)
    expect(rows.first.locator(".sentence")).to_have_text("New task: new 0")
    expect(page.locator("#news")).to_have_text("1 new event")
