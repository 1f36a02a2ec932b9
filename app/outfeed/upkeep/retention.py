"""Retention: taking old events from the log and old rows from the outbox, in chunks that writers don't notice.

The log by age, the outbox as a prefix. An event is as old as its timestamp says; where that is no date, as old as its
outbox row; where neither is known, it stays.
"""

from __future__ import annotations

import itertools
import math
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.config import settings
from outfeed.store import audit, checkpoint, instants, lease
from outfeed.store import database as db
from outfeed.store.database import Connection, Database
from outfeed.upkeep import maintenance
from outfeed.upkeep.archive import Archive, Key
from outfeed.upkeep.policy import Policy

JOB = "prune"
# Of a local time from UTC, in ISO 8601.
MAX_OFFSET = timedelta(days=1)
# 250,000 rows in one transaction stalled writers for a second; in chunks of this size for 82 ms at most.
CHUNK_ROWS = 500
MIN_CHUNK_ROWS = 20
# A chunk that held the write lock for longer is followed by smaller ones: machines differ, and have other things to do.
GOAL_SECS = 0.01
SCAN_ROWS = 5000
VACUUM_PAGES = 100
# After each chunk a pause of three times what it took: a writer who finds the lock taken asks again ever more rarely.
PAUSE_FACTOR = 3
MIN_PAUSE_SECS = 0.002
MAX_PAUSE_SECS = 0.5

# Where text order is time order, but for an offset of less than a day.
_DATED = f"""(
    typeof(timestamp) = 'text' AND timestamp GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
    AND {instants.IS_READABLE}
)"""
_DATED_BEFORE = f"""
    SELECT rowid, timestamp, event_type, CAST(id AS BLOB) FROM event_log
    WHERE timestamp < :before AND {_DATED} AND (timestamp, rowid) > (:timestamp, :rowid)
    ORDER BY timestamp, rowid LIMIT :limit
"""  # noqa: S608 - ours
# All at once, by the index alone: pages by timestamp would trip over text that is no UTF-8.
_ODD_ROWIDS = f"SELECT rowid FROM event_log WHERE NOT {_DATED}"  # noqa: S608
_ODD = """
    SELECT rowid, timestamp, event_type, CAST(id AS BLOB), coalesce(
        (SELECT created_at FROM outbox WHERE event_id = event_log.id ORDER BY seq LIMIT 1),
        (SELECT created_at FROM outfeed_arrival WHERE event_id = event_log.id)
    ) FROM event_log WHERE rowid IN ({marks}) ORDER BY rowid
"""
_FORGET_ARRIVAL = """
    DELETE FROM outfeed_arrival WHERE event_id IN (SELECT id FROM event_log WHERE rowid = ? AND CAST(id AS BLOB) IS ?)
"""
_DELETE = "DELETE FROM event_log WHERE rowid = ? AND CAST(id AS BLOB) IS ?"
_NOTE_ARRIVAL = f"""
    INSERT OR IGNORE INTO outfeed_arrival (event_id, created_at)
    SELECT event_log.id, outbox.created_at FROM outbox JOIN event_log ON event_log.id = outbox.event_id
    WHERE outbox.seq <= ? AND NOT {_DATED}
"""  # noqa: S608


class Pruned(NamedTuple):
    """What a prune did, or would do: events of the log, rows of the outbox, archives written, bytes given back."""

    events: int = 0
    outbox_rows: int = 0
    archives: tuple[Path, ...] = ()
    freed_bytes: int = 0


def prune_events(older_than_days: float = 30) -> int:
    """Delete the events that are older than *older_than_days* from the log; return how many.

    Also takes from the outbox what is older than OUTFEED_REPLAY_DAYS, and leaves an event that says so.
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
    """Delete what is older than *policy* keeps, after waiting for a prune that is at work (*on_wait* is called first).

    Chunks are committed one by one: killed at any moment, what is gone is gone and the rest stays. With *archive*, a
    folder, each event is on the disk there before it is deleted. *on_progress* gets the number of events of each
    chunk. Leaves a `system.pruned` event that says what was done, and *by* whom. Raises DatabaseError, OutfeedError.
    """
    with database.connection():
        pass  # where there is none, that is what to say, and no lock is left beside it
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


def foresee(database: Database, policy: Policy, limit: int) -> Pruned:
    """Return what `prune` would delete now, after a look at the oldest *limit* rows of the log and of the outbox.

    A count of *limit* means that or more. Passes over events whose timestamp is no date.
    """
    run = Prune(database, policy, "")
    return Pruned(run.count_oldest_events(limit), run.count_outbox(limit))


class Prune:
    """One run; the caller holds the lease. `now` is taken once: a clock that steps meanwhile moves no border."""

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
        """Take events, then outbox rows, give the space back, and leave an event."""
        with maintenance.noted(self._database, "prune"):
            return self._run(archive)

    def _run(self, archive: Path | None) -> Pruned:
        events, archives = self._archive_events(archive) if archive else (self._delete_events(), [])
        rows = self._delete_outbox()
        freed = self._give_space_back() if events or rows else 0
        done = Pruned(events, rows, tuple(archives), freed)
        if events or rows:
            self._say(done)
        return done

    # --- the log ---

    def old_events(self) -> Iterator[list[Key]]:
        """Yield what is too old, a chunk at a time; each is read when it is asked for."""
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
        """Return how many of the *limit* oldest events that have a date would go."""
        days = self._policy.shortest_days
        if days is None:
            return 0
        oldest = itertools.chain.from_iterable(self._dated(self._border_of(days)))
        return sum(self._is_old(type_, timestamp, None) for _, timestamp, type_, *_ in itertools.islice(oldest, limit))

    def _border_of(self, days: float) -> str:
        return clock.isoformat(self._now - timedelta(days=days) + MAX_OFFSET)

    def candidates(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield rows that may be too old, as (rowid, timestamp, type, id, arrival), each once, in short reads."""
        days = self._policy.shortest_days
        if days is not None:
            yield from self._dated(self._border_of(days))
            yield from self._odd()

    def _dated(self, before: str) -> Iterator[list[tuple[Any, ...]]]:
        place = {"timestamp": "", "rowid": 0}
        while True:
            with self._database.connection() as connection:
                rows = connection.execute(_DATED_BEFORE, {"before": before, "limit": CHUNK_ROWS, **place}).fetchall()
            if not rows:
                return
            place = {"timestamp": rows[-1][1], "rowid": rows[-1][0]}
            yield [(*row, None) for row in rows]

    def _odd(self) -> Iterator[list[tuple[Any, ...]]]:
        with self._database.connection() as connection:
            rowids = array("q", (rowid for (rowid,) in connection.execute(_ODD_ROWIDS)))
        for start in range(0, len(rowids), CHUNK_ROWS):
            chunk = rowids[start : start + CHUNK_ROWS]
            with self._database.connection() as connection:
                rows = connection.execute(_ODD.format(marks=",".join("?" * len(chunk))), chunk).fetchall()
            yield rows

    def _delete_events(self) -> int:
        return sum(self.delete_keys(keys) for keys in self.old_events())

    def _archive_events(self, folder: Path) -> tuple[int, list[Path]]:
        """Write file after file, and delete the events of each once it is on the disk."""
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
                connection.executemany(_FORGET_ARRIVAL, chunk)
                deleted += connection.executemany(_DELETE, chunk).rowcount
            self._on_progress(len(chunk))
            start += len(chunk)
        return deleted

    # --- the outbox ---

    def count_outbox(self, limit: int | None = None) -> int:
        """Return how many rows of the outbox would go; with *limit*, of the oldest that many."""
        ends = self._ends(limit)
        with self._database.snapshot() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM outbox WHERE seq <= ? LIMIT ?)",
                (self._border(connection, ends), -1 if limit is None else limit),
            ).fetchone()
        return int(count)

    def _delete_outbox(self) -> int:
        deleted, ends = 0, self._ends()
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
            (self._border(connection, ends), self._rows),
        ).fetchone()
        if last is None:
            return 0
        connection.execute(_NOTE_ARRIVAL, (last,))
        return int(connection.execute("DELETE FROM outbox WHERE seq <= ?", (last,)).rowcount)

    def _ends(self, limit: int | None = None) -> tuple[int, int]:
        """Return the last seq that is old enough, and the last that is too old also for protected consumers."""
        ends = []
        for days in (self._policy.replay_days, self._policy.max_consumer_lag_days):
            ends.append(-1 if days is None else self._last_before(self._now - timedelta(days=days), limit))
        return ends[0], ends[1]

    def _border(self, connection: Connection, ends: tuple[int, int]) -> int:
        """Return up to which seq may go now: asked in the transaction that deletes, since consumers come and go."""
        old, too_old = ends
        floor = checkpoint.floor(connection)
        return old if floor is None else min(old, max(floor, too_old))

    def _last_before(self, cutoff: datetime, limit: int | None) -> int:
        """Return the last seq of the prefix that is older than *cutoff*, of *limit* rows if any; never the newest.

        Seq order is commit order, so a row with a date in the future, or none, is judged by those after it. The newest
        stays: mending tells by it what the outbox has missed.
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
    def _step(self) -> Iterator[Connection]:
        """Lend a connection for one short write, and let writers in after it.

        At NORMAL, so that no fsync keeps them waiting: what a power cut brings back is pruned again.
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
        """Lend a write transaction for up to `_rows` rows, which are adapted to how long they take."""
        with self._step() as connection:
            connection.execute("BEGIN IMMEDIATE")
            began = clock.monotonic()
            yield connection
            connection.execute("COMMIT")
            took_secs = clock.monotonic() - began
        if took_secs > GOAL_SECS:
            self._rows = max(MIN_CHUNK_ROWS, self._rows // 2)
        elif took_secs < GOAL_SECS / 2:
            self._rows = min(CHUNK_ROWS, self._rows * 2)

    def pause_after(self, began: float) -> None:
        took_secs = clock.monotonic() - began
        self._stopping.wait(min(MAX_PAUSE_SECS, max(MIN_PAUSE_SECS, PAUSE_FACTOR * took_secs)))

    def _give_space_back(self) -> int:
        """Cut free pages off the file, some at a time; nothing where `auto_vacuum` is off."""
        before = free = self._pragma("freelist_count")
        while free and not self._stopping.is_set():
            with self._step() as connection:
                # Its rows have no column, so `execute` takes one step and frees one page; a script runs to its end.
                connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            left = self._pragma("freelist_count")
            if left >= free:
                break
            free = left
        with self._database.connection() as connection:
            # PASSIVE waits for nobody. The file itself becomes smaller when a checkpoint has got to the end.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return max(0, before - free) * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        with self._database.connection() as connection:
            return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _say(self, done: Pruned) -> None:
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
    """Return what was pruned, in words."""
    parts = [f"{done.events:,} event{'' if done.events == 1 else 's'}"]
    if policy.log_days is not None and not policy.days_by_type:
        parts[0] += f" older than {policy.log_days:g} day{'' if policy.log_days == 1 else 's'}"
    if done.outbox_rows:
        parts.append(f"{done.outbox_rows:,} outbox row{'' if done.outbox_rows == 1 else 's'}")
    return f"Pruned {' and '.join(parts)}"
