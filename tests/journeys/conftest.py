"""One browser and one server for all page tests, one profile per test."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.page import DESKTOP, PATIENCE_MS
from tests.proxy import Proxy
from tests.server import Server

# Only the page under test may use the network. The tabs of a profile share a process, and none is started in advance.
QUIET = [
    "--renderer-process-limit=1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the disk, so that a write's fsync takes its time."""
    return tmp_path_factory.mktemp("journey")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Debian's browser if installed, else Playwright's.
        chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        with contextlib.closing(playwright.chromium.launch(executable_path=chromium, args=QUIET)) as running:
            yield running


@pytest.fixture(scope="session")
def standing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which no auction ends by itself within a test."""
    with Server(tmp_path_factory.mktemp("standing"), auction_secs=120) as running:
        yield running


@pytest.fixture
def shared(standing_server: Server) -> Server:
    """A running server without events, agents and tasks.

    It is for tests that don't stop it.
    The events of a test have the seqs after `base`.
    """
    with contextlib.closing(sqlite3.connect(standing_server.database)) as raw, raw:
        for table in ("bid", "task", "agent"):
            raw.execute(f"DELETE FROM outfeed_{table}")
        raw.execute("DELETE FROM event_log")
        raw.execute("DELETE FROM outbox")
        head = raw.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    standing_server.base = head[0] if head else 0
    return standing_server


@pytest.fixture
def proxy(shared: Server) -> Iterator[Proxy]:
    """A proxy to the shared server that the test can block, cut and stop."""
    with Proxy(shared) as running:
        yield running


@pytest.fixture
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A browser profile with a signed-in operator of its own."""
    server: Server = request.getfixturevalue("shared" if "shared" in request.fixturenames else "server")
    with contextlib.closing(
        # Without motion: fading rows, drawn in software, took a tenth of the CPU time.
        browser.new_context(viewport=DESKTOP, locale="en-GB", timezone_id="Europe/Berlin", reduced_motion="reduce")  # type: ignore[arg-type]
    ) as opened:
        opened.set_default_timeout(PATIENCE_MS)
        host, value = urlsplit(server.url).hostname or "", server.sign_in("operator")
        opened.add_cookies([{"name": server.cookie_name, "value": value, "domain": host, "path": "/"}])
        yield opened


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab. Script errors and refusals by the policy fail the test."""
    complaints: list[str] = []
    opened = context.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
    yield opened
    opened.close()
    assert not complaints
