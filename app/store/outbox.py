"""The outbox: what the trigger filled, read in seq order. `Outbox` is the source that the relay and replays read."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from app.history import Item, Page, Window, read_item
from app.store.database import Database

MAX_PAGE_BYTES = 2**20
# A payload that is longer than any `data` we would send is read only this far: the fields before `data` stand there.
HEAD_CHARS = 8192

_WINDOW = """
    SELECT
        NULL,
        (SELECT value FROM meta WHERE key = 'epoch'),
        (SELECT min(seq) FROM outbox),
        (SELECT seq FROM sqlite_sequence WHERE name = 'outbox')
"""
# The window, then the rows: one statement is one consistent read, and costs less than a transaction with two.
_PAGE = f"""
    {_WINDOW}
    UNION ALL SELECT * FROM (
        SELECT
            seq,
            CAST(CASE WHEN length(payload) > :max_chars THEN substr(payload, 1, :head_chars) ELSE payload END AS BLOB),
            CASE WHEN length(payload) > :max_chars THEN length(CAST(payload AS BLOB)) ELSE 0 END,
            created_at
        FROM outbox
"""  # noqa: S608 - ours
# Skips nothing: SQLite has one writer, so seq order is commit order.
_AFTER = _PAGE + "WHERE seq > :seq ORDER BY seq LIMIT :limit)"
_BEFORE = _PAGE + "WHERE seq < :seq ORDER BY seq DESC LIMIT :limit)"


class Outbox:
    """Reads one database's outbox. Any thread may call any method; each read is one short read transaction."""

    def __init__(self, database: Database, max_event_bytes: int) -> None:
        self._database = database
        self._max_event_bytes = max_event_bytes
        self._file: tuple[int, int] | None = None
        self._epoch: str | None = None

    def window(self) -> Window:
        """Return the epoch and the first and last seq, fresh from the database."""
        with self._database.connection() as connection:
            return read_window(connection)

    def read_after(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items (and MAX_PAGE_BYTES) above *seq*, oldest first, with the window they stand in."""
        self._notice_other_file()
        window, rows, is_whole = self._read(_AFTER, seq, limit)
        self._epoch = window.epoch
        through = max(window.last_seq, seq) if is_whole else rows[-1][0]
        return Page(window, self._items(rows), through, rows[0][3] if rows else None)

    def read_before(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items (and MAX_PAGE_BYTES) below *seq*, newest first."""
        window, rows, is_whole = self._read(_BEFORE, seq, limit)
        return Page(window, self._items(rows), 0 if is_whole else rows[-1][0])

    def renew_epoch(self, epoch: str) -> None:
        """Replace *epoch* by a new one, unless another process already did: every cursor of it becomes a reset."""
        renew_epoch(self._database, epoch)

    def _notice_other_file(self) -> None:
        """Renew the epoch when the path names another file than before: its history may have gone another way."""
        file = self._database.identity()
        if file is not None and self._file not in (None, file) and self._epoch is not None:
            self.renew_epoch(self._epoch)
        self._file = file or self._file

    def _read(self, sql: str, seq: int, limit: int) -> tuple[Window, list[Any], bool]:
        """Return the window, the rows, and whether they are all there are."""
        bounds = {"max_chars": self._max_event_bytes + HEAD_CHARS, "head_chars": HEAD_CHARS}
        with self._database.connection() as connection, closing(connection.cursor()) as cursor:
            cursor.execute(sql, {"seq": seq, "limit": limit, **bounds})
            window = _window_of(cursor.fetchone())
            rows, size = [], 0
            for row in cursor:
                rows.append(row)
                size += len(row[1] or b"")
                if size > MAX_PAGE_BYTES:
                    break
        return window, rows, len(rows) < limit and size <= MAX_PAGE_BYTES

    def _items(self, rows: list[Any]) -> list[Item]:
        limit = self._max_event_bytes
        return [read_item(seq, raw, size, limit) for seq, raw, size, _ in rows]


def renew_epoch(database: Database, epoch: str) -> None:
    """Give the outbox's history a new epoch if it still has *epoch*."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'epoch' AND value = ?", (secrets.token_hex(16), epoch)
        )


def status(database: Database) -> dict[str, Any]:
    """Return `epoch`, `head` (last seq), `first_seq`, and the row counts `events` and `outbox`."""
    with database.snapshot() as connection:
        window = read_window(connection)
        (events,) = connection.execute("SELECT count(*) FROM event_log").fetchone()
        (rows,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
    return {
        "epoch": window.epoch,
        "head": window.last_seq,
        "first_seq": window.first_seq,
        "events": events,
        "outbox": rows,
    }


def read_window(connection: sqlite3.Connection) -> Window:
    """Return the window as *connection* sees it."""
    return _window_of(connection.execute(_WINDOW).fetchone())


def _window_of(row: Any) -> Window:
    _, epoch, first_seq, last_seq = row
    last_seq = last_seq or 0
    return Window(epoch, last_seq + 1 if first_seq is None else first_seq, last_seq)


def file_bytes(database: Path, suffix: str = "") -> int:
    """Return the size of the database's file, or of the one beside it with that suffix; 0 where there is none."""
    try:
        return Path(f"{database}{suffix}").stat().st_size
    except OSError:
        return 0
