"""Hints: each command that a page shows runs unchanged."""

from __future__ import annotations

import html
import re
import shlex
import subprocess
from pathlib import Path

from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.log import hints
from outfeed.log.store import log_page
from outfeed.log.store.log_filter import LogFilter
from outfeed.principal import EVERYTHING
from outfeed.store.database import Database
from tests.http.visitors import show_tokens_and_names, signed_in
from tests.server import Server


def hints_in(page: str) -> dict[str, str]:
    """Return the lines of each tab, as a reader copies them."""
    empty = page.partition('<div class="empty">')[2]
    found = re.findall(r'data-way="(\w+)">\s*<pre class="copy"[^>]*>(.*?)</pre>', empty, re.DOTALL)
    return {name: html.unescape(lines) for name, lines in found}


def run(lines: str, folder: Path, **environment: str) -> None:
    """Run *lines* in a shell with few variables, in a new folder."""
    (folder / "elsewhere").mkdir(exist_ok=True)
    subprocess.run(
        ["sh", "-ec", lines.replace("curl ", "curl --silent --fail --noproxy '*' ")],
        check=True, cwd=folder / "elsewhere", env={"PATH": "/usr/bin:/bin", "no_proxy": "*"} | environment,
        capture_output=True, timeout=60,
    )  # fmt: skip


def test_an_operator_sees_lines_that_work_in_any_folder(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        app = create_app(Settings(database=server.database, public_url=server.url))
        show_tokens_and_names(app)
        database = app.extensions["outfeed"].database
        ways = hints_in(signed_in(app, database)("GET", "/swarm/live").text)
        assert list(ways) == ["terminal", "curl", "python"]
        for number, lines in enumerate(ways.values(), 1):
            run(lines, tmp_path)
            assert logged(database) == [("system.info", {"message": "Hello"})] * number
        database.close()


def test_an_odd_path_is_quoted(tmp_path: Path) -> None:
    database = tmp_path / "a b's" / "feed.db"
    words = shlex.split(hints.log_on_this_machine(Settings(database=database)))
    assert f"OUTFEED_DATABASE={database}" in words


def test_a_viewer_sees_no_path_and_lines_that_work_with_a_token(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        app = create_app(Settings(database=server.database, public_url=server.url))
        show_tokens_and_names(app)
        database = app.extensions["outfeed"].database
        visit = signed_in(app, database, "viewer")
        page, log = (visit("GET", f"/swarm/{name}").text for name in ("live", "events"))
        assert str(tmp_path) not in page
        ways = hints_in(page)
        assert list(ways) == ["curl", "python"]
        assert hints_in(log) == ways
        for number, lines in enumerate(ways.values(), 1):
            run(lines, tmp_path, OUTFEED_TOKEN=server.token)
            assert len(logged(database)) == number
        database.close()


def logged(database: Database) -> list[tuple[str, object]]:
    page = log_page.list_page(database, LogFilter(EVERYTHING, source="me"), limit=9)
    return [(event.event_type, event.data) for _, event in page.events]
