"""The log's pages: the filtered log, one event, and stories.

A story is the events of one task or agent.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, current_app, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from outfeed.display import colour_of, cut, kind_of
from outfeed.events import Event
from outfeed.feature import registered
from outfeed.http import addresses, identity
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.log import search_page
from outfeed.log.json_tree import tree_of
from outfeed.log.live import Row, rows_of, shown
from outfeed.log.row_change import change_in
from outfeed.log.store import log_page
from outfeed.log.store.log_filter import LogFilter
from outfeed.principal import READ
from outfeed.text import escaped

STORY_ROWS = 200
MAX_TITLE_CHARS = 300
# The type and key that name a task or an agent.
TITLES = {"task": ("task.created", "description"), "agent": ("agent.joined", "name")}
MAX_JSON_CHARS = 65_536
FIELD_NAMES = {"id": "Id", "event_type": "Type", "source": "Source", "task_id": "Task", "agent_id": "Agent"}

log = Blueprint("log", __name__)
# The type of app.extensions["story_heads"], which a feature may set: a function of the id for each kind (task, agent).
StoryHeads = Mapping[str, Callable[[str], Markup | None]]


@log.app_context_processor
def link_variables() -> dict[str, Any]:
    """Give every template links, and the colours of types."""
    return {"addresses": addresses, "kind_of": kind_of, "colour_of": colour_of}


# --- the log ----------------------------------------------------------------------------------------------------------


@log.get("/swarm/events")
@requires(READ, is_page=True)
def events() -> ResponseReturnValue:
    """Show the log, newest first.

    With `id`, show that event.
    """
    if event_id := request.args.get("id"):
        return event(event_id)
    return search_page.show()


@log.get("/swarm/events/<path:event_id>")
@requires(READ, is_page=True)
def event(event_id: str) -> str:
    """Show one complete event, with its neighbours."""
    database, visible = services().database, identity.principal().visible
    found = log_page.find(database, visible, event_id)
    if found is None:
        raise NotFound(f'Event "{escaped(shown(event_id))}" not found.')
    place, event = found
    filters = {"All events": LogFilter(visible)}
    if event.task_id:
        filters["This task"] = LogFilter(visible, task_id=event.task_id)
    if event.agent_id:
        filters["This agent"] = LogFilter(visible, agent_id=event.agent_id)
    neighbours = [(name, log_page.neighbours(database, filter_, place)) for name, filter_ in filters.items()]
    text = None if event.data is None else json.dumps(event.data, ensure_ascii=False, indent=2)
    json_url = addresses.absolute(addresses.of_event_as_json(event.id))
    parts = {feature.event_template: feature.about_event(services(), event.id, identity.principal())
             for feature in registered() if feature.event_template}  # fmt: skip
    return render_template(
        "event.html",
        row=_row(event),
        names=FIELD_NAMES,
        seq=services().outbox.seq_of(event.id),
        link=addresses.absolute(addresses.of_event(event.id)),
        curl=f'curl -H "Authorization: Bearer $OUTFEED_TOKEN" {shlex.quote(json_url)}',
        text=text and text[:MAX_JSON_CHARS],
        omitted_chars=max(0, len(text or "") - MAX_JSON_CHARS),
        data=tree_of(event.data),
        change=change_in(event.data),
        sections=[template for template, values in parts.items() if values],
        **{name: value for values in parts.values() for name, value in values.items()},
        neighbours=[(name, _row(pair.before), _row(pair.after)) for name, pair in neighbours],
    )


def _row(event: Event | None) -> Row | None:
    return rows_of([event])[0] if event else None


# --- stories ----------------------------------------------------------------------------------------------------------


@log.get("/swarm/tasks/<path:task_id>")
@requires(READ, is_page=True)
def task(task_id: str) -> str:
    """Show the events of a task, oldest first."""
    return _story("task", task_id, LogFilter(identity.principal().visible, task_id=task_id))


@log.get("/swarm/agents/<path:agent_id>")
@requires(READ, is_page=True)
def agent(agent_id: str) -> str:
    """Show the events of an agent, oldest first."""
    return _story("agent", agent_id, LogFilter(identity.principal().visible, agent_id=agent_id))


def _story(kind: str, id_: str, filter_: LogFilter) -> str:
    page = log_page.list_page(services().database, filter_, limit=STORY_ROWS)
    head = _head_of(kind, id_)
    if not page.events and head is None:
        raise NotFound(f'{kind.capitalize()} "{escaped(shown(id_))}" not found. No event mentions it.')
    rows = rows_of(found for _, found in reversed(page.events))
    moments = [None, *(row.moment for row in rows)]
    steps = [replace(row, after=_time_between(before, row.moment)) for before, row in zip(moments, rows, strict=False)]
    title = _title_in(kind, (found for _, found in page.events)) if head is None else None
    return render_template(
        "story.html", kind=kind, id=id_, head=head, title=title, rows=steps, has_earlier=page.older is not None
    )


def _title_in(kind: str, events: Iterable[Event]) -> str | None:
    """Return the description or name in the event that created it, if any."""
    event_type, key = TITLES[kind]
    texts = (each.data.get(key) for each in events if each.event_type == event_type and isinstance(each.data, dict))
    return next((cut(text, MAX_TITLE_CHARS) for text in texts if isinstance(text, str) and text.strip()), None)


def _head_of(kind: str, id_: str) -> Markup | None:
    """Return the part of the page about the task or agent itself.

    Returns None if no feature knows it, or if the principal may not see it.
    """
    heads: StoryHeads = current_app.extensions.get("story_heads", {})
    return heads[kind](id_) if kind in heads else None


def _time_between(before: datetime | None, moment: datetime | None) -> str | None:
    """Return the time between two events in words, or None if unknown."""
    if before is None or moment is None:
        return None
    secs = (moment - before) / timedelta(seconds=1)
    if abs(secs) < 60:
        return f"{secs:+.1f} s"
    sign, minutes = "+" if secs > 0 else "-", round(abs(secs) / 60)
    if minutes < 120:
        return f"{sign}{minutes} min"
    hours = round(minutes / 60)
    return f"{sign}{hours} h" if hours < 48 else f"{sign}{round(hours / 24)} d"
