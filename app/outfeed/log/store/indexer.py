"""Keeping the full-text index: fed from the outbox behind the writers' backs, redacted, by one process at a time.

It may be killed at any moment, and its file deleted: the index knows what it is of, and how far it has come, in the
transactions that move it on. What it has not reached yet is still found, by reading the log.
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
    indexed,
    path_of,
    signature,
    table,
    text_of,
)
from outfeed.log_message import LogMessage
from outfeed.store import database as db
from outfeed.store import instants, lease, rows
from outfeed.store.database import Connection, Database
from outfeed.store.outbox import read_window

JOB = "search"
CHUNK_ROWS = 100
PASSED_ROWS = 1000  # of blocks that are still to be made, and then have them
# After each chunk a pause of three times as long as it took: what serves the feed runs in the same interpreter, and a
# client that resumes from far behind beside a new index is served at nearly its own speed.
PAUSE_FACTOR = 3
MAX_PAUSE_SECS = 0.5
# Deletions come in crowds: a block is made anew when none has come since the last look, or after so many looks.
MAX_LOOKS = 30
VACUUM_PAGES = 1000
log = logging.getLogger(__name__)

# A block's events are timed before their words are made: the first and the last instant of each zone of rowids.
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
_WIDEN = """
    INSERT INTO zone (number, low, high) VALUES (?, ?, ?)
    ON CONFLICT (number) DO UPDATE SET low = min(low, excluded.low), high = max(high, excluded.high)
"""


_OWN_TIMES = f"""
    SELECT rowid >> ?, min(substr(timestamp, 1, 23)), max(substr(timestamp, 1, 23)) FROM event_log NOT INDEXED
    WHERE rowid BETWEEN ? AND ? AND {instants.IS_OWN_FORM} GROUP BY 1
"""  # noqa: S608 - ours
_OTHER_TIMES = f"""
    SELECT rowid, timestamp FROM event_log NOT INDEXED WHERE rowid BETWEEN ? AND ? AND NOT ({instants.IS_OWN_FORM})
"""  # noqa: S608
_FORGET_TIMES = "DELETE FROM zone WHERE number BETWEEN ? AND ?"


class Stopped(Exception):
    """The process ends; what was not committed will be done by another."""


class Log(NamedTuple):
    """The log and its outbox at one moment."""

    fingerprint: IndexKey
    first_seq: int
    last_seq: int
    last_rowid: int
    last_id: object


class State(NamedTuple):
    """What the index is of, the seq up to which it has followed the outbox, and the last row that it has met."""

    fingerprint: IndexKey
    signature: str
    seq: int
    last_rowid: int
    last_id: object


class Indexer:
    """Keeps the index of one database. `run` is called every second, by each process that serves; one does it.

    *pause_factor*: how many times as long as it took a pause is, after each chunk.
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
        """Bring the index to where the log is, unless another process is at it. What fails is logged."""
        try:
            with lease.hold(lease.lock_file(self._log.path, JOB), wait=False) as is_held:
                while is_held and self._step():
                    pass
            self._failure = None
        except Stopped:
            pass
        except (OutfeedError, OSError) as error:
            if str(error) != self._failure:
                log.warning(LogMessage("search index is not kept, trying again", error=error))
            self._failure = str(error)

    def close(self) -> None:
        """Close the index."""
        self._file.close()

    def stop(self) -> None:
        """Have a run that is at work end soon."""
        self._stopping.set()

    def _step(self) -> bool:
        """Do the next piece of work; False where there is none."""
        found = self._look()
        state = self._read_state()
        if state is None or not self._is_of(found, state):
            self._begin_anew(found)
            return True
        return self._follow(state) or self._renew_stale() or self._time_next() or self._build_next()

    def _look(self) -> Log:
        with self._log.snapshot() as connection:
            window = read_window(connection)
            last = connection.execute("SELECT rowid, id FROM event_log ORDER BY rowid DESC LIMIT 1").fetchone()
            return Log(IndexKey.of(connection), window.first_seq, window.last_seq, *(last or (-MAX_ROWID, None)))

    def _read_state(self) -> State | None:
        try:
            with self._whole(), self._file.connection() as connection:
                row = connection.execute(
                    "SELECT epoch, renumberings, signature, seq, last_rowid, last_id FROM state"
                ).fetchone()
        except (DatabaseMissing, SchemaMismatch):
            return None
        return State(IndexKey(*row[:2]), *row[2:]) if row else None

    def _is_of(self, found: Log, state: State) -> bool:
        """Return whether the index is one of that log and can go on: nothing was pruned that it has not seen."""
        return (
            state.fingerprint == found.fingerprint
            and state.signature == signature()
            and found.first_seq - 1 <= state.seq <= found.last_seq
            and not self._is_elsewhere(state.last_rowid, state.last_id)
        )

    def _is_elsewhere(self, rowid: int, id_: object) -> bool:
        """Return whether the event that was in that row is in another one now: then all may be."""
        with self._log.connection() as connection:
            row = connection.execute("SELECT rowid FROM event_log WHERE id = ?", (id_,)).fetchone()
        return row is not None and row[0] != rowid

    def _begin_anew(self, found: Log) -> None:
        """Make an index that covers nothing, and follows from the head on."""
        log.info(LogMessage("search index is rebuilt", path=self._path))
        db.create(self._path)
        self._path.chmod(0o600)
        _damaged(self._path).unlink(missing_ok=True)
        with self._writing() as connection:
            sql = "SELECT name FROM sqlite_master WHERE name LIKE 'words%' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
            for (name,) in connection.execute(sql).fetchall():
                connection.execute(f'DROP TABLE "{name}"')
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            state = State(found.fingerprint, signature(), found.last_seq, found.last_rowid, found.last_id)
            connection.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?)", (*state.fingerprint, *state[1:]))
        self._give_space_back()

    # --- what is new --------------------------------------------------------------------------------------------------

    def _follow(self, state: State) -> bool:
        """Index the next events of the outbox."""
        began = clock.monotonic()
        blocks = self._blocks()
        with self._log.snapshot() as connection:
            found = connection.execute(_AFTER, (state.seq, PASSED_ROWS)).fetchall()
            wanted = [place for place, row in enumerate(found) if row[1] is not None and row[1] >> BLOCK_BITS in blocks]
            if len(wanted) > CHUNK_ROWS:
                del found[wanted[CHUNK_ROWS] :]
            events = rows.load(connection, [found[place][1] for place in wanted[:CHUNK_ROWS]])
        if not found:
            return False
        with self._writing() as connection:
            _widen(connection, {rowid: event.timestamp for rowid, event in events.items()})
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
        known = f'SELECT 1 FROM {table(number)[:-1]}_docsize" WHERE id = ?'  # noqa: S608 - ours
        fresh = {rowid: one for rowid, one in events.items() if not connection.execute(known, (rowid,)).fetchone()}
        self._insert(connection, number, fresh)

    def _insert(self, connection: Connection, number: int, events: dict[int, Event]) -> None:
        sql = f"INSERT INTO {table(number)} (rowid, text) VALUES (?, ?)"  # noqa: S608 - ours
        connection.executemany(sql, ((rowid, indexed(text_of(event))) for rowid, event in sorted(events.items())))

    # --- what is old, and what is gone --------------------------------------------------------------------------------

    def _time_next(self) -> bool:
        """Note the times of the newest block that has none: all of them before any old word, since it takes seconds."""
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
            connection.executemany(_WIDEN, own)
            _widen(connection, {rowid: rows.readable(timestamp) for rowid, timestamp in others})
        self._pause_after(began)
        return True

    def _build_next(self) -> bool:
        """Make the newest block that is not there yet."""
        number = self._newest_outside({number for number, is_made in self._blocks().items() if is_made})
        if number is not None:
            self._make(number)
        return number is not None

    def _newest_outside(self, blocks: set[int]) -> int | None:
        """Return the newest block with events that is none of *blocks*."""
        rowid = MAX_ROWID
        while (last := self._last_rowid(rowid)) is not None:
            if (number := last >> BLOCK_BITS) not in blocks:
                return number
            rowid = (number << BLOCK_BITS) - 1
        return None

    def _blocks(self) -> dict[int, bool]:
        """Return the blocks that are timed, each with whether its words are made."""
        with self._whole(), self._file.connection() as connection:
            return {row[0]: bool(row[1]) for row in connection.execute("SELECT number, is_made FROM block").fetchall()}

    def _last_rowid(self, up_to: int) -> int | None:
        with self._log.connection() as connection:
            sql = "SELECT rowid FROM event_log WHERE rowid <= ? ORDER BY rowid DESC LIMIT 1"
            row = connection.execute(sql, (up_to,)).fetchone()
        return row[0] if row else None

    def _renew_stale(self) -> bool:
        """Make those blocks anew of which events were deleted, once no more are; drop those that are empty."""
        with self._log.connection() as connection:
            stale = connection.execute("SELECT block, deletions FROM outfeed_search_stale ORDER BY block").fetchall()
        deletions, looks = sum(row[1] for row in stale), self._stale[1]
        if deletions != self._stale[0] and looks < MAX_LOOKS:
            self._stale = (deletions, looks + 1)
            return False
        for number, seen in stale:
            if number in self._blocks():
                self._make(number)
            with self._log.transaction() as connection:
                connection.execute("DELETE FROM outfeed_search_stale WHERE block = ? AND deletions = ?", (number, seen))
        self._stale = (0, 0)
        if stale:
            self._give_space_back()
        return bool(stale)

    def _make(self, number: int) -> None:
        """Make a block of what the log has there now; no block of nothing. In one transaction."""
        first, last = number << BLOCK_BITS, (number + 1 << BLOCK_BITS) - 1
        position = first - 1
        with self._writing() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {table(number)}")
            connection.execute("DELETE FROM block WHERE number = ?", (number,))
            connection.execute(_FORGET_TIMES, (first >> ZONE_BITS, last >> ZONE_BITS))
            while events := self._read(position, last):
                began = clock.monotonic()
                if position < first:
                    connection.execute(search.SCHEMA.format(table=table(number)))
                    connection.execute("INSERT INTO block (number, is_made) VALUES (?, 1)", (number,))
                self._insert(connection, number, events)
                _widen(connection, {rowid: event.timestamp for rowid, event in events.items()})
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
        """Lend a write transaction on the index. What is freed in it is overwritten: words of what was deleted."""
        with self._whole(), self._file.transaction() as connection:
            connection.execute("PRAGMA secure_delete = ON").fetchall()
            yield connection

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Put the file away where it turns out to be damaged, or none of ours: the next step makes another."""
        try:
            yield
        except DatabaseDamaged as error:
            if str(error).startswith(f"{self._path} "):
                put_away(self._path)
            raise

    def _give_space_back(self) -> None:
        """Cut free pages off the file, and the words that were there out of the write-ahead log."""
        with self._whole(), self._file.connection() as connection:
            connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _pause_after(self, began: float) -> None:
        if self._stopping.wait(min(MAX_PAUSE_SECS, self._pause_factor * (clock.monotonic() - began))):
            raise Stopped


def _widen(connection: Connection, timestamps: dict[int, Any]) -> None:
    """Note the times of events, by their rowids; a timestamp that is no time lies between none."""
    zones: dict[int, list[str]] = {}
    for rowid, timestamp in timestamps.items():
        if (moment := instants.utc(timestamp)) is not None:
            zones.setdefault(rowid >> ZONE_BITS, []).append(moment)
    connection.executemany(_WIDEN, [(zone, min(found), max(found)) for zone, found in zones.items()])


def put_away(path: Path) -> None:
    """Take a damaged index out of the way. It goes once another stands there, which so can't get its inode."""
    db.at(path).close()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    if path.exists():
        path.replace(_damaged(path))


def _damaged(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")
