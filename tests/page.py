"""Helpers of the browser tests: read the live page, and write events."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from outfeed import clock
from tests.server import Server
from tests.waits import PATIENCE_SECS

PATIENCE_MS = PATIENCE_SECS * 1000
expect.set_options(timeout=PATIENCE_MS)
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}


class LivePage:
    """The live page in a tab, read as a viewer reads it.

    It is at *url* if that is given, else at the server's own address.
    """

    def __init__(self, page: Page, server: Server, url: str | None = None, state: str = "live") -> None:
        self.page = page
        self.feed = page.locator("event-feed")
        self.rows = page.locator("event-feed .rows > .event")
        self.notices = page.locator("event-feed .rows > .notice")
        self.scroller = page.locator("event-feed .scroller")
        self.pill = page.locator("event-feed .pill")
        self.label = page.locator("event-feed .label")
        self.base = server.base
        page.goto(f"{url or server.url}/swarm/live")
        self.expect_state(state)

    def expect_state(self, state: str, timeout: float = PATIENCE_MS) -> None:
        expect(self.page.locator("event-feed .bar")).to_have_attribute("data-state", state, timeout=timeout)

    def expect_rows(self, count: int) -> None:
        expect(self.rows).to_have_count(count)

    def seqs(self) -> list[int]:
        """The seqs in the list, oldest first. 1 is the first of this test."""
        found = self.rows.evaluate_all("rows => rows.map(row => Number(row.dataset.seq))")
        return [seq - self.base for seq in reversed(found)]

    def cursor(self) -> int:
        """The last seq in the list, counted as in `seqs`."""
        return int(self.feed.evaluate("feed => feed.cursor")) - self.base

    def connect_now(self) -> None:
        """Make the page connect now, without its back-off.

        The page does the same when the network returns.
        """
        self.page.evaluate("dispatchEvent(new Event('online'))")

    def scroll_top(self) -> float:
        return float(self.scroller.evaluate("scroller => scroller.scrollTop"))


def counted(page: Page, kind: str) -> int:
    """Return the number of events of *kind* in the chart's legend.

    The legend has only kinds that occur.
    """
    found = page.locator(f'.legend [data-kind="{kind}"] .count').all_inner_texts()
    return int(found[0].replace(",", "")) if found else 0


def sign_out(page: Page) -> None:
    """Sign out with the user menu."""
    page.locator("header .menu > summary").click()
    page.get_by_role("button", name="Sign out").click()


_BEGIN = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
_numbers = itertools.count()


def _next_timestamp() -> str:
    """Return a time two seconds later than before, so that no rows fold."""
    return clock.isoformat(_BEGIN + timedelta(seconds=2 * next(_numbers)))


def write(
    path: Path,
    *data: Any,
    event_type: str = "task.created",
    source: str = "coordinator",
    timestamp: str | None = None,
    task_id: str | None = "task-1",
) -> None:
    """Log one event for each of *data*, in one transaction.

    It is written like a raw writer in another process would write it.
    """
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.executemany(
            "INSERT INTO event_log (id, event_type, source, task_id, data, timestamp)"
            " VALUES (lower(hex(randomblob(8))), ?, ?, ?, ?, ?)",
            [(event_type, source, task_id, json.dumps(item), timestamp or _next_timestamp()) for item in data],
        )


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(statement)


def begin_swarm(path: Path) -> None:
    """Add an agent that has left: the live page shows the swarm from then on."""
    change(
        path,
        "INSERT OR IGNORE INTO outfeed_agent (id, name, state, joined_at, seen_at, left_at)"
        " VALUES ('agent-first', 'First', 'left', '2026-01-15', '2026-01-15', '2026-01-15')",
    )


def tasks(count: int, prefix: str = "task") -> list[dict[str, str]]:
    return [{"description": f"{prefix} {number}"} for number in range(count)]
