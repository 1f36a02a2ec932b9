"""Hints: commands that a page shows, ready to copy and run."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from outfeed.config import Settings

_EVENT = {"event_type": "system.info", "source": "me", "data": {"message": "Hello"}}


class Hint(NamedTuple):
    """Lines that log an event, and the name of the tab that shows them."""

    name: str
    title: str
    lines: str


def on_this_machine(settings: Settings, url: str) -> list[Hint]:
    """Return the commands that log an event, on the server's machine.

    They work in any folder and without a token.
    """
    return [
        Hint("terminal", "Terminal", log_on_this_machine(settings)),
        Hint("curl", "curl", f"{_create_token(settings)}\n{_curl(url)}"),
        Hint("python", "Python", f"{_python_on_this_machine(settings)}"),
    ]


def by_http(url: str) -> list[Hint]:
    """Return the commands that log an event at the server *url*.

    They read the token from OUTFEED_TOKEN.
    """
    return [Hint("curl", "curl", _curl(url)), Hint("python", "Python", _python_by_http(url))]


def log_on_this_machine(settings: Settings) -> str:
    """Return the command that logs an event on the server's machine."""
    data = json.dumps(_EVENT["data"])
    return _command(settings, "log", str(_EVENT["event_type"]), "--source", str(_EVENT["source"]), "--data", data)


def _command(settings: Settings, *arguments: str) -> str:
    program = Path(sys.executable).with_name("outfeed")
    command = [str(program)] if program.is_file() else [sys.executable, "-m", "outfeed"]
    return f"{_environment(settings)} {shlex.join([*command, *arguments])}"


def _environment(settings: Settings) -> str:
    return f"env {shlex.quote(f'OUTFEED_DATABASE={settings.database.absolute()}')}"


def _create_token(settings: Settings) -> str:
    """Return the line that sets OUTFEED_TOKEN to a token for an hour."""
    command = _command(settings, "token", "create", "--scopes", "write", "--expires", "1h")
    return f'OUTFEED_TOKEN=$({command} "first-$(date +%s)")'


def _curl(url: str) -> str:
    return (
        "curl -H \"Authorization: Bearer $OUTFEED_TOKEN\" -H 'Content-Type: application/json'"
        f" -d {shlex.quote(json.dumps(_EVENT))} {url}/api/events"
    )


def _python_on_this_machine(settings: Settings) -> str:
    code = f"""
from outfeed import log_event
log_event({json.dumps(_EVENT["event_type"])}, {json.dumps(_EVENT["source"])}, data={json.dumps(_EVENT["data"])})
"""
    return f"{_environment(settings)} {shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def _python_by_http(url: str) -> str:
    code = f"""
import json, os, urllib.request
body = json.dumps({json.dumps(_EVENT)}).encode()
headers = {{"Authorization": "Bearer " + os.environ["OUTFEED_TOKEN"], "Content-Type": "application/json"}}
urllib.request.urlopen(urllib.request.Request({json.dumps(f"{url}/api/events")}, body, headers))
"""
    return f"python3 -c {shlex.quote(code)}"
