"""A database as another program sees it: plain `sqlite3` on the file."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from pathlib import Path
from typing import Any


def write_events(path: Path, count: int = 1, *, each_alone: bool = False, **columns: Any) -> None:
    """Write *count* events in one commit, or *each_alone*.

    If a column's value is a list, it has the value of each event.
    """
    values = {"id": [uuid.uuid4().hex for _ in range(count)], "event_type": "a.b", "source": "s", "timestamp": "t"}
    values |= columns
    lists = [value if isinstance(value, list) else [value] * count for value in values.values()]
    statement = f"INSERT INTO event_log ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as raw:
        if not each_alone:
            raw.execute("BEGIN IMMEDIATE")
        raw.executemany(statement, zip(*lists, strict=True))
        if not each_alone:
            raw.execute("COMMIT")


def head_of(path: Path) -> int:
    """Return the last seq that the outbox has assigned."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as raw:
        row = raw.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return int(row[0]) if row else 0


def epoch_of(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as raw:
        return str(raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()[0])
