"""Statistics of the database: the outbox and file sizes.

No rows are counted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from outfeed.store.database import Database
from outfeed.store.outbox import read_window


class DatabaseStats(NamedTuple):
    """The feed's window, the time of its oldest row, and file sizes."""

    epoch: str
    first_seq: int
    head: int
    oldest_at: str | None
    database_bytes: int
    wal_bytes: int

    @property
    def outbox_rows(self) -> int:
        """Number of outbox rows, calculated from the window.

        Rows that were removed one by one are counted too.
        """
        return self.head - self.first_seq + 1


def read(database: Database) -> DatabaseStats:
    """Return the statistics.

    Raises DatabaseError.
    """
    with database.snapshot() as connection:
        window = read_window(connection)
        oldest = connection.execute("SELECT created_at FROM outbox ORDER BY seq LIMIT 1").fetchone()
    oldest_at = oldest[0] if oldest and isinstance(oldest[0], str) else None
    sizes = (_size(database.path), _size(Path(f"{database.path}-wal")))
    return DatabaseStats(window.epoch, window.first_seq, window.last_seq, oldest_at, *sizes)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
