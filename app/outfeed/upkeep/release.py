"""Release: removes Outfeed from another program's database."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import DatabaseBusy, OutfeedError, SchemaMismatch
from outfeed.store import adoption, database_file, former_names, lease
from outfeed.store.database import Connection, OperationalError
from outfeed.store.sqlite_errors import translate_errors
from outfeed.upkeep import upgrade

MAX_WAIT_SECS = 10.0
PAUSE_SECS = 0.05
# Files that Outfeed creates beside the database. The journal is SQLite's.
SIDE_FILES = (".mark", ".secret", ".uplink", "-search", "-search-wal", "-search-shm")
JOBS = (None, "serve", "prune", "search", "webhooks", "watches")


class Released(NamedTuple):
    """The removed tables, the restored journal mode, and the copy made before."""

    tables: list[str]
    journal_mode: str
    kept: Path


PARTIAL_INDEXES = ("event_log_task_id", "event_log_agent_id")


class Plan(NamedTuple):
    """The changes of a release.

    *own_indexes* are indexes of the program that Outfeed replaced by partial ones. *keeps_log* means that `event_log`
    may be the program's own.
    """

    tables: list[str]
    triggers: list[str]
    indexes: list[str]
    own_indexes: list[str]
    keeps_log: bool
    journal_mode: str


@database_file.retry_if_changed
def plan(path: Path) -> Plan:
    """Return the changes that a release of the database at *path* makes.

    Raises SchemaMismatch if the database contains nothing but Outfeed's tables.
    """
    with database_file.open_read_only(path) as connection:
        return _plan(connection, path)


def release(path: Path) -> Released:
    """Drop Outfeed's tables, indexes and triggers; restore the journal mode.

    A copy of the database is kept beside it. An `event_log` that existed before the adoption stays, with the events
    logged since. Raises SchemaMismatch if a server uses the database, and DatabaseBusy if a program has it open;
    nothing has changed then.
    """
    planned = plan(path)
    upgrade.refuse_served(path, "release it")
    with lease.hold(lease.lock_file(path), wait=True):
        kept = upgrade.save_copy(path, "before-release")
        try:
            with translate_errors(path), closing(database_file.connect(path)) as connection:
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
        [name for name in PARTIAL_INDEXES if name in kept_indexes],
        keeps_log,
        before.journal_mode if before else "wal",
    )


def _set_journal_mode(connection: Connection, path: Path, mode: str) -> None:
    """Set the journal mode.

    Leaving WAL needs a moment without other connections.
    """
    connection.execute("PRAGMA busy_timeout = 0").fetchall()
    deadline = clock.monotonic() + MAX_WAIT_SECS
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
    for name in planned.own_indexes:
        connection.execute(f"DROP INDEX {name}")
        connection.execute(f"CREATE INDEX {name} ON event_log ({adoption.LOG_INDEXES[name]})")
    connection.execute("COMMIT")
