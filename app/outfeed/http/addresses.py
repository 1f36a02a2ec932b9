"""Addresses of the log's pages. What can't stand in a path, or is a route of its own there, goes into the query."""

from __future__ import annotations

import re
from typing import Any

from flask import request, url_for

from outfeed.http.services import services

# No slash: proxies and browsers merge and resolve them.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@~-]*")
_OF_THE_API = {"type": "event_type", "task": "task_id", "agent": "agent_id"}


def of_site() -> str:
    """Return this server's address as its visitors know it, without a slash at the end."""
    return services().settings.public_url or request.url_root.rstrip("/")


def of_event(event_id: str) -> str:
    """Return where that event's page is."""
    if _PLAIN.fullmatch(event_id):
        return url_for("log.event", event_id=event_id)
    return url_for("log.events", id=event_id)


def of_event_as_json(event_id: str) -> str:
    """Return where the API has that event, alone or as a list of one."""
    if _PLAIN.fullmatch(event_id) and event_id not in ("summary", "export"):
        return url_for("events.get_event", event_id=event_id)
    return url_for("events.list_events", id=event_id)


def of_task(task_id: str) -> str:
    """Return where that task's story is."""
    return url_for("log.task", task_id=task_id) if _PLAIN.fullmatch(task_id) else of_log(task=task_id)


def of_agent(agent_id: str) -> str:
    """Return where that agent's story is."""
    return url_for("log.agent", agent_id=agent_id) if _PLAIN.fullmatch(agent_id) else of_log(agent=agent_id)


def of_log(**filters: Any) -> str:
    """Return where the log is, so filtered."""
    return url_for("log.events", **filters)


def of_export(format: str, **filters: Any) -> str:
    """Return where the same events are as a file."""
    fields = {_OF_THE_API.get(name, name): value for name, value in filters.items()}
    return url_for("export.export_events", format=format, **fields)
