"""The indexer: keeps the full-text index current.

It reads the outbox and the log after writers have committed, and indexes redacted text. One process at a time runs it.
It may be killed at any time, and its file may be deleted: each transaction stores the identity of the index and its
progress together with the change. A search reads events that are not indexed yet from the log.
"""

from __future__ import annotations

import logging
import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.errors import DatabaseDamaged, DatabaseMissing, OutfeedError, SchemaMismatch
from outfeed.events import Event
from outfeed.log.store import search
from outfeed.log.store.search import (
    BLOCK_BITS,
    MAX_ROWID,
    ZONE_BITS,
    IndexKey,
    index_text,
    path_of,
    signature,
    table,
    text_of,
)
from outfeed.log_message import LogMessage
from outfeed.store import database as db
from outfeed.store import database_file, instants, lease, rows
from outfeed.store.database import Connection, Database
from outfeed.store.outbox import read_window

JOB = "search"
CHUNK_ROWS = 100
SKIPPED_ROWS = 1000  # of blocks that are not built yet: the build will index these rows
# The pause after each chunk is three times as long as the chunk took. The feed's threads run in the same interpreter:
# with the pause, a client that resumes from far behind during a build is served at nearly full speed.
PAUSE_FACTOR = 3
MAX_PAUSE_SECS = 0.5
# Deletions come in groups. A block is rebuilt if none has happened since the last check, or after this many checks.
MAX_CHECKS = 30
VACUUM_PAGES = 1000
log = logging.getLogger(__name__)

# A block's times are stored before its words: the first and the last instant of each zone of rowids.
_TABLES = """
    DROP TABLE IF EXISTS state;
    DROP TABLE IF EXISTS block;
    DROP TABLE IF EXISTS zone;
    CREATE TABLE state (
        epoch TEXT, renumberings INTEGER, signature TEXT,
        seq INTEGER, last_rowid INTEGER, last_id
    );
    CREATE TABLE block (number INTEGER PRIMARY KEY, is_made INTEGER NOT NULL);
    CREATE TABLE zone (number INTEGER PRIMARY KEY, low TEXT NOT NULL, high TEXT NOT NULL);
"""
_AFTER = """
    SELECT outbox.seq, event_log.rowid, event_log.id FROM outbox LEFT JOIN event_log ON event_log.id = outbox.event_id
    WHERE outbox.seq > ? ORDER BY outbox.seq LIMIT ?
"""
_STORE_TIMES = """
    INSERT INTO zone (number, low, high) VALUES (?, ?, ?)
    ON CONFLICT (number) DO UPDATE SET low = min(low, excluded.low), high = max(high, excluded.high)
"""


_OWN_TIMES = f"""
    SELECT rowid >> ?, min(substr(timestamp, 1, 23)), max(substr(timestamp, 1, 23)) FROM event_log NOT INDEXED
    WHERE rowid BETWEEN ? AND ? AND {instants.IS_OWN_FORM} GROUP BY 1
"""  # noqa: S608 - constants of this module
_OTHER_TIMES = f"""
    SELECT rowid, timestamp FROM event_log NOT INDEXED WHERE rowid BETWEEN ? AND ? AND NOT ({instants.IS_OWN_FORM})
"""  # noqa: S608
_DELETE_TIMES = "DELETE FROM zone WHERE number BETWEEN ? AND ?"


class Stopped(Exception):
    """The process stops. Another run will do the uncommitted work."""


class Log(NamedTuple):
    """The log and its outbox at one moment."""

    key: IndexKey
    first_seq: int
    last_seq: int
    last_rowid: int
    last_id: object


class State(NamedTuple):
    """The identity and progress of the index.

    It has followed the outbox up to *seq*. *last_rowid* and *last_id* are of the last row that it has read.
    """

    key: IndexKey
    signature: str
    seq: int
    last_rowid: int
    last_id: object


class Indexer:
    """The indexer of one database.

    Each serving process calls `run` every second, and one of them does the work. The pause after each chunk is
    *pause_factor* times as long as the chunk took.
    """

    def __init__(self, database: Database, pause_factor: float = PAUSE_FACTOR) -> None:
        self._log = database
        self._pause_factor = pause_factor
        self._path = path_of(database.path)
        self._file = db.at(self._path)
        self._stopping = threading.Event()
        self._failure: str | None = None
        self._stale = (0, 0)

    def run(self) -> None:
        """Bring the index up to date, unless another process does.

        Errors are logged.
        """
        try:
            with lease.hold(lease.lock_file(self._log.path, JOB), wait=False) as is_held:
                while is_held and self._step():
                    pass
            self._failure = None
        except Stopped:
            pass
        except (OutfeedError, OSError) as error:
            if str(error) != self._failure:
                log.warning(LogMessage("can't update the search index, trying again", error=error))
            self._failure = str(error)

    def close(self) -> None:
        """Close the index."""
        self._file.close()

    def stop(self) -> None:
        """Make a running `run` end soon."""
        self._stopping.set()

    def _step(self) -> bool:
        """Do the next piece of work. Return False if there is none."""
        found = self._read_log()
        state = self._read_state()
        if state is None or not self._is_current(found, state):
            self._rebuild(found)
            return True
        return self._follow(state) or self._rebuild_stale() or self._store_next_times() or self._build_next()

    def _read_log(self) -> Log:
        with self._log.snapshot() as connection:
            window = read_window(connection)
            last = connection.execute("SELECT rowid, id FROM event_log ORDER BY rowid DESC LIMIT 1").fetchone()
            return Log(IndexKey.of(connection), window.first_seq, window.last_seq, *(last or (-MAX_ROWID, None)))

    def _read_state(self) -> State | None:
        try:
            with self._discard_if_damaged(), self._file.connection() as connection:
                if found := self._file.damage:  # a search may have met it, in a block that is not written again
                    raise found
                row = connection.execute(
                    "SELECT epoch, renumberings, signature, seq, last_rowid, last_id FROM state"
                ).fetchone()
        except (DatabaseMissing, SchemaMismatch):
            return None
        return State(IndexKey(*row[:2]), *row[2:]) if row else None

    def _is_current(self, found: Log, state: State) -> bool:
        """Return whether the index belongs to that log and can continue.

        It can't if rows that it has not read were pruned.
        """
        return (
            state.key == found.key
            and state.signature == signature()
            and found.first_seq - 1 <= state.seq <= found.last_seq
            and not self._has_moved(state.last_rowid, state.last_id)
        )

    def _has_moved(self, rowid: int, id_: object) -> bool:
        """Return whether the event of that row is in another row now.

        Then all events may have moved.
        """
        with self._log.connection() as connection:
            row = connection.execute("SELECT rowid FROM event_log WHERE id = ?", (id_,)).fetchone()
        return row is not None and row[0] != rowid

    def _rebuild(self, found: Log) -> None:
        """Make an empty index that follows the outbox from the head."""
        if found.last_id is not None:  # no line follows the first sign-in link: tests/http/server/test_terminal.py
            log.info(LogMessage("search index is rebuilt", path=self._path))
        database_file.create(self._path)
        self._path.chmod(0o600)
        _damaged(self._path).unlink(missing_ok=True)
        with self._writing() as connection:
            sql = "SELECT name FROM sqlite_master WHERE name LIKE 'words%' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
            for (name,) in connection.execute(sql).fetchall():
                connection.execute(f'DROP TABLE "{name}"')
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            state = State(found.key, signature(), found.last_seq, found.last_rowid, found.last_id)
            connection.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?)", (*state.key, *state[1:]))
        self._release_space()

    # --- new events ---------------------------------------------------------------------------------------------------

    def _follow(self, state: State) -> bool:
        """Index the next events of the outbox."""
        began = clock.monotonic()
        blocks = self._blocks()
        with self._log.snapshot() as connection:
            found = connection.execute(_AFTER, (state.seq, SKIPPED_ROWS)).fetchall()
            wanted = [place for place, row in enumerate(found) if row[1] is not None and row[1] >> BLOCK_BITS in blocks]
            if len(wanted) > CHUNK_ROWS:
                del found[wanted[CHUNK_ROWS] :]
            events = rows.load(connection, [found[place][1] for place in wanted[:CHUNK_ROWS]])
        if not found:
            return False
        with self._writing() as connection:
            _store_times(connection, {rowid: event.timestamp for rowid, event in events.items()})
            for number in sorted({rowid >> BLOCK_BITS for rowid in events}):
                if blocks[number]:
                    self._append(
                        connection, number, {key: one for key, one in events.items() if key >> BLOCK_BITS == number}
                    )
            met = [(rowid, id_) for _, rowid, id_ in found if rowid is not None]
            last = max([(state.last_rowid, state.last_id), *met], key=operator.itemgetter(0))
            connection.execute("UPDATE state SET seq = ?, last_rowid = ?, last_id = ?", (found[-1][0], *last))
        self._pause_after(began)
        return True

    def _append(self, connection: Connection, number: int, events: dict[int, Event]) -> None:
        """Index events of that block, each once."""
        known = f'SELECT 1 FROM {table(number)[:-1]}_docsize" WHERE id = ?'  # noqa: S608 - the table's name is a constant with a number
        fresh = {rowid: one for rowid, one in events.items() if not connection.execute(known, (rowid,)).fetchone()}
        self._insert(connection, number, fresh)

    def _insert(self, connection: Connection, number: int, events: dict[int, Event]) -> None:
        sql = f"INSERT INTO {table(number)} (rowid, text) VALUES (?, ?)"  # noqa: S608 - the table's name is a constant with a number
        connection.executemany(sql, ((rowid, index_text(text_of(event))) for rowid, event in sorted(events.items())))

    # --- old and deleted events ---------------------------------------------------------------------------------------

    def _store_next_times(self) -> bool:
        """Store the times of the newest block without times.

        All times come before the words of old blocks, because they take only seconds.
        """
        number = self._newest_outside(set(self._blocks()))
        if number is None:
            return False
        began = clock.monotonic()
        first, last = number << BLOCK_BITS, (number + 1 << BLOCK_BITS) - 1
        with self._log.snapshot() as connection:
            own = connection.execute(_OWN_TIMES, (ZONE_BITS, first, last)).fetchall()
            others = connection.execute(_OTHER_TIMES, (first, last)).fetchall()
        with self._writing() as connection:
            connection.execute("INSERT INTO block (number, is_made) VALUES (?, 0)", (number,))
            connection.executemany(_STORE_TIMES, own)
            _store_times(connection, {rowid: rows.readable(timestamp) for rowid, timestamp in others})
        self._pause_after(began)
        return True

    def _build_next(self) -> bool:
        """Build the newest block without words."""
        number = self._newest_outside({number for number, is_made in self._blocks().items() if is_made})
        if number is not None:
            self._build(number)
        return number is not None

    def _newest_outside(self, blocks: set[int]) -> int | None:
        """Return the newest block with events that is not in *blocks*."""
        rowid = MAX_ROWID
        while (last := self._last_rowid(rowid)) is not None:
            if (number := last >> BLOCK_BITS) not in blocks:
                return number
            rowid = (number << BLOCK_BITS) - 1
        return None

    def _blocks(self) -> dict[int, bool]:
        """Return the blocks with times, and whether each has its words."""
        with self._discard_if_damaged(), self._file.connection() as connection:
            return {row[0]: bool(row[1]) for row in connection.execute("SELECT number, is_made FROM block").fetchall()}

    def _last_rowid(self, up_to: int) -> int | None:
        with self._log.connection() as connection:
            sql = "SELECT rowid FROM event_log WHERE rowid <= ? ORDER BY rowid DESC LIMIT 1"
            row = connection.execute(sql, (up_to,)).fetchone()
        return row[0] if row else None

    def _rebuild_stale(self) -> bool:
        """Rebuild blocks whose events were deleted, after deletions have stopped.

        Blocks without events are dropped.
        """
        with self._log.connection() as connection:
            stale = connection.execute("SELECT block, deletions FROM outfeed_search_stale ORDER BY block").fetchall()
        deletions, checks = sum(row[1] for row in stale), self._stale[1]
        if deletions != self._stale[0] and checks < MAX_CHECKS:
            self._stale = (deletions, checks + 1)
            return False
        for number, seen in stale:
            if number in self._blocks():
                self._build(number)
            with self._log.transaction() as connection:
                connection.execute("DELETE FROM outfeed_search_stale WHERE block = ? AND deletions = ?", (number, seen))
        self._stale = (0, 0)
        if stale:
            self._release_space()
        return bool(stale)

    def _build(self, number: int) -> None:
        """Build a block from the log's current events, in one transaction.

        A block without events is dropped.
        """
        first, last = number << BLOCK_BITS, (number + 1 << BLOCK_BITS) - 1
        position = first - 1
        with self._writing() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {table(number)}")
            connection.execute("DELETE FROM block WHERE number = ?", (number,))
            connection.execute(_DELETE_TIMES, (first >> ZONE_BITS, last >> ZONE_BITS))
            while events := self._read(position, last):
                began = clock.monotonic()
                if position < first:
                    connection.execute(search.SCHEMA.format(table=table(number)))
                    connection.execute("INSERT INTO block (number, is_made) VALUES (?, 1)", (number,))
                self._insert(connection, number, events)
                _store_times(connection, {rowid: event.timestamp for rowid, event in events.items()})
                position = max(events)
                self._pause_after(began)
            if position >= first:
                connection.execute(f"INSERT INTO {table(number)} ({table(number)}) VALUES ('optimize')")  # noqa: S608

    def _read(self, after: int, last: int) -> dict[int, Event]:
        sql = "SELECT rowid FROM event_log WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?"
        with self._log.snapshot() as connection:
            found = connection.execute(sql, (after, last, CHUNK_ROWS)).fetchall()
            return rows.load(connection, [row[0] for row in found])

    # --- the file -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Open a write transaction on the index.

        Freed pages are overwritten, because they hold words of deleted events.
        """
        with self._discard_if_damaged(), self._file.transaction() as connection:
            connection.execute("PRAGMA secure_delete = ON").fetchall()
            yield connection

    @contextmanager
    def _discard_if_damaged(self) -> Iterator[None]:
        """Move the file away if it is damaged or not an index.

        The next step makes a new one.
        """
        try:
            yield
        except DatabaseDamaged as error:
            if not str(error).startswith(f"{self._path} "):
                raise
            move_damaged(self._path)
            raise OutfeedError(f"{self._path} is damaged ({search.reason_of(error)}) and will be rebuilt") from error

    def _release_space(self) -> None:
        """Return free pages to the system, and truncate the write-ahead log.

        The write-ahead log may hold words of deleted events.
        """
        with self._discard_if_damaged(), self._file.connection() as connection:
            connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _pause_after(self, began: float) -> None:
        if self._stopping.wait(min(MAX_PAUSE_SECS, self._pause_factor * (clock.monotonic() - began))):
            raise Stopped


def _store_times(connection: Connection, timestamps: dict[int, Any]) -> None:
    """Store the times of events, by their rowids.

    A timestamp without a readable time is ignored.
    """
    zones: dict[int, list[str]] = {}
    for rowid, timestamp in timestamps.items():
        if (moment := instants.utc(timestamp)) is not None:
            zones.setdefault(rowid >> ZONE_BITS, []).append(moment)
    connection.executemany(_STORE_TIMES, [(zone, min(found), max(found)) for zone, found in zones.items()])


def move_damaged(path: Path) -> None:
    """Move a damaged index away.

    The next rebuild deletes it after a new index exists. So the new one can't get its inode.
    """
    db.at(path).close()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    if path.exists():
        path.replace(_damaged(path))


def _damaged(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")
