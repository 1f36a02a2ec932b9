"""Hints: commands that a page shows, ready to copy and run."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from outfeed.config import Settings

_DATA = {"message": "Hello"}


def log_on_this_machine(settings: Settings) -> str:
    """Return the command that logs an event on the server's machine.

    It works in any folder and without a token.
    """
    program = Path(sys.executable).with_name("outfeed")
    command = [str(program)] if program.is_file() else [sys.executable, "-m", "outfeed"]
    database = shlex.quote(f"OUTFEED_DATABASE={settings.database.absolute()}")
    arguments = ["log", "system.info", "--source", "me", "--data", json.dumps(_DATA)]
    return f"env {database} {shlex.join([*command, *arguments])}"


def log_by_http(url: str) -> str:
    """Return the command that logs an event at the server *url*.

    It reads its token from OUTFEED_TOKEN.
    """
    body = json.dumps({"event_type": "system.info", "source": "me", "data": _DATA})
    return (
        "curl -H \"Authorization: Bearer $OUTFEED_TOKEN\" -H 'Content-Type: application/json'"
        f" -d {shlex.quote(body)} {url}/api/events"
    )
