"""Tabs of one browser that share a connection, and random walks over them."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.journeys.test_embedding import RECORD_EVENTS, recorded_seqs, site
from tests.page import write
from tests.proxy import Proxy
from tests.server import Server
from tests.waits import wait_until

# Keeps the sockets of the page.
RECORD_SOCKETS = """
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...given) {
            super(...given);
            sockets.push(this);
        }
    };
"""


class Tabs:
    """Tabs of one browser with a feed each, and their open sockets."""

    def __init__(self, context: BrowserContext, server: Server, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self.errors: list[str] = []
        self._context = context
        context.add_init_script(RECORD_EVENTS + RECORD_SOCKETS)

    def open(self, feeds: str = "<event-feed></event-feed>", path: str = "/", state: str | None = "live") -> Page:
        """Open a tab with *feeds*. Without None, it waits for *state*."""
        self.proxy.pages[path] = site(feeds, head="")
        page = self._context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(self.proxy.url + path)
        for feed in page.locator("event-feed").all() if state else ():
            expect(feed.locator(".bar")).to_have_attribute("data-state", state)
        return page

    def expect_sockets(self, count: int) -> None:
        wait_until(lambda: self.proxy.sockets == count, f"{count} sockets are open")


def seqs(feed: Locator | Page, base: int) -> list[int]:
    found = feed.locator(".rows > .event").evaluate_all("rows => rows.map(row => Number(row.dataset.seq))")
    return [seq - base for seq in reversed(found)]


def set_visible(page: Page, is_visible: bool) -> None:
    page.evaluate(
        "isHidden => { Object.defineProperty(document, 'hidden', {value: isHidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        not is_visible,
    )


def leads(page: Page) -> bool:
    """Return whether a socket of this tab is open."""
    return bool(page.evaluate("sockets.some(socket => socket.readyState === WebSocket.OPEN)"))


# --- random walks -----------------------------------------------------------------------------------------------------

MAX_TABS = 4
MAX_EVENTS = 450  # the list keeps 500 rows
FILTERS: list[dict[str, Any]] = [
    {}, {}, {"types": ["task.*"]}, {"types": ["task.created", "system.*"]}, {"source": "one"},
    {"types": ["system.*"], "source": "two"},
]  # fmt: skip
TYPES = ("task.created", "task.done", "system.error", "shop.paid")
CRASH = "addEventListener('pagehide', event => event.stopImmediatePropagation(), true)"


@dataclass
class Tab:
    """A tab with one feed, whose list has every event that matches *wanted*."""

    page: Page
    wanted: dict[str, Any] = field(default_factory=dict)
    is_hidden: bool = False
    is_frozen: bool = False

    def matches(self, event_type: str, source: str) -> bool:
        """Return whether the server would send the event to this tab."""
        types = self.wanted.get("types")
        is_wanted = not types or any(
            event_type.startswith(each[:-1]) if each.endswith(".*") else event_type == each for each in types
        )
        return is_wanted and self.wanted.get("source") in (None, source)


class Walk:
    """Random steps of the tabs, while events are written.

    `check` compares the list of each tab with the database.
    """

    def __init__(self, tabs: Tabs, source: random.Random) -> None:
        self._tabs = tabs
        self._random = source
        self._open: list[Tab] = []
        self._events = 0
        self.steps: list[str] = []

    def step(self) -> None:
        """Do one step, then write some events."""
        moves = [
            self._close,
            self._reload,
            self._toggle,
            self._toggle,
            self._freeze,
            self._freeze,
            self._cut,
            self._block,
        ]
        move = self._random.choice([self._add] if not self._open else [self._add, self._add, *moves])
        self.steps.append(move.__name__.strip("_"))
        move()
        for _ in range(self._random.randint(0, 3)):
            self._write(self._random.randint(1, 4))

    def check(self) -> None:
        """Show every tab, and compare its rows and its events with the log."""
        self._tabs.proxy.unblock()
        for tab in self._open:
            if tab.is_frozen:
                self._dispatch(tab, "resume")
            set_visible(tab.page, True)
            tab.page.evaluate("dispatchEvent(new Event('online'))")
        written = self._written()
        for tab in self._open:
            wanted = [seq for seq, event_type, source in written if tab.matches(event_type, source)]
            feed = tab.page.locator("event-feed")
            expect(feed.locator(".rows > .event")).to_have_count(len(wanted))
            shown = seqs(tab.page, 0)
            assert shown == wanted, self._explain(tab)
            fired = recorded_seqs(tab.page, 0)
            assert fired == wanted, f"{self._explain(tab)}: fired {fired} of {wanted}"
            expect(feed.locator(".notice")).to_have_count(0)
        assert self._tabs.errors == []

    def _explain(self, tab: Tab) -> str:
        return f"{tab.wanted} after {self.steps}"

    def close(self) -> None:
        """Close all tabs."""
        for tab in self._open:
            tab.page.close()
        self._open.clear()

    def _written(self) -> list[tuple[int, str, str]]:
        with contextlib.closing(sqlite3.connect(self._tabs.server.database)) as raw:
            rows = raw.execute("SELECT seq, payload FROM outbox WHERE seq > ? ORDER BY seq", (self._tabs.server.base,))
            events = [(seq, json.loads(payload)) for seq, payload in rows]
        return [(seq, event["event_type"], event["source"]) for seq, event in events]

    def _write(self, count: int) -> None:
        if self._events >= MAX_EVENTS:
            return
        self._events += count
        event_type, source = self._random.choice(TYPES), self._random.choice(("one", "two"))
        write(self._tabs.server.database, *({"n": n} for n in range(count)), event_type=event_type, source=source)

    # The steps

    def _add(self) -> None:
        if len(self._open) >= MAX_TABS:
            return
        wanted = self._random.choice(FILTERS)
        attributes = {"types": ",".join(wanted.get("types", [])), "source": wanted.get("source", ""), "limit": "500"}
        tag = " ".join(f'{name}="{value}"' for name, value in attributes.items())
        page = self._tabs.open(f"<event-feed {tag}></event-feed>", f"/{FILTERS.index(wanted)}", state=None)
        self._open.append(Tab(page, wanted))

    def _pick(self) -> Tab:
        return self._random.choice(self._open)

    def _close(self) -> None:
        tab = self._pick()
        self._open.remove(tab)
        if self._random.random() < 0.5:
            tab.page.evaluate(CRASH)
        tab.page.close()

    def _reload(self) -> None:
        tab = self._pick()
        tab.page.reload()
        tab.is_hidden = tab.is_frozen = False

    def _toggle(self) -> None:
        tab = self._pick()
        tab.is_hidden = not tab.is_hidden
        set_visible(tab.page, not tab.is_hidden)

    def _freeze(self) -> None:
        tab = self._pick()
        tab.is_frozen = not tab.is_frozen
        self._dispatch(tab, "freeze" if tab.is_frozen else "resume")

    def _cut(self) -> None:
        self._tabs.proxy.cut()

    def _block(self) -> None:
        """Forbid WebSockets, or allow them again."""
        self._tabs.proxy.unblock() if self._random.random() < 0.5 else self._tabs.proxy.block()

    def _dispatch(self, tab: Tab, event: str) -> None:
        tab.page.evaluate("name => document.dispatchEvent(new Event(name))", event)
