"""Release: take Outfeed out of another program's database again."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import DatabaseBusy, OutfeedError, SchemaMismatch
from outfeed.store import adoption, database, former_names, lease
from outfeed.store.database import Connection, OperationalError
from outfeed.upkeep import upgrade

PATIENCE_SECS = 10.0
PAUSE_SECS = 0.05
# Files beside the database that Outfeed made. The journal is SQLite's.
SIDE_FILES = (".mark", ".secret", "-search", "-search-wal", "-search-shm")
JOBS = (None, "serve", "prune", "search", "webhooks")


class Released(NamedTuple):
    """The tables that were removed, the journal mode that was put back, and the copy of the database before."""

    tables: list[str]
    journal_mode: str
    kept: Path


class Plan(NamedTuple):
    """What a release removes and puts back. *keeps_log*: `event_log` is the program's own, or may be."""

    tables: list[str]
    triggers: list[str]
    indexes: list[str]
    keeps_log: bool
    journal_mode: str


@database.retry_if_changed
def plan(path: Path) -> Plan:
    """Return what a release of the database at *path* would do. Raises SchemaMismatch if nothing else is in it."""
    with database.open_read_only(path) as connection:
        return _plan(connection, path)


def release(path: Path) -> Released:
    """Put the journal mode back and remove every table, index and trigger of Outfeed's; keep a copy beside.

    An `event_log` that the program had before stays, with the events that were logged since. Raises SchemaMismatch
    while a server serves the database, and DatabaseBusy while a program has it open; nothing was changed then.
    """
    planned = plan(path)
    upgrade.refuse_served(path, "release it")
    with lease.hold(lease.lock_file(path), wait=True):
        kept = upgrade.keep(path, "before-release")
        try:
            with database.translate_errors(path), closing(database.connect(path)) as connection:
                _set_journal_mode(connection, path, planned.journal_mode)
                _remove(connection, planned)
        except OutfeedError:
            kept.unlink(missing_ok=True)
            raise
    for file in (*(Path(f"{path}{suffix}") for suffix in SIDE_FILES), *(lease.lock_file(path, job) for job in JOBS)):
        file.unlink(missing_ok=True)
    return Released(planned.tables, planned.journal_mode, kept)


def _plan(connection: Connection, path: Path) -> Plan:
    if former_names.are_used(connection):
        raise SchemaMismatch(f"{path} has the tables of an earlier version; run `outfeed upgrade` first")
    if not adoption.is_outfeed(connection):
        raise SchemaMismatch(f"{path} has no feed to release")
    before = adoption.recorded(connection)
    keeps_log = before is None or before.log_indexes is not None
    if not adoption.foreign_tables(connection) and (before is None or not keeps_log):
        raise SchemaMismatch(f"{path} contains only Outfeed's tables; delete the file instead")
    kept_indexes = (before.log_indexes or []) if before else []
    names = adoption.own_names(connection)
    return Plan(
        [name for name in names["table"] if name != "event_log" or not keeps_log],
        names["trigger"],
        [name for name in names["index"] if name not in kept_indexes],
        keeps_log,
        before.journal_mode if before else "wal",
    )


def _set_journal_mode(connection: Connection, path: Path, mode: str) -> None:
    """Leave WAL, which takes a moment in which no other connection is open."""
    connection.execute("PRAGMA busy_timeout = 0").fetchall()
    deadline = clock.monotonic() + PATIENCE_SECS
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
            return
        except OperationalError as error:
            if clock.monotonic() >= deadline:
                raise DatabaseBusy(
                    f"{path} is open in another program, so its journal mode can't be set to {mode}. "
                    "Nothing was changed; stop the program and try again"
                ) from error
            time.sleep(PAUSE_SECS)


def _remove(connection: Connection, planned: Plan) -> None:
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("BEGIN IMMEDIATE")
    for kind, names in (("TRIGGER", planned.triggers), ("INDEX", planned.indexes), ("TABLE", planned.tables)):
        for name in names:
            connection.execute(f'DROP {kind} "{name}"')
    connection.execute("COMMIT")
