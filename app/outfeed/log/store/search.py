"""Full-text search: what is looked for, and the index that finds it, in a file of its own beside the database.

The index is kept by `indexer.py`, is never needed, and may be deleted at any time. It is cut into blocks of rowids,
each an FTS5 table without content: SQLite 3.40 can't delete from one of these, so a block of which an event was deleted
is rebuilt, small enough for that, and a search goes from block to block only until its page is full.
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
from outfeed.log.store.query import EVERY, Query, phrase
from outfeed.log.store.snippet import Snippet, snippet
from outfeed.log_message import LogMessage
from outfeed.redaction import redact
from outfeed.store import database as db
from outfeed.store.database import Connection, Database
from outfeed.store.instants import bounds

FORMAT = 2  # of the file; a file of another format is rebuilt
BLOCK_BITS, ZONE_BITS = 16, 10
MIN_ROWID, MAX_ROWID = -(2**63), 2**63 - 1
# The texts are tokens already. This tokenizer alone takes every character beyond ASCII for a part of a word.
SCHEMA = "CREATE VIRTUAL TABLE {table} USING fts5(text, content='', tokenize='ascii')"
_QUERY = "SELECT rowid FROM {table} WHERE {table} MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid {order} LIMIT ?"
_JSON_NAMES = {None: "null", True: "true", False: "false"}
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
    """Return what can be found of an event, in lines: its type, source, ids, and each name and value in its data."""
    fields = (event.event_type, event.source, event.task_id, event.agent_id, event.id)
    return "\n".join([*map(str, filter(None, fields)), *_lines(event.data)])


def _lines(data: Any) -> Iterator[str]:
    """Yield `name: value` of all that is in *data*, in its order. Without recursion: raw writers nest deeply."""
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
    """Return the part of *event*, which is redacted, in which the search for *text* finds something; None for none."""
    query = Query.of(text)
    return snippet(query, text_of(event)) if query else None


def indexed(text: str) -> str:
    """Return what the index has of a text."""
    return f"{EVERY} {words.indexed(text)}"


def expression(text: str) -> str | None:
    """Return the search for *text*, which may be any, as FTS5 has it; None if there is no word in it."""
    query = Query.of(text)
    return query.expression if query else None


def narrowed(expression: str, values: Iterable[str]) -> str:
    """Return *expression*, ANDed with any of *values*, which are fields of an event."""
    phrases = [phrase(words.tokens(value)) for value in values]
    return f"({expression}) AND ({' OR '.join(phrases)})"


def may_narrow(values: Iterable[str]) -> bool:
    """Return whether all of them are in the index as they are."""
    return all(words.tokens(value) and redact(value) == value for value in values)


def matching(expression: str, texts: Iterable[tuple[int, str]]) -> set[int]:
    """Return the rowids of those *texts* that match: for what is not in the index yet."""
    with closing(db.plain(":memory:")) as memory:
        memory.execute(SCHEMA.format(table="words"))
        rows = ((rowid, indexed(text)) for rowid, text in texts)
        memory.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows)
        return {row[0] for row in memory.execute("SELECT rowid FROM words WHERE words MATCH ?", (expression,))}


# --- the index --------------------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """Rowids from *low* to *high*. With a *block* their words are indexed; *is_timed*: and so are their times."""

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
        """Return that of a database."""
        return cls(str(db.meta(connection, "epoch")), int(db.meta(connection, "renumberings") or 0))


class Index:
    """Reads the index of one database. Where it is missing, damaged or of another history, it covers nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file = db.at(path_of(database.path))

    def spans(self, since: str | None = None, until: str | None = None) -> list[Span]:
        """Return all rowids there can be, the newest first, in spans that are indexed or not.

        With *since* or *until*, without most of those that the index knows to lie at other times.
        """
        try:
            with self._database.connection() as connection:
                fingerprint = IndexKey.of(connection)
            with self._file.snapshot() as connection:
                sql = "SELECT epoch, renumberings, signature, last_rowid, last_id FROM state"
                state = connection.execute(sql).fetchone()
                timed = connection.execute("SELECT number, is_made FROM block ORDER BY number DESC").fetchall()
                zones = _zones(connection, since, until) if since or until else None
            unsure = self._used_again(*state[3:]) if state else set()
        except (DatabaseMissing, SchemaMismatch):
            return [Span(MIN_ROWID, MAX_ROWID)]
        except DatabaseError as error:
            log.warning(LogMessage("search index can't be read", error=error))
            return [Span(MIN_ROWID, MAX_ROWID)]
        if state is None or state[:3] != (*fingerprint, signature()):
            return [Span(MIN_ROWID, MAX_ROWID)]
        return list(_spans(state[3], [block for block in timed if block[0] not in unsure], zones))

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
            return None  # it is being rebuilt, or is damaged
        return [row[0] for row in rows]


def _zones(connection: Connection, since: str | None, until: str | None) -> dict[int, tuple[int, int]]:
    """Return by block the first and last zone in which an event may lie between the times."""
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
    """Return what the texts in an index depend on. An index of other ones may have words that are secrets now."""
    given = f"{FORMAT} {CREDENTIAL.pattern} {settings().redact_keys} {settings().max_event_bytes}"
    return hashlib.sha256(given.encode()).hexdigest()
