"""Retention: taking old events from the log, in chunks that writers don't notice."""

from __future__ import annotations

import time
from datetime import timedelta

from app import clock
from app.store import audit
from app.store import database as db
from app.store.database import Database

# 250,000 rows in one transaction stalled writers for a second; in chunks of this size for 82 ms at most.
CHUNK_ROWS = 500
YIELD_SECS = 0.002

# A timestamp that is no date is nobody's to judge: such rows stay.
_OLD = "FROM event_log INDEXED BY event_log_timestamp WHERE timestamp < ? AND julianday(timestamp) < julianday(?)"

_COUNT_ONE = ("SELECT count(*) FROM event_log WHERE id = ?", "SELECT count(*) FROM outbox WHERE event_id = ?")
_DELETE_ONE = ("DELETE FROM event_log WHERE id = ?", "DELETE FROM outbox WHERE event_id = ?")


def prune_events(older_than_days: float = 30) -> int:
    """Delete the events whose timestamp is older than *older_than_days* from the log; return how many."""
    return prune(db.default(), older_than_days, by="prune_events")


def prune(database: Database, older_than_days: float, *, dry_run: bool = False, by: str | None = None) -> int:
    """Delete from the log what is older; return how many events that was, or would be with *dry_run*.

    The outbox keeps its copy. Chunks are committed one by one: killed half-way, the rest stays. *by* is for the audit.
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
    if deleted:
        with database.transaction() as connection:
            audit.record(connection, "system.pruned", by, events=deleted, older_than_days=older_than_days)
    with database.connection() as connection:
        connection.execute("PRAGMA incremental_vacuum").fetchall()
    return deleted


def _delete_chunk(database: Database, cutoff: str) -> int:
    with database.transaction() as connection:
        return connection.execute(
            f"DELETE FROM event_log WHERE rowid IN (SELECT rowid {_OLD} LIMIT ?)",  # noqa: S608
            (cutoff, cutoff, CHUNK_ROWS),
        ).rowcount


def erase(database: Database, event_id: str, *, dry_run: bool = False, by: str | None = None) -> bool:
    """Take what should never have been written out of the log and the outbox; False where neither has it.

    Its bytes are overwritten too, in the file and, unless a reader is in the way, in the write-ahead log; servers drop
    what they keep for late joiners. Readers pass over its seq. Backups and what was already shown are beyond reach.
    """
    with database.transaction() as connection:
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        counts = [connection.execute(statement, (event_id,)).fetchone()[0] for statement in _COUNT_ONE]
        if dry_run or not any(counts):
            return any(counts)
        for statement in _DELETE_ONE:
            connection.execute(statement, (event_id,))
        connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'erasures'")
        audit.record(connection, "system.pruned", by, events=1, id=event_id)
    with database.connection() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return True
