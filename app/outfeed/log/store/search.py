"""Full-text search: the searched text, and the index in a file beside it.

`indexer.py` keeps the index. A search works without it, so its file may be deleted at any time. The index consists of
blocks of rowids, and each block is an FTS5 table without content. SQLite 3.40 can't delete rows from such a table, so a
block is rebuilt after a deletion, and is small enough for that. A search reads block after block until its page is
full.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from outfeed.config import settings
from outfeed.credentials import CREDENTIAL
from outfeed.errors import DatabaseError, DatabaseMissing, SchemaMismatch
from outfeed.events import Event
from outfeed.log.store import words
from outfeed.log.store.query import EVERY, Query
from outfeed.log.store.snippet import Snippet, snippet
from outfeed.log_message import LogMessage
from outfeed.redaction import redact
from outfeed.store import database as db
from outfeed.store import database_file
from outfeed.store.database import Connection, Database
from outfeed.store.instants import bounds

FORMAT = 2  # of the file. A file of another format is rebuilt
BLOCK_BITS, ZONE_BITS = 16, 10
MIN_ROWID, MAX_ROWID = -(2**63), 2**63 - 1
# The texts are tokens already. Only this tokenizer reads every character beyond ASCII as a part of a word.
SCHEMA = "CREATE VIRTUAL TABLE {table} USING fts5(text, content='', tokenize='ascii')"
_QUERY = "SELECT rowid FROM {table} WHERE {table} MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid {order} LIMIT ?"
_JSON_NAMES = {None: "null", True: "true", False: "false"}
log = logging.getLogger(__name__)


def path_of(database: Path) -> Path:
    """Return the path of the index of *database*.

    Links are resolved, as leases do.
    """
    database = database.resolve()
    return database.with_name(f"{database.name}-search")


def table(block: int) -> str:
    """Return the quoted name of the block's table.

    The quotes are for negative numbers.
    """
    return f'"words_{block}"'


# --- texts and queries ------------------------------------------------------------------------------------------------


def text_of(event: Event) -> str:
    """Return the searchable text of an event, in lines.

    The lines are its type, source, ids, and each name and value in its data.
    """
    fields = (event.event_type, event.source, event.task_id, event.agent_id, event.id)
    return "\n".join([*map(str, filter(None, fields)), *_lines(event.data)])


def _lines(data: Any) -> Iterator[str]:
    """Yield `name: value` for each value in *data*, in order.

    There is no recursion, because raw writers may nest deeply.
    """
    todo = [] if data is None else [("", data)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, dict | list):
            if name:
                yield name
            items = value.items() if isinstance(value, dict) else [("", item) for item in value]
            todo += reversed([(f"{key}: " if key else "", item) for key, item in items])
        else:
            yield f"{name}{_JSON_NAMES[value] if value is None or isinstance(value, bool) else value}"


def snippet_of(event: Event, text: str) -> Snippet | None:
    """Return the part of *event* that matches the search for *text*.

    *event* is redacted. Returns None if nothing matches.
    """
    query = Query.of(text)
    return snippet(query, text_of(event)) if query else None


def index_text(text: str) -> str:
    """Return the tokens that the index stores for a text."""
    return f"{EVERY} {words.indexed(text)}"


def expression(text: str) -> str | None:
    """Return the search for *text* in FTS5's syntax.

    Any text is valid. Returns None if it contains no word.
    """
    query = Query.of(text)
    return query.expression if query else None


def can_narrow(values: Iterable[str]) -> bool:
    """Return whether the index contains all of *values* unchanged."""
    return all(words.tokens(value) and redact(value) == value for value in values)


def matching_rowids(expression: str, texts: Iterable[tuple[int, str]]) -> set[int]:
    """Return the rowids of those *texts* that match.

    For events that are not in the index yet.
    """
    with closing(database_file.plain(":memory:")) as memory:
        memory.execute(SCHEMA.format(table="words"))
        rows = ((rowid, index_text(text)) for rowid, text in texts)
        memory.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows)
        return {row[0] for row in memory.execute("SELECT rowid FROM words WHERE words MATCH ?", (expression,))}


# --- the index --------------------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """Rowids from *low* to *high*.

    With a *block* their words are indexed. *is_timed* means that their times are indexed.
    """

    low: int
    high: int
    block: int | None = None
    is_timed: bool = False


class IndexKey(NamedTuple):
    """The identity of an index. An index with another identity is not used."""

    epoch: str
    renumberings: int

    @classmethod
    def of(cls, connection: Connection) -> IndexKey:
        """Return the identity that an index of the database needs."""
        return cls(str(db.meta(connection, "epoch")), int(db.meta(connection, "renumberings") or 0))


class Index:
    """Reader of one database's index.

    If the index is missing, damaged or of another history, it covers no rows.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file = db.at(path_of(database.path))

    def spans(self, since: str | None = None, until: str | None = None) -> list[Span]:
        """Return all possible rowids in spans, newest first.

        Each span is indexed or not. With *since* or *until*, most of the rowids that the index knows at other times are
        excluded.
        """
        try:
            with self._database.connection() as connection:
                key = IndexKey.of(connection)
            with self._file.snapshot() as connection:
                sql = "SELECT epoch, renumberings, signature, last_rowid, last_id FROM state"
                state = connection.execute(sql).fetchone()
                timed = connection.execute("SELECT number, is_made FROM block ORDER BY number DESC").fetchall()
                zones = _zones(connection, since, until) if since or until else None
            unsure = self._reused_blocks(*state[3:]) if state else set()
        except (DatabaseMissing, SchemaMismatch):
            return [Span(MIN_ROWID, MAX_ROWID)]
        except DatabaseError as error:
            log.warning(LogMessage("search index can't be read", path=self._file.path, error=reason_of(error)))
            return [Span(MIN_ROWID, MAX_ROWID)]
        if state is None or state[:3] != (*key, signature()):
            return [Span(MIN_ROWID, MAX_ROWID)]
        return list(_spans(state[3], [block for block in timed if block[0] not in unsure], zones))

    def _reused_blocks(self, last_rowid: int, last_id: object) -> set[int]:
        """Return the blocks in which new events may have reused rowids.

        The index still has the deleted events there. SQLite reuses a rowid only if the rows at the end were deleted
        (sqlite.org/autoinc.html).
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
        """Return up to *limit* matching rowids of an indexed span, in order.

        Returns None if the block can't be read.
        """
        assert span.block is not None
        sql = _QUERY.format(table=table(span.block), order="ASC" if is_upward else "DESC")
        try:
            with self._file.connection() as connection:
                rows = connection.execute(sql, (expression, span.low, span.high, limit)).fetchall()
        except DatabaseError:
            return None  # the block is being rebuilt, or is damaged
        return [row[0] for row in rows]


def reason_of(error: DatabaseError) -> object:
    """Return SQLite's reason for *error*.

    Its text advises a restore, and an index is rebuilt instead.
    """
    return error.__cause__ or error


def _zones(connection: Connection, since: str | None, until: str | None) -> dict[int, tuple[int, int]]:
    """Return each block's first and last zone with events between the times."""
    sql = "SELECT number >> ?, min(number), max(number) FROM zone WHERE high >= ? AND low < ? GROUP BY 1"
    found = connection.execute(sql, (BLOCK_BITS - ZONE_BITS, *bounds(since, until))).fetchall()
    return {block: (first, last) for block, first, last in found}


def _spans(last_rowid: int, blocks: list[tuple[int, bool]], zones: dict[int, tuple[int, int]] | None) -> Iterator[Span]:
    high = MAX_ROWID
    for number, is_made in blocks:
        first, last = number << BLOCK_BITS, min((number + 1 << BLOCK_BITS) - 1, last_rowid)
        if high > last:
            yield Span(last + 1, high)
        high = first - 1
        if zones is not None:
            if number not in zones:
                continue
            first = max(first, zones[number][0] << ZONE_BITS)
            last = min(last, (zones[number][1] + 1 << ZONE_BITS) - 1)
        yield Span(first, last, number if is_made else None, is_timed=True)
    yield Span(MIN_ROWID, high)


def signature() -> str:
    """Return the hash of all settings that indexed texts depend on.

    An index with another signature may contain words that are secrets now.
    """
    given = f"{FORMAT} {CREDENTIAL.pattern} {settings().redact_keys} {settings().max_event_bytes}"
    return hashlib.sha256(given.encode()).hexdigest()
