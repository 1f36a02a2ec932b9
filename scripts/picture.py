"""The picture of the live page for the README: a demo server of its own, left alone until its chart has bars."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from outfeed.config import environment_with
from tests.server import ROOT, Server, make_database

FILE = ROOT / "tests" / "screenshots" / "live.png"
EVENTS = 45
MAX_WAIT_MS = 120_000
SIZE = {"width": 1440, "height": 900}


SEED = 7
PAST_EVENTS = 600


def write_the_past(database: Path) -> None:
    """Insert events of the last hour, so that the chart has bars."""
    dice = random.Random(SEED)
    kinds = ("task.created", "task.completed", "agent.status_changed", "bid.submitted", "tool.called", "system.info")
    rows = [
        (f"past-{number}", dice.choice(kinds), "coordinator", f"-{dice.triangular(70, 3600, 900):.0f} seconds")
        for number in range(PAST_EVENTS)
    ]
    sql = """INSERT INTO event_log (id, event_type, source, data, timestamp)
        VALUES (?, ?, ?, '{}', strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?))"""
    with contextlib.closing(sqlite3.connect(database)) as raw, raw:
        raw.executemany(sql, rows)


class Demo(Server):
    """A server whose simulated swarm starts with it."""

    @property
    def environment(self) -> dict[str, str]:
        return environment_with(database=str(self.database), bind=f"127.0.0.1:{self.port}", auction_secs="6")

    def start(self, *arguments: str) -> None:
        make_database(self.database)
        write_the_past(self.database)
        super().start("--demo", *arguments)


def main() -> None:
    """Write FILE."""
    with tempfile.TemporaryDirectory() as folder, Demo(Path(folder)) as server, sync_playwright() as playwright:
        chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        with contextlib.closing(playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])) as browser:
            cookie = {"name": "outfeed_session", "value": server.sign_in("operator"), "url": server.url}
            context = browser.new_context(viewport=SIZE, color_scheme="light", reduced_motion="reduce")  # type: ignore[arg-type]
            context.add_cookies([cookie])  # type: ignore[list-item]
            page = context.new_page()
            page.goto(f"{server.url}/swarm/live")
            page.locator(f"event-feed .event[data-seq='{PAST_EVENTS + EVENTS}']").wait_for(timeout=MAX_WAIT_MS)
            page.screenshot(path=FILE)


if __name__ == "__main__":
    main()
