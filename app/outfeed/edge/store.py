"""Queries of the uplink in addition to pages of the outbox."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from outfeed.history import Window
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.store.outbox import read_window

# Memory of an event in the engine beyond its JSON: 355 bytes in all for one of 271 (Redis 7.0, 2026).
EVENT_OVERHEAD_BYTES = 84
PUBLISHED = "published_epoch"  # the key in outfeed_meta


class Facts(NamedTuple):
    """The window, the number of erasures, and facts about each seq.

    *rows* has the checksum and the write time of each event, by seq. All are of one read.
    """

    window: Window
    erasures: int
    rows: dict[int, tuple[str, str]]


def read_facts(database: Database, after: int, through: int) -> Facts:
    """Return the facts of the outbox's rows above *after*, up to *through*."""
    with database.snapshot() as connection:
        window, erasures = read_window(connection), int(db.meta(connection, "erasures"))
        rows = connection.execute(
            "SELECT seq, event_id, created_at FROM outbox WHERE seq > ? AND seq <= ?", (after, through)
        ).fetchall()
    return Facts(window, erasures, {seq: (_checksum(id_, at), str(at or "")) for seq, id_, at in rows})


def checksum_of(database: Database, seq: int) -> str | None:
    """Return the checksum of the event with that seq.

    The result is None if the outbox does not have the event any more.
    """
    found = read_facts(database, seq - 1, seq).rows.get(seq)
    return found[0] if found else None


def published_epoch(database: Database) -> str | None:
    """Return the epoch that was published last.

    This database, or the one that it is a copy of, published it.
    """
    with database.connection() as connection:
        return db.meta(connection, PUBLISHED)


def note_published(database: Database, epoch: str) -> None:
    """Record that edges may know events under *epoch*."""
    if published_epoch(database) == epoch:
        return
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO outfeed_meta (key, value) VALUES (?, ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (PUBLISHED, epoch),
        )


def _checksum(event_id: object, written_at: object) -> str:
    """Return 8 hex digits that identify an event.

    They depend on no setting and on no version of the code.
    """
    return hashlib.sha256(f"{event_id!r} {written_at!r}".encode()).hexdigest()[:8]


def start_of_newest(database: Database, head: int, events: int, max_bytes: int) -> int:
    """Return the seq after which the newest *events* up to *head* follow.

    Fewer events follow if they would not fit in *max_bytes*.
    """
    start = max(0, head - events)
    with database.connection() as connection:
        row = connection.execute(
            "SELECT max(seq) FROM (SELECT seq, sum(length(CAST(coalesce(payload, '') AS BLOB)) + ?)"
            " OVER (ORDER BY seq DESC) AS total FROM outbox WHERE seq > ?) WHERE total > ?",
            (EVENT_OVERHEAD_BYTES, start, max_bytes),
        ).fetchone()
    return max(start, row[0] or 0)


def missing_between(database: Database, first: int, last: int, limit: int) -> list[int]:
    """Return up to *limit* seqs from *first* to *last* that the outbox lacks."""
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT seq FROM outbox WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)
        ).fetchall()
    missing: list[int] = []
    expected = first
    for (seq,) in [*rows, (last + 1,)]:
        missing.extend(range(expected, min(seq, expected + limit)))
        expected = seq + 1
        if len(missing) >= limit:
            break
    return missing[:limit]
