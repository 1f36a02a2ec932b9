"""The live page in a browser: restarts, outages, gaps, resets, sign-out."""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.journeys.test_embedding import site
from tests.page import DESKTOP, PATIENCE_MS, PHONE, LivePage, change, sign_out, tasks, write
from tests.proxy import Proxy
from tests.server import Server
from tests.waits import shortest, wait_until

# --- the main story ---------------------------------------------------------------------------------------------------


def test_a_viewer_signs_in_by_the_link_and_sees_an_event_from_another_process_within_a_second(
    browser: Browser, server: Server
) -> None:
    with contextlib.closing(browser.new_page(viewport=DESKTOP)) as page:
        page.goto(f"{server.url}/swarm/live")
        expect(page).to_have_url(re.compile("/login"))
        page.goto(server.sign_in_link())
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{server.url}/swarm/live")
        expect(page.locator("event-feed .label")).to_have_text("Live")
        expect(page.get_by_text("No events yet")).to_be_visible()

        newest = page.locator("event-feed .rows > .event").first
        ordinals = itertools.count(1)

        def secs_to_show() -> float:
            began, description = time.monotonic(), f"My task {next(ordinals)}"
            write(server.database, {"description": description})
            expect(newest.locator(".sentence")).to_have_text(f"New task: {description}")
            return time.monotonic() - began

        assert shortest(secs_to_show, 1) < 1
        expect(newest.locator(".icon")).to_have_text("📝")
        expect(page.get_by_text("No events yet")).to_be_hidden()


def test_an_open_page_shows_missed_events_once_after_a_kill(server: Server, page: Page) -> None:
    write(server.database, *tasks(1, "before"))
    live = LivePage(page, server)
    live.expect_rows(1)
    for round_ in range(2):
        server.kill()
        live.expect_state("reconnecting")
        write(server.database, *tasks(3, f"missed in round {round_}"))
        server.start()
        if round_:
            live.connect_now()
        live.expect_state("live", timeout=2 * PATIENCE_MS)  # the first retry has its own back-off of up to 20 s
        live.expect_rows(4 + round_ * 3)
    write(server.database, *tasks(1, "after"))
    live.expect_rows(8)
    assert live.seqs() == list(range(1, 9))
    expect(live.notices).to_have_count(0)


def test_a_page_reconnects_after_a_regular_restart(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    icon = page.locator("link[rel=icon]")
    expect(icon).to_have_attribute("href", re.compile(r"/favicon\.svg$"))
    server.stop()
    live.expect_state("reconnecting")
    expect(icon).to_have_attribute("href", re.compile(r"/favicon-failed\.svg$"))
    write(server.database, *tasks(2))
    server.start()
    live.connect_now()
    live.expect_state("live")
    expect(icon).to_have_attribute("href", re.compile(r"/favicon\.svg$"))
    live.expect_rows(2)
    assert live.seqs() == [1, 2]


def test_the_content_of_an_event_stays_text(shared: Server, page: Page) -> None:
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


@pytest.mark.parametrize("news", ["offline", "online"])
def test_a_dead_connection_is_noticed_when_the_network_changes(shared: Server, page: Page, news: str) -> None:
    live = LivePage(page, shared)
    with shared.halted():
        page.evaluate("news => dispatchEvent(new Event(news))", news)
        live.expect_state("reconnecting")
    write(shared.database, *tasks(2))
    live.expect_state("live")
    live.expect_rows(2)
    assert live.seqs() == [1, 2]


def test_a_working_connection_is_kept_when_the_browser_reports_offline(
    shared: Server, proxy: Proxy, page: Page
) -> None:
    with page.expect_websocket() as opening:
        live = LivePage(page, shared, proxy.url)
    with opening.value.expect_event("framereceived", lambda frame: '"pong"' in frame):
        page.evaluate("dispatchEvent(new Event('offline'))")
    write(shared.database, *tasks(1))
    live.expect_rows(1)
    live.expect_state("live")
    assert proxy.handshakes == 1


def test_a_suspended_tab_shows_missed_events_once(server: Server, page: Page, context: BrowserContext) -> None:
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


def test_a_cached_page_closes_its_connection_and_resumes_at_once(shared: Server, proxy: Proxy, page: Page) -> None:
    """The back/forward cache keeps no page with an open connection.

    It never keeps Outfeed's own pages: they are no-store.
    """
    write(shared.database, *tasks(1))
    with page.expect_websocket() as opening:
        live = LivePage(page, shared, proxy.url)
    live.expect_rows(1)
    for _ in range(2):
        with opening.value.expect_event("close"):
            page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
        write(shared.database, *tasks(2))
        with page.expect_websocket() as opening:
            page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        live.expect_state("live")
    live.expect_rows(5)
    assert live.seqs() == [1, 2, 3, 4, 5]
    assert proxy.handshakes == 3


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_retry_button_connects_at_once(shared: Server, proxy: Proxy, page: Page, size: dict[str, int]) -> None:
    page.set_viewport_size(size)  # type: ignore[arg-type]
    write(shared.database, *tasks(1))
    live = LivePage(page, shared, proxy.url)
    live.expect_rows(1)
    button = page.get_by_role("button", name="Try now")
    expect(button).to_be_hidden()
    before = live.rows.first.bounding_box()
    proxy.answer = b"HTTP/1.1 503 -\r\nRetry-After: 40\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    proxy.block()
    expect(live.label).to_have_text(re.compile(r"^Reconnecting in \d\d s$"), timeout=2 * PATIENCE_MS)
    expect(button).to_be_visible()
    target = button.bounding_box()
    assert target is not None
    assert min(target["width"], target["height"]) >= 24
    assert live.rows.first.bounding_box() == before
    tried = proxy.handshakes
    button.focus()
    page.keyboard.press("Enter")
    wait_until(lambda: proxy.handshakes > tried, "the page retries")
    expect(button).to_be_visible()  # the retry has failed
    proxy.come_back()
    button.click()
    live.expect_state("live")
    expect(button).to_be_hidden()


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
    live.connect_now()
    missing = f"{live.base + 3:,}–{live.base + 5:,}"
    expect(live.notices).to_contain_text(f"Events {missing}")
    live.expect_rows(4)
    assert live.seqs() == [1, 2, 6, 7]
    mark = page.get_by_role("button", name=f"Gap {missing}")
    expect(mark).to_be_visible()
    mark.click()
    expect(live.notices).to_be_focused()
    expect(mark).to_be_hidden()


def test_a_reset_is_shown_and_no_event_twice(shared: Server, proxy: Proxy, page: Page) -> None:
    live = LivePage(page, shared, proxy.url)
    write(shared.database, *tasks(3))
    live.expect_rows(3)
    proxy.go_down()
    live.expect_state("reconnecting")
    change(shared.database, "UPDATE outfeed_meta SET value = lower(hex(randomblob(16))) WHERE key = 'epoch'")
    proxy.come_back()
    live.connect_now()
    expect(live.notices).to_contain_text("restored")
    live.expect_state("live")
    write(shared.database, *tasks(1, "in the new history"))
    live.expect_rows(4)
    assert live.seqs() == [1, 2, 3, 4]


def test_a_reopened_page_shows_the_range_of_missed_events(shared: Server, page: Page) -> None:
    live = LivePage(page, shared)
    write(shared.database, *tasks(1))
    live.expect_rows(1)
    page.goto("about:blank")
    write(shared.database, *tasks(120, "unseen"))
    live = LivePage(page, shared)
    expect(live.notices).to_contain_text(f"You missed events {live.base + 2:,}–{live.base + 21:,}")
    live.expect_rows(100)
    page.reload()
    live.expect_rows(100)
    expect(live.notices).to_have_count(0)


def test_a_reopened_page_whose_filter_matches_few_events_misses_none(shared: Server, page: Page) -> None:
    write(shared.database, *tasks(3))
    with Proxy(shared, {"/": site('<event-feed types="job.*"></event-feed>', head="")}) as proxy:
        page.goto(f"{proxy.url}/")
        rows, bar = page.locator("event-feed .rows > .event"), page.locator("event-feed .bar")
        expect(bar).to_have_attribute("data-state", "live")
        wait_until(
            lambda: page.evaluate("document.querySelector('event-feed').cursor") == shared.base + 3,
            "the position is known",
        )
        page.goto("about:blank")
        write(shared.database, *tasks(3))
        write(shared.database, {"message": "new"}, event_type="job.done")
        page.goto(f"{proxy.url}/")
        expect(rows).to_have_count(1)
        expect(bar).to_have_attribute("data-state", "live")
        expect(page.locator("event-feed .notice")).to_have_count(0)


def test_a_reopened_page_requests_only_dynamic_content(shared: Server, proxy: Proxy, page: Page) -> None:
    LivePage(page, shared, proxy.url)
    page.goto("about:blank")
    before = len(proxy.requests)
    LivePage(page, shared, proxy.url)
    assert sorted(path for _, path in proxy.requests[before:]) == ["/api/types", "/swarm/live", "/ws"]


# --- lost databases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["WebSocket", "long poll"])
def test_a_stale_page_shows_the_reason_and_the_time(
    server: Server, page: Page, context: BrowserContext, way: str
) -> None:
    with Proxy(server) as proxy:
        if way == "long poll":
            proxy.block()
        write(server.database, *tasks(1))
        live = LivePage(page, server, proxy.url, state="polling" if way == "long poll" else "live")
        live.expect_rows(1)
        files = [path for suffix in ("", "-wal", "-shm") if (path := Path(f"{server.database}{suffix}")).exists()]
        for file in files:
            file.rename(f"{file}.away")
        live.expect_state("stale")
        expect(live.label).to_have_text(re.compile(r"^Stale: the database is missing · last data \d\d:\d\d:\d\d$"))
        expect(page.locator("event-feed [role=status]")).to_contain_text("Stale: the database is missing")
        for file in reversed(files):  # the database last: without its -wal it would be an older state
            Path(f"{file}.away").rename(file)
        live.expect_state("polling" if way == "long poll" else "live")
        write(server.database, *tasks(1))
        live.expect_rows(2)


def test_a_page_that_loses_its_server_during_an_outage_shows_that(server: Server, page: Page) -> None:
    live = LivePage(page, server)
    server.database.rename(f"{server.database}.away")
    live.expect_state("stale")
    server.kill()
    live.expect_state("reconnecting")


BREAK = {
    "gone": lambda path: path.rename(f"{path}.away"),
    "another file": lambda path: (path.rename(f"{path}.away"), path.write_bytes(b"no database " * 2000)),
    "an empty file": lambda path: (path.rename(f"{path}.away"), path.touch()),
    "a folder": lambda path: (path.rename(f"{path}.away"), path.mkdir()),
}


@pytest.mark.parametrize("way", BREAK)
def test_live_and_log_report_an_unreadable_database_within_3_s_and_recover(
    server: Server, page: Page, context: BrowserContext, way: str
) -> None:
    write(server.database, *tasks(1))
    live, log = LivePage(page, server), context.new_page()
    status = context.new_page()
    status.goto(f"{server.url}/status")
    log.goto(f"{server.url}/swarm/events?live=1")
    log.locator("event-feed").evaluate(
        "feed => feed.state === 'live' || new Promise(met => feed.addEventListener('event-feed:state', met))"
    )
    for suffix in ("-wal", "-shm"):
        if (beside := Path(f"{server.database}{suffix}")).exists():
            beside.rename(f"{server.database}.away{suffix}")
    BREAK[way](server.database)
    live.expect_state("stale", timeout=3000 + 2000)  # two more seconds for a loaded machine
    expect(status.locator("#outage h2")).to_contain_text("The database")
    expect(log.locator("#live-state")).to_contain_text("stale: the database", timeout=2000)

    reloaded = context.new_page()
    for path in ("/swarm/live", "/swarm/events", "/status", "/password", "/login", "/nowhere"):
        answer = reloaded.goto(server.url + path)
        assert answer is not None
        assert answer.status == 503
        expect(reloaded.locator(".card")).to_contain_text("the database")
        expect(reloaded.locator(".card")).to_have_css("border-radius", "10px")  # the style of all pages

    for suffix in ("-wal", "-shm"):
        Path(f"{server.database}{suffix}").unlink(missing_ok=True)
    if way == "a folder":
        server.database.rmdir()
    for suffix in ("-wal", "-shm", ""):  # the database last: without its -wal it would be an older state
        if (kept := Path(f"{server.database}.away{suffix}")).exists():
            kept.rename(f"{server.database}{suffix}")
    live.expect_state("live", timeout=2 * PATIENCE_MS)
    expect(log.locator("#live-state")).to_have_text("", timeout=2 * PATIENCE_MS)
    expect(status.locator("#outage")).to_be_hidden()
    write(server.database, *tasks(1, "after"))
    live.expect_rows(2)
    expect(log.locator("#rows .sentence").first).to_have_text("New task: after 0")


# --- sign-in and sign-out ---------------------------------------------------------------------------------------------


def test_signing_out_stops_the_other_tabs_and_is_shown(server: Server, page: Page, context: BrowserContext) -> None:
    live = LivePage(page, server)
    other = context.new_page()
    other.goto(f"{server.url}/swarm/events")
    sign_out(other)
    expect(other).to_have_url(f"{server.url}/login")
    server.kill()  # the next handshake is refused, even if a socket outlives its session
    server.start()
    live.connect_now()
    live.expect_state("signed-out")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_a_used_link_shows_how_to_get_another(shared: Server, browser: Browser) -> None:
    with contextlib.closing(browser.new_page()) as page:  # another profile: signing in ends the profile's last session
        page.goto(shared.sign_in_link())
        page.get_by_role("button", name="Sign in").click()
        answer = page.goto(shared.sign_in_link())
        assert answer is not None
        assert answer.status == 401
        expect(page.get_by_role("alert")).to_contain_text("used or expired")


@pytest.mark.parametrize("has_scripts", [True, False], ids=["scripts", "no scripts"])
def test_an_invitation_opens_on_a_phone_and_one_press_signs_in(
    shared: Server, browser: Browser, has_scripts: bool
) -> None:
    name = f"ann {'w' * 40} {secrets.token_hex(4)}"
    added = shared.run("user", "add", name, "--role", "viewer")
    with contextlib.closing(browser.new_context(viewport=PHONE, java_script_enabled=has_scripts)) as phone:  # type: ignore[arg-type]
        page = phone.new_page()
        referrers: list[str] = []
        page.on("request", lambda request: referrers.append(request.all_headers().get("referer", "")))
        page.goto(added.stdout.strip())
        expect(page.get_by_role("heading", name=f"Sign in as {name}")).to_be_visible()
        button = page.get_by_role("button")
        expect(button).to_have_count(1)
        expect(button).to_be_in_viewport(ratio=1)
        expect(button).to_be_focused()
        if has_scripts:
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        button.click()
        expect(page).to_have_url(f"{shared.url}/swarm/live")
        assert [referrer for referrer in referrers if "code=" in referrer] == []
