"""A tab with the live page: its memory, and its answers to input."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page

from outfeed import clock
from tests.page import PATIENCE_MS

BATCH = 100
CLICKS = 10
# Presses or releases a chip, which filters all rows, and waits for the frame after it.
_CLICK = """() => new Promise(resolve => {
    document.querySelector("event-feed").shadowRoot.querySelector(".chips button").click();
    requestAnimationFrame(() => setTimeout(resolve));
})"""


class Memory(NamedTuple):
    """A page's memory after a garbage collection."""

    heap_bytes: int
    nodes: int


class Tab:
    """The live page in *page*, and a writer of the events that it shows."""

    def __init__(self, page: Page, database: Path) -> None:
        self._page = page
        self._database = database
        self._numbers = itertools.count()
        self._session = page.context.new_cdp_session(page)

    def write(self, count: int, pause_secs: float = 0.0) -> None:
        """Log *count* events in batches; return when the page has shown them."""
        for _ in range(count // BATCH):
            head = self._write_batch()
            if pause_secs:
                time.sleep(pause_secs)
        self._page.wait_for_function(
            "head => document.querySelector('event-feed').cursor >= head", arg=head, timeout=4 * PATIENCE_MS
        )

    def _write_batch(self) -> int:
        now, kinds = clock.timestamp(), ("shop.sold", "shop.returned", "deploy.finished", "job.failed", "task.created")
        rows = [
            (
                f"tab-{number}",
                kinds[number % 5],
                f"host-{number % 7}",
                f"t-{number // 3}",
                json.dumps({"amount": number}),
            )
            for number in itertools.islice(self._numbers, BATCH)
        ]
        with contextlib.closing(sqlite3.connect(self._database)) as raw, raw:
            raw.executemany(
                "INSERT INTO event_log (id, event_type, source, task_id, data, timestamp) VALUES (?, ?, ?, ?, ?, ?)",
                [(*row, now) for row in rows],
            )
            return int(raw.execute("SELECT max(seq) FROM outbox").fetchone()[0])

    def memory(self) -> Memory:
        """Collect garbage, and return the memory in use."""
        self._session.send("HeapProfiler.collectGarbage")
        heap = int(self._session.send("Runtime.getHeapUsage")["usedSize"])
        return Memory(heap, int(self._session.send("Memory.getDOMCounters")["nodes"]))

    def answer_millis(self) -> float:
        """Return the mean CPU time of the page's main thread for a click.

        The wall time includes the work of other processes.
        """
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = self._busy_secs()
        for _ in range(CLICKS):
            self._page.evaluate(_CLICK)
        return 1000 * (self._busy_secs() - before) / CLICKS

    def _busy_secs(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")
