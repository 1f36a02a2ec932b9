"""Functions that read the log, newest first (in rowid order).

They are the public functions, and those that pages and the API share with them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import datetime, timedelta

from outfeed import clock
from outfeed.events import Event
from outfeed.log import filters
from outfeed.log.store import log_page, timed
from outfeed.log.store.log_filter import LogFilter, split_types
from outfeed.log.store.search import Index
from outfeed.principal import EVERYTHING, EventScope
from outfeed.redaction import redact
from outfeed.store import database as db
from outfeed.store import rows
from outfeed.store.database import Database


def get_event(event_id: str, database: Database | None = None, visible: EventScope = EVERYTHING) -> Event | None:
    """Return the event with that id, of any size.

    Returns None if there is none, or if *visible* excludes it.
    """
    found = log_page.find(database or db.default(), visible, event_id)
    return found[1] if found else None


def list_events(
    event_type: str | None = None,
    task_id: str | None = None,
    agent_id: str | None = None,
    source: str | None = None,
    limit: int = 100,
    offset: int = 0,
    *,
    text: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    query: str | None = None,
) -> list[Event]:
    """Return up to *limit* events that match all filters, newest first.

    Skips the first *offset* events. A *limit* of -1 returns all. *event_type* may be several types with commas between,
    and prefixes: `task.*`. *text* is words that the event must contain, "phrases", or prefixes: `word*`. It may also
    have `one OR other`, and `-excluded`. *since* and *until* (exclusive) are aware datetimes. *query* is text in
    the query language of the log's page. `data` above OUTFEED_MAX_EVENT_BYTES is omitted, and `omitted_bytes` is its
    size. Raises InvalidRequest for an invalid query.
    """
    first, last = (clock.isoformat(moment) if moment else None for moment in (since, until))
    own = LogFilter(EVERYTHING, split_types(event_type), source, task_id, agent_id, first, last, text)
    database = db.default()
    filter_ = filters.narrowed(own, query, database)
    end = None if limit < 0 else offset + limit
    return list(itertools.islice(log_page.iterate_events(database, filter_), offset, end))


def list_page(
    database: Database, visible: EventScope, *, limit: int = 100, cursor: int | None = None
) -> tuple[list[Event], int | None]:
    """Return a page of visible events, newest first, and the next cursor.

    The cursor is None on the last page.
    """
    page = log_page.list_page(database, LogFilter(visible), limit=limit, cursor=cursor)
    return [event for _, event in page.events], page.older


def get_task_events(task_id: str) -> list[Event]:
    """Return the task's events, newest first."""
    return list_events(task_id=task_id, limit=-1)


def get_agent_events(agent_id: str) -> list[Event]:
    """Return the agent's events, newest first."""
    return list_events(agent_id=agent_id, limit=-1)


def get_recent_events(minutes: float = 60) -> list[Event]:
    """Return the events with a timestamp in the last *minutes*.

    The newest comes first.
    """
    return list(log_page.iterate_events(db.default(), LogFilter(EVERYTHING, since=_since(minutes))))


def get_event_summary(
    minutes: float = 60, database: Database | None = None, visible: EventScope = EVERYTHING
) -> dict[str, int]:
    """Return the number of events of each type in the last *minutes*.

    The most frequent type comes first.
    """
    since, database = _since(minutes), database or db.default()
    seen, values = rows.bound(rows.seen(visible))
    spans, found = Index(database).spans(since), Counter[str]()
    with database.snapshot() as connection:
        for part in timed.parts(connection, spans, since, None):
            sql = f"SELECT event_type, count(*) {part.clause} {seen.replace('WHERE', 'AND', 1)} GROUP BY 1"
            for event_type, count in connection.execute(sql, (*part.values, *values)).fetchall():
                found[str(rows.readable(event_type))] += count
    return redact(dict(sorted(found.items(), key=lambda each: (-each[1], each[0]))))


def _since(minutes: float) -> str:
    if not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes!r}")
    return clock.isoformat(clock.now() - timedelta(minutes=minutes))
