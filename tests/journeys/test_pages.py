"""Every page at each size and in each theme: axe, the console, and width."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from outfeed.store import database as db
from outfeed.swarm.coordinator import Coordinator
from outfeed.webhooks import store as webhook
from tests.accessible import problems
from tests.page import DESKTOP, PHONE, change
from tests.server import Server
from tests.watch.watched import watch

CHANGE = {
    "op": "update", "table": "orders", "key": {"id": 7}, "was": {"status": "open", "note": None},
    "row": {"id": 7, "status": "paid", "note": "a long note " * 20},
}  # fmt: skip
DATA = {
    "amount": 12900, "customer": {"name": "ACME", "tags": ["b2b"], "vip": True, "discount": None}, "empty": {},
    "long": "x" * 300,
}  # fmt: skip
EVENTS = [
    {"id": "paid", "event_type": "payment.succeeded", "source": "shop", "data": DATA},
    {"id": "change", "event_type": "orders.updated", "source": "orders", "data": CHANGE},
    {"id": "error", "event_type": "error.captured", "source": "web", "data": {"error": "TypeError: x is undefined"}},
    {"event_type": "task.created", "source": "s", "task_id": "mine", "data": {"description": "Buy milk"}},
]
PAGES = {
    "live": "/swarm/live",
    "log": "/swarm/events",
    "log without matches": "/swarm/events?type=no.such",
    "event": "/swarm/events/paid",
    "change": "/swarm/events/change",
    "error": "/swarm/events/error",
    "tasks": "/swarm/tasks",
    "no tasks": "/swarm/tasks?q=no+such",
    "task": "/swarm/tasks/{task}",
    "open task": "/swarm/tasks/{open}",
    "task of events": "/swarm/tasks/mine",
    "agents": "/swarm/agents",
    "agent": "/swarm/agents/{agent}",
    "status": "/status",
    "watches": "/admin/watches",
    "docs": "/docs/websocket",
    "search of the docs": "/docs/search?q=epoch",
    "API": "/api/docs",
    "password": "/password",
    "missing": "/nowhere",
}
SIGNED_OUT = {"sign in": "/login", "docs, signed out": "/docs/tutorial"}
# Rules that depend on the theme, and on the size. All other rules are checked once.
THEME = ["color-contrast"]
SIZE = ["color-contrast", "target-size", "scrollable-region-focusable", "link-in-text-block"]
# Of many sections of one kind, axe checks only the first ones.
REPEATED = ".operation ~ .operation ~ .operation, .event ~ .event ~ .event ~ .event ~ .event ~ .event"
VIEWS: list[tuple[str, dict[str, int], list[str] | None]] = [
    ("light", DESKTOP, None), ("dark", DESKTOP, THEME), ("dark", PHONE, SIZE), ("light", PHONE, THEME),
]  # fmt: skip


# The rows whose state covers their text.
COVERED = """rows => rows.flatMap(row => {
    const [state, text] = [".badge", ".what"].map(part => row.querySelector(part).getBoundingClientRect());
    return state.bottom > text.top && state.top < text.bottom && state.right > text.left ? [row.textContent] : [];
})"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server with content on every page, and the ids of its tasks and agent."""
    with Server(tmp_path_factory.mktemp("pages"), auction_secs=3600, agent_timeout_secs=36_000) as running:
        database = db.at(running.database)
        coordinator = Coordinator(database, auction_secs=3600, agent_timeout_secs=36_000)
        agent = coordinator.join("Forge")
        done, failed, open_ = (coordinator.post(text).id for text in ("Fix the test", "Translate", "Review " * 30))
        for task in (done, failed, open_):
            coordinator.bid(task, agent.id, 125)
        change(running.database, f"UPDATE outfeed_task SET closes_at = created_at WHERE id <> '{open_}'")
        for task in (done, failed):
            coordinator.close_auction(task)
            coordinator.start(task, agent.id)
        coordinator.complete(done, agent.id, {"commit": "f571b53"})
        coordinator.fail(failed, agent.id, "The glossary is missing.")
        webhook.add(database, "audit", "http://127.0.0.1:9/", types=("error.*",), secret="x" * 32, batch=0)
        change(running.database, "CREATE TABLE stock (id INTEGER PRIMARY KEY, name, api_token)")
        with database.transaction() as connection:
            watch(connection, "stock", states={"name": ["Lamp"]}, message="Stock {id}: {name}")
        database.close()
        with running.http() as http:
            answer = http.post("/api/events", json=EVENTS)
            assert answer.is_success, answer.text
        yield running, {"task": done, "open": open_, "agent": agent.id}


@pytest.fixture(scope="module")
def tab(browser: Browser, filled: tuple[Server, dict[str, str]]) -> Iterator[Page]:
    server, _ = filled
    with contextlib.closing(browser.new_context(reduced_motion="reduce", locale="en-GB")) as own:
        own.add_cookies([{"name": server.cookie_name, "value": server.sign_in("operator"), "url": server.url}])
        yield own.new_page()


@pytest.mark.parametrize("name", [*PAGES, *SIGNED_OUT])
def test_a_page_is_accessible_and_fits_at_each_size_in_each_theme(
    filled: tuple[Server, dict[str, str]], tab: Page, name: str
) -> None:
    server, ids = filled
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    cookies = tab.context.cookies()
    if name in SIGNED_OUT:
        tab.context.clear_cookies()
    tab.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    tab.goto(server.url + (PAGES | SIGNED_OUT)[name].format(**ids))
    for theme, size, rules in VIEWS:
        tab.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        tab.set_viewport_size(size)  # type: ignore[arg-type]
        assert problems(tab, rules, {"exclude": [REPEATED]}) == "", (theme, size)
        assert tab.evaluate("document.documentElement.scrollWidth") == size["width"]
        assert tab.locator(".listing li").evaluate_all(COVERED) == []
    expect(tab.locator("h1")).to_have_count(1)
    primaries = tab.locator("form").evaluate_all("all => all.map(one => one.querySelectorAll('.primary').length)")
    assert max(primaries, default=0) <= 1
    assert said == (
        ["Failed to load resource: the server responded with a status of 404 (NOT FOUND)"] * (name == "missing")
    )
    tab.context.add_cookies(cookies)  # type: ignore[arg-type]
