"""Browser notifications of saved views, in a browser that allows them.

The page's Notification is replaced by one that records, since a browser without a screen shows none.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

from playwright.sync_api import BrowserContext, Page, expect

from tests.accessible import problems
from tests.page import write
from tests.server import Server
from tests.tabs import set_visible
from tests.waits import wait_until

RECORD = """
    window.shown = [];
    window.asked = 0;
    window.sounds = 0;
    document.addEventListener("outfeed:sound", () => (window.sounds += 1));
    window.Notification = class {
        static permission = localStorage.getItem("permission") ?? "default";
        static async requestPermission() {
            window.asked += 1;
            localStorage.setItem("permission", "granted");
            return (this.permission = "granted");
        }
        constructor(title, {body, tag}) { shown.push([title, body, tag]); }
        close() {}
    };
"""


def fail(server: Server, first: int, count: int = 1) -> None:
    failures = [{"reason": f"failure {first + number}"} for number in range(count)]
    write(server.database, *failures, event_type="task.failed")


def save_view(page: Page, server: Server, query: str, name: str) -> None:
    page.goto(f"{server.url}/swarm/events?q={query}")
    page.locator("#views > summary").click()
    page.get_by_label("Save this query as").fill(name)
    page.get_by_role("button", name="Save view").click()
    page.wait_for_load_state()


def open_dialog(page: Page) -> None:
    if not page.locator("#notifications").is_visible():
        page.evaluate("document.querySelector('[data-opens=notifications]').click()")


def shown(*pages: Page) -> list[list[str]]:
    return [each for page in pages for each in page.evaluate("shown")]


def position(page: Page) -> int:
    """Return the stored position in the log, 0 without one."""
    places = page.evaluate("Object.entries(localStorage).filter(([key]) => key.startsWith('outfeed notified'))")
    return max((json.loads(place)["after"] for _, place in places), default=0)


def choices(server: Server) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(server.database)) as raw:
        return raw.execute("SELECT has_sound, is_always FROM outfeed_view_notification").fetchall()


def test_a_saved_view_notifies_once_over_all_tabs(shared: Server, context: BrowserContext) -> None:
    context.add_init_script(RECORD)
    context.grant_permissions(["notifications"], origin=shared.url)
    errors: list[str] = []
    first = context.new_page()
    first.on("pageerror", lambda error: errors.append(str(error)))
    save_view(first, shared, "type:task.failed", "Failures")
    first.goto(f"{shared.url}/swarm/live")
    open_dialog(first)
    assert first.evaluate("asked") == 0, "the page asks on a click only"

    # Switched on: the choice is stored, and events from now on are shown.
    first.get_by_label("Failures", exact=True).click()
    wait_until(lambda: choices(shared) == [(0, 0)], "stored")
    assert first.evaluate("asked") == 1
    second = context.new_page()
    second.on("pageerror", lambda error: errors.append(str(error)))
    second.goto(f"{shared.url}/swarm/events")
    for page in (first, second):
        set_visible(page, False)
    wait_until(
        lambda: first.evaluate("Object.keys(localStorage).some(key => key.startsWith('outfeed notified'))"), "begun"
    )
    write(shared.database, {}, event_type="task.completed")
    fail(shared, 1)
    wait_until(lambda: shown(first, second), "shown")
    ((title, body, _),) = shown(first, second)
    assert "failure 1" in title
    assert body == "Failures"

    # A burst is one notification.
    fail(shared, 10, 12)
    wait_until(lambda: len(shown(first, second)) == 2, "the burst")
    assert shown(first, second)[-1][0] == "12 new events"
    assert "failure 21" in shown(first, second)[-1][1]

    # Nothing while a page is visible, unless chosen; a sound if chosen.
    set_visible(second, True)
    before = position(first)
    fail(shared, 30)
    wait_until(lambda: position(first) > before, "read")
    open_dialog(second)
    second.get_by_label("also while I look at Outfeed").click()
    second.get_by_label("with a sound").click()
    wait_until(lambda: choices(shared) == [(1, 1)], "stored")
    fail(shared, 40)
    wait_until(lambda: any("failure 40" in title for title, _, _ in shown(first, second)), "shown while visible")
    assert not any("failure 30" in title for title, _, _ in shown(first, second))
    wait_until(lambda: first.evaluate("sounds") + second.evaluate("sounds") == 1, "a sound")

    # Another page continues where the one that notified has stopped.
    count = len(shown(second))
    first.close()
    fail(shared, 50)
    wait_until(lambda: len(shown(second)) > count, "the other page notifies")
    assert [title for title, _, _ in shown(second)[count:] if "failure 50" not in title] == []

    # Switched off, and a page that is opened again shows it so.
    second.get_by_label("Failures", exact=True).click()
    wait_until(lambda: choices(shared) == [], "stored")
    second.reload()
    open_dialog(second)
    expect(second.get_by_label("Failures", exact=True)).not_to_be_checked()
    expect(second.get_by_label("with a sound")).to_be_disabled()
    assert problems(second, within="#notifications") == ""
    assert errors == []
