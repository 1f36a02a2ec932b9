"""The cases of tests/looks.json, which Python and the browser run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("looks.json").read_text("utf-8"))
FIELDS = {"id": "i", "source": "s", "task_id": "t", "agent_id": "a", "timestamp": "2026-01-01T00:00:00.000Z"}


def event_of(case: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the event of *case*."""
    return {**FIELDS, "event_type": case.get("type", "shop.sold"), "data": case["data"]}


def display_of(case: dict[str, Any]) -> dict[str, Any] | None:
    """Return what *case* sets for the event's type, if it sets anything."""
    found = {name: case[name] for name in ("icon", "label", "level") if name in case}
    return {"level": "info", **found} if found else None


def expected(case: dict[str, Any]) -> dict[str, Any]:
    """Return what *case* expects: `text`, `parts`, `look`, `colour`."""
    return {name: case[name] for name in ("text", "parts", "look", "colour") if name in case}
