"""Erasure: one event that should never have been written, taken out of everything that is ours to change."""

from __future__ import annotations

import time
from contextlib import closing

from outfeed import clock
from outfeed.feature import registered
from outfeed.store import audit
from outfeed.store import database as db
from outfeed.store.database import Database

PATIENCE_SECS = 1.0
PAUSE_SECS = 0.02
_COUNT_ONE = ("SELECT count(*) FROM event_log WHERE id = ?", "SELECT count(*) FROM outbox WHERE event_id = ?")
_DELETE_ONE = (
    "DELETE FROM event_log WHERE id = ?", "DELETE FROM outbox WHERE event_id = ?",
    "DELETE FROM outfeed_arrival WHERE event_id = ?",
)  # fmt: skip


def erase(database: Database, event_id: str, *, dry_run: bool = False, by: str | None = None) -> bool:
    """Take what should never have been written out of the log, the outbox and the swarm; False where none has it.

    Its bytes are overwritten too, in the file and, unless a reader is in the way, in the write-ahead log; servers drop
    what they keep for late joiners. Readers pass over its seq. Archives, backups and what was already shown are beyond
    reach.
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
    """Cut what was committed out of the write-ahead log, unless a reader is in the way for PATIENCE_SECS.

    Asks again and again, since writers wait for as long as SQLite waits for the readers: for a backup, too long.
    """
    deadline = clock.monotonic() + PATIENCE_SECS
    with closing(db.connect(database.path)) as connection, db.translate_errors(database.path):
        connection.execute("PRAGMA busy_timeout = 0").fetchall()
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and clock.monotonic() < deadline:
            time.sleep(PAUSE_SECS)
