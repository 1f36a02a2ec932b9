"""Checkpoints: how far each durable consumer has acknowledged, and which of its connections is the active one."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import InvalidRequest, Superseded, UnknownName
from outfeed.history import Claim, Window
from outfeed.store.database import Database
from outfeed.store.outbox import read_window

_COLUMNS = "name, epoch, seq, generation, is_protected, created_at, seen_at"


class Checkpoint(NamedTuple):
    """One consumer: *seq* of *epoch* is acknowledged, and all before it. *lag* counts what is not."""

    name: str
    epoch: str
    seq: int
    generation: int
    is_protected: bool
    created_at: str
    seen_at: str
    lag: int


class Checkpoints:
    """The consumers of one database. Any thread may call any method; what is answered is on the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, name: str) -> Claim:
        """Make the caller the active connection of the consumer; a new name begins at the head, unprotected."""
        with self._database.transaction() as connection:
            return renew(connection, name, is_protected=False)

    def read(self, name: str) -> Claim:
        """Return where the consumer stands without becoming its connection; a new name is made as by `claim`."""
        with self._database.snapshot() as connection:
            epoch = read_window(connection).epoch
            if connection.execute(
                "SELECT 1 FROM outfeed_checkpoint WHERE name = ? AND epoch = ?", (name, epoch)
            ).fetchone():
                return _claim(connection, name)
        with self._database.transaction() as connection:
            window = read_window(connection)
            _ensure(connection, name, window, is_protected=False)
            _note_reset(connection, name, window)
            return _claim(connection, name)

    def move(self, name: str, epoch: str, seq: int, generation: int | None = None) -> None:
        """Acknowledge everything up to *seq* of *epoch*; never backwards within an epoch.

        Raises Superseded where a newer connection than *generation* has claimed the consumer, or it was removed;
        InvalidRequest for a seq that was never given out.
        """
        with self._database.transaction() as connection:
            advance(connection, name, epoch, seq, generation)

    def generations(self) -> dict[str, int]:
        """Return the generation of each consumer's newest connection."""
        with self._database.connection() as connection:
            return dict(connection.execute("SELECT name, generation FROM outfeed_checkpoint").fetchall())


def renew(connection: sqlite3.Connection, name: str, *, is_protected: bool) -> Claim:
    """Raise the generation, which sends the consumer's connection away; a new name begins at the head."""
    window = read_window(connection)
    _ensure(connection, name, window, is_protected=is_protected)
    _note_reset(connection, name, window)
    connection.execute(
        "UPDATE outfeed_checkpoint SET generation = generation + 1, seen_at = ? WHERE name = ?",
        (clock.timestamp(), name),
    )
    return _claim(connection, name)


def advance(connection: sqlite3.Connection, name: str, epoch: str, seq: int, generation: int | None = None) -> None:
    """Move as `Checkpoints.move` does, as a part of the caller's write transaction."""
    window = read_window(connection)
    if epoch != window.epoch or seq > window.last_seq:
        raise InvalidRequest("ack_beyond", f"seq: {seq} of epoch {epoch} was never sent")
    found = prove(connection, name, generation)
    if epoch != found.epoch or seq > found.seq:
        connection.execute(
            "UPDATE outfeed_checkpoint SET epoch = ?, seq = ?, seen_at = ? WHERE name = ?",
            (epoch, seq, clock.timestamp(), name),
        )


def prove(connection: sqlite3.Connection, name: str, generation: int | None) -> Claim:
    """Return where the consumer stands. Raises Superseded where *generation* is not the newest, or it was removed."""
    found = _claim(connection, name)
    if generation is not None and generation != found.generation:
        raise Superseded(f"a newer connection has claimed the consumer {name!r}")
    return found


def exists(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether the consumer has a checkpoint."""
    return connection.execute("SELECT 1 FROM outfeed_checkpoint WHERE name = ?", (name,)).fetchone() is not None


def forget(connection: sqlite3.Connection, name: str) -> int:
    """Delete the checkpoint, as a part of the caller's write transaction; return how many there were."""
    return connection.execute("DELETE FROM outfeed_checkpoint WHERE name = ?", (name,)).rowcount


# --- for operators ----------------------------------------------------------------------------------------------------


def list_checkpoints(database: Database) -> list[Checkpoint]:
    """Return every consumer, by name."""
    with database.snapshot() as connection:
        window = read_window(connection)
        rows = connection.execute(f"SELECT {_COLUMNS} FROM outfeed_checkpoint ORDER BY name").fetchall()  # noqa: S608
    return [_checkpoint(row, window) for row in rows]


def _checkpoint(row: tuple[str, str, int, int, int, str, str], window: Window) -> Checkpoint:
    name, epoch, seq, generation, is_protected, created_at, seen_at = row
    lag = window.last_seq - (seq if epoch == window.epoch else 0)
    return Checkpoint(name, epoch, seq, generation, bool(is_protected), created_at, seen_at, lag)


def add(database: Database, name: str, *, is_protected: bool | None) -> bool:
    """Make a consumer at the head, or change whether pruning waits for it; None leaves that. Return whether it does."""
    with database.transaction() as connection:
        _ensure(connection, name, read_window(connection), is_protected=bool(is_protected))
        if is_protected is not None:
            connection.execute("UPDATE outfeed_checkpoint SET is_protected = ? WHERE name = ?", (is_protected, name))
        (found,) = connection.execute("SELECT is_protected FROM outfeed_checkpoint WHERE name = ?", (name,)).fetchone()
    return bool(found)


def reset(database: Database, name: str, seq: int | None = None) -> int:
    """Put the checkpoint to *seq*, or to the head, and send its connection away; return where it is.

    Raises UnknownName, InvalidRequest for a seq above the head.
    """
    with database.transaction() as connection:
        window = read_window(connection)
        target = window.last_seq if seq is None else seq
        if target > window.last_seq:
            raise InvalidRequest("ack_beyond", f"seq: {target} lies above the head, {window.last_seq}")
        changed = connection.execute(
            "UPDATE outfeed_checkpoint SET epoch = ?, seq = ?, generation = generation + 1 WHERE name = ?",
            (window.epoch, target, name),
        ).rowcount
        _require(changed, name)
    return target


def remove(database: Database, name: str) -> None:
    """Forget the consumer; its connection is sent away. Raises UnknownName."""
    with database.transaction() as connection:
        _require(forget(connection, name), name)


def floor(connection: sqlite3.Connection) -> int | None:
    """Return the seq up to which every protected consumer of this epoch has acknowledged; None where there is none.

    One that was told of the reset, and has acknowledged nothing since, is owed what followed.
    """
    row = connection.execute(
        "SELECT min(CASE value WHEN epoch THEN seq ELSE reset_seq END) FROM outfeed_checkpoint"
        " JOIN outfeed_meta ON key = 'epoch'"
        " WHERE is_protected AND value IN (epoch, reset_epoch)"
    ).fetchone()
    return row[0] if row else None


def _require(changed: int, name: str) -> None:
    if not changed:
        raise UnknownName(f"there is no consumer named {name!r}; `outfeed consumer list` shows them all")


def _ensure(connection: sqlite3.Connection, name: str, window: Window, *, is_protected: bool) -> None:
    now = clock.timestamp()
    connection.execute(
        f"INSERT INTO outfeed_checkpoint ({_COLUMNS}) VALUES (?, ?, ?, 0, ?, ?, ?) ON CONFLICT (name) DO NOTHING",  # noqa: S608
        (name, window.epoch, window.last_seq, is_protected, now, now),
    )


def _note_reset(connection: sqlite3.Connection, name: str, window: Window) -> None:
    """Remember the head at which a consumer of another epoch is first told so."""
    connection.execute(
        "UPDATE outfeed_checkpoint SET reset_epoch = ?, reset_seq = ? WHERE name = ? AND epoch <> ?"
        " AND reset_epoch IS NOT ?",
        (window.epoch, window.last_seq, name, window.epoch, window.epoch),
    )


def _claim(connection: sqlite3.Connection, name: str) -> Claim:
    row = connection.execute(
        "SELECT name, epoch, seq, generation, reset_seq FROM outfeed_checkpoint WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        raise Superseded(f"the consumer {name!r} was removed")
    return Claim(*row)
