"""Retention: deletes old events from the log and old rows from the outbox.

Deletes are chunked, so that they don't delay writers. The log is pruned by age, the outbox as a prefix. The age of an
event is that of its timestamp. If the timestamp is not a date, the age is that of its outbox row. An event without
either is kept.
"""

from __future__ import annotations

import itertools
import math
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.config import settings
from outfeed.feature import registered
from outfeed.store import audit, checkpoint, instants, lease
from outfeed.store import database as db
from outfeed.store.database import Connection, Database
from outfeed.upkeep import maintenance
from outfeed.upkeep.archive import Archive, Key
from outfeed.upkeep.policy import Policy

JOB = "prune"
# The largest offset of a local time from UTC in ISO 8601.
MAX_OFFSET = timedelta(days=1)
# 250,000 rows in one transaction stalled writers for a second; chunks of this size stalled them for 82 ms at most.
CHUNK_ROWS = 500
MIN_CHUNK_ROWS = 20
# A chunk that held the write lock for longer makes the next ones smaller: machines differ in speed and load.
TARGET_SECS = 0.01
SCAN_ROWS = 5000
SAMPLED_ROWS = 200  # whose size stands for all
VACUUM_PAGES = 100
# The pause after a chunk is three times the chunk's duration: a writer that finds the lock taken retries ever more
# rarely.
PAUSE_FACTOR = 3
MIN_PAUSE_SECS = 0.002
MAX_PAUSE_SECS = 0.5

# For these timestamps text order is time order, except for an offset of less than a day.
_DATED = f"""(
    typeof(timestamp) = 'text' AND timestamp GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
    AND {instants.IS_READABLE}
)"""
_DATED_BEFORE = f"""
    SELECT rowid, timestamp, event_type, CAST(id AS BLOB) FROM event_log
    WHERE timestamp < :before AND {_DATED} AND (timestamp, rowid) > (:timestamp, :rowid)
    ORDER BY timestamp, rowid LIMIT :limit
"""  # noqa: S608 - ours
# Reads the index only: paging by timestamp would fail at text that is not UTF-8.
_UNDATED_ROWIDS = f"SELECT rowid FROM event_log WHERE NOT {_DATED}"  # noqa: S608
_UNDATED = """
    SELECT rowid, timestamp, event_type, CAST(id AS BLOB), coalesce(
        (SELECT created_at FROM outbox WHERE event_id = event_log.id ORDER BY seq LIMIT 1),
        (SELECT created_at FROM outfeed_arrival WHERE event_id = event_log.id)
    ) FROM event_log WHERE rowid IN ({marks}) ORDER BY rowid
"""
_DELETE_ARRIVAL = """
    DELETE FROM outfeed_arrival WHERE event_id IN (SELECT id FROM event_log WHERE rowid = ? AND CAST(id AS BLOB) IS ?)
"""
_DELETE = "DELETE FROM event_log WHERE rowid = ? AND CAST(id AS BLOB) IS ?"
_INSERT_ARRIVAL = f"""
    INSERT OR IGNORE INTO outfeed_arrival (event_id, created_at)
    SELECT event_log.id, outbox.created_at FROM outbox JOIN event_log ON event_log.id = outbox.event_id
    WHERE outbox.seq <= ? AND NOT {_DATED}
"""  # noqa: S608


class Pruned(NamedTuple):
    """Result of a prune or a plan.

    It counts events of the log, rows of the outbox, written archives and freed bytes.
    """

    events: int = 0
    outbox_rows: int = 0
    archives: tuple[Path, ...] = ()
    freed_bytes: int = 0


def prune_events(older_than_days: float = 30) -> int:
    """Delete events older than *older_than_days* from the log.

    Returns their number. Also deletes outbox rows older than OUTFEED_REPLAY_DAYS, and writes a `system.pruned` event.
    """
    return prune(db.default(), Policy.older_than(older_than_days, settings()), by="prune_events").events


def prune(
    database: Database,
    policy: Policy,
    *,
    by: str,
    archive: Path | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Pruned:
    """Delete everything older than *policy* keeps. Waits for a running prune.

    *on_wait* is called before it waits. Each chunk is committed: a killed prune has deleted complete chunks and kept
    the rest. With *archive*, a folder, each event is on the disk there before it is deleted. *on_progress* gets the
    number of events of each chunk. Writes a `system.pruned` event with the numbers and *by* whom. Raises DatabaseError,
    OutfeedError.
    """
    with database.connection():
        pass  # raises if there is no database, before a lock file is created beside it
    file = lease.lock_file(database.path, JOB)
    with lease.hold(file, wait=False) as is_held:
        if is_held:
            return Prune(database, policy, by, on_progress=on_progress).run(archive)
    on_wait()
    with lease.hold(file, wait=True):
        return Prune(database, policy, by, on_progress=on_progress).run(archive)


def plan(database: Database, policy: Policy) -> Pruned:
    """Return what `prune` would delete now."""
    run = Prune(database, policy, "")
    return Pruned(sum(map(len, run.old_events())), run.count_outbox())


def estimate(database: Database, policy: Policy, limit: int) -> Pruned:
    """Estimate what `prune` would delete, from the oldest *limit* rows.

    Reads that many rows of the log and of the outbox. A count of *limit* means that or more. Skips events whose
    timestamp is not a date.
    """
    run = Prune(database, policy, "")
    return Pruned(run.count_oldest_events(limit), run.count_outbox(limit))


class Preview(NamedTuple):
    """The rows that the next prune deletes, found from the oldest on.

    *is_whole* tells whether all expired events were read. *by_type* counts them, the most frequent first. *oldest* is
    the timestamp of the first. *data_bytes* is an estimate of the size of their data.
    """

    events: int
    outbox_rows: int
    oldest: str | None
    by_type: dict[str, int]
    data_bytes: int
    is_whole: bool


def preview(database: Database, policy: Policy, limit: int) -> Preview:
    """Return what `prune` would delete, from the oldest *limit* rows.

    Reads that many rows of the log, by their timestamps, and of the outbox. Skips events whose timestamp is not a date.
    """
    return Prune(database, policy, "").preview(limit)


class Prune:
    """One run of a prune. The caller holds the lease.

    `now` is read once, so a step of the clock during the run does not change the limits.
    """

    def __init__(
        self,
        database: Database,
        policy: Policy,
        by: str,
        *,
        on_progress: Callable[[int], None] = lambda _: None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._database = database
        self._policy = policy
        self._by = by
        self._on_progress = on_progress
        self._stopping = stopping or threading.Event()
        self._now = clock.now()
        self._rows = CHUNK_ROWS

    def run(self, archive: Path | None = None) -> Pruned:
        """Delete events, then outbox rows, free pages, and write an event."""
        with maintenance.recorded(self._database, "prune"):
            return self._run(archive)

    def _run(self, archive: Path | None) -> Pruned:
        events, archives = (
            self._archive_events(archive) if archive else (sum(map(self.delete_keys, self.old_events())), [])
        )
        rows = self._delete_outbox()
        with self._chunk() as connection:
            for feature in registered():
                feature.clean(connection)
        freed = self._free_pages() if events or rows else 0
        done = Pruned(events, rows, tuple(archives), freed)
        if events or rows:
            self._record(done)
        return done

    # --- the log ---

    def old_events(self) -> Iterator[list[Key]]:
        """Yield the keys of expired events in chunks, each read on demand."""
        for candidates in self.candidates():
            if old := [Key(rowid, id_) for rowid, timestamp, type_, id_, created_at in candidates
                       if self._is_old(type_, timestamp, created_at)]:  # fmt: skip
                yield old
            if self._stopping.is_set():
                return

    def _is_old(self, event_type: object, timestamp: object, created_at: object) -> bool:
        days = self._policy.days_for(event_type)
        moment = clock.parsed(timestamp) or clock.parsed(created_at)
        return days is not None and moment is not None and moment < self._now - timedelta(days=days)

    def count_oldest_events(self, limit: int) -> int:
        """Return how many of the *limit* oldest dated events are expired."""
        days = self._policy.shortest_days
        if days is None:
            return 0
        oldest = itertools.chain.from_iterable(self._dated(self._cutoff_of(days)))
        return sum(self._is_old(type_, timestamp, None) for _, timestamp, type_, *_ in itertools.islice(oldest, limit))

    def preview(self, limit: int) -> Preview:
        days = self._policy.shortest_days
        rows = itertools.chain.from_iterable(self._dated(self._cutoff_of(days))) if days is not None else iter(())
        looked_at = list(itertools.islice(rows, limit))
        old = [row for row in looked_at if self._is_old(row[2], row[1], None)]
        return Preview(
            events=len(old),
            outbox_rows=self.count_outbox(limit),
            oldest=str(old[0][1]) if old else None,
            by_type=dict(Counter(str(row[2]) for row in old).most_common()),
            data_bytes=self._data_bytes([row[0] for row in old]),
            is_whole=len(looked_at) < limit,
        )

    def _data_bytes(self, rowids: Sequence[int]) -> int:
        """Estimate the size of the data of *rowids*, by some of them."""
        some = rowids[:: max(1, len(rowids) // SAMPLED_ROWS)][:SAMPLED_ROWS]
        if not some:
            return 0
        marks = ",".join("?" * len(some))
        with self._database.connection() as connection:
            (mean,) = connection.execute(
                f"SELECT avg(length(CAST(data AS BLOB))) FROM event_log WHERE rowid IN ({marks})",  # noqa: S608 - ours
                some,
            ).fetchone()
        return round((mean or 0) * len(rowids))

    def _cutoff_of(self, days: float) -> str:
        return clock.isoformat(self._now - timedelta(days=days) + MAX_OFFSET)

    def candidates(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield possibly expired rows: (rowid, timestamp, type, id, arrival).

        Each row comes once. The reads are short.
        """
        days = self._policy.shortest_days
        if days is not None:
            yield from self._dated(self._cutoff_of(days))
            yield from self._undated()

    def _dated(self, before: str) -> Iterator[list[tuple[Any, ...]]]:
        place = {"timestamp": "", "rowid": 0}
        while True:
            with self._database.connection() as connection:
                rows = connection.execute(_DATED_BEFORE, {"before": before, "limit": CHUNK_ROWS, **place}).fetchall()
            if not rows:
                return
            place = {"timestamp": rows[-1][1], "rowid": rows[-1][0]}
            yield [(*row, None) for row in rows]

    def _undated(self) -> Iterator[list[tuple[Any, ...]]]:
        with self._database.connection() as connection:
            rowids = array("q", (rowid for (rowid,) in connection.execute(_UNDATED_ROWIDS)))
        for start in range(0, len(rowids), CHUNK_ROWS):
            chunk = rowids[start : start + CHUNK_ROWS]
            with self._database.connection() as connection:
                rows = connection.execute(_UNDATED.format(marks=",".join("?" * len(chunk))), chunk).fetchall()
            yield rows

    def _archive_events(self, folder: Path) -> tuple[int, list[Path]]:
        """Archive the events. Delete those of each file once it is synced."""
        deleted, keys = 0, list[Key]()
        with closing(Archive(self._database.path, folder, self._now)) as archive:
            for old in self.old_events():
                keys += archive.add([key.rowid for key in old])
                if archive.is_full:
                    archive.finish()
                    deleted += self.delete_keys(keys)
                    keys = []
            archive.finish()
            return deleted + self.delete_keys(keys), archive.paths

    def delete_keys(self, keys: Sequence[Key]) -> int:
        deleted = start = 0
        while start < len(keys):
            chunk = keys[start : start + self._rows]
            with self._chunk() as connection:
                connection.executemany(_DELETE_ARRIVAL, chunk)
                deleted += connection.executemany(_DELETE, chunk).rowcount
            self._on_progress(len(chunk))
            start += len(chunk)
        return deleted

    # --- the outbox ---

    def count_outbox(self, limit: int | None = None) -> int:
        """Return how many outbox rows, of the oldest *limit*, are expired."""
        ends = self._expired_seqs(limit)
        with self._database.snapshot() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM outbox WHERE seq <= ? LIMIT ?)",
                (self._last_deletable(connection, ends), -1 if limit is None else limit),
            ).fetchone()
        return int(count)

    def _delete_outbox(self) -> int:
        deleted, ends = 0, self._expired_seqs()
        while not self._stopping.is_set():
            with self._chunk() as connection:
                chunk = self._delete_rows(connection, ends)
            if not chunk:
                break
            deleted += chunk
        return deleted

    def _delete_rows(self, connection: Connection, ends: tuple[int, int]) -> int:
        (last,) = connection.execute(
            "SELECT max(seq) FROM (SELECT seq FROM outbox WHERE seq <= ? ORDER BY seq LIMIT ?)",
            (self._last_deletable(connection, ends), self._rows),
        ).fetchone()
        if last is None:
            return 0
        connection.execute(_INSERT_ARRIVAL, (last,))
        return int(connection.execute("DELETE FROM outbox WHERE seq <= ?", (last,)).rowcount)

    def _expired_seqs(self, limit: int | None = None) -> tuple[int, int]:
        """Return the last expired seq, and the last that no consumer can protect."""
        ends = []
        for days in (self._policy.replay_days, self._policy.max_consumer_lag_days):
            ends.append(-1 if days is None else self._last_before(self._now - timedelta(days=days), limit))
        return ends[0], ends[1]

    def _last_deletable(self, connection: Connection, ends: tuple[int, int]) -> int:
        """Return the last seq that may be deleted now.

        Call it in the transaction that deletes: consumers can be added or can acknowledge at any time.
        """
        old, too_old = ends
        floor = checkpoint.floor(connection)
        return old if floor is None else min(old, max(floor, too_old))

    def _last_before(self, cutoff: datetime, limit: int | None) -> int:
        """Return the last seq of the prefix that is older than *cutoff*.

        Reads at most *limit* rows. Seq order is commit order, so the next dated row decides on a row without a date or
        with a future date. The newest row always stays: repairs use it to find the events that the outbox missed.
        """
        last = seq = -1
        left = math.inf if limit is None else limit
        while left > 0:
            with self._database.connection() as connection:
                rows = connection.execute(
                    "SELECT seq, created_at FROM outbox WHERE seq > ? AND seq < (SELECT max(seq) FROM outbox)"
                    " ORDER BY seq LIMIT ?",
                    (seq, min(SCAN_ROWS, left)),
                ).fetchall()
            left -= len(rows)
            for seq, created_at in rows:
                moment = clock.parsed(created_at)
                if moment is None or moment > self._now:
                    continue
                if moment >= cutoff:
                    return last
                last = seq
            if not rows:
                break
        return last

    # --- both ---

    @contextmanager
    def _short_write(self) -> Iterator[Connection]:
        """Yield a connection for one short write, then pause for the writers.

        It uses synchronous=NORMAL, so that no fsync delays writers. Rows that a power cut brings back are pruned again.
        """
        with self._database.connection() as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            began = clock.monotonic()
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.rollback()
                connection.execute("PRAGMA synchronous = FULL")
        self.pause_after(began)

    @contextmanager
    def _chunk(self) -> Iterator[Connection]:
        """Yield a write transaction for up to `_rows` rows.

        The number of rows is adapted to the duration of the transaction.
        """
        with self._short_write() as connection:
            connection.execute("BEGIN IMMEDIATE")
            began = clock.monotonic()
            yield connection
            connection.execute("COMMIT")
            took_secs = clock.monotonic() - began
        if took_secs > TARGET_SECS:
            self._rows = max(MIN_CHUNK_ROWS, self._rows // 2)
        elif took_secs < TARGET_SECS / 2:
            self._rows = min(CHUNK_ROWS, self._rows * 2)

    def pause_after(self, began: float) -> None:
        took_secs = clock.monotonic() - began
        self._stopping.wait(min(MAX_PAUSE_SECS, max(MIN_PAUSE_SECS, PAUSE_FACTOR * took_secs)))

    def _free_pages(self) -> int:
        """Return free pages to the filesystem, some at a time. Return their bytes.

        Frees nothing if `auto_vacuum` is off.
        """
        before = free = self._pragma("freelist_count")
        while free and not self._stopping.is_set():
            with self._short_write() as connection:
                # The pragma returns rows without columns: `execute` frees one page, a script frees all of them.
                connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            left = self._pragma("freelist_count")
            if left >= free:
                break
            free = left
        with self._database.connection() as connection:
            # PASSIVE waits for no connection. The file shrinks when a checkpoint has completed.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return max(0, before - free) * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        with self._database.connection() as connection:
            return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _record(self, done: Pruned) -> None:
        data: dict[str, Any] = {
            "message": sentence(done, self._policy),
            "events": done.events,
            "outbox_rows": done.outbox_rows,
            "freed_bytes": done.freed_bytes,
        }
        if done.archives:
            data["archives"] = [path.name for path in done.archives]
        with self._database.transaction() as connection:
            audit.record(connection, "system.pruned", self._by, **data)


def sentence(done: Pruned, policy: Policy) -> str:
    """Return a sentence about *done*, without the full stop."""
    parts = [f"{done.events:,} event{'' if done.events == 1 else 's'}"]
    if policy.log_days is not None and not policy.days_by_type:
        parts[0] += f" older than {policy.log_days:g} day{'' if policy.log_days == 1 else 's'}"
    if done.outbox_rows:
        parts.append(f"{done.outbox_rows:,} outbox row{'' if done.outbox_rows == 1 else 's'}")
    return f"Pruned {' and '.join(parts)}"
