"""Hints: each command that a page shows runs unchanged."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from flask import Flask

from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.log import hints
from outfeed.log.store.reading import list_events
from outfeed.store.database import Database
from tests.http.visitors import show_tokens_and_names, signed_in
from tests.server import Server


def hint_in(page: str) -> str:
    empty = page.partition('<div class="empty">')[2]
    return html.unescape(re.findall(r'<pre class="copy"[^>]*>(.*?)</pre>', empty, re.DOTALL)[0])


def test_an_operator_sees_a_command_that_works_in_any_folder(
    flask_app: Flask, database: Database, tmp_path: Path
) -> None:
    show_tokens_and_names(flask_app)
    (tmp_path / "elsewhere").mkdir()
    page = signed_in(flask_app, database)("GET", "/swarm/live").text
    subprocess.run(
        ["sh", "-c", hint_in(page)], check=True, cwd=tmp_path / "elsewhere", env={"PATH": "/usr/bin:/bin"}, timeout=30
    )
    (event,) = list_events(source="me")
    assert (event.event_type, event.data) == ("system.info", {"message": "Hello"})


def test_an_odd_path_is_quoted(tmp_path: Path) -> None:
    database = tmp_path / "a b's" / "feed.db"
    words = shlex.split(hints.log_on_this_machine(Settings(database=database)))
    assert f"OUTFEED_DATABASE={database}" in words


def test_a_viewer_sees_no_path_and_a_command_that_works_with_a_token(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        app = create_app(Settings(database=server.database, public_url=server.url))
        show_tokens_and_names(app)
        database = app.extensions["outfeed"].database
        page = signed_in(app, database, "viewer")("GET", "/swarm/live").text
        assert str(tmp_path) not in page
        environment = {**os.environ, "OUTFEED_TOKEN": server.token}
        done = subprocess.run(
            ["sh", "-c", hint_in(page).replace("curl ", "curl --silent --noproxy '*' ")],
            check=True, capture_output=True, text=True, env=environment, timeout=30,
        )  # fmt: skip
        assert json.loads(done.stdout)["seq"]
        database.close()
