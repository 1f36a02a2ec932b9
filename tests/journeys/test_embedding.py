"""`<event-feed>` behind proxies and in foreign pages.

It is tested with other transports, floods, listeners and attributes.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.page import PATIENCE_MS, LivePage, change, tasks, write
from tests.proxy import Proxy
from tests.server import Server
from tests.waits import wait_until

TAG = '<script type="module" src="/static/event-feed.js"></script>'
# A site with a strict policy: the element loads nothing that `default-src 'self'` forbids.
STRICT = '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'">'
# Runs before the page's scripts, and records all events of the element.
RECORD_EVENTS = """
    window.recorded = {event: [], verdict: [], state: []};
    for (const name of Object.keys(recorded)) {
        addEventListener(`event-feed:${name}`, ({detail}) => recorded[name].push(detail));
    }
"""


def site(body: str, head: str = STRICT) -> tuple[str, str]:
    """Return a foreign page, as the proxy serves it."""
    return (
        "text/html; charset=utf-8",
        f"<!doctype html><html lang=en><head>{head}{TAG}</head><body>{body}</body></html>",
    )


def recorded(page: Page, name: str) -> list[dict[str, Any]]:
    """Return the details of the DOM events so far."""
    found: list[dict[str, Any]] = page.evaluate("name => recorded[name]", name)
    return found


def recorded_seqs(page: Page, base: int) -> list[int]:
    return [detail["seq"] - base for detail in recorded(page, "event")]


# --- transports -------------------------------------------------------------------------------------------------------


def test_the_feed_polls_as_long_as_websockets_are_forbidden(shared: Server, proxy: Proxy, page: Page) -> None:
    page.add_init_script(RECORD_EVENTS)
    write(shared.database, *tasks(2))
    live = LivePage(page, shared, proxy.url)
    live.expect_rows(2)

    proxy.block()
    live.expect_state("polling")
    expect(live.label).to_have_text("Live (polling)")
    write(shared.database, *tasks(3))
    live.expect_rows(5)
    write(shared.database, *tasks(1))
    live.expect_rows(6)
    wait_until(lambda: proxy.handshakes >= 3, "the feed retries the WebSocket")
    live.expect_state("polling")

    proxy.unblock()
    live.expect_state("live")
    write(shared.database, *tasks(2))
    live.expect_rows(8)
    assert live.seqs() == recorded_seqs(page, live.base) == list(range(1, 9))
    states = [detail["state"] for detail in recorded(page, "state")]
    assert [state for state in states if state != "catching-up"][1:] == ["live", "reconnecting", "polling", "live"]


def test_a_polling_feed_shows_the_newest_then_a_gap_and_respects_retry_after(
    shared: Server, proxy: Proxy, page: Page
) -> None:
    write(shared.database, *tasks(130))
    proxy.block()
    page.add_init_script(RECORD_EVENTS)
    live = LivePage(page, shared, proxy.url, state="polling")
    live.expect_rows(100)
    assert live.seqs() == list(range(31, 131))

    waiting = {"transport": "poll", "state": "waiting"}
    wait_until(lambda: any(shared.counted("outfeed_clients", **waiting).values()), "a poll waits")
    proxy.answer = b"HTTP/1.1 503 -\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    write(shared.database, *tasks(1))  # ends that poll
    live.expect_rows(101)
    live.expect_state("reconnecting")
    write(shared.database, *tasks(5))
    change(shared.database, f"DELETE FROM outbox WHERE seq <= {live.base + 134}")
    refused = len(proxy.asked("/api/feed"))
    wait_until(lambda: len(proxy.asked("/api/feed")) > refused, "the feed polls again")
    earlier, later = proxy.asked("/api/feed")[-2:]
    assert later - earlier >= 1
    proxy.answer = None

    expect(live.notices).to_contain_text(f"Events {live.base + 132:,}–{live.base + 134:,}")
    live.expect_rows(103)
    assert live.seqs() == [*range(31, 132), 135, 136]
    live.expect_state("polling")
    assert [detail["verdict"] for detail in recorded(page, "verdict")] == ["live", "gap"]


def test_the_feed_polls_if_every_websocket_is_cut_early(shared: Server, proxy: Proxy, page: Page) -> None:
    live = LivePage(page, shared, proxy.url)
    proxy.cut_at = b'"subscribed"'
    proxy.cut()
    live.expect_state("polling")
    write(shared.database, *tasks(3))
    live.expect_rows(3)
    assert live.seqs() == [1, 2, 3]


def test_a_poll_ends_when_the_feed_is_removed_from_the_page(shared: Server, proxy: Proxy, page: Page) -> None:
    proxy.block()
    live = LivePage(page, shared, proxy.url, state="polling")
    wait_until(lambda: len(proxy.asked("/api/feed")) >= 2, "a poll waits")
    with page.expect_event("requestfailed", lambda request: "wait=25" in request.url):
        live.feed.evaluate("feed => feed.remove()")
    expect(live.feed).to_have_count(0)


# --- replayed and live ------------------------------------------------------------------------------------------------


def test_replayed_and_live_events_are_marked(shared: Server, proxy: Proxy, page: Page) -> None:
    page.add_init_script(RECORD_EVENTS)
    write(shared.database, *tasks(2))
    live = LivePage(page, shared, proxy.url)
    live.expect_rows(2)
    write(shared.database, *tasks(1, "live"))
    live.expect_rows(3)
    proxy.go_down()
    live.expect_state("reconnecting")
    write(shared.database, *tasks(2, "missed"))
    proxy.come_back()
    live.connect_now()
    live.expect_rows(5)
    live.expect_state("live")
    write(shared.database, *tasks(1, "live again"))
    live.expect_rows(6)
    replayed = [True, True, False, True, True, False]
    assert [detail["replayed"] for detail in recorded(page, "event")] == replayed
    first = recorded(page, "event")[0]
    assert first["event"]["data"] == {"description": "task 0"}
    assert first["event"]["seq"] == first["seq"]
    is_new = live.rows.evaluate_all("rows => rows.map(row => row.classList.contains('new')).reverse()")
    assert is_new == [not each for each in replayed]


# --- a flood ----------------------------------------------------------------------------------------------------------

FLOOD = 20_000


def test_the_page_stays_smooth_and_small_in_a_flood_of_events(shared: Server, browser: Browser, page: Page) -> None:
    page.add_init_script(RECORD_EVENTS.replace("push(detail)", "push({seq: detail.seq})"))
    write(shared.database, *tasks(1000))
    live = LivePage(page, shared)
    live.expect_rows(100)
    meter = Meter(page)
    heap, nodes = meter.heap_bytes(), meter.nodes()

    browser.start_tracing(page=page, categories=["toplevel"])
    try:
        for _ in range(FLOOD // 1000):
            write(shared.database, *tasks(1000))
        expect(live.rows.first).to_have_attribute("data-seq", str(live.base + 1000 + FLOOD), timeout=2 * PATIENCE_MS)
    finally:
        trace = json.loads(browser.stop_tracing())
    live.expect_rows(500)
    live.expect_state("live")

    assert recorded_seqs(page, live.base) == list(range(901, 1001 + FLOOD))
    assert live.cursor() == 1000 + FLOOD
    assert max(task_millis(trace)) < 200
    assert meter.heap_bytes() - heap < 8e6
    assert meter.nodes() - nodes < 500 * 40


class Meter:
    """A page's memory after a garbage collection."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)

    def heap_bytes(self) -> int:
        self._session.send("HeapProfiler.collectGarbage")
        return int(self._session.send("Runtime.getHeapUsage")["usedSize"])

    def nodes(self) -> int:
        return int(self._session.send("Memory.getDOMCounters")["nodes"])


def task_millis(trace: dict[str, Any]) -> list[float]:
    """Return the durations of the tasks of pages' main threads, in CPU time.

    In wall time, as PerformanceObserver measures it, they include the work of other processes.
    """
    events = trace["traceEvents"]
    mains = {
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    found = [
        each["tdur"] / 1000
        for each in events
        if each["name"] == "ThreadControllerImpl::RunTask" and (each["pid"], each["tid"]) in mains and "tdur" in each
    ]
    assert found, "the trace has no tasks"
    return found


# --- foreign pages ----------------------------------------------------------------------------------------------------


def rows_of(page: Page, feed: str = "event-feed") -> Locator:
    return page.locator(f"{feed} .rows > .event .sentence")


def test_a_foreign_page_embeds_the_feed_by_one_tag(shared: Server, proxy: Proxy, page: Page) -> None:
    write(shared.database, *tasks(5))
    write(shared.database, {"message": "Disk full"}, event_type="system.error", source="monitor")
    proxy.pages["/"] = site(
        '<event-feed id="errors" types="system.*" theme="dark"></event-feed>'
        '<event-feed id="tasks" types="task.*" limit="3" batch="false" theme="light"><p>Nothing yet</p></event-feed>'
    )
    page.goto(proxy.url)
    expect(rows_of(page, "#errors")).to_have_text(["Error: Disk full"])
    expect(rows_of(page, "#tasks")).to_have_text([f"New task: task {number}" for number in (4, 3, 2)])
    expect(page.get_by_text("Nothing yet")).to_be_hidden()
    grounds = [
        page.locator(f"#{name}").evaluate("feed => getComputedStyle(feed).backgroundColor")
        for name in ("errors", "tasks")
    ]
    assert grounds == ["rgb(22, 27, 34)", "rgb(255, 255, 255)"]

    write(shared.database, {"description": "one more"})
    expect(rows_of(page, "#tasks").first).to_have_text("New task: one more")
    expect(rows_of(page, "#errors")).to_have_count(1)


def test_a_low_window_has_space_for_rows(shared: Server, proxy: Proxy, page: Page) -> None:
    for event_type in ("task.created", "agent.joined", "bid.submitted", "tool.called", "system.info", "build.done"):
        write(shared.database, *tasks(5), event_type=event_type)
    page.set_viewport_size({"width": 320, "height": 256})  # 1280 by 1024, zoomed to four times its size
    proxy.pages["/"] = site("<event-feed></event-feed>")
    page.goto(proxy.url)
    expect(rows_of(page, "event-feed")).to_have_count(30)
    assert page.locator("event-feed .scroller").evaluate("scroller => scroller.clientHeight") >= 100


@pytest.mark.parametrize("way", ["live", "polling"])
def test_changed_attributes_subscribe_again(shared: Server, proxy: Proxy, page: Page, way: str) -> None:
    write(shared.database, *tasks(2))
    write(shared.database, {"message": "Disk full"}, event_type="system.error", source="monitor")
    if way == "polling":
        proxy.block()
    proxy.pages["/"] = site("<event-feed types=task.*></event-feed>")
    page.goto(proxy.url)
    expect(rows_of(page)).to_have_count(2)
    feed = page.locator("event-feed")
    feed.evaluate("feed => { feed.setAttribute('types', 'system.*'); feed.setAttribute('source', 'monitor'); }")
    expect(rows_of(page)).to_have_text(["Error: Disk full"])
    feed.evaluate("feed => feed.removeAttribute('types')")
    write(shared.database, {"description": "elsewhere"})
    write(shared.database, {"description": "watched"}, source="monitor")
    expect(rows_of(page)).to_have_text(["New task: watched", "Error: Disk full"])
    assert feed.evaluate("feed => feed.state") == way


def test_a_rejected_filter_is_shown_on_every_transport(shared: Server, proxy: Proxy, page: Page) -> None:
    proxy.pages["/"] = site('<event-feed types="*"></event-feed>')
    for _ in range(2):
        page.goto(proxy.url)
        expect(page.locator("event-feed .label")).to_have_text("Refused")
        expect(page.locator("event-feed .notice")).to_contain_text("types")
        proxy.block()


# --- htmx -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def htmx(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real htmx, from the npm registry."""
    folder = tmp_path_factory.mktemp("htmx")
    subprocess.run(
        ["npm", "pack", "--silent", "htmx.org@2", "--pack-destination", str(folder)],
        check=True, cwd=folder, capture_output=True, timeout=60,
    )  # fmt: skip
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        script = packed.extractfile("package/dist/htmx.min.js")
        assert script is not None
        return script.read().decode()


def test_htmx_fetches_a_fragment_for_each_live_event(shared: Server, proxy: Proxy, page: Page, htmx: str) -> None:
    write(shared.database, *tasks(1, "replayed"))
    proxy.pages["/htmx.js"] = ("text/javascript", htmx)
    proxy.pages["/fragment"] = ("text/html", "<b>fetched by htmx</b>")
    proxy.pages["/"] = site(
        '<p id="target" hx-get="/fragment" hx-trigger="event-feed:event[!detail.replayed] from:body">not yet</p>'
        "<event-feed></event-feed>",
        head='<script src="/htmx.js"></script>',
    )
    page.goto(proxy.url)
    expect(rows_of(page)).to_have_count(1)
    expect(page.locator("#target")).to_have_text("not yet")
    for number in (1, 2):
        write(shared.database, {"description": "live"})
        wait_until(lambda number=number: len(proxy.asked("/fragment")) == number, "htmx has sent a request")
    expect(page.locator("#target > b")).to_have_text("fetched by htmx")
