"""Server-rendered rows of events, and the live page.

The page's script updates it over the WebSocket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from flask import Blueprint, g, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.display import Level, Look, cut, look_of, title_of
from outfeed.events import MAX_NAME_CHARS, Event
from outfeed.http import addresses, identity
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.log import board, hints
from outfeed.log.store.reading import list_page
from outfeed.log.store.search import snippet_of
from outfeed.log.store.snippet import Snippet
from outfeed.principal import ADMIN, READ

LIVE_ROWS = 20
MAX_ID_CHARS = 20
MIN_BULK = 5
TASK_SECS = 1.0
_STEP = re.compile(r"(?:.*[._])?(?:tool[._](?:called|call|result)|user_prompt)", re.DOTALL)  # the end of the type
MAX_DATA_CHARS = 400  # these limits keep a full page of the log small, and each row links to the whole event

pages = Blueprint("pages", __name__)


@dataclass(frozen=True, slots=True)
class Row:
    """An event as `_event.html` shows it.

    `event-feed/list.js` has the same rules.
    """

    event: Event
    look: Look
    snippet: Snippet | None = None
    after: str | None = None  # of a story: the time since the event before it

    @property
    def title(self) -> str:
        """The short name of the event's type."""
        return shown(title_of(self.event.event_type))

    @property
    def moment(self) -> datetime | None:
        """The event's time in UTC, or None if a raw writer wrote no time.

        A time without a zone is read as UTC.
        """
        return clock.parsed(self.event.timestamp)

    @property
    def time(self) -> str:
        """The time in the form of `clock_of`, or a raw writer's text."""
        return clock_of(self.moment) if self.moment else shown(self.event.timestamp)

    @property
    def meta(self) -> list[tuple[str, str]]:
        """Source and ids as (field, value), without long ids.

        A long id says nothing to a reader, and the opened row has it. Values that the sentence names are omitted.
        """
        named = {part.text for part in self.look.parts if part.role == "name"}
        fields = ((name, getattr(self.event, name)) for name in ("source", "task_id", "agent_id"))
        return [
            (name, shown(value))
            for name, value in fields
            if value and value not in named and (name == "source" or len(value) <= MAX_ID_CHARS)
        ]

    @property
    def fields(self) -> list[tuple[str, str, str | None]]:
        """The fields with a value, as (field, value, address).

        The address is the event's, or that of the log with this filter.
        """
        event = self.event
        found: list[tuple[str, str | None, Callable[[str], str] | None]] = [
            ("id", event.id, addresses.of_event),
            ("event_type", event.event_type, lambda value: addresses.of_log(type=value)),
            ("source", event.source, lambda value: addresses.of_log(source=value)),
            ("task_id", event.task_id, addresses.of_task),
            ("agent_id", event.agent_id, addresses.of_agent),
            ("timestamp", event.timestamp, None),
        ]
        return [
            (name, shown(value), link(value) if link and len(value) <= MAX_NAME_CHARS else None)
            for name, value, link in found
            if value
        ]

    @property
    def data(self) -> str | None:
        """The data as indented JSON, shortened, or None without data."""
        if self.event.omitted_bytes:
            return f"{self.event.omitted_bytes:,} bytes of data are too large to show here."
        if self.event.data is None:
            return None
        return cut(json.dumps(self.event.data, ensure_ascii=False, indent=2), MAX_DATA_CHARS)

    def data_line(self, most: int) -> str:
        """Return the data on one line, cut to *most* characters.

        It is empty without data.
        """
        if self.event.data is None:
            return ""
        return cut(json.dumps(self.event.data, ensure_ascii=False, separators=(", ", ": ")), most)


@dataclass(slots=True)
class Group:
    """Adjacent rows that are shown as one row that opens, newest first.

    It is bulk if one statement wrote all: the events have the same type, source and timestamp. Otherwise all are of one
    task, within TASK_SECS. `event-feed/groups.js` has the same rules.
    """

    rows: list[Row]
    is_bulk: bool = True
    is_of_task: bool = True

    @property
    def lead(self) -> Row:
        """Return the row that stands for all.

        It has the highest level. A step precedes the others, and then the newest does.
        """
        levels = list(Level)
        return max(self.rows, key=lambda row: (levels.index(row.look.level), _is_step(row)))

    @property
    def is_folded(self) -> bool:
        """Return whether the rows are one row."""
        return len(self.rows) >= (2 if self.is_of_task or not self.is_bulk else MIN_BULK)

    def add(self, row: Row, by_task: bool) -> bool:
        """Add the next newer row if it belongs to the group.

        Return whether it does.
        """
        oldest = self.rows[-1]
        is_bulk = self.is_bulk and _statement(row) == _statement(oldest)
        is_of_task = self.is_of_task and _is_of_task(row, oldest)
        if not is_bulk and not (by_task and is_of_task):
            return False
        self.is_bulk, self.is_of_task = is_bulk, by_task and is_of_task
        self.rows.insert(0, row)
        return True


def _is_step(row: Row) -> bool:
    """Return whether the row is of a task, a tool call or a prompt."""
    return row.look.kind == "task" or _STEP.fullmatch(str(row.event.event_type)) is not None


def _statement(row: Row) -> tuple[str, str, str]:
    return row.event.event_type, row.event.source, row.event.timestamp


def _is_of_task(row: Row, oldest: Row) -> bool:
    if not row.event.task_id or row.event.task_id != oldest.event.task_id or not row.moment or not oldest.moment:
        return False
    return abs((row.moment - oldest.moment).total_seconds()) <= TASK_SECS


@pages.app_template_filter("grouped")
def grouped(rows: Iterable[Row]) -> list[Row | Group]:
    """Return *rows*, with runs as groups.

    The rows of a story are the steps of one task. Only bulk ones fold.
    """
    found: list[Group] = []
    each = list(rows)
    by_task = not any(row.after for row in each)
    for row in reversed(each):
        if not found or not found[-1].add(row, by_task):
            found.append(Group([row], is_of_task=by_task))
    items: list[Row | Group] = []
    for group in reversed(found):
        items += [group] if group.is_folded else group.rows
    return items


def rows_of(events: Iterable[Event], text: str | None = None) -> list[Row]:
    """Return the rows of *events*, each with the part that contains *text*."""
    displays = services().displays.current().by_type
    return [Row(each, look_of(each, displays), snippet_of(each, text) if text else None) for each in events]


def shown(value: str) -> str:
    """Return *value*, a name or time, cut to the length of a valid name.

    Raw writers may store longer values.
    """
    return cut(value, MAX_NAME_CHARS)


@pages.app_template_filter("clock")
def clock_of(moment: datetime | str) -> str:
    """Return the time of day in UTC, with a date if it is not today.

    The year is added if it is not the current one. A raw writer's text without a time is returned unchanged, up to the
    length of a name.
    """
    if isinstance(moment, str):
        found = clock.parsed(moment)
        if found is None:
            return shown(moment)
        moment = found
    now = clock.now()
    if moment.date() == now.date():
        return f"{moment:%H:%M:%S}"
    year = "" if moment.year == now.year else f" {moment.year}"
    return f"{moment.day} {moment:%b}{year} {moment:%H:%M:%S}"


@pages.app_template_filter("times")
def width_of_times(rows: Iterable[Row]) -> str:
    """Return the name of the width that the times of *rows* need.

    `widthOf` in event-feed/elements.js has the same rules.
    """
    longest = max((len(row.time) for row in rows), default=0)
    return next((name for most, name in ((8, "time"), (15, "date"), (20, "year")) if longest <= most), "long")


def rowid(text: str) -> int:
    """Return *text* as a rowid.

    Raises ValueError if SQLite has no such rowid.
    """
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"not a rowid: {number}")
    return number


@pages.app_context_processor
def visitor_variables() -> dict[str, object]:
    """Give every template the visitor's role, and commands to log an event."""
    is_operator = "principal" in g and identity.principal().may(ADMIN)
    return {"is_operator": is_operator, "hints": hints, "settings": services().settings}


@pages.get("/")
@requires(READ, is_page=True)
def home() -> ResponseReturnValue:
    """Redirect to the live feed."""
    return redirect(url_for("pages.live"))


@pages.get("/swarm/live")
@requires(READ, is_page=True)
def live() -> str:
    """Show the board and the newest events."""
    visible = replace(identity.principal().visible, has_audit=False)  # `<event-feed>` excludes audit events too
    events, _ = list_page(services().database, visible, limit=LIVE_ROWS)
    return render_template("live.html", rows=rows_of(events), board=board.current())
