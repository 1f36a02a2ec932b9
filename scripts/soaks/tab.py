"""A tab that stays open for the events of eight hours."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page

from scripts.soaks.browser_tabs import browser
from scripts.soaks.stage import Mismatch
from tests.page import DESKTOP, LivePage
from tests.server import Server
from tests.tab import Tab

EVENTS = 8 * 3600 * 10  # ten a second
SAMPLES = 8
STEP = 500  # events between two looks at the page, so that each gets a row
WARM_UP = 2_000
MAX_GROWTH_BYTES = 3_000_000
MAX_ANSWER_MS = 100.0


class TabResult(NamedTuple):
    """The most that the heap grew by, and the slowest answer to input."""

    growth_bytes: int
    answer_ms: float


def run_tab(events: int) -> TabResult:
    """Show *events* in a tab. Raises Mismatch above a limit."""
    with (
        tempfile.TemporaryDirectory(prefix="outfeed-soak-") as folder,
        Server(Path(folder)) as server,
        browser() as opened,
    ):
        context = opened.new_context(viewport=DESKTOP)  # type: ignore[arg-type]
        context.add_cookies([{"name": server.cookie_name, "value": server.sign_in("operator"), "url": server.url}])
        found = measure_tab(context.new_page(), server, events)
    if found.growth_bytes > MAX_GROWTH_BYTES or found.answer_ms > MAX_ANSWER_MS:
        raise Mismatch(f"a tab after {events:,} events: {found}")
    return found


def measure_tab(page: Page, server: Server, events: int) -> TabResult:
    """Return the growth of the heap after a warm-up, and the slowest answer."""
    LivePage(page, server)
    tab = Tab(page, server.database)
    tab.write(WARM_UP)
    heaps, answers = [tab.memory().heap_bytes], [tab.answer_millis()]
    for _ in range(SAMPLES):
        for _ in range(events // SAMPLES // STEP):
            tab.write(STEP)
        heaps.append(tab.memory().heap_bytes)
        answers.append(tab.answer_millis())
    return TabResult(max(heaps) - heaps[0], max(answers))
