"""Database statistics: the window of the outbox and the file sizes."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from outfeed.store import db_stats
from outfeed.store.database import Database
from outfeed.store.event_log import log_event


def test_an_empty_feed_has_no_oldest_row(database: Database) -> None:
    found = db_stats.read(database)
    assert (found.head, found.outbox_rows, found.oldest_at) == (0, 0, None)
    assert found.database_bytes == database.path.stat().st_size
    database.close()  # closing the last connection removes the log
    assert not Path(f"{database.path}-wal").exists()


def test_the_statistics_have_the_rows_of_the_outbox_and_the_oldest_time(database: Database) -> None:
    for _ in range(3):
        log_event("a.b", "s")
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as raw:
        raw.execute("DELETE FROM outbox WHERE seq = 1")
        raw.execute("UPDATE outbox SET created_at = 'at ' || seq")
        found = db_stats.read(database)
        assert (found.first_seq, found.head, found.outbox_rows, found.oldest_at) == (2, 3, 2, "at 2")
        assert found.wal_bytes == Path(f"{database.path}-wal").stat().st_size > 0
        raw.execute("UPDATE outbox SET created_at = x'00'")
        assert db_stats.read(database).oldest_at is None
