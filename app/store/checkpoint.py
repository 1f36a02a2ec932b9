"""Checkpoints: how far each durable consumer has acknowledged."""

from __future__ import annotations

import sqlite3


def floor(connection: sqlite3.Connection) -> int | None:
    """Return the seq up to which every protected consumer of this epoch has acknowledged; None where there is none.

    None as well in a database that keeps no checkpoints.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'checkpoint'").fetchone():
        return None
    row = connection.execute(
        "SELECT min(seq) FROM checkpoint WHERE is_protected AND epoch = (SELECT value FROM meta WHERE key = 'epoch')"
    ).fetchone()
    return None if row[0] is None else int(row[0])
