"""Addresses of the log's pages.

An id goes into the query if it can't stand in a path, or if the path is another route.
"""

from __future__ import annotations

import re
from typing import Any

from flask import request, url_for

from outfeed.http.services import services

HOME = "/swarm/live"
# No slash: proxies and browsers merge and resolve them.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@~-]*")
_API_NAMES = {"type": "event_type", "task": "task_id", "agent": "agent_id"}


def of_site() -> str:
    """Return the server's public address, without a trailing slash."""
    return services().settings.public_url or request.url_root.rstrip("/")


def absolute(path: str) -> str:
    """Return the public address of *path*, one of Outfeed's own paths."""
    return of_site() + path.removeprefix(request.script_root)


def local(target: str) -> str:
    """Return *target* if it is a path of Outfeed, else the home page.

    Browsers read a backslash as a slash.
    """
    is_local = target.startswith(f"{request.script_root}/") and not target.startswith(("//", "/\\"))
    return target if is_local and target.isprintable() else f"{request.script_root}{HOME}"


def of_event(event_id: str) -> str:
    """Return the address of the event's page."""
    if _PLAIN.fullmatch(event_id):
        return url_for("log.event", event_id=event_id)
    return url_for("log.events", id=event_id)


def of_event_as_json(event_id: str) -> str:
    """Return the API's address of the event.

    An id that can't stand in the path leads to a list of one event.
    """
    if _PLAIN.fullmatch(event_id) and event_id not in ("summary", "export", "values"):
        return url_for("events.get_event", event_id=event_id)
    return url_for("events.list_events", id=event_id)


def of_task(task_id: str) -> str:
    """Return the address of the task's story."""
    return url_for("log.task", task_id=task_id) if _PLAIN.fullmatch(task_id) else of_log(task=task_id)


def of_agent(agent_id: str) -> str:
    """Return the address of the agent's story."""
    return url_for("log.agent", agent_id=agent_id) if _PLAIN.fullmatch(agent_id) else of_log(agent=agent_id)


def of_log(**filters: Any) -> str:
    """Return the address of the log with *filters*."""
    return url_for("log.events", **filters)


def of_export(format: str, **filters: Any) -> str:
    """Return the address that exports the filtered events as a file."""
    fields = {_API_NAMES.get(name, name): value for name, value in filters.items()}
    return url_for("export.export_events", format=format, **fields)
