"""Erasure: deletes one event from everything that Outfeed stores."""

from __future__ import annotations

import time
from contextlib import closing

from outfeed import clock
from outfeed.feature import registered
from outfeed.store import audit
from outfeed.store import database as db
from outfeed.store.database import Database

MAX_WAIT_SECS = 1.0
PAUSE_SECS = 0.02
_COUNT_ONE = ("SELECT count(*) FROM event_log WHERE id = ?", "SELECT count(*) FROM outbox WHERE event_id = ?")
_DELETE_ONE = (
    "DELETE FROM event_log WHERE id = ?", "DELETE FROM outbox WHERE event_id = ?",
    "DELETE FROM outfeed_arrival WHERE event_id = ?",
)  # fmt: skip


def erase(database: Database, event_id: str, *, dry_run: bool = False, by: str | None = None) -> bool:
    """Delete an event from the log, the outbox and all features.

    Returns False if none of them has it. The event's bytes are overwritten in the file and, unless a reader blocks it,
    in the write-ahead log. Servers drop cached frames. Readers skip its seq. Archives, backups and events already shown
    can't be changed.
    """
    with database.transaction() as connection:
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        counts = [connection.execute(statement, (event_id,)).fetchone()[0] for statement in _COUNT_ONE]
        is_found = any(counts) or any(feature.holds(connection, event_id) for feature in registered())
        if dry_run or not is_found:
            return is_found
        for feature in registered():
            feature.erase(connection, event_id)
        for statement in _DELETE_ONE:
            connection.execute(statement, (event_id,))
        connection.execute("UPDATE outfeed_meta SET value = value + 1 WHERE key = 'erasures'")
        message = f"Pruned event {event_id} from the log and the outbox"
        audit.record(connection, "system.pruned", by, message=message, events=1, id=event_id)
    _empty_write_ahead_log(database)
    return True


def _empty_write_ahead_log(database: Database) -> None:
    """Truncate the write-ahead log.

    Gives up if a reader blocks it for MAX_WAIT_SECS. It retries with a busy timeout of 0: writers wait as long as
    SQLite waits for readers, which is too long during a backup.
    """
    deadline = clock.monotonic() + MAX_WAIT_SECS
    with closing(db.connect(database.path)) as connection, db.translate_errors(database.path):
        connection.execute("PRAGMA busy_timeout = 0").fetchall()
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and clock.monotonic() < deadline:
            time.sleep(PAUSE_SECS)
