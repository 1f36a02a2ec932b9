"""The log's pages: the filtered log, one event, and stories.

A story is the events of one task or agent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, current_app, redirect, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from outfeed import clock
from outfeed.display import OWN, colour_of, cut, kind_of
from outfeed.events import Event
from outfeed.http import addresses, identity
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.log.live import Row, rowid, rows_of
from outfeed.log.store import log_page
from outfeed.log.store.log_page import LogFilter
from outfeed.log.store.reading import split_types
from outfeed.principal import READ

LOG_ROWS = 50
STORY_ROWS = 200
MAX_JSON_CHARS = 65_536
FILTERS = ("type", "source", "task", "agent", "from", "to", "text")
KNOWN = {*FILTERS, "id", "cursor", "newer", "live"}
ALIASES = {
    "event_type": "type",
    "types": "type",
    "task_id": "task",
    "agent_id": "agent",
}  # the names in the API and the feed

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
    """Show the log, newest first, filtered and in pages.

    With `id`, show that event.
    """
    if event_id := request.args.get("id"):
        return event(event_id)
    if ALIASES.keys() & request.args.keys():  # the page's script uses only the page's names
        renamed = [(ALIASES.get(name, name), value) for name, value in request.args.items(multi=True)]
        return redirect(f"{addresses.of_log()}?{urlencode(renamed)}")
    given, unknown = _read_filters()
    filter_, problem = _make_filter(given)
    if unknown:
        problem = f"{problem or ''} Unknown filters were ignored: {cut(', '.join(unknown), 80)}.".strip()
    newer = request.args.get("newer", type=rowid)
    cursor = newer if newer is not None else request.args.get("cursor", type=rowid)
    page = log_page.list_page(services().database, filter_, limit=LOG_ROWS, cursor=cursor, is_newer=newer is not None)
    if newer is not None and len(page.events) < LOG_ROWS and not page.is_scan_limited:
        return redirect(addresses.of_log(**given))  # the newest page, which is full
    return render_template(
        "events.html",
        rows=rows_of((found for _, found in page.events), filter_.text),
        page=page,
        cursor=cursor,
        counts=log_page.count(services().database, filter_),
        filters=given,
        problem=problem,
        types=[*OWN, *services().displays.current().by_type],
    )


def _read_filters() -> tuple[dict[str, str], list[str]]:
    """Return the filters, and the names of unknown ones.

    Types may be given several times.
    """
    given = {name: list(filter(None, map(str.strip, values))) for name, values in request.args.lists()}
    filters = {name: ",".join(given[name]) if name == "type" else given[name][0] for name in FILTERS if given.get(name)}
    repeated = [name for name in FILTERS if name != "type" and len(set(given.get(name, []))) > 1]
    return filters, [name for name in given if name not in KNOWN] + [f"{name} (twice)" for name in repeated]


def _make_filter(given: dict[str, str]) -> tuple[LogFilter, str | None]:
    """Return the conditions, and the problem of invalid ones.

    Invalid times are ignored. Valid times in *given* become plain UTC.
    """
    times = {name: clock.parsed(given[name]) for name in ("from", "to") if name in given}
    bad = [given[name] for name, moment in times.items() if moment is None]
    since, until = (clock.isoformat(moment) if (moment := times.get(name)) else None for name in ("from", "to"))
    filter_ = LogFilter(
        identity.principal().visible, split_types(given.get("type")), given.get("source"), given.get("task"),
        given.get("agent"), since, until, given.get("text"),
    )  # fmt: skip
    given |= {name: _as_input(moment) for name, moment in times.items() if moment}
    problem = f"Not a date, and ignored: {cut(', '.join(bad), 80)}. Use 2026-01-31T12:00." if bad else None
    return filter_, problem


def _as_input(moment: datetime) -> str:
    """Return a time in UTC in the form of the page's inputs.

    A time with a fraction has milliseconds.
    """
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


@log.get("/swarm/events/<path:event_id>")
@requires(READ, is_page=True)
def event(event_id: str) -> str:
    """Show one complete event, with its neighbours."""
    database, visible = services().database, identity.principal().visible
    found = log_page.find(database, visible, event_id)
    if found is None:
        raise NotFound(f"Event {event_id!r:.220} not found.")
    place, event = found
    filters = {"All events": LogFilter(visible)}
    if event.task_id:
        filters["This task"] = LogFilter(visible, task_id=event.task_id)
    if event.agent_id:
        filters["This agent"] = LogFilter(visible, agent_id=event.agent_id)
    neighbours = [(name, log_page.neighbours(database, filter_, place)) for name, filter_ in filters.items()]
    text = None if event.data is None else json.dumps(event.data, ensure_ascii=False, indent=2)
    return render_template(
        "event.html",
        row=_row(event),
        text=text and text[:MAX_JSON_CHARS],
        omitted_chars=max(0, len(text or "") - MAX_JSON_CHARS),
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
        raise NotFound(f"{kind.capitalize()} {id_!r:.220} not found. No event mentions it.")
    rows = rows_of(found for _, found in reversed(page.events))
    moments = [None, *(row.moment for row in rows)]
    steps = [replace(row, after=_time_between(before, row.moment)) for before, row in zip(moments, rows, strict=False)]
    return render_template("story.html", kind=kind, id=id_, head=head, rows=steps, has_earlier=page.older is not None)


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
