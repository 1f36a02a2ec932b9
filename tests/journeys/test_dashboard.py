"""The swarm in a real browser, across restarts and gaps of the feed."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from outfeed.store import database as db
from outfeed.store.event_log import log_event
from outfeed.swarm.coordinator import Coordinator
from tests.accessible import problems
from tests.page import DESKTOP, PHONE, LivePage, begin_swarm, change, counted, sign_out, write
from tests.server import Server
from tests.waits import wait_until

TABLET = {"width": 768, "height": 1024}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which no auction ends by itself within a test."""
    with Server(tmp_path_factory.mktemp("dashboard"), auction_secs=60, agent_timeout_secs=3600) as running:
        begin_swarm(running.database)
        yield running


@pytest.fixture
def swarm(server: Server) -> Iterator[Swarm]:
    """The swarm over HTTP, without agents and open auctions at the start."""
    with server.http() as http:
        found = Swarm(http)
        end_auctions(server)
        wait_until(lambda: not found.call("GET", "/tasks?state=bidding")["tasks"], "no auction is open")
        for agent in (
            found.call("GET", "/agents?state=idle")["agents"] + found.call("GET", "/agents?state=busy")["agents"]
        ):
            found.call("DELETE", f"/agents/{agent['id']}")
        yield found


def end_auctions(server: Server) -> None:
    """End all auctions. The server closes them at its next sweep."""
    change(server.database, "UPDATE outfeed_task SET closes_at = created_at WHERE state = 'bidding'")


class Swarm:
    """Calls the coordinator as an agent does."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def call(self, method: str, path: str, **body: Any) -> Any:
        answer = self._http.request(method, f"/api/swarm{path}", json=body or None)
        assert answer.is_success, answer.text
        return answer.json()

    def join(self, name: str) -> str:
        return str(self.call("POST", "/agents", name=name)["id"])

    def post(self, description: str) -> str:
        return str(self.call("POST", "/tasks", description=description)["id"])

    def task_id(self, description: str) -> str:
        found = [each["id"] for each in self.call("GET", "/tasks")["tasks"] if each["description"] == description]
        return str(found[0])


class Dashboard(LivePage):
    """The panels of the live page, as a viewer reads them."""

    def __init__(self, page: Page, server: Server, **more: Any) -> None:
        self._database = server.database
        super().__init__(page, server, **more)

    def row(self, panel: str, text: str) -> Locator:
        return self.page.locator(f'[data-panel="{panel}"] li').filter(has_text=text)

    def about(self, panel: str, text: str) -> Locator:
        return self.row(panel, text).locator(".about")

    def count(self, state: str) -> int:
        return int(self.page.locator(f'.counts [data-state="{state}"] a').inner_text())

    def expect_count(self, state: str, count: int) -> None:
        expect(self.page.locator(f'.counts [data-state="{state}"] a')).to_have_text(str(count))

    def bars(self) -> dict[str, str]:
        found = self.page.locator("svg path[data-kind]").evaluate_all(
            "paths => paths.map(path => [path.dataset.kind, path.getAttribute('d')])"
        )
        return dict(found)

    def wait_for_the_newest(self) -> None:
        """Return when the list has all events of the server.

        Neither the state "live" nor an earlier cursor shows that.
        """
        with contextlib.closing(sqlite3.connect(self._database)) as raw:
            (head,) = raw.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        wait_until(lambda: self.cursor() == head, f"{head} is shown")


def rows_of(page: Page) -> Any:
    """Return the texts of all panels, without those that change with time."""
    return page.locator("[data-panel]").evaluate_all(
        """panels => panels.map(panel => [
            panel.dataset.panel,
            ...Array.from(panel.querySelectorAll("li, .none:not([hidden])"), row => row.textContent
                .replace(/\\s+/g, " ").replace(/\\d+ s( ago)?|closing|\\d\\d:\\d\\d:\\d\\d/g, "").trim()),
        ])"""
    )


# --- stories ----------------------------------------------------------------------------------------------------------


def test_a_task_is_posted_in_one_window_and_watched_to_its_end_in_others(
    server: Server, swarm: Swarm, context: BrowserContext, page: Page
) -> None:
    sizes = (PHONE, TABLET, DESKTOP)
    watched = [Dashboard(resized(context.new_page(), size), server) for size in sizes]
    poster = Dashboard(resized(page, PHONE), server)
    done, bidding = poster.count("completed"), poster.count("bidding")
    expect(watched[0].page.get_by_text("No agents connected")).to_be_visible()
    agent = swarm.join("Forge")
    for each in watched:
        expect(each.row("agents", "Forge")).to_contain_text("idle")

    page.get_by_placeholder("New task…").fill("Write the docs")
    page.get_by_role("button", name="Post task").click()

    expect(watched[0].row("auctions", "Write the docs")).to_contain_text("no bids yet")
    task = swarm.task_id("Write the docs")
    swarm.call("POST", f"/tasks/{task}/bids", agent_id=agent, bid_sats=1500)
    for each in watched:
        expect(each.row("auctions", "Write the docs")).to_contain_text("1 bid, lowest 1,500 sats")
    expect(watched[2].row("auctions", "Write the docs").locator(".left")).to_have_text(re.compile(r"^\d\d s$"))
    expect(page.get_by_placeholder("New task…")).to_have_value("")
    end_auctions(server)
    for each in watched:
        expect(each.about("work", "Write the docs")).to_have_text("assigned · Forge · 1,500 sats")
        expect(each.row("auctions", "Write the docs")).to_have_count(0)
        expect(each.row("agents", "Forge")).to_contain_text("busy")
        expect(each.about("agents", "Forge")).to_have_text("Write the docs")
        each.expect_count("bidding", bidding)
    story = watched[2].row("work", "Write the docs").get_by_role("link")
    expect(story).to_have_attribute("href", f"/swarm/tasks/{task}")
    expect(watched[2].row("agents", "Forge").get_by_role("link")).to_have_attribute("href", f"/swarm/agents/{agent}")
    swarm.call("POST", f"/tasks/{task}/start", agent_id=agent)
    for each in watched:
        expect(each.about("work", "Write the docs")).to_have_text("started · Forge · 1,500 sats")
    swarm.call("POST", f"/tasks/{task}/complete", agent_id=agent, result={"pages": 12})
    for each, size in zip(watched, sizes, strict=True):
        expect(each.about("ended", "Write the docs")).to_have_text('completed · Forge · {"pages":12}')
        each.expect_count("completed", done + 1)
        assert each.page.evaluate("document.documentElement.scrollWidth") == size["width"]
    swarm.call("DELETE", f"/agents/{agent}")
    for each in watched:
        expect(each.page.get_by_text("No agents connected")).to_be_visible()

    moved = rows_of(watched[2].page)
    watched[2].page.route("**/live.js", lambda route: route.abort())
    watched[2].page.reload()
    assert rows_of(watched[2].page) == moved


def resized(page: Page, size: dict[str, int]) -> Page:
    page.set_viewport_size(size)  # type: ignore[arg-type]
    return page


def test_an_open_page_catches_up_by_the_feed_after_a_kill(server: Server, swarm: Swarm, page: Page) -> None:
    dashboard = Dashboard(page, server)
    server.kill()
    dashboard.expect_state("reconnecting")
    expect(page.locator("#stale")).to_contain_text("Not live")
    coordinator = Coordinator(db.at(server.database), auction_secs=0.01, agent_timeout_secs=120)
    agent, task = coordinator.join("Nightshift"), coordinator.post("Came while it was down")
    db.at(server.database).close()
    server.start()
    dashboard.connect_now()
    dashboard.expect_state("live")
    expect(dashboard.row("agents", "Nightshift")).to_contain_text("idle")
    expect(dashboard.about("ended", task.description)).to_have_text("failed · no bids")
    expect(page.locator("#stale")).to_have_text("")
    swarm.call("DELETE", f"/agents/{agent.id}")


@pytest.mark.parametrize("verdict", ["gap", "reset"])
def test_the_board_is_up_to_date_after_missing_events(server: Server, swarm: Swarm, page: Page, verdict: str) -> None:
    dashboard = Dashboard(page, server)
    failed = dashboard.count("failed")
    server.kill()
    dashboard.expect_state("reconnecting")
    coordinator = Coordinator(db.at(server.database), auction_secs=0.01, agent_timeout_secs=120)
    agent, task = coordinator.join(f"Unseen in a {verdict}"), coordinator.post(f"Unseen in a {verdict}")
    while not coordinator.close_auction(task.id):
        pass
    db.at(server.database).close()
    if verdict == "gap":
        change(server.database, "DELETE FROM outbox")
    else:
        change(server.database, "UPDATE outfeed_meta SET value = lower(hex(randomblob(16))) WHERE key = 'epoch'")
    server.start()
    dashboard.connect_now()
    dashboard.expect_state("live")
    expect(dashboard.row("agents", agent.name)).to_be_visible()
    expect(dashboard.about("ended", task.description)).to_have_text("failed · no bids")
    dashboard.expect_count("failed", failed + 1)
    swarm.call("DELETE", f"/agents/{agent.id}")
    expect(dashboard.row("agents", agent.name)).to_have_count(0)


def test_panels_update_while_the_list_is_paused(server: Server, swarm: Swarm, page: Page) -> None:
    dashboard = Dashboard(page, server)
    page.get_by_role("button", name="Pause").click()
    agent = swarm.join("Forge")
    expect(dashboard.row("agents", "Forge")).to_be_visible()
    dashboard.expect_state("paused")
    swarm.call("DELETE", f"/agents/{agent}")
    expect(dashboard.row("agents", "Forge")).to_have_count(0)


def test_panels_that_stop_because_too_many_events_wait_show_it(server: Server, swarm: Swarm, page: Page) -> None:
    asked_at = [time.monotonic()]
    page.on("request", lambda request: asked_at.append(time.monotonic()) if "/swarm/board" in request.url else None)
    dashboard = Dashboard(page, server)
    page.get_by_role("button", name="Pause").click()
    write(server.database, *[{"message": f"n {n}"} for n in range(1500)], event_type="system.info")
    expect(page.locator("#stale")).to_contain_text("Not live")
    # An earlier request may still be answered with the new events.
    wait_until(
        lambda: page.evaluate("true") and time.monotonic() - asked_at[-1] > 2, "the board sends no more requests"
    )
    agent = swarm.join("Latecomer")
    expect(dashboard.row("agents", "Latecomer")).to_have_count(0)
    page.get_by_role("button", name="Resume").click()
    expect(dashboard.row("agents", "Latecomer")).to_be_visible()
    expect(page.locator("#stale")).to_have_text("")
    swarm.call("DELETE", f"/agents/{agent}")
    expect(dashboard.row("agents", "Latecomer")).to_have_count(0)


def test_a_right_to_left_name_does_not_move_its_neighbours(server: Server, swarm: Swarm, page: Page) -> None:
    name = "סוכן 7"
    agent, task = swarm.join(name), swarm.post("For whoever reads from the right")
    dashboard = Dashboard(page, server)
    swarm.call("POST", f"/tasks/{task}/bids", agent_id=agent, bid_sats=1500)
    end_auctions(server)
    about = dashboard.about("work", "from the right")
    expect(about).to_have_text(f"assigned · \u2068{name}\u2069 · 1,500 sats")
    page.route("**/live.js", lambda route: route.abort())
    page.reload()
    expect(about).to_have_text(f"assigned · \u2068{name}\u2069 · 1,500 sats")


def test_auctions_end_by_the_servers_clock(server: Server, swarm: Swarm, page: Page) -> None:
    page.add_init_script("const now = Date.now; Date.now = () => now() - 3600_000")
    dashboard = Dashboard(page, server)
    swarm.post("Ends soon for a clock that is slow")
    auction = dashboard.row("auctions", "Ends soon")
    expect(auction.locator(".left")).to_have_text(re.compile(r"^\d\d s$"))
    end_auctions(server)
    expect(dashboard.about("ended", "Ends soon")).to_have_text("failed · no bids")


def test_events_of_other_writers_change_no_panel(server: Server, swarm: Swarm, page: Page) -> None:
    dashboard = Dashboard(page, server)
    counts = page.locator(".counts").inner_text()
    write(server.database, {"description": "posed"}, event_type="task.bidding")
    write(server.database, {"name": "posed"}, event_type="agent.joined")
    posed = {
        "event_type": "agent.joined",
        "source": "somebody",
        "agent_id": f"agent-{0:016x}",
        "data": {"name": "posed"},
    }
    with server.http() as http:
        assert http.post("/api/events", json=posed).status_code == 201
    swarm.join("Real")
    expect(dashboard.row("agents", "Real")).to_be_visible()
    assert page.locator(".counts").inner_text() == counts
    expect(page.locator(".side").get_by_text("posed")).to_have_count(0)


def test_a_rejected_task_is_reported_in_the_form(server: Server, page: Page) -> None:
    Dashboard(page, server)
    field = page.get_by_placeholder("New task…")
    field.fill("   ")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("description: must have 1 to 2,000 characters")
    expect(field).to_be_focused()


# --- the chart --------------------------------------------------------------------------------------------------------


def log_now(server: Server, *types: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        from outfeed import config

        patch.setenv("OUTFEED_DATABASE", str(server.database))
        config.settings.cache_clear()
        for event_type in types:
            log_event(event_type, "tests")
    config.settings.cache_clear()
    db.at(server.database).close()


def test_the_updated_chart_equals_the_servers_chart(
    server: Server, page: Page, context: BrowserContext, browser: Browser
) -> None:
    dashboard = Dashboard(page, server)
    total = page.locator('.legend [data-kind="tool"] .count')
    before = counted(page, "tool")
    log_now(server, "tool.called", "tool.called", "task.created", "auction.closed", "system.info", "deploy.done")
    expect(total).to_have_text(str(before + 2))
    page.locator(".chart summary").click()
    place = page.locator(".legend li").evaluate_all("all => all.findIndex(one => one.dataset.kind === 'tool')")
    cells = page.locator(f"tbody td:nth-child({place + 2})")
    wait_until(lambda: sum(map(int, cells.all_inner_texts())) == before + 2, "the table has the events")
    with contextlib.closing(
        browser.new_context(java_script_enabled=False, storage_state=context.storage_state())
    ) as plain:
        other = plain.new_page()
        other.goto(f"{server.url}/swarm/live")
        expect(page.locator(".legend .count")).to_have_text(other.locator(".legend .count").all_inner_texts())
        # A new minute may have begun in between. It moves all bars alike.
        heights = {kind: re.findall(r"v[\d.]+", bars) for kind, bars in dashboard.bars().items()}
        paths = other.locator("svg path[data-kind]").evaluate_all("all => all.map(path => path.getAttribute('d'))")
        assert [re.findall(r"v[\d.]+", bars) for bars in paths] == list(heights.values())


def test_a_chip_shows_its_kind_alone_in_the_list_and_in_the_chart(server: Server, page: Page) -> None:
    log_now(server, "tool.called", "system.info")
    dashboard = Dashboard(page, server)
    assert dashboard.bars()["tool"]
    page.get_by_role("button", name="System", exact=True).click()
    expect(page.locator('path[data-kind="tool"]')).to_have_attribute("d", "")
    assert dashboard.bars()["system"]
    expect(dashboard.rows.filter(has_text="Tool:").first).to_be_hidden()
    page.get_by_role("button", name="System", exact=True).click()
    expect(page.locator('path[data-kind="tool"]')).not_to_have_attribute("d", "")


def test_the_charts_table_leaves_space_for_the_list(server: Server, page: Page) -> None:
    resized(page, {"width": 1440, "height": 650})
    dashboard = Dashboard(page, server)
    page.locator(".chart summary").click()
    table = page.locator(".chart .table")
    assert table.evaluate("table => table.clientHeight < table.scrollHeight")
    assert page.locator(".chart").evaluate("chart => chart.clientHeight >= chart.scrollHeight")  # nothing is cut
    assert dashboard.scroller.evaluate("scroller => scroller.clientHeight") > 100


# --- all pages --------------------------------------------------------------------------------------------------------


def test_the_title_of_a_hidden_tab_counts_new_events(server: Server, page: Page, swarm: Swarm) -> None:
    dashboard = Dashboard(page, server)
    title = page.title()

    def set_visibility(state: str) -> None:
        page.evaluate(
            "state => { Object.defineProperty(document, 'hidden', {value: state === 'hidden', configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            state,
        )

    log_now(server, "tool.called")
    dashboard.wait_for_the_newest()  # while the page is visible
    set_visibility("hidden")
    assert page.title() == title
    log_now(server, "tool.called", "tool.called")
    expect(page).to_have_title(f"(2) {title}")
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("favicon-unread.svg"))
    set_visibility("visible")
    expect(page).to_have_title(title)
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("favicon.svg"))


def test_signing_out_in_one_tab_is_shown_in_the_other(server: Server, browser: Browser) -> None:
    with contextlib.closing(browser.new_context(viewport=DESKTOP)) as own:  # type: ignore[arg-type]
        own.add_cookies([{"name": server.cookie_name, "value": server.sign_in("operator"), "url": server.url}])
        dashboard = Dashboard(own.new_page(), server)
        other = own.new_page()
        other.goto(f"{server.url}/status")
        sign_out(other)
        dashboard.expect_state("signed-out")
        expect(dashboard.page.locator("#stale")).to_contain_text("Not live")
        dashboard.page.get_by_placeholder("New task…").fill("Too late")
        dashboard.page.get_by_role("button", name="Post task").click()
        expect(dashboard.page.locator(".post [role=alert]")).to_have_text(re.compile("^Your session ended"))


def test_the_form_works_without_javascript(server: Server, context: BrowserContext, browser: Browser) -> None:
    with contextlib.closing(
        browser.new_context(java_script_enabled=False, storage_state=context.storage_state())
    ) as plain:
        page = plain.new_page()
        page.goto(f"{server.url}/swarm/live")
        page.get_by_placeholder("New task…").fill("Posted by hand")
        page.get_by_role("button", name="Post task").click()
        expect(page).to_have_url(f"{server.url}/swarm/live")
        expect(page.locator("[data-panel=auctions] li").filter(has_text="Posted by hand")).to_be_visible()


def test_the_status_page_updates_and_shows_when_it_cannot(server: Server, page: Page) -> None:
    page.clock.install()
    page.goto(f"{server.url}/status")
    head, health, outage = page.locator("#feed dd b").first, page.locator("#health"), page.get_by_role("alert")
    before = head.inner_text()
    log_now(server, "tool.called")
    page.clock.run_for(5_500)
    expect(head).not_to_have_text(before)
    expect(health).to_contain_text("All good")
    expect(outage).to_be_hidden()
    server.kill()
    page.clock.run_for(5_500)
    expect(outage).to_contain_text("The server doesn't respond")
    expect(outage).to_contain_text(f"data from {page.locator('.head time').inner_text()}")
    expect(outage.get_by_role("link", name="Sign in")).to_be_hidden()
    expect(health).to_be_hidden()
    expect(head).to_have_css("color", muted(page))
    assert problems(page) == ""
    server.start()
    page.clock.run_for(5_500)
    expect(outage).to_be_hidden()
    expect(health).to_contain_text("All good")
    expect(head).not_to_have_css("color", muted(page))


def test_the_status_page_shows_that_its_reader_was_signed_out(
    server: Server, page: Page, context: BrowserContext
) -> None:
    page.clock.install()
    page.goto(f"{server.url}/status")
    cookies = context.cookies()
    context.clear_cookies()
    page.clock.run_for(5_500)
    expect(page.get_by_role("alert")).to_contain_text("You are signed out")
    expect(page.locator("#health")).to_be_hidden()
    link = page.get_by_role("link", name="Sign in")
    expect(link).to_have_attribute("href", "/login?next=/status")
    context.add_cookies(cookies)  # type: ignore[arg-type]
    page.clock.run_for(5_500)
    expect(page.locator("#health")).to_contain_text("All good")
    expect(page.get_by_role("alert")).to_be_hidden()


def muted(page: Page) -> str:
    """Return the computed colour of muted texts."""
    return str(page.locator(".head p").evaluate("element => getComputedStyle(element).color"))


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP), ("dark", PHONE)], ids=["light", "dark"])
def test_the_page_is_accessible(server: Server, swarm: Swarm, page: Page, scheme: Any, size: dict[str, int]) -> None:
    swarm.join("Forge")
    swarm.post("Label tickets")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    resized(page, size)
    Dashboard(page, server)
    page.locator(".chart summary").click()
    for path in ("/swarm/live", "/status"):
        if path == "/status":
            page.goto(server.url + path)
        assert problems(page) == ""
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]


@pytest.mark.parametrize("text_size", ["100%", "200%"])
def test_large_numbers_fit_their_places_on_a_phone(server: Server, page: Page, text_size: str) -> None:
    resized(page, PHONE)
    Dashboard(page, server)
    beyond = page.evaluate(
        """size => {
            document.documentElement.style.fontSize = size;
            const places = [...document.querySelectorAll(".counts dd, .counts dt, .chart .axis span")];
            for (const place of places) if (/\\d/.test(place.textContent)) place.textContent = "10,000,000";
            return places.filter(place => place.scrollWidth > place.clientWidth).map(place => place.textContent);
        }""",
        text_size,
    )
    assert beyond == []
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_page_and_all_it_loads_is_small(server: Server, page: Page, context: BrowserContext) -> None:
    browser_side = context.new_cdp_session(page)
    browser_side.send("Network.enable")
    browser_side.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes: list[int] = []
    browser_side.on("Network.loadingFinished", lambda sent: sizes.append(sent["encodedDataLength"]))
    for path in ("/swarm/live", "/status"):
        sizes.clear()
        page.goto(server.url + path, wait_until="load")
        assert 5_000 < sum(sizes) < 250_000
