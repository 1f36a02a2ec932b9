"""Random steps of browser tabs that share one connection.

After each walk the list of each tab is compared with the log.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.proxy import Proxy
from tests.server import Server
from tests.tabs import Tabs, Walk

STEPS = 60


def run(minutes: float, source: random.Random) -> str:
    """Walk for *minutes*. Return what was done. Raises AssertionError."""
    end = time.monotonic() + minutes * 60
    walks = steps = 0
    with browser() as opened:
        while time.monotonic() < end:
            steps += walk(opened, source.randrange(1_000_000), end)
            walks += 1
    return f"{walks} walks of tabs with {steps} steps"


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start the browser of the tests."""
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    with (
        sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])) as opened,
    ):
        yield opened


def walk(opened: Browser, seed: int, end: float) -> int:
    """Take STEPS steps on a new server, or fewer at *end*.

    Returns their number.
    """
    with (
        tempfile.TemporaryDirectory(prefix="outfeed-soak-") as folder,
        Server(Path(folder)) as server,
        Proxy(server) as proxy,
        contextlib.closing(opened.new_context()) as context,
    ):
        walked = Walk(Tabs(context, server, proxy), random.Random(seed))
        done = 0
        try:
            while done < STEPS and time.monotonic() < end:
                walked.step()
                done += 1
            walked.check()
        except AssertionError as error:
            raise AssertionError(f"walk {seed}: {error}") from error
    return done
