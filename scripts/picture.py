"""The picture of the live page for the README.

It shows a demo server, after enough time for bars in its chart.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from outfeed.config.environment import environment_with
from tests.server import ROOT, Server

FILE = ROOT / "tests" / "screenshots" / "live.png"
EVENTS = 120
MAX_WAIT_MS = 120_000
SIZE = {"width": 1440, "height": 900}


class Demo(Server):
    """A server with a simulated swarm."""

    @property
    def environment(self) -> dict[str, str]:
        return environment_with(database=str(self.database), bind=f"127.0.0.1:{self.port}", auction_secs="6")

    def start(self, *arguments: str) -> None:
        super().start("--demo", *arguments)


def main() -> None:
    """Write FILE."""
    with tempfile.TemporaryDirectory() as folder, Demo(Path(folder)) as server, sync_playwright() as playwright:
        chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        with contextlib.closing(playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])) as browser:
            cookie = {"name": server.cookie_name, "value": server.sign_in("operator"), "url": server.url}
            context = browser.new_context(viewport=SIZE, color_scheme="light", reduced_motion="reduce")  # type: ignore[arg-type]
            context.add_cookies([cookie])  # type: ignore[list-item]
            page = context.new_page()
            page.goto(f"{server.url}/swarm/live?range=15m")
            page.locator("event-feed .event").nth(EVENTS).wait_for(state="attached", timeout=MAX_WAIT_MS)
            page.screenshot(path=FILE)


if __name__ == "__main__":
    main()
