"""Event types that occur in the log, and their newest events."""

from __future__ import annotations

from outfeed.events import Event
from outfeed.store import rows
from outfeed.store.database import Database

# Reads one entry of the index for each type, however many events there are.
TYPES = """
    WITH RECURSIVE found(event_type) AS (
        SELECT min(event_type) FROM event_log
        UNION ALL
        SELECT (SELECT min(event_type) FROM event_log WHERE event_type > found.event_type) FROM found
        WHERE found.event_type IS NOT NULL
    )
    SELECT event_type FROM found WHERE typeof(event_type) = 'text' LIMIT ?
"""


def types_in_log(database: Database, limit: int) -> list[str]:
    """Return the first *limit* types of the log, in the order of their names."""
    with database.connection() as connection:
        return [name for (name,) in connection.execute(TYPES, (limit,)).fetchall()]


def newest_of(database: Database, event_type: str) -> Event | None:
    """Return the newest event of the type, redacted; None without one."""
    with database.snapshot() as connection:
        row = connection.execute(
            "SELECT rowid FROM event_log WHERE event_type = ? ORDER BY rowid DESC LIMIT 1", (event_type,)
        ).fetchone()
        return next(iter(rows.load(connection, row).values()), None) if row else None
