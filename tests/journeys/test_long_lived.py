"""A long-lived dashboard: odd events, wrong clocks, late answers."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from outfeed import clock
from tests.page import LivePage, begin_swarm, change, counted, tasks, write
from tests.server import Server
from tests.waits import wait_until


@pytest.fixture
def http(shared: Server) -> Any:
    with shared.http() as client:
        yield client


def call(http: httpx.Client, method: str, path: str, **body: Any) -> Any:
    answer = http.request(method, f"/api/swarm{path}", json=body or None)
    assert answer.is_success, answer.text
    return answer.json()


def row(page: Page, panel: str, text: str) -> Locator:
    return page.locator(f'[data-panel="{panel}"] li').filter(has_text=text)


def total(page: Page, kind: str = "tool") -> Locator:
    """Return the chart's count of a kind of events."""
    return page.locator(f'.legend [data-kind="{kind}"] .count')


def log(server: Server, event_type: str = "tool.called", timestamp: str = "", **names: str) -> None:
    columns = {"event_type": event_type, "source": "tests", "timestamp": timestamp or clock.timestamp(), **names}
    values = ", ".join(f"'{value}'" for value in columns.values())
    change(
        server.database,
        f"INSERT INTO event_log (id, {', '.join(columns)}) VALUES (lower(hex(randomblob(8))), {values})",
    )


@contextlib.contextmanager
def held(page: Page, path: str) -> Any:
    """Delay answers to *path* until the block ends."""
    routes: list[Route] = []

    def hold(route: Route) -> None:
        routes.append(route)

    page.route(path, hold)
    yield routes
    for route in routes:
        route.continue_()
    page.unroute(path)


# --- odd events -------------------------------------------------------------------------------------------------------


def test_forged_coordinator_events_stop_no_panel(shared: Server, http: httpx.Client, page: Page) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    task = call(http, "POST", "/tasks", description="Real")["id"]
    live = LivePage(page, shared)
    ours = {"source": "coordinator"}
    for event_type in ("task.bidding", "agent.joined", "task.failed", "bid.submitted", "task.assigned"):
        log(shared, event_type, **ours)
        log(shared, event_type, **ours, task_id=f"task-{1:016x}", agent_id=f"agent-{1:016x}", data='{"reason": 5}')
    log(shared, "task.assigned", "2026-99-99T00:00:00.000Z", **ours, task_id=task, data='{"bid_sats": "x"}')
    log(shared, "bid.submitted", **ours, task_id=task, data='{"bid_sats": "x"}')
    wait_until(lambda: live.cursor() >= 14, "all events are shown")
    agent = call(http, "POST", "/agents", name="Real")["id"]
    expect(row(page, "agents", "Real")).to_be_visible()
    expect(row(page, "auctions", "Real")).to_contain_text("no bids yet")
    assert errors == []
    call(http, "DELETE", f"/agents/{agent}")
    change(shared.database, f"UPDATE outfeed_task SET closes_at = created_at WHERE id = '{task}'")
    expect(row(page, "ended", "Real").first).to_contain_text("no bids")


def test_the_chart_counts_the_same_as_the_server(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    before = {kind: counted(page, kind) for kind in ("tool", "auction")}
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%f+00:00"):
        log(shared, timestamp=clock.now().strftime(form))
    log(shared, "auction.opened")
    log(shared, timestamp="yesterday")
    live.expect_rows(4)
    expect(total(page)).to_have_text(str(before["tool"] + 2))
    expect(total(page, "auction")).to_have_text(str(before["auction"] + 1))
    counts = page.locator(".legend .count").all_inner_texts()
    page.reload()
    assert page.locator(".legend .count").all_inner_texts() == counts


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_a_wrong_viewer_clock_does_not_change_the_chart(shared: Server, page: Page) -> None:
    page.add_init_script("const now = Date.now; Date.now = () => now() + 3 * 3600_000")
    LivePage(page, shared)
    before = counted(page, "tool")
    log(shared)
    expect(total(page)).to_have_text(str(before + 1))


def test_setting_the_viewer_clock_moves_no_deadline(shared: Server, http: httpx.Client, page: Page) -> None:
    call(http, "POST", "/tasks", description="Open for two minutes")
    LivePage(page, shared)
    left = row(page, "auctions", "Open for two minutes").locator(".left")
    page.evaluate("window.real = Date.now; Date.now = () => real() + 86400e3")
    before = left.inner_text()
    expect(left).not_to_have_text(before)
    expect(left).to_have_text(re.compile(r"^1\d\d s$"))
    change(shared.database, "UPDATE outfeed_task SET closes_at = created_at WHERE state = 'bidding'")


def test_a_page_left_open_overnight_shows_dates(shared: Server, http: httpx.Client, page: Page) -> None:
    call(http, "POST", "/tasks", description="Of yesterday")
    change(shared.database, "UPDATE outfeed_task SET closes_at = created_at WHERE state = 'bidding'")
    page.clock.install()
    LivePage(page, shared)
    page.clock.run_for(2000)
    ended = row(page, "ended", "Of yesterday").first.locator("time")
    expect(ended).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    page.clock.fast_forward("24:00:00")
    page.clock.run_for(2000)
    expect(ended).to_have_text(re.compile(r"^\d\d? \w{3} \d\d:\d\d:\d\d$"))


def test_a_board_that_is_not_live_keeps_its_time(server: Server, page: Page) -> None:
    page.clock.install()
    live = LivePage(page, server)
    server.kill()
    live.expect_state("reconnecting")
    note = page.locator("#stale")
    expect(note).to_have_text(re.compile(r"^Not live: as of \d\d:\d\d:\d\d$"))
    before = note.inner_text()
    page.clock.run_for(10_000)
    live.expect_state("reconnecting")
    assert note.inner_text() == before
    expect(page.locator(".board")).to_have_class(re.compile("is-stale"))


def test_a_time_of_a_year_ago_has_its_date(shared: Server, page: Page) -> None:
    today = clock.now().replace(hour=12)
    year_ago = datetime(today.year - 1, today.month, min(today.day, 28), 12, tzinfo=today.tzinfo)
    assert today - year_ago > timedelta(days=300)
    page.clock.install(time=datetime(today.year, today.month, min(today.day, 28), 12, 30, tzinfo=today.tzinfo))
    log(shared, timestamp=clock.isoformat(year_ago))
    live = LivePage(page, shared)
    expect(live.rows.first.locator("time")).to_have_text(re.compile(r"^\d\d? \w{3} "))


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_board_requested_before_a_reset_does_not_hide_later_events(server: Server, page: Page) -> None:
    write(server.database, *tasks(50))
    page.route("**/swarm/board*", lambda route: route.fulfill(status=503, body="{}"))
    live = LivePage(page, server)
    write(server.database, *tasks(1))
    wait_until(lambda: live.cursor() == 51, "a request for the board is pending")
    server.kill()
    live.expect_state("reconnecting")
    for table in ("outbox", "event_log"):
        change(server.database, f"DELETE FROM {table}")
    change(server.database, "UPDATE sqlite_sequence SET seq = 5 WHERE name = 'outbox'")
    change(server.database, "UPDATE outfeed_meta SET value = lower(hex(randomblob(16))) WHERE key = 'epoch'")
    server.start()
    live.connect_now()
    live.expect_state("live")
    with page.expect_response(lambda answer: "/swarm/board" in answer.url and answer.ok):
        page.unroute("**/swarm/board*")
    with server.http() as http:
        call(http, "POST", "/agents", name="Of another history")
    expect(row(page, "agents", "Of another history")).to_be_visible()
    expect(total(page, "agent")).to_have_text("1")


def test_the_board_is_requested_again_after_a_refusal(shared: Server, http: httpx.Client, page: Page) -> None:
    refusals = [503, 401]

    def refuse_twice(route: Route) -> None:
        route.fulfill(status=refusals.pop(), body="{}") if refusals else route.continue_()

    LivePage(page, shared)
    page.route("**/swarm/board*", refuse_twice)
    agent = call(http, "POST", "/agents", name="Unseen while signed out")["id"]
    expect(row(page, "agents", "Unseen while signed out")).to_be_visible()
    assert refusals == []
    call(http, "DELETE", f"/agents/{agent}")


def test_text_typed_during_a_post_stays(shared: Server, page: Page) -> None:
    begin_swarm(shared.database)
    LivePage(page, shared)
    field = page.get_by_placeholder("New task…")
    field.fill("the first")
    with page.expect_response("**/api/swarm/tasks"), held(page, "**/api/swarm/tasks") as routes:
        field.press("Enter")
        wait_until(lambda: page.evaluate("1") and routes, "the post is pending")
        field.fill("the second")
    expect(page.locator("form[aria-busy=false]")).to_have_count(1)
    expect(field).to_have_value("the second")
    change(shared.database, "UPDATE outfeed_task SET closes_at = created_at WHERE state = 'bidding'")


def test_events_before_the_boards_script_are_on_the_board(shared: Server, http: httpx.Client, page: Page) -> None:
    with held(page, "**/live.js"):
        page.goto(f"{shared.url}/swarm/live", wait_until="commit")
        expect(page.locator("event-feed .bar")).to_have_attribute("data-state", "live")
        agent = call(http, "POST", "/agents", name="Early")["id"]
        expect(page.locator("event-feed .rows > .event").first).to_contain_text("Early")
        expect(row(page, "agents", "Early")).to_have_count(0)
    expect(row(page, "agents", "Early")).to_be_visible()
    call(http, "DELETE", f"/agents/{agent}")


def test_events_not_yet_shown_at_the_boards_script_are_on_the_board(
    shared: Server, http: httpx.Client, page: Page
) -> None:
    with held(page, "**/event-types.json"):  # without it the feed shows no row
        with held(page, "**/live.js"):
            page.goto(f"{shared.url}/swarm/live", wait_until="commit")
            expect(page.locator("event-feed .bar")).to_have_attribute("data-state", "live")
            agent = call(http, "POST", "/agents", name="Early")["id"]
            wait_until(lambda: page.evaluate("document.querySelector('event-feed').waiting") >= 1, "received")
        page.wait_for_load_state("domcontentloaded")  # all scripts have run
    expect(row(page, "agents", "Early")).to_be_visible()
    call(http, "DELETE", f"/agents/{agent}")


# --- the keyboard -----------------------------------------------------------------------------------------------------


def test_a_task_that_moves_keeps_the_focus(shared: Server, http: httpx.Client, page: Page) -> None:
    agent = call(http, "POST", "/agents", name="Forge")["id"]
    for name in ("one", "two"):
        task = call(http, "POST", "/tasks", description=name)["id"]
        call(http, "POST", f"/tasks/{task}/bids", agent_id=agent, bid_sats=1)
    change(shared.database, "UPDATE outfeed_task SET closes_at = created_at WHERE state = 'bidding'")
    LivePage(page, shared)
    links = page.locator("[data-panel=work] li a")
    expect(links).to_have_count(2)
    name = links.nth(1).inner_text()
    links.nth(1).focus()
    task = str(links.nth(1).get_attribute("href")).rpartition("/")[2]
    call(http, "POST", f"/tasks/{task}/start", agent_id=agent)
    expect(links.first).to_have_text(name)
    expect(links.first).to_be_focused()
    call(http, "DELETE", f"/agents/{agent}")


def test_the_status_page_keeps_the_focus_across_updates(shared: Server, page: Page, context: BrowserContext) -> None:
    wait_until(lambda: not any(shared.counted("outfeed_clients").values()), "the clients of other tests have left")
    page.clock.install()
    page.goto(f"{shared.url}/status")
    shown = page.locator("#clients .table")
    before = str(shown.text_content())
    shown.focus()
    LivePage(context.new_page(), shared)
    page.clock.run_for(5000)
    expect(shown).not_to_have_text(before)
    expect(shown).to_be_focused()
