"""The live list and the log agree after prunes, erasures and restores."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.page import LivePage, change, tasks, write
from tests.proxy import Proxy
from tests.server import Server

LOG_ROWS = "#rows > .event .sentence"


def live_sentences(live: LivePage) -> list[str]:
    return live.rows.locator(".sentence").all_text_contents()


def ids_of(path: Path) -> list[str]:
    """Return the ids in the log, oldest first."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return [row[0] for row in raw.execute("SELECT id FROM event_log ORDER BY rowid")]


def open_log(page: Page, server: Server, query: str = "") -> None:
    page.goto(f"{server.url}/swarm/events?live=1{query}")
    page.locator("event-feed").evaluate(
        "feed => feed.state === 'live' || new Promise(met => feed.addEventListener('event-feed:state',"
        " ({detail}) => detail.state === 'live' && met()))"
    )


# --- the outbox is shorter than the log -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["live", "polling"])
@pytest.mark.parametrize(("logged", "kept"), [(15, 0), (15, 4), (60, 0)])
def test_the_live_list_keeps_rows_that_the_outbox_has_lost(
    shared: Server, proxy: Proxy, page: Page, logged: int, kept: int, way: str
) -> None:
    write(shared.database, *tasks(logged))
    change(shared.database, f"DELETE FROM outbox WHERE seq <= {shared.base + logged - kept}")
    if way == "polling":
        proxy.block()
    live = LivePage(page, shared, proxy.url, state=way)
    for _ in range(2):  # the page is opened, then opened again
        write(shared.database, {"description": "new"})
        logged += 1
        live.expect_rows(logged)
        shown = live_sentences(live)
        assert shown[0] == "New task: new"
        assert shown[-1] == "New task: task 0"
        assert len(set(shown)) >= logged - 1  # none of them twice
        expect(live.notices).to_have_count(0)
        page.reload()
        live.expect_state(way)
        live.expect_rows(logged)


def test_rows_from_the_log_open_and_are_filtered_like_the_others(shared: Server, page: Page) -> None:
    write(shared.database, {"description": "from the log", "more": [1, 2]})
    write(shared.database, {"message": "lost"}, event_type="system.error")
    change(shared.database, "DELETE FROM outbox")
    live = LivePage(page, shared)
    write(shared.database, {"description": "from the feed"})
    live.expect_rows(3)
    live.rows.last.locator("summary").click()
    expect(live.rows.last.locator("pre")).to_contain_text('"more": [')
    live.rows.last.locator("summary").click()
    page.get_by_role("searchbox").fill("lost")
    expect(live.rows.filter(visible=True).locator(".sentence")).to_have_text(["Error: lost"])


def test_a_viewer_without_admin_scope_sees_no_audit_row(shared: Server, page: Page) -> None:
    write(shared.database, {"by": "Ann", "name": "Bob"}, event_type="access.user_disabled")
    write(shared.database, {"description": "a task"})
    change(shared.database, "DELETE FROM outbox")
    live = LivePage(page, shared)
    write(shared.database, {"description": "another"})
    live.expect_rows(2)


# --- erasures and restores --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["live", "polling"])
def test_only_the_erased_row_disappears_from_the_open_live_page(server: Server, page: Page, way: str) -> None:
    write(server.database, *tasks(6))
    with Proxy(server) as proxy:
        if way == "polling":
            proxy.block()
        live = LivePage(page, server, proxy.url, state=way)
        live.expect_rows(6)
        page.evaluate("window.again = []; addEventListener('event-feed:event', ({detail}) => again.push(detail.seq))")
        for number in (2, 0):
            (erased,) = [ids_of(server.database)[number]]
            assert server.run("prune", "--id", erased).returncode == 0
            expect(live.rows.get_by_text(f"New task: task {2 if number else 0}")).to_have_count(0)
        assert live_sentences(live) == [f"New task: task {number}" for number in (5, 4, 3, 1)]
        write(server.database, {"description": "after"})
        expect(live.rows.first.locator(".sentence")).to_have_text("New task: after")
        expect(live.notices).to_have_count(0)
        assert [seq for seq in page.evaluate("again") if seq <= 6] == []  # none is fired twice


def test_an_erased_row_of_the_log_disappears_from_the_live_page(server: Server, page: Page) -> None:
    write(server.database, *tasks(3))
    change(server.database, "DELETE FROM outbox")
    live = LivePage(page, server)
    write(server.database, {"description": "new"})
    live.expect_rows(4)
    assert server.run("prune", "--id", ids_of(server.database)[1]).returncode == 0
    expect(live.rows.locator(".sentence")).to_have_text(["New task: new", "New task: task 2", "New task: task 0"])


def test_an_event_erased_while_the_page_was_offline_disappears(server: Server, page: Page) -> None:
    write(server.database, *tasks(3))
    live = LivePage(page, server)
    live.expect_rows(3)
    server.kill()
    live.expect_state("reconnecting")
    assert server.run("prune", "--id", ids_of(server.database)[1]).returncode == 0
    server.start()
    live.connect_now()
    expect(live.rows.locator(".sentence")).to_have_text(["New task: task 2", "New task: task 0"])


def test_an_erased_row_disappears_from_the_open_log_on_any_page(server: Server, page: Page) -> None:
    write(server.database, *tasks(50))
    open_log(page, server)
    for first in (50, 60):
        write(server.database, *({"description": f"task {number}"} for number in range(first, first + 10)))
        expect(page.locator(LOG_ROWS).first).to_have_text(f"New task: task {first + 9}")
    expect(page.locator(LOG_ROWS)).to_have_count(70)
    ids = ids_of(server.database)
    for number in (69, 60, 3):
        assert server.run("prune", "--id", ids[number]).returncode == 0
        expect(page.get_by_text(f"New task: task {number}", exact=True)).to_have_count(0)
    expect(page.locator(LOG_ROWS).first).to_contain_text(f"Pruned event {ids[3]}")
    shown = page.locator(LOG_ROWS).all_text_contents()
    page.reload()
    fresh = page.locator(LOG_ROWS).all_text_contents()
    assert shown[: len(fresh)] == fresh


def test_rows_removed_by_a_restore_disappear_with_a_notice(
    server: Server, page: Page, context: BrowserContext, tmp_path: Path
) -> None:
    write(server.database, *tasks(3))
    assert server.run("backup", str(tmp_path / "b.db")).returncode == 0
    live = LivePage(page, server)
    log = context.new_page()
    open_log(log, server)
    write(server.database, *tasks(3, "after the backup"))
    live.expect_rows(7)  # with the event of the backup
    expect(log.locator(LOG_ROWS)).to_have_count(7)
    assert server.run("restore", str(tmp_path / "b.db")).returncode == 0

    expect(live.notices).to_contain_text("restored", timeout=60_000)
    expect(live.rows.get_by_text("after the backup")).to_have_count(0)
    expect(log.get_by_text("The database was restored.").first).to_be_visible(timeout=60_000)
    expect(log.get_by_text(re.compile("after the backup"))).to_have_count(0)
    expect(log.locator(LOG_ROWS)).to_have_count(4)  # with the event of the restore
    for tab in (page, log):
        shown = tab.locator(".event .sentence").filter(visible=True).all_text_contents()
        tab.reload()
        expect(tab.locator(".event .sentence").filter(visible=True)).to_have_text(shown)
    write(server.database, {"description": "in the new history"})
    expect(live.rows.first.locator(".sentence")).to_have_text("New task: in the new history")
    expect(log.locator(LOG_ROWS).first).to_have_text("New task: in the new history")


def test_a_restore_of_an_empty_log_shows_an_empty_list(server: Server, page: Page, tmp_path: Path) -> None:
    assert server.run("backup", str(tmp_path / "b.db")).returncode == 0
    write(server.database, *tasks(3))
    open_log(page, server, "&type=task.*")
    expect(page.locator(LOG_ROWS)).to_have_count(3)
    assert server.run("restore", str(tmp_path / "b.db")).returncode == 0
    expect(page.get_by_text("No events match these filters")).to_be_visible(timeout=60_000)
    expect(page.locator(LOG_ROWS)).to_have_count(0)
