"""Retention: taking old events from the log, in chunks that writers don't notice."""

from __future__ import annotations

import sqlite3
import time
from datetime import timedelta

from app import clock
from app.store import database as db
from app.store.database import Database

# 250,000 rows in one transaction stalled writers for a second; in chunks of this size for 82 ms at most.
CHUNK_ROWS = 500
YIELD_SECS = 0.002

# A timestamp that is no date is nobody's to judge: such rows stay.
_OLD = "FROM event_log INDEXED BY event_log_timestamp WHERE timestamp < ? AND julianday(timestamp) < julianday(?)"


def prune_events(older_than_days: float = 30) -> int:
    """Delete the events whose timestamp is older than *older_than_days* from the log; return how many."""
    return prune(db.default(), older_than_days)


def prune(database: Database, older_than_days: float, *, dry_run: bool = False) -> int:
    """Delete from the log what is older; return how many events that was, or would be with *dry_run*.

    The outbox keeps its copy. Chunks are committed one by one: killed half-way, the rest stays.
    """
    if not older_than_days >= 0:
        raise ValueError(f"older_than_days must be 0 or more, got {older_than_days!r}")
    cutoff = clock.isoformat(clock.now() - timedelta(days=older_than_days))
    if dry_run:
        with database.connection() as connection:
            return int(connection.execute(f"SELECT count(*) {_OLD}", (cutoff, cutoff)).fetchone()[0])
    deleted = 0
    while chunk := _delete_chunk(database, cutoff):
        deleted += chunk
        time.sleep(YIELD_SECS)
    with database.connection() as connection:
        connection.execute("PRAGMA incremental_vacuum").fetchall()
    return deleted


def _delete_chunk(database: Database, cutoff: str) -> int:
    with database.transaction() as connection:
        return _delete(connection, cutoff)


def _delete(connection: sqlite3.Connection, cutoff: str) -> int:
    return connection.execute(
        f"DELETE FROM event_log WHERE rowid IN (SELECT rowid {_OLD} LIMIT ?)",  # noqa: S608
        (cutoff, cutoff, CHUNK_ROWS),
    ).rowcount
