"""The queue of notices.

A notice is `waiting` until its target has accepted it, or until it has failed for good.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from outfeed import clock
from outfeed.alerts.targets import NoticeKind
from outfeed.store.database import Connection, Database

# With the pauses of the sender, about 16 hours.
MAX_ATTEMPTS = 24
KEEP = timedelta(days=30)  # of notices that wait no more
MAX_KEPT = 10_000
MAX_ERROR_CHARS = 500
_COLUMNS = """
    id, event_id, rule, target, kind, title, matches, matched_id, occurred_at, state, attempts, last_error, tried_at
"""


class NoticeState(StrEnum):
    """The state of a notice."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


class QueuedNotice(NamedTuple):
    """A row of the queue."""

    id: int
    event_id: str
    rule: str
    target: str
    kind: NoticeKind
    title: str
    matches: int
    matched_id: str | None
    occurred_at: str
    state: NoticeState
    attempts: int
    last_error: str | None
    tried_at: str | None


class TargetQueue(NamedTuple):
    """The notices of one target.

    *last_error* is that of the oldest waiting notice. It is None if the target does not fail.
    """

    target: str
    waiting: int
    delivered: int
    failed: int
    last_error: str | None


def add(
    connection: Connection,
    target: str,
    *,
    event_id: str,
    rule: str,
    kind: NoticeKind,
    title: str,
    matches: int,
    matched_id: str | None,
    occurred_at: str,
) -> None:
    """Add a notice in the transaction of its event."""
    connection.execute(
        "INSERT INTO outfeed_alert_notice (event_id, rule, target, kind, title, matches, matched_id, occurred_at,"
        " state, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (event_id, rule, target, kind, title, matches, matched_id, occurred_at, NoticeState.WAITING),
    )


def waiting_targets(database: Database) -> list[str]:
    """Return the targets for which notices wait."""
    with database.connection() as connection:
        rows = connection.execute("SELECT DISTINCT target FROM outfeed_alert_notice WHERE state = 'waiting'").fetchall()
    return [target for (target,) in rows]


def next_waiting(database: Database, target: str) -> QueuedNotice | None:
    """Return the oldest notice that waits for *target*, or None."""
    with database.connection() as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM outfeed_alert_notice WHERE state = 'waiting' AND target = ?"  # noqa: S608 - ours
            " ORDER BY id LIMIT 1",
            (target,),
        ).fetchone()
    return None if row is None else _notice(row)


def note_delivered(database: Database, notice: QueuedNotice) -> None:
    """Record that the target has accepted the notice."""
    with database.one_write() as connection:
        connection.execute(
            "UPDATE outfeed_alert_notice SET state = ?, last_error = NULL, tried_at = ? WHERE id = ?",
            (NoticeState.DELIVERED, clock.timestamp(), notice.id),
        )


def note_failure(database: Database, notice: QueuedNotice, error: str, *, is_final: bool) -> None:
    """Record a failed attempt.

    It counts for every notice that waits for the target, so that a queue behind a dead target ends with its oldest
    notice. With *is_final*, only this notice fails, for good.
    """
    error, now = error[:MAX_ERROR_CHARS], clock.timestamp()
    with database.transaction() as connection:
        if is_final:
            connection.execute(
                "UPDATE outfeed_alert_notice SET state = ?, attempts = attempts + 1, last_error = ?, tried_at = ?"
                " WHERE id = ?",
                (NoticeState.FAILED, error, now, notice.id),
            )
            return
        connection.execute(
            "UPDATE outfeed_alert_notice SET attempts = attempts + 1, last_error = ?, tried_at = ?,"
            " state = CASE WHEN attempts + 1 < ? THEN state ELSE ? END WHERE target = ? AND state = 'waiting'",
            (error, now, MAX_ATTEMPTS, NoticeState.FAILED, notice.target),
        )


def list_notices(database: Database, rule: str, limit: int) -> list[QueuedNotice]:
    """Return the newest notices of a rule, newest first."""
    with database.connection() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM outfeed_alert_notice WHERE rule = ? ORDER BY id DESC LIMIT ?",  # noqa: S608 - ours
            (rule, limit),
        ).fetchall()
    return list(map(_notice, rows))


def queues(database: Database) -> list[TargetQueue]:
    """Return the queue of each target that has notices, by name."""
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT target, sum(state = 'waiting'), sum(state = 'delivered'), sum(state = 'failed'),"
            " (SELECT last_error FROM outfeed_alert_notice AS oldest WHERE oldest.target = notice.target"
            "  AND state = 'waiting' ORDER BY id LIMIT 1)"
            " FROM outfeed_alert_notice AS notice GROUP BY target ORDER BY target"
        ).fetchall()
    return [TargetQueue(*row) for row in rows]


def clean(connection: Connection) -> None:
    """Delete notices that wait no more, if they are old or too many."""
    connection.execute(
        "DELETE FROM outfeed_alert_notice WHERE state <> 'waiting' AND (occurred_at < ? OR id <="
        " (SELECT max(id) FROM outfeed_alert_notice) - ?)",
        (clock.isoformat(clock.now() - KEEP), MAX_KEPT),
    )


def _notice(row: tuple[object, ...]) -> QueuedNotice:
    found = QueuedNotice._make(row)
    return found._replace(kind=NoticeKind(found.kind), state=NoticeState(found.state))
