"""Updates of the board: rare, prompt, correct and without motion."""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from outfeed import clock
from tests.database_file import write_events
from tests.page import LivePage, begin_swarm, change, counted, write
from tests.server import Server
from tests.waits import shortest, wait_until

MAX_SECS_TO_SHOW = 1.5


@pytest.fixture
def http(shared: Server) -> Iterator[httpx.Client]:
    with shared.http() as client:
        yield client


class Requests:
    """The requests of *page* for the board, with monotonic times."""

    def __init__(self, page: Page) -> None:
        self.began: list[float] = []
        self.open = 0
        self.most_open = 0
        page.on("request", self._begin)
        page.on("requestfinished", self._end)
        page.on("requestfailed", self._end)

    def _begin(self, request: Request) -> None:
        if "/swarm/board" in request.url:
            self.began.append(time.monotonic())
            self.open += 1
            self.most_open = max(self.most_open, self.open)

    def _end(self, request: Request) -> None:
        self.open -= "/swarm/board" in request.url


def total(page: Page, kind: str = "system") -> Locator:
    return page.locator(f'.legend [data-kind="{kind}"] .count')


def set_visibility(page: Page, state: str) -> None:
    """Hide or show the page."""
    page.evaluate(
        "state => { Object.defineProperty(document, 'hidden', {value: state === 'hidden', configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        state,
    )


def board_of(page: Page) -> Any:
    """Store the page's elements in the page, for a later comparison."""
    return page.evaluate("window.elements = Array.from(document.querySelectorAll('.board *'))")


# --- requests ---------------------------------------------------------------------------------------------------------


def test_the_board_updates_once_a_second_up_to_the_last_event(shared: Server, page: Page) -> None:
    requests = Requests(page)
    LivePage(page, shared)
    count = counted(page, "system")
    for _ in itertools.takewhile(lambda _: len(requests.began) < 4, itertools.count()):
        write_events(shared.database, event_type="system.info", timestamp=clock.timestamp())
        count += 1
        page.evaluate("1")  # lets the page's events arrive
    expect(total(page)).to_have_text(f"{count:,}")
    gaps = [after - before for before, after in itertools.pairwise(requests.began)]
    assert min(gaps) > 0.9
    assert requests.most_open == 1
    head = shared.base + sqlite_count(shared.database)
    expect(page.locator(".chart")).to_have_attribute("data-seq", str(head))
    asked = len(requests.began)
    page.get_by_role("button", name="Pause").click()  # takes some time, in which no event comes
    assert len(requests.began) - asked <= 1


def sqlite_count(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return int(raw.execute("SELECT count(*) FROM outbox").fetchone()[0])


@pytest.mark.parametrize("others_per_second", [0, 50])
def test_an_event_is_on_the_board_within_a_second_and_a_half(
    shared: Server, http: httpx.Client, page: Page, others_per_second: int
) -> None:
    begin_swarm(shared.database)
    LivePage(page, shared)
    names = (f"Agent {number}" for number in itertools.count())

    def secs_to_show() -> float:
        if others_per_second:
            write(shared.database, *[{"message": "another"}] * others_per_second, event_type="system.info")
        name = next(names)
        agent = http.post("/api/swarm/agents", json={"name": name}).json()["id"]
        began = time.monotonic()
        page.wait_for_function(
            "name => document.querySelector('[data-panel=agents]')?.textContent.includes(name)", arg=name
        )
        secs = time.monotonic() - began
        http.delete(f"/api/swarm/agents/{agent}")
        return secs

    assert shortest(secs_to_show, MAX_SECS_TO_SHOW) < MAX_SECS_TO_SHOW


def test_a_board_that_lacks_events_of_the_feed_is_requested_again(
    shared: Server, http: httpx.Client, page: Page
) -> None:
    LivePage(page, shared)
    before, old = counted(page, "system"), http.get("/swarm/board")
    answers = [old]

    def answer(route: Route) -> None:
        if not answers:
            return route.continue_()
        old = answers.pop()
        return route.fulfill(status=200, headers=dict(old.headers) | {"Content-Encoding": "identity"}, body=old.text)

    page.route("**/swarm/board*", answer)
    write_events(shared.database, event_type="system.info", timestamp=clock.timestamp())
    expect(total(page)).to_have_text(str(before + 1))
    assert answers == []


def test_a_hidden_page_sends_no_request_and_one_when_it_is_shown(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    before = counted(page, "system")
    set_visibility(page, "hidden")
    requests = Requests(page)
    write_events(shared.database, 3, event_type="system.info", timestamp=clock.timestamp())
    wait_until(lambda: live.cursor() == 3, "the feed has the events")
    assert requests.began == []
    set_visibility(page, "visible")
    expect(total(page)).to_have_text(str(before + 3))
    assert len(requests.began) == 1


def test_the_board_updates_at_each_new_minute(shared: Server, page: Page) -> None:
    page.clock.install()
    LivePage(page, shared)
    requests = Requests(page)
    page.clock.fast_forward("01:00")
    page.clock.run_for(6_000)
    wait_until(lambda: page.evaluate("1") and requests.began, "the board sends a request")


def test_the_board_backs_off_until_the_feed_is_back(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    statuses = []

    def refuse(route: Route) -> None:
        statuses.append(clock.monotonic())
        route.fulfill(status=503, body="busy")

    page.route("**/swarm/board*", refuse)
    write_events(server.database, event_type="system.info", timestamp=clock.timestamp())
    wait_until(lambda: page.evaluate("1") and len(statuses) == 2, "the board has sent two requests")
    assert statuses[1] - statuses[0] > 0.9
    server.kill()
    live.expect_state("reconnecting")
    page.unroute("**/swarm/board*")
    write_events(server.database, event_type="system.info", timestamp=clock.timestamp())
    server.start()
    live.connect_now()
    live.expect_state("live")
    expect(total(page)).to_have_text("2")


# --- content ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def many_agents_and_auctions(shared: Server) -> Iterator[None]:
    """A thousand agents, just seen, and three hundred open auctions."""
    now, later = clock.timestamp(), "2099-01-01T00:00:00.000Z"
    with contextlib.closing(sqlite3.connect(shared.database)) as raw, raw:
        raw.executemany(
            "INSERT INTO outfeed_agent (id, name, state, joined_at, seen_at) VALUES (?, 'crowd', 'idle', ?, ?)",
            [(f"agent-{number:016x}", now, now) for number in range(1000)],
        )
        raw.executemany(
            "INSERT INTO outfeed_task (id, description, state, created_at, closes_at)"
            " VALUES (?, 'crowd', 'bidding', ?, ?)",
            [(f"task-{number:016x}", now, later) for number in range(300)],
        )
    # so that no earlier board is kept
    write_events(shared.database, event_type="system.info", timestamp=clock.timestamp())
    yield
    change(shared.database, "DELETE FROM outfeed_agent WHERE name = 'crowd'")
    change(shared.database, "DELETE FROM outfeed_task WHERE description = 'crowd'")


@pytest.mark.usefixtures("many_agents_and_auctions")
def test_the_totals_of_cut_lists_are_correct_after_an_update(shared: Server, http: httpx.Client, page: Page) -> None:
    LivePage(page, shared)
    agents, auctions = (page.locator(f"[data-panel={name}] h2 .count") for name in ("agents", "auctions"))
    expect(agents).to_have_text("1,000")
    expect(auctions).to_have_text("300")
    expect(page.locator("[data-panel=auctions] li")).to_have_count(50)
    agent = http.post("/api/swarm/agents", json={"name": "crowd"}).json()["id"]
    expect(agents).to_have_text("1,001")
    http.delete(f"/api/swarm/agents/{agent}")
    expect(agents).to_have_text("1,000")


def test_late_events_are_counted_at_their_own_time_while_the_page_is_open(shared: Server, page: Page) -> None:
    LivePage(page, shared)
    before = counted(page, "tool")
    with contextlib.closing(sqlite3.connect(shared.database)) as raw, raw:
        raw.execute(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3499)"
            " INSERT INTO event_log (id, event_type, source, timestamp) SELECT lower(hex(randomblob(8))),"
            " 'tool.called', 'late', strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || (10 + i % 40) || ' minutes') FROM n"
        )
    expect(total(page, "tool")).to_have_text(f"{before + 3500:,}")
    bars = page.locator('path[data-kind="tool"]').get_attribute("d") or ""
    assert len(re.findall("M", bars)) >= 40
    page.goto(f"{shared.url}/swarm/events?source=late")
    expect(page.locator("#counts strong")).to_have_text("3,500 events")


# --- stable parts -----------------------------------------------------------------------------------------------------


def test_an_update_touches_only_what_has_changed(server: Server, page: Page) -> None:
    with server.http() as http:
        agents = [http.post("/api/swarm/agents", json={"name": name}).json()["id"] for name in ("One", "Two", "Three")]
        LivePage(page, server)
        page.locator(".chart summary").click()
        panel = page.locator("[data-panel=agents]")
        links = panel.locator("li a")
        expect(links).to_have_count(3)
        links.nth(1).focus()
        page.evaluate("getSelection().selectAllChildren(document.querySelector('[data-panel=agents] li:last-child a'))")
        board_of(page)
        http.delete(f"/api/swarm/agents/{agents[0]}")
        expect(links).to_have_count(2)
        expect(links.first).to_be_focused()
        expect(page.locator(".chart details")).to_have_attribute("open", "")
        assert page.evaluate("getSelection().toString()") == "Three"
        row = "window.elements.filter(element => !element.isConnected)"
        assert page.evaluate(f"new Set({row}.map(element => element.closest('li')?.dataset.key)).size") == 1


def test_typed_text_and_pressed_chips_stay(shared: Server, page: Page) -> None:
    begin_swarm(shared.database)
    write_events(shared.database, event_type="tool.called", timestamp=clock.timestamp())
    write_events(shared.database, event_type="system.info", timestamp=clock.timestamp())
    LivePage(page, shared)
    field = page.get_by_placeholder("New task…")
    field.fill("half a thought")
    page.get_by_role("button", name="System", exact=True).click()
    expect(page.locator('path[data-kind="tool"]')).to_have_attribute("d", "")
    before = counted(page, "system")
    write_events(shared.database, event_type="system.info", timestamp=clock.timestamp())
    write_events(shared.database, event_type="tool.called", timestamp=clock.timestamp())
    expect(total(page)).to_have_text(str(before + 1))
    expect(page.locator('path[data-kind="tool"]')).to_have_attribute("d", "")
    expect(page.get_by_role("button", name="System", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(field).to_have_value("half a thought")


def test_an_error_of_the_form_disappears_with_its_cause(server: Server, page: Page) -> None:
    begin_swarm(server.database)
    live = LivePage(page, server)
    server.kill()
    live.expect_state("reconnecting")
    page.get_by_placeholder("New task…").fill("Too early")
    page.get_by_role("button", name="Post task").click()
    expect(page.get_by_role("alert")).to_contain_text("The server didn't respond")
    server.start()
    live.connect_now()
    live.expect_state("live")
    expect(page.locator(".post [role=alert]")).to_have_text("")
