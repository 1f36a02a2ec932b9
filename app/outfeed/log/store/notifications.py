"""Notifications: which saved views notify a user, and their news.

The browser shows the notifications. The server keeps the choices, and decides which events match.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NamedTuple

from outfeed.events import Event
from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.log_page import MAX_SCANNED, LogScan
from outfeed.log.store.views import View, list_views
from outfeed.principal import Principal
from outfeed.store import rows
from outfeed.store.database import Database

MAX_COUNT = 1000
MAX_EVENTS = 3


class NotificationChoice(NamedTuple):
    """How a user is notified of one view.

    With *is_always* also while a page of Outfeed is visible.
    """

    is_on: bool = False
    has_sound: bool = False
    is_always: bool = False


class ViewNews(NamedTuple):
    """The events that match a view after a position.

    *events* are the newest of them, oldest first. *position* is that of the next read. With *is_more* there are more
    than MAX_COUNT events, and the others are skipped.
    """

    matches: int
    is_more: bool
    events: list[Event]
    position: int


def choices(database: Database, principal: Principal) -> dict[int, NotificationChoice]:
    """Return the principal's choices, by the id of the view."""
    with database.connection() as connection:
        found = connection.execute(
            "SELECT view_id, has_sound, is_always FROM outfeed_view_notification WHERE owner = ?", (principal.owner,)
        ).fetchall()
    return {view_id: NotificationChoice(True, bool(has_sound), bool(always)) for view_id, has_sound, always in found}


def choose(database: Database, principal: Principal, view_id: int, choice: NotificationChoice) -> None:
    """Store the principal's choice for a view."""
    with database.transaction() as connection:
        connection.execute(
            "DELETE FROM outfeed_view_notification WHERE owner = ? AND view_id = ?", (principal.owner, view_id)
        )
        if choice.is_on:
            connection.execute(
                "INSERT INTO outfeed_view_notification (owner, view_id, has_sound, is_always)"
                " SELECT ?, id, ?, ? FROM outfeed_view WHERE id = ?",
                (principal.owner, int(choice.has_sound), int(choice.is_always), view_id),
            )


def find_view(database: Database, principal: Principal, view_id: int) -> View | None:
    """Return the view if the principal sees it, else None."""
    return next((view for view in list_views(database, principal) if view.id == view_id), None)


def read_news(database: Database, filter_: LogFilter, after: int | None) -> ViewNews:
    """Return the events that were logged after the position *after*.

    Without a position, or with one of another database, there are none, and the next read begins at the newest event. A
    read scans a limited number of rows, and the next one continues there.
    """
    newest = _newest(database)
    if after is None or after > newest:
        return ViewNews(0, False, [], newest)
    wanted = replace(filter_, since=None)  # an event that is written now may have an older timestamp
    scan = LogScan(database, wanted, after, is_upward=True, max_scanned=MAX_SCANNED)
    found = [match[0] for match in itertools.islice(scan, MAX_COUNT + 1)]
    is_more = len(found) > MAX_COUNT
    position = scan.position
    if is_more or scan.is_finished or position is None:
        position = max([newest, *found])
    with database.connection() as connection:
        events = list(rows.load(connection, found[-MAX_EVENTS:]).values())
    return ViewNews(min(len(found), MAX_COUNT), is_more, events, position)


def _newest(database: Database) -> int:
    with database.connection() as connection:
        return int(connection.execute("SELECT coalesce(max(rowid), 0) FROM event_log").fetchone()[0])
