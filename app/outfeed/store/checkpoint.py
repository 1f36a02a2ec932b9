"""Checkpoints: the acknowledged position of each durable consumer.

A checkpoint also has the consumer's owner and the generation of its active connection.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import ForbiddenConsumer, InvalidRequest, Superseded, UnknownName
from outfeed.history import Claim, Window
from outfeed.principal import Principal
from outfeed.store import audit
from outfeed.store.database import Database
from outfeed.store.outbox import read_window

TABLE = "outfeed_checkpoint"
_COLUMNS = "name, epoch, seq, generation, is_protected, created_at, seen_at, owner"
# Uses the index of the names, so that the cost per commit does not grow with the table: tests/store/test_checkpoint.py.
_GENERATIONS = "SELECT name, generation FROM outfeed_checkpoint WHERE name IN (SELECT value FROM json_each(?))"
_FIND_OWNER = {
    "token": "SELECT 1 FROM outfeed_token WHERE name = ?",
    "user": "SELECT 1 FROM outfeed_user WHERE name = ?",
}


class Checkpoint(NamedTuple):
    """One consumer. Every event up to *seq* of *epoch* is acknowledged.

    *lag* is the number of events that are not. *owner* is `token:NAME` or `user:NAME`, or None before the first claim
    and for a webhook's consumer.
    """

    name: str
    epoch: str
    seq: int
    generation: int
    is_protected: bool
    created_at: str
    seen_at: str
    owner: str | None
    lag: int


class Checkpoints:
    """The consumers of one database.

    Any thread may call any method. Every answer is durable on disk.

    Each method that takes a principal raises ForbiddenConsumer and changes nothing, unless the principal is the
    consumer's owner or an operator. An unprotected consumer without an owner gets the first principal that claims it as
    owner. A principal that reads or acknowledges such a consumer becomes its owner too, unless it is an operator.
    """

    def __init__(self, database: Database, max_per_owner: int = 0) -> None:
        self._database = database
        self._max_per_owner = max_per_owner

    def create(self, name: str, by: Principal) -> tuple[Checkpoint, bool]:
        """Return the consumer, and whether it is new.

        A new consumer begins at the head. An existing connection of the consumer stays active. Raises
        ForbiddenConsumer, InvalidRequest above the limit of its owner.
        """
        with self._database.transaction() as connection:
            is_new = self._create(connection, name, by)
            if not is_new:
                _require_permission(connection, name, by, is_claim=True)
            return _find(connection, name), is_new

    def claim(self, name: str, by: Principal, *, may_create: bool = True) -> Claim:
        """Make the caller the active connection of the consumer.

        With *may_create*, a new name creates a consumer as `create` does. Raises ForbiddenConsumer, UnknownName without
        *may_create*, InvalidRequest above the limit of its owner.
        """
        with self._database.transaction() as connection:
            if not (may_create and self._create(connection, name, by)):
                _require_permission(connection, name, by, is_claim=True)
            return renew(connection, name, is_protected=False)

    def _create(self, connection: sqlite3.Connection, name: str, by: Principal) -> bool:
        """Create the consumer if the name is new; return whether it was."""
        if exists(connection, name):
            return False
        _refuse_ticket(by)
        limit = self._max_per_owner
        (count,) = connection.execute("SELECT count(*) FROM outfeed_checkpoint WHERE owner = ?", (by.owner,)).fetchone()
        if limit and count >= limit:
            raise InvalidRequest(
                "too_many_consumers",
                f"consumer: {by.owner} has {count} consumers, the limit is {limit}; use one of them, or have an"
                " operator remove one (`outfeed consumer remove`)",
            )
        _ensure(connection, name, read_window(connection), is_protected=False, owner=by.owner)
        return True

    def require(self, name: str, by: Principal) -> None:
        """Raise an error unless *by* may use the consumer.

        Raises UnknownName, ForbiddenConsumer. Nothing is written.
        """
        with self._database.snapshot() as connection:
            _may_become_owner(connection, name, by)

    def read(self, name: str, by: Principal) -> Claim:
        """Return the consumer's position without becoming its connection.

        Raises UnknownName, ForbiddenConsumer.
        """
        with self._database.snapshot() as connection:
            is_taken = _may_become_owner(connection, name, by) and not by.is_operator
            found = _claim(connection, name)
            if not is_taken and found.epoch == read_window(connection).epoch:
                return found
        with self._database.transaction() as connection:
            _require_permission(connection, name, by, is_claim=False)
            _note_reset(connection, name, read_window(connection))
            return _claim(connection, name)

    def move(self, name: str, epoch: str, seq: int, by: Principal, generation: int | None = None) -> None:
        """Acknowledge everything up to *seq* of *epoch*.

        The checkpoint never moves backwards within an epoch. Raises Superseded if a newer connection than *generation*
        has claimed the consumer or if it was removed, ForbiddenConsumer, InvalidRequest for a seq that was never given
        out.
        """
        with self._database.transaction() as connection:
            prove(connection, name, generation)
            _require_permission(connection, name, by, is_claim=False)
            advance(connection, name, epoch, seq)

    def remove(self, name: str, by: Principal) -> Checkpoint:
        """Delete the consumer, close its connection, and return it.

        Raises UnknownName, ForbiddenConsumer.
        """
        with self._database.transaction() as connection:
            _require_permission(connection, name, by, is_claim=False)
            found = _find(connection, name)
            delete(connection, name)
            audit.record(connection, "access.consumer_removed", by.owner, name=name, owner=found.owner)
        return found

    def generations(self, names: Collection[str]) -> dict[str, int]:
        """Return the newest connection's generation for each of *names*.

        Names of consumers that do not exist are left out.
        """
        with self._database.connection() as connection:
            return dict(connection.execute(_GENERATIONS, (json.dumps(list(names)),)).fetchall())


# --- ownership --------------------------------------------------------------------------------------------------------


def _may_become_owner(connection: sqlite3.Connection, name: str, by: Principal) -> bool:
    """Return whether the consumer has no owner and *by* may become it.

    Raises UnknownName, and ForbiddenConsumer if *by* may not use the consumer.
    """
    row = connection.execute("SELECT owner, is_protected FROM outfeed_checkpoint WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise UnknownName(f"consumer {name!r} not found; create it with POST /api/consumers")
    _refuse_ticket(by)
    owner, is_protected = row
    if owner == by.owner or by.is_operator:
        return owner is None and not is_protected
    if owner is not None:
        raise ForbiddenConsumer(
            f"the consumer {name!r} belongs to another principal; only its owner or an operator may use it"
        )
    if is_protected:
        raise ForbiddenConsumer(
            f"the consumer {name!r} is protected and has no owner yet; an operator can set one:"
            f" `outfeed consumer own {name} {by.owner}`"
        )
    return True


def _refuse_ticket(by: Principal) -> None:
    if by.has_ticket:
        raise ForbiddenConsumer("a ticket can't use a consumer; use a token or sign in")


def _require_permission(connection: sqlite3.Connection, name: str, by: Principal, *, is_claim: bool) -> None:
    """Check the permission of *by* in the caller's write transaction.

    If the consumer has no owner, *by* becomes its owner. Raises UnknownName, ForbiddenConsumer.
    """
    if _may_become_owner(connection, name, by) and (is_claim or not by.is_operator):
        _set_owner(connection, name, by.owner)
        audit.record(connection, "access.consumer_claimed", by.owner, name=name, owner=by.owner)


def _set_owner(connection: sqlite3.Connection, name: str, owner: str) -> None:
    connection.execute("UPDATE outfeed_checkpoint SET owner = ? WHERE name = ?", (owner, name))


# --- as a part of the caller's write transaction --------------------------------------------------------------------


def renew(connection: sqlite3.Connection, name: str, *, is_protected: bool) -> Claim:
    """Raise the generation, which closes the consumer's connection.

    A new name begins at the head.
    """
    window = read_window(connection)
    _ensure(connection, name, window, is_protected=is_protected)
    _note_reset(connection, name, window)
    connection.execute(
        "UPDATE outfeed_checkpoint SET generation = generation + 1, seen_at = ? WHERE name = ?",
        (clock.timestamp(), name),
    )
    return _claim(connection, name)


def advance(connection: sqlite3.Connection, name: str, epoch: str, seq: int, generation: int | None = None) -> None:
    """Move as `Checkpoints.move` does, in the caller's transaction."""
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
    """Return the consumer's claim, checked against *generation*.

    Raises Superseded if *generation* is given and not the newest, or if the consumer was removed.
    """
    found = _claim(connection, name)
    if generation is not None and generation != found.generation:
        raise Superseded(f"a newer connection has claimed the consumer {name!r}")
    return found


def exists(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether the consumer has a checkpoint."""
    return connection.execute("SELECT 1 FROM outfeed_checkpoint WHERE name = ?", (name,)).fetchone() is not None


def delete(connection: sqlite3.Connection, name: str) -> int:
    """Delete the checkpoint in the caller's write transaction.

    Returns the number of deleted rows.
    """
    return connection.execute("DELETE FROM outfeed_checkpoint WHERE name = ?", (name,)).rowcount


# --- for operators ----------------------------------------------------------------------------------------------------


def list_checkpoints(database: Database) -> list[Checkpoint]:
    """Return every consumer, sorted by name."""
    with database.snapshot() as connection:
        window = read_window(connection)
        rows = connection.execute(f"SELECT {_COLUMNS} FROM outfeed_checkpoint ORDER BY name").fetchall()  # noqa: S608
    return [_checkpoint(row, window) for row in rows]


def list_named(database: Database) -> list[Checkpoint]:
    """Return the consumers of programs, without those of webhooks."""
    return [each for each in list_checkpoints(database) if ":" not in each.name]


def _find(connection: sqlite3.Connection, name: str) -> Checkpoint:
    row = connection.execute(f"SELECT {_COLUMNS} FROM outfeed_checkpoint WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return _checkpoint(row, read_window(connection))


def _checkpoint(row: tuple[str, str, int, int, int, str, str, str | None], window: Window) -> Checkpoint:
    name, epoch, seq, generation, is_protected, created_at, seen_at, owner = row
    lag = window.last_seq - (seq if epoch == window.epoch else 0)
    return Checkpoint(name, epoch, seq, generation, bool(is_protected), created_at, seen_at, owner, lag)


def add(
    database: Database, name: str, *, is_protected: bool | None, owner: str | None = None, by: str | None = None
) -> Checkpoint:
    """Create a consumer at the head, or change an existing one.

    *is_protected* says whether pruning waits for the consumer. A value of None leaves the protection or the owner as it
    is. Returns the consumer after the change. Raises UnknownName for an owner that does not exist.
    """
    with database.transaction() as connection:
        _ensure(connection, name, read_window(connection), is_protected=bool(is_protected))
        if is_protected is not None:
            connection.execute("UPDATE outfeed_checkpoint SET is_protected = ? WHERE name = ?", (is_protected, name))
        if owner is not None:
            _change_owner(connection, name, owner, by)
        return _find(connection, name)


def change_owner(database: Database, name: str, owner: str, *, by: str | None = None) -> None:
    """Give the consumer to *owner*, `token:NAME` or `user:NAME`.

    The connection of another owner is closed. Raises UnknownName if there is no such consumer, token or user.
    """
    with database.transaction() as connection:
        _require(exists(connection, name), name)
        _change_owner(connection, name, owner, by)


def _change_owner(connection: sqlite3.Connection, name: str, owner: str, by: str | None) -> None:
    kind, _, principal = owner.partition(":")
    query = _FIND_OWNER.get(kind)
    if query is None or not connection.execute(query, (principal,)).fetchone():
        raise UnknownName(
            f"there is no principal {owner!r}; an owner must be token:NAME or user:NAME of an existing token or user"
        )
    before = _find(connection, name).owner
    if owner == before:
        return
    _set_owner(connection, name, owner)
    connection.execute("UPDATE outfeed_checkpoint SET generation = generation + 1 WHERE name = ?", (name,))
    audit.record(connection, "access.consumer_owned", by, name=name, owner=owner, before=before)


class PositionChange(NamedTuple):
    """A change of the acknowledged position, from seq *before* to *after*."""

    before: int
    after: int


def plan_reset(database: Database, name: str, seq: int | None = None) -> PositionChange:
    """Return what `reset` would change, or raise what it would raise."""
    with database.snapshot() as connection:
        return _plan_reset(connection, name, seq)


def _plan_reset(connection: sqlite3.Connection, name: str, seq: int | None) -> PositionChange:
    _require(exists(connection, name), name)
    head = read_window(connection).last_seq
    if seq is not None and seq > head:
        raise InvalidRequest("ack_beyond", f"seq: {seq} is above the head, {head}")
    return PositionChange(_find(connection, name).seq, head if seq is None else seq)


def reset(database: Database, name: str, seq: int | None = None, *, by: str | None = None) -> int:
    """Move the checkpoint to *seq*, or to the head; return its position.

    The consumer's connection is closed. Raises UnknownName, InvalidRequest for a seq above the head.
    """
    with database.transaction() as connection:
        before, target = _plan_reset(connection, name, seq)
        connection.execute(
            "UPDATE outfeed_checkpoint SET epoch = ?, seq = ?, generation = generation + 1 WHERE name = ?",
            (read_window(connection).epoch, target, name),
        )
        audit.record(connection, "access.consumer_reset", by, name=name, before=before, seq=target)
    return target


def remove(database: Database, name: str, *, by: str | None = None) -> None:
    """Delete the consumer and close its connection.

    Raises UnknownName.
    """
    with database.transaction() as connection:
        owner = find(connection, name).owner
        delete(connection, name)
        audit.record(connection, "access.consumer_removed", by, name=name, owner=owner)


def find(connection: sqlite3.Connection, name: str) -> Checkpoint:
    """Return the consumer with that name. Raises UnknownName."""
    _require(exists(connection, name), name)
    return _find(connection, name)


def floor(connection: sqlite3.Connection) -> int | None:
    """Return the lowest acknowledged seq of the protected consumers.

    Returns None if there is no protected consumer. A consumer of another epoch counts with the head at the time when it
    was told of the reset.
    """
    row = connection.execute(
        "SELECT min(CASE value WHEN epoch THEN seq ELSE reset_seq END) FROM outfeed_checkpoint"
        " JOIN outfeed_meta ON key = 'epoch'"
        " WHERE is_protected AND value IN (epoch, reset_epoch)"
    ).fetchone()
    return row[0] if row else None


def _require(changed: int | bool, name: str) -> None:
    if not changed:
        raise UnknownName(f"there is no consumer named {name!r}; `outfeed consumer list` shows all consumers")


def _ensure(
    connection: sqlite3.Connection, name: str, window: Window, *, is_protected: bool, owner: str | None = None
) -> None:
    now = clock.timestamp()
    connection.execute(
        f"INSERT INTO outfeed_checkpoint ({_COLUMNS}) VALUES (?, ?, ?, 0, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",  # noqa: S608
        (name, window.epoch, window.last_seq, is_protected, now, now, owner),
    )


def _note_reset(connection: sqlite3.Connection, name: str, window: Window) -> None:
    """Record the head at which a consumer is first told of a reset."""
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
