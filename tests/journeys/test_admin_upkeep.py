"""The administration of webhooks, displays, watches and upkeep."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from freezegun import freeze_time
from playwright.sync_api import Browser, Page, expect

from outfeed import clock
from outfeed.display import Display
from outfeed.store import database as db
from outfeed.store import event_log
from outfeed.store.outbox import Outbox
from outfeed.types import operations
from outfeed.upkeep import backups
from outfeed.webhooks import store as webhook
from outfeed.webhooks.delivery_log.store import DeliveryLog
from outfeed.webhooks.message import Message
from outfeed.webhooks.target import Answer
from tests.accessible import check_everywhere, operator_tab
from tests.page import DESKTOP, change
from tests.receiver import SECRET
from tests.server import Server

LONG = "a-webhook-with-a-name-that-is-longer-than-a-phone-is"


def _log_posts(database: db.Database) -> None:
    """Log two posts of one event to `ops`."""
    page = Outbox(database, 65_536).read_after(0, 1000)
    item = next(item for item in page.items if item.event_type == "order.paid")
    log = DeliveryLog(database)
    for answer in (Answer(422, body=b'{"problem": "no such field"}'), Answer(200, body=b"ok")):
        log.add("ops", page.window.epoch, [item], Message.of_event(page.window.epoch, item, {}), answer, 0.1)
    log.write()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with content on each of these pages."""
    folder = tmp_path_factory.mktemp("admin_upkeep")
    (folder / "backups").mkdir()
    settings = {"backup_dir": folder / "backups", "retention_days": 30, "webhook_allow": "127.0.0.1"}
    with Server(folder, **settings) as running:
        database = db.at(running.database)
        change(running.database, "CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT)")
        assert running.run("watch", "add", "orders").returncode == 0
        with freeze_time(clock.now() - timedelta(days=40)):
            event_log.record(database, [{"event_type": "order.old", "source": "shop"}], 65_536)
        paid = {"event_type": "order.paid", "source": "shop", "data": {"amount": 129, "customer": "Ann"}}
        event_log.record(database, [paid], 65_536)
        operations.set_display(database, "order.paid", Display("⚡", "Paid {amount}"), "tests")
        for name in ("ops", LONG):
            webhook.add(database, name, "http://127.0.0.1:9/hook?key=1", types=("none.*",), secret=SECRET, batch=0)
        webhook.pause(database, LONG)
        _log_posts(database)
        backups.make(database, folder / "backups", 14, by="tests")
        database.close()
        yield running


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    with operator_tab(browser, server) as page:
        yield page


@pytest.fixture(autouse=True)
def _desktop(tab: Page) -> None:
    tab.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    tab.emulate_media(color_scheme="light")


PAGES = (
    "webhooks", "webhooks/ops", "displays", "displays/edit?type=order.paid", "retention", "backups", "doctor",
    "watches",
)  # fmt: skip


def broken_numbers(page: Page) -> int:
    """Write a long number into each cell with a number, in a narrow window.

    Return how many of them have two lines.
    """
    size = page.viewport_size
    page.set_viewport_size({"width": 760, "height": 900})
    count = page.locator(".admin-list td").evaluate_all(
        """cells => {
            const texts = cells.map(cell => cell.firstChild).filter(node => /^[\\d,]+$/.test(node?.data));
            for (const text of texts) text.data = "1,234,567";
            const range = document.createRange();
            const isBroken = text => (range.selectNodeContents(text), range.getClientRects().length > 1);
            return texts.filter(isBroken).length;
        }"""
    )
    page.set_viewport_size(size or DESKTOP)  # type: ignore[arg-type]
    return int(count)


def test_every_page_is_accessible_and_fits_with_open_parts(server: Server, tab: Page) -> None:
    for path in PAGES:
        tab.goto(f"{server.url}/admin/{path}")
        assert broken_numbers(tab) == 0
        if path == "doctor":
            tab.get_by_role("button", name="Run checks").click()
            expect(tab.get_by_role("heading", name="Passed")).to_be_visible()
        for summary in tab.locator("main details:not(.term) > summary").all()[:2]:
            summary.click()
        check_everywhere(tab, path)


def test_the_preview_follows_the_fields_and_the_saved_display_is_on_the_log(server: Server, tab: Page) -> None:
    tab.goto(f"{server.url}/admin/displays/edit?type=order.paid")
    row = tab.locator("#preview .event")
    expect(row).to_have_text("⚡Paid 129")
    expect(tab.get_by_role("button", name="Preview")).to_be_hidden()
    tab.get_by_label("Sentence").fill("{customer} paid {amount}<b>")
    tab.get_by_label("Icon").fill("")
    tab.get_by_role("radio", name="Error").check()
    expect(row).to_have_text("❌Ann paid 129<b>")
    expect(row).to_have_attribute("data-level", "error")

    tab.get_by_role("button", name="Save").click()
    expect(tab.get_by_role("status").first).to_have_text("Set the display of order.paid.")
    tab.goto(f"{server.url}/swarm/events?type=order.paid")
    expect(tab.locator(".event .sentence").first).to_have_text("Ann paid 129<b>")


def test_without_scripts_the_server_makes_the_preview(browser: Browser, server: Server) -> None:
    with contextlib.closing(browser.new_context(java_script_enabled=False)) as own:
        own.add_cookies([{"name": server.cookie_name, "value": server.sign_in("operator"), "url": server.url}])
        page = own.new_page()
        page.goto(f"{server.url}/admin/displays/edit?type=order.new")
        page.get_by_label("Sentence").fill("Ordered {amount}")
        page.get_by_role("button", name="Preview").click()
        expect(page.locator("#preview .event")).to_have_text("Ordered amount")
        expect(page.get_by_label("Sentence")).to_have_value("Ordered {amount}")


def test_a_backup_is_made_with_a_click_and_downloaded_after_a_fresh_sign_in(
    server: Server, tab: Page, tmp_path: Path
) -> None:
    tab.goto(f"{server.url}/admin/backups")
    rows = tab.get_by_role("row", name=re.compile("^outfeed-"))
    expect(rows).to_have_count(1)
    tab.get_by_role("button", name="Back up now").click()
    expect(rows).to_have_count(2)  # the page shows it without a click
    expect(tab.get_by_text("A backup is running")).to_have_count(0)

    with tab.expect_download() as download:
        rows.first.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "copy.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    change(server.database, "UPDATE outfeed_session SET created_at = '2024-01-15T00:00:00.000Z'")
    tab.reload()
    expect(rows.first.get_by_role("link")).to_have_count(0)
    check_everywhere(tab, "backups, without a fresh sign-in")
    tab.get_by_role("link", name="sign in again").click()
    expect(tab.get_by_text("The page needs a fresh sign-in")).to_be_visible()


def test_a_failed_webhook_shows_its_posts_and_asks_before_it_is_removed(server: Server, tab: Page) -> None:
    tab.goto(f"{server.url}/admin/webhooks/ops")
    newest, first = tab.get_by_role("row", name=re.compile(r"^\d")).all()
    expect(first).to_contain_text("422")
    expect(newest).to_contain_text("200")
    first.locator("summary").press("Enter")
    expect(first.get_by_role("region", name="Answer to post 1")).to_have_text('{"problem": "no such field"}')

    tab.get_by_role("button", name="Remove…").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Remove ops?")
    check_everywhere(tab, "a question")
    tab.get_by_role("link", name="Cancel").click()
    expect(tab).to_have_url(f"{server.url}/admin/webhooks/ops")
    tab.get_by_role("button", name="New secret…").click()
    tab.get_by_role("button", name="Make a new secret").click()
    expect(tab.locator("pre")).to_have_text(re.compile(r"^whsec_[\w+/=]{44}$"))


def test_a_client_that_does_not_read_its_download_holds_up_no_one_and_takes_no_memory(server: Server) -> None:
    folder = Path(server.settings["OUTFEED_BACKUP_DIR"])
    big = folder / "outfeed-20260501T000000Z.db"
    with big.open("wb") as file:
        file.truncate(256 * 2**20)
    cookies = {server.cookie_name: server.sign_in("operator")}
    before = _resident_bytes(server)
    with httpx.stream("GET", f"{server.url}/admin/backups/{big.name}", cookies=cookies, trust_env=False) as answer:
        assert (answer.status_code, answer.headers["content-length"]) == (200, str(256 * 2**20))
        for _ in range(3):
            assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
        assert _resident_bytes(server) - before < 32 * 2**20
    big.unlink()


def _resident_bytes(server: Server) -> int:
    pages = Path(f"/proc/{server.workers()[0]}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
