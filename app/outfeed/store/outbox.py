"""Outbox: the rows that the trigger wrote, read in seq order.

`Outbox` is the source of the relay and of replays.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from outfeed.history import Item, Page, Window, read_item, read_plain_item
from outfeed.principal import Wanted
from outfeed.redaction import QuickLook
from outfeed.store.database import Database
from outfeed.store.rows import Where, of_types, seen

MAX_PAGE_BYTES = 2**20
# A payload longer than any `data` that Outfeed sends is read only to this length. The fields before `data` are in it.
HEAD_BYTES = 8192
# SQLite returns many rows in one step: between two steps another thread may take Python's lock for 5 ms, and with a
# step for each row a replay beside one other busy thread took half as long again. A step never reads more rows than
# surely fit in this size.
_PART_BYTES = 8 * 2**20

_WINDOW = """
    (SELECT value FROM outfeed_meta WHERE key = 'epoch'),
    (SELECT min(seq) FROM outbox),
    (SELECT seq FROM sqlite_sequence WHERE name = 'outbox')
"""
# The window and the rows, joined: one statement is one consistent read, and costs less than a transaction with two.
_PART = f"""
    SELECT
        {_WINDOW}, min(created_at), group_concat(seq), group_concat(length(raw)),
        CAST(group_concat(CASE WHEN length(raw) > :max_bytes THEN substr(raw, 1, :head_bytes) ELSE raw END, '') AS BLOB)
    FROM (SELECT seq, created_at, CAST(coalesce(payload, '') AS BLOB) AS raw FROM outbox
"""  # noqa: S608 - ours
# Skips nothing: SQLite has one writer, so seq order is commit order.
_AFTER = _PART + "WHERE seq > :seq ORDER BY seq LIMIT :limit)"
_BEFORE = _PART + "WHERE seq < :seq ORDER BY seq DESC LIMIT :limit)"

_FIELDS = f"""
    SELECT seq FROM (SELECT seq, {
    ", ".join(
        f"coalesce(CASE WHEN json_valid(payload) THEN json_extract(payload, '$.{name}') END, '') AS {name}"
        for name in ("event_type", "source", "task_id", "agent_id")
    )
} FROM outbox WHERE seq > ? AND seq <= ?)
"""  # noqa: S608 - ours


class _Part(NamedTuple):
    """The rows of one read step, with the window of the same read.

    *raws*: the joined payloads; of a payload above the limit only the first HEAD_BYTES. `lengths` are those of the
    whole payloads. *written_at*: the earliest `created_at` of the rows. *is_last*: no rows follow.
    """

    window: Window
    written_at: object
    seqs: list[int]
    lengths: list[int]
    raws: bytes
    is_last: bool


class Outbox:
    """Reads one database's outbox.

    Any thread may call any method. Each read is one short read transaction.
    """

    origin_age = None  # it is the history itself

    def __init__(self, database: Database, max_event_bytes: int) -> None:
        self._database = database
        self._max_event_bytes = max_event_bytes
        self._max_bytes = max_event_bytes + HEAD_BYTES  # of a payload that is read in full
        self._noticing = threading.Lock()
        self._file: tuple[int, int] | None = None
        self._epoch: str | None = None

    def window(self) -> Window:
        """Return the epoch and the first and last seq, read now."""
        with self._database.connection() as connection:
            return read_window(connection)

    def read_after(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items above *seq*, oldest first.

        A page ends earlier after MAX_PAGE_BYTES. It has the window of the same read.
        """
        self._notice_other_file()
        parts = self._read(_AFTER, seq, limit)
        window = parts[0].window
        self._epoch = window.epoch
        items, is_whole = self._items(parts)
        through = max(window.last_seq, seq) if is_whole else items[-1].seq
        return Page(window, items, through, parts[0].written_at)

    def read_before(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items below *seq*, newest first.

        A page ends earlier after MAX_PAGE_BYTES.
        """
        parts = self._read(_BEFORE, seq, limit)
        items, is_whole = self._items(parts)
        return Page(parts[0].window, items, 0 if is_whole else items[-1].seq)

    def newest(self, wanted: Wanted, limit: int, *, after: int, up_to: int) -> list[int]:
        """Return the seqs of the newest *limit* matching events.

        The seqs are above *after*, at most *up_to*, newest first. SQL does the work, without Python's lock: 100,000
        events take 0.1 s. Payloads that the trigger did not write may be missing.
        """
        fields = {"source = ?": wanted.source, "task_id = ?": wanted.task_id, "agent_id = ?": wanted.agent_id}
        given: Where = {clause: (value,) for clause, value in fields.items() if value is not None}
        conditions = [*given.items(), *of_types(wanted.types).items(), *seen(wanted.visible).items()]
        clause = " AND ".join(clause for clause, _ in conditions) or "1"
        values = [value for _, each in conditions for value in each]
        with self._database.connection() as connection:
            found = connection.execute(
                f"{_FIELDS} WHERE {clause} ORDER BY seq DESC LIMIT ?", (after, up_to, *values, limit)
            )
            return [seq for (seq,) in found.fetchall()]

    def seq_of(self, event_id: str) -> int | None:
        """Return the event's seq, or None if it is no longer in the outbox."""
        with self._database.connection() as connection:
            sql = "SELECT max(seq) FROM outbox WHERE event_id = ?"
            found: int | None = connection.execute(sql, (event_id,)).fetchone()[0]
            return found

    def renew_epoch(self, epoch: str) -> None:
        """Replace *epoch* by a new one, so that its cursors get a reset.

        If another process has already replaced it, the call has no effect.
        """
        renew_epoch(self._database, epoch)

    def _notice_other_file(self) -> None:
        """Renew the epoch if the path names another file than before.

        The history of that file may differ.
        """
        if self._database.identity() in (None, self._file):
            return
        # One thread at a time, which checks again: another thread may have renewed the epoch since the first check.
        with self._noticing:
            file = self._database.identity()
            if file is not None and self._file not in (None, file) and self._epoch is not None:
                self.renew_epoch(self._epoch)
                self._epoch = None  # until a page is read from this file
            self._file = file or self._file

    def _read(self, sql: str, seq: int, limit: int) -> list[_Part]:
        """Return the parts of a page.

        One statement is used if it is enough, as it is for rows that were just committed.
        """
        with self._database.connection() as connection:
            first = next(self._parts(connection, sql, seq, limit))
        if first.is_last or len(first.seqs) == limit or len(first.raws) > MAX_PAGE_BYTES:
            return [first]
        with self._database.snapshot() as connection:
            return list(self._parts(connection, sql, seq, limit))

    def _parts(self, connection: sqlite3.Connection, sql: str, seq: int, limit: int) -> Iterator[_Part]:
        """Yield parts until the page is full or no rows are left.

        A part has as many rows as should fit, estimated from the size of the rows before.
        """
        left, rows = MAX_PAGE_BYTES, MAX_PAGE_BYTES // self._max_bytes
        while limit and left >= 0:
            part = self._read_part(connection, sql, seq, min(limit, max(1, rows)))
            yield part
            if part.is_last:
                break
            seq, limit, left = part.seqs[-1], limit - len(part.seqs), left - len(part.raws)
            rows = min(_PART_BYTES // self._max_bytes, left * len(part.seqs) // max(1, len(part.raws)))

    def _read_part(self, connection: sqlite3.Connection, sql: str, seq: int, limit: int) -> _Part:
        bounds = {"seq": seq, "limit": limit, "max_bytes": self._max_bytes, "head_bytes": HEAD_BYTES}
        *window, written_at, seqs, lengths, raws = connection.execute(sql, bounds).fetchone()
        if seqs is None:
            return _Part(window_of(window), None, [], [], b"", is_last=True)
        numbers = [int(each) for each in seqs.split(",")]
        sizes = [int(each) for each in lengths.split(",")]
        return _Part(window_of(window), written_at, numbers, sizes, raws or b"", len(numbers) < limit)

    def _items(self, parts: list[_Part]) -> tuple[list[Item], bool]:
        """Return the items, and whether no items follow.

        The last item may exceed MAX_PAGE_BYTES.
        """
        items: list[Item] = []
        left, limit = MAX_PAGE_BYTES, self._max_event_bytes
        for part in parts:
            start, look = 0, QuickLook(part.raws)
            for seq, length in zip(part.seqs, part.lengths, strict=True):
                if left < 0:
                    return items, False
                is_cut = length > self._max_bytes
                end = start + (HEAD_BYTES if is_cut else length)
                raw = part.raws[start:end]
                item = read_plain_item(seq, raw, limit, look) or read_item(seq, raw, length if is_cut else 0, limit)
                items.append(item)
                left -= end - start
                start = end
        return items, parts[-1].is_last


def renew_epoch(database: Database, epoch: str) -> None:
    """Give the outbox a new epoch if it still has *epoch*."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE outfeed_meta SET value = ? WHERE key = 'epoch' AND value = ?", (secrets.token_hex(16), epoch)
        )


def status(database: Database) -> dict[str, Any]:
    """Return the counts and the window of the outbox.

    The keys are `epoch`, `head` (last seq), `first_seq`, and the row counts `events` and `outbox`.
    """
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
    return window_of(connection.execute(f"SELECT {_WINDOW}").fetchone())


def window_of(row: Any) -> Window:
    epoch, first_seq, last_seq = row
    last_seq = last_seq or 0
    return Window(epoch, last_seq + 1 if first_seq is None else first_seq, last_seq)


def file_bytes(database: Path, suffix: str = "") -> int:
    """Return the size of the database's file, or of *suffix* beside it.

    The size is 0 if the file does not exist.
    """
    try:
        return Path(f"{database}{suffix}").stat().st_size
    except OSError:
        return 0
