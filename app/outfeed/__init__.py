"""Outfeed: a restart-safe live event feed on SQLite.

The names in `__all__`, those of `outfeed.client` and the errors in `outfeed.errors` are public. Every other module is
private and may change in any release. Public names load on first use: `import outfeed` loads nothing, and `log_event`
loads no web framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outfeed.errors import OutfeedError
    from outfeed.events import Event, EventType
    from outfeed.log.store.reading import (
        get_agent_events,
        get_event,
        get_event_summary,
        get_recent_events,
        get_task_events,
        list_events,
    )
    from outfeed.log_handler import FeedHandler
    from outfeed.store.event_log import log_event
    from outfeed.swarm.coordinator import get_coordinator
    from outfeed.upkeep.retention import prune_events

__all__ = [
    "Event",
    "EventType",
    "FeedHandler",
    "OutfeedError",
    "get_agent_events",
    "get_coordinator",
    "get_event",
    "get_event_summary",
    "get_recent_events",
    "get_task_events",
    "list_events",
    "log_event",
    "prune_events",
]
_MODULES = {
    "Event": "events",
    "EventType": "events",
    "FeedHandler": "log_handler",
    "OutfeedError": "errors",
    "get_coordinator": "swarm.coordinator",
    "log_event": "store.event_log",
    "prune_events": "upkeep.retention",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"outfeed.{_MODULES.get(name, 'log.store.reading')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
