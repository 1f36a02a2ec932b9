"""Outfeed: a restart-safe live event feed on SQLite.

The public names are forwarded lazily: `import app` loads nothing, and `log_event` no web framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.events import Event, EventType
    from app.store.event_log import (
        get_agent_events,
        get_event,
        get_event_summary,
        get_recent_events,
        get_task_events,
        list_events,
        log_event,
    )
    from app.store.retention import prune_events

__all__ = [
    "Event",
    "EventType",
    "get_agent_events",
    "get_event",
    "get_event_summary",
    "get_recent_events",
    "get_task_events",
    "list_events",
    "log_event",
    "prune_events",
]
_HOMES = {"Event": "app.events", "EventType": "app.events", "prune_events": "app.store.retention"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "app.store.event_log")), name)
