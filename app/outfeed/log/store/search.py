"""Full-text search: what is looked for, and the index that finds it, in a file of its own beside the database.

The index is kept by `indexer.py`, is never needed, and may be deleted at any time. It is cut into blocks of rowids,
each an FTS5 table without content: SQLite 3.40 can't delete from one of these, so a block of which an event was deleted
is made anew, small enough for that, and a search goes from block to block only until its page is full.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from outfeed.errors import DatabaseError, DatabaseMissing, SchemaMismatch
from outfeed.events import Event
from outfeed.log_message import LogMessage
from outfeed.redaction import redact
from outfeed.store import database as db
from outfeed.store.database import Database

BLOCK_BITS = 16
MAX_TEXT_CHARS = 16_384  # of an event; what stands behind is not found
MIN_ROWID, MAX_ROWID = -(2**63), 2**63 - 1
SCHEMA = "CREATE VIRTUAL TABLE {table} USING fts5(text, content='', tokenize='unicode61 remove_diacritics 2')"
_QUERY = "SELECT rowid FROM {table} WHERE {table} MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid {order} LIMIT ?"
_ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|.?)")  # in JSON: what follows is no part of a word
_PART = re.compile(r'"([^"]*)"?(\*?)|([^\s"]+)')
log = logging.getLogger(__name__)


def path_of(database: Path) -> Path:
    """Return where the index of *database* is; links are followed, as leases do."""
    database = database.resolve()
    return database.with_name(f"{database.name}-search")


def table(block: int) -> str:
    """Return the name of the block's table, quoted: there are negative rowids."""
    return f'"words_{block}"'


# --- texts and what is looked for -------------------------------------------------------------------------------------


def text_of(event: Event) -> str:
    """Return what can be found of an event: its type, source and ids, and every name and value in its data."""
    fields = (event.event_type, event.source, event.task_id, event.agent_id, event.id)
    try:
        data = "" if event.data is None else json.dumps(event.data, ensure_ascii=False)
    except RecursionError:
        data = ""
    text = " ".join([*map(str, filter(None, fields)), _ESCAPE.sub(" ", data[:MAX_TEXT_CHARS])])
    return text[:MAX_TEXT_CHARS]


def expression(text: str) -> str | None:
    """Return FTS5's words for *text*: words that must all be there, "phrases", and beginnings, `word*`.

    Any text is fine. None where there is no word in it.
    """
    parts = []
    for quoted, star, plain in _PART.findall(text):
        words = quoted or plain.rstrip("*")
        if _has_words(words):
            parts.append(_phrase(words) + ("*" if star or plain.endswith("*") else ""))
    return " AND ".join(parts) or None


def narrowed(expression: str, values: Iterable[str]) -> str:
    """Return *expression*, ANDed with any of *values*, which are fields of an event."""
    phrases = [_phrase(value) for value in values]
    return f"({expression}) AND ({' OR '.join(phrases)})"


def may_narrow(values: Iterable[str]) -> bool:
    """Return whether all of them are in the index as they are."""
    return all(_has_words(value) and redact(value) == value for value in values)


def _phrase(words: str) -> str:
    return '"' + words.replace('"', '""').replace("\0", " ") + '"'


def _has_words(text: str) -> bool:
    """Return whether the tokenizer would find anything: letters, numbers, and what is for private use."""
    return any(unicodedata.category(char)[0] in "LN" or unicodedata.category(char) == "Co" for char in text)


def matching(expression: str, texts: Iterable[tuple[int, str]]) -> set[int]:
    """Return the rowids of those *texts* that match: for what is not in the index yet."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        memory.execute(SCHEMA.format(table="words"))
        memory.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", texts)
        return {row[0] for row in memory.execute("SELECT rowid FROM words WHERE words MATCH ?", (expression,))}


# --- the index --------------------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """Rowids from *low* to *high*. With a *block* they are indexed, and their timestamps lie between *times*."""

    low: int
    high: int
    block: int | None = None
    times: tuple[str, str] | None = None

    def may_hold(self, since: str | None, until: str | None) -> bool:
        """Return whether an event here may have a timestamp from *since* on and before *until*."""
        return self.times is None or (
            (since is None or self.times[1] >= since) and (until is None or self.times[0] < until)
        )


class Fingerprint(NamedTuple):
    """What an index is of. One of something else is worth nothing."""

    epoch: str
    renumberings: int

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Fingerprint:
        """Return that of a database."""
        return cls(str(db.meta(connection, "epoch")), int(db.meta(connection, "renumberings") or 0))


class Index:
    """Reads the index of one database. Where it is missing, damaged or of another history, it covers nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file = db.at(path_of(database.path))

    def spans(self) -> list[Span]:
        """Return all rowids there can be, the newest first, in spans that are indexed or not."""
        try:
            with self._database.connection() as connection:
                fingerprint = Fingerprint.of(connection)
            with self._file.snapshot() as connection:
                state = connection.execute("SELECT epoch, renumberings, last_rowid, last_id FROM state").fetchone()
                blocks = connection.execute("SELECT number, low, high FROM block ORDER BY number DESC").fetchall()
            unsure = self._used_again(*state[2:]) if state else set()
        except (DatabaseMissing, SchemaMismatch):
            return [Span(MIN_ROWID, MAX_ROWID)]
        except DatabaseError as error:
            log.warning(LogMessage("search index can't be read", error=error))
            return [Span(MIN_ROWID, MAX_ROWID)]
        if state is None or state[:2] != fingerprint:
            return [Span(MIN_ROWID, MAX_ROWID)]
        return list(_spans(state[2], [block for block in blocks if block[0] not in unsure]))

    def _used_again(self, last_rowid: int, last_id: object) -> set[int]:
        """Return the blocks in which new events may stand in rows of deleted ones, which the index knows.

        SQLite uses a rowid again only where those at the end were deleted (sqlite.org/autoinc.html).
        """
        with self._database.snapshot() as connection:
            if connection.execute("SELECT id FROM event_log WHERE rowid = ?", (last_rowid,)).fetchone() == (last_id,):
                return set()
            (newest,) = connection.execute("SELECT max(rowid) FROM event_log").fetchone()
            floor = MIN_ROWID if newest is None else newest
            stale = connection.execute(
                "SELECT block FROM outfeed_search_stale WHERE block >= ?", (floor >> BLOCK_BITS,)
            )
            return {row[0] for row in stale.fetchall()}

    def find(self, span: Span, expression: str, limit: int, *, is_upward: bool) -> list[int] | None:
        """Return up to *limit* rowids in an indexed span that match, in order; None where it can't be asked."""
        assert span.block is not None
        sql = _QUERY.format(table=table(span.block), order="ASC" if is_upward else "DESC")
        try:
            with self._file.connection() as connection:
                rows = connection.execute(sql, (expression, span.low, span.high, limit)).fetchall()
        except DatabaseError:
            return None  # it was begun anew meanwhile, or is damaged
        return [row[0] for row in rows]


def _spans(last_rowid: int, blocks: list[tuple[int, str, str]]) -> Iterator[Span]:
    high = MAX_ROWID
    for number, *times in blocks:
        first, last = number << BLOCK_BITS, min((number + 1 << BLOCK_BITS) - 1, last_rowid)
        if high > last:
            yield Span(last + 1, high)
        yield Span(first, last, number, (times[0], times[1]))
        high = first - 1
    yield Span(MIN_ROWID, high)
