"""Backup and restore, both while everything goes on: through SQLite, never by copying the file.

A backup is one state of the database, checked before it gets its name. A restore puts one into the live file in one
transaction: readers and raw writers stay connected, and the new epoch tells every client that history went another way.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import BadBackup, DatabaseBusy, DatabaseDamaged, DatabaseUnreadable, SchemaMismatch
from outfeed.feature import registered
from outfeed.store import adoption, audit, checkpoint, files, foreign_schema, former_names, lease, migrate
from outfeed.store import database as db
from outfeed.store.database import Connection, Database
from outfeed.upkeep import maintenance
from outfeed.upkeep.retention import JOB as PRUNE

STEP_PAGES = 1024
MAX_BUSY_STEPS = 6  # each has waited for the lock as long as any connection of ours
# Past where every server has seen them: a right that was lost just before must be noticed.
_MOVE_ON = """
    UPDATE main.outfeed_meta SET value = 1 + max(CAST(value AS INTEGER), coalesce(
        (SELECT CAST(value AS INTEGER) FROM live.outfeed_meta AS theirs WHERE theirs.key = main.outfeed_meta.key), 0))
    WHERE key IN ('rights', 'erasures')
"""
_LOG_COLUMNS = "id, event_type, source, task_id, agent_id, data, timestamp"
_SQLITE_MAGIC = b"SQLite format 3\0"

Progress = Callable[[int, int], None]  # pages done, pages in all


class Content(NamedTuple):
    """What a copy holds; the same as the original at one moment."""

    epoch: str
    head: int
    events: int
    outbox_rows: int


class Restored(NamedTuple):
    """What is live now, and where what was live before is kept (None where there was none)."""

    content: Content
    kept: Path | None


def _no_progress(_: int, __: int) -> None:
    pass


# --- backup -----------------------------------------------------------------------------------------------------------


def backup(database: Database, target: Path, on_progress: Progress = _no_progress) -> Content:
    """Write one consistent state of the live database to *target*, mode 0600; return what it holds.

    Writers go on meanwhile. *target* is replaced once the copy is checked and on the disk, else left as it was. Raises
    BadBackup, DatabaseError, OutfeedError.
    """
    with maintenance.noted(database, "backup"):
        return _backup(database, target, on_progress)


def _backup(database: Database, target: Path, on_progress: Progress) -> Content:
    with files.translate_os_errors(f"write {target}"):
        target = files.final_target(target)
        _check_target(database, target)
        with _fresh(target.with_name(f".{target.name}.{os.getpid()}.partial")) as fresh:
            content = _copy(database.path, fresh, on_progress)
            files.sync(fresh)
            fresh.rename(target)
            files.sync(target.parent)
    return content


def copy_as_it_is(source: Path, target: Path) -> None:
    """Copy one state of any database, a feed or not, to *target*, which is not there yet. Raises OSError as well."""
    with _fresh(target.with_name(f".{target.name}.{os.getpid()}.partial")) as fresh:
        with closing(db.connect(source)) as live, db.translate_errors(source), closing(db.plain(fresh)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            _check_whole(copy, source)
        files.sync(fresh)
        fresh.rename(target)
        files.sync(target.parent)


def _check_target(database: Database, target: Path) -> None:
    if not target.exists():
        return
    ours = [Path(f"{database.path}{suffix}") for suffix in ("", "-wal", "-shm", ".mark", ".secret", ".lock", "-search")]
    if any(path.exists() and path.samefile(target) for path in ours):
        raise BadBackup(f"{target} belongs to the live database; choose another file")
    # Not the live database, so that opening and closing it is nobody's business.
    with target.open("rb") as file:
        magic = file.read(len(_SQLITE_MAGIC))
    if magic not in (b"", _SQLITE_MAGIC):
        raise BadBackup(f"{target} exists and is not a database; choose another file")


@contextmanager
def _fresh(path: Path) -> Iterator[Path]:
    """Lend an empty private file; whatever is left of it at the end is removed."""
    _remove(path)
    files.make_private(path)
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal", ".lock"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _copy(source: Path, fresh: Path, on_progress: Progress) -> Content:
    """Copy one state of *source* into *fresh*, and check that it is whole; it ends as one file, without side files."""
    with closing(db.connect(source)) as live, db.translate_errors(source):
        # A read transaction around all steps: without it each commit of a writer would start the copy anew.
        live.execute("BEGIN")
        content = _content(live)
        with closing(db.plain(fresh)) as copy:
            copy.execute("PRAGMA synchronous = OFF")  # it is synced as a whole
            live.backup(copy, pages=STEP_PAGES, progress=lambda _, left, total: on_progress(total - left, total))
            live.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")
            _check_whole(copy, source)
            if _content(copy) != content:
                raise BadBackup(f"the copy of {source} holds something else than {source}; try again")
    return content


def _check_whole(connection: Connection, source: Path) -> None:
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(3)").fetchall()]
    if problems != ["ok"]:
        raise BadBackup(f"{source} is damaged: {'; '.join(problems)}. `outfeed doctor` says more")


def _content(connection: Connection) -> Content:
    (events,) = connection.execute("SELECT count(*) FROM event_log").fetchone()
    (rows,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
    head = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return Content(str(db.meta(connection, "epoch")), head[0] if head else 0, events, rows)


# --- restore ----------------------------------------------------------------------------------------------------------


def inspect(database: Database, source: Path, *, whole_database: bool = False) -> Content:
    """Return what a restore of *source* would make live; nothing is changed. Raises as `restore`."""
    _make_ready(database, source)
    with _prepared(database, source) as fresh:
        _check_foreign_tables(database.path, fresh, source, whole_database=whole_database)
        return _read_content(fresh)


def restore(
    database: Database,
    source: Path,
    on_progress: Progress = _no_progress,
    *,
    by: str,
    whole_database: bool = False,
) -> Restored:
    """Put the backup *source* into the live database, under a new epoch, and keep what was there beside it.

    In one transaction: writers wait while it is copied, then go on in what was restored; whoever reads gets the old or
    the new. What they had written until then is all in the file that is kept. Who may, and the consumers, stay as they
    are now; a `system.restored` event says *by* whom. Raises BadBackup, SchemaMismatch (newer code made it),
    DatabaseError, with nothing changed. A file whose triggers another program made on Outfeed's tables is no backup.
    """
    _make_ready(database, source)
    with lease.hold(lease.lock_file(database.path, PRUNE), wait=True), _prepared(database, source) as fresh:
        _check_foreign_tables(database.path, fresh, source, whole_database=whole_database)
        content = _read_content(fresh)
        if not database.path.exists():
            with closing(db.connect(fresh)) as connection, db.translate_errors(fresh):
                _say(connection, source, None, by)
            with files.translate_os_errors(f"put {source} in place"):
                _put_in_place(database.path, fresh)
            kept = None
        else:
            kept = database.path.with_name(f"{database.path.name}.before-restore-{clock.now():%Y%m%dT%H%M%S%f}Z")
            _keep(database, kept)
            with db.translate_errors(database.path):
                _swap(database.path, fresh, kept, lambda copy: _say(copy, source, kept, by), on_progress)
    return Restored(content, kept)


def _make_ready(database: Database, source: Path) -> None:
    """See that there is something to restore, and a folder for it: on a new machine there is none yet."""
    if not source.is_file():
        raise BadBackup(f"there is no file {source}")
    if database.path.exists() and source.samefile(database.path):
        raise BadBackup(f"{source} is the live database itself")
    with files.translate_os_errors(f"make {database.path.parent}"):
        files.make_folder(database.path.parent)


def _check_foreign_tables(live: Path, fresh: Path, source: Path, *, whole_database: bool) -> None:
    """Refuse a restore that would lose tables of another program, or replace them without *whole_database*."""
    if not live.exists():
        return
    with closing(db.connect(live)) as connection, db.translate_errors(live):
        if former_names.are_used(connection):
            raise SchemaMismatch(f"{live} was made by an earlier version; run `outfeed upgrade` first, then restore")
        foreign = adoption.foreign_tables(connection)
    with closing(db.connect(fresh)) as connection, db.translate_errors(fresh):
        lost = sorted(set(foreign).difference(adoption.foreign_tables(connection)))
    if lost:
        raise BadBackup(
            f"{source} lacks tables that {live} has: {', '.join(lost)}. A restore replaces the whole database, so they "
            "would be lost; nothing was restored"
        )
    if foreign and not whole_database:
        raise BadBackup(
            f"{live} also holds tables of another program: {', '.join(foreign)}. A restore replaces their rows as "
            "well; nothing was restored. To do so: outfeed restore --whole-database"
        )


@contextmanager
def _prepared(database: Database, source: Path) -> Iterator[Path]:
    """Lend a copy of *source* beside the live database: checked, upgraded, with an epoch of its own."""
    fresh_path = database.path.with_name(f"{database.path.name}.{os.getpid()}.restoring")
    with files.translate_os_errors(f"write beside {database.path}"), _fresh(fresh_path) as fresh:
        try:
            _take_in(source, fresh, database.path)
            migrate.upgrade(fresh)
        except DatabaseDamaged as error:
            raise BadBackup(f"{source} is not a backup of a feed: it is damaged or not a database") from error
        except DatabaseUnreadable as error:
            raise BadBackup(f"{source} is not a backup of a feed: {error}") from error
        with closing(db.connect(fresh)) as copy, db.translate_errors(fresh):
            copy.execute("UPDATE outfeed_meta SET value = ? WHERE key = 'epoch'", (secrets.token_hex(16),))
        if database.path.exists():
            _match_pages(database.path, fresh)
        yield fresh


def _take_in(source: Path, fresh: Path, live: Path) -> None:
    """Copy *source*, page by page, so that none of its triggers runs, and refuse it if one of them might later."""
    with closing(db.connect(source)) as backup_, closing(db.plain(fresh)) as copy, db.translate_errors(source):
        for connection in (backup_, copy):
            connection.execute("PRAGMA trusted_schema = OFF")
        backup_.backup(copy)
        foreign_schema.check(copy, source, live)
        copy.execute("PRAGMA trusted_schema = ON")  # indexes may call functions of JSON, which SQLite mistrusts
        _check_whole(copy, source)
        if not copy.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'event_log'").fetchone():
            raise BadBackup(f"{source} is a database, but not a backup of a feed: it has no event_log")


def _match_pages(live: Path, fresh: Path) -> None:
    """Give the copy the page size of the live file: a database in WAL mode takes no other."""
    with closing(db.connect(live)) as connection, db.translate_errors(live):
        (wanted,) = connection.execute("PRAGMA page_size").fetchone()
    with closing(db.connect(fresh)) as copy, db.translate_errors(fresh):
        if copy.execute("PRAGMA page_size").fetchone() != (wanted,):
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute(f"PRAGMA page_size = {wanted}")
            copy.execute("VACUUM")
            copy.execute("PRAGMA journal_mode = WAL")


def _put_in_place(path: Path, fresh: Path) -> None:
    path = files.final_target(path)
    # Side files of a database that is gone would be taken for its own.
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    files.sync(fresh)
    fresh.rename(path)
    files.sync(path.parent)


def _keep(database: Database, kept: Path) -> None:
    try:
        _backup(database, kept, _no_progress)
    except (BadBackup, DatabaseUnreadable) as error:
        raise BadBackup(
            f"{database.path} can't be kept, so it is not replaced: {error}. To give it up, stop `outfeed serve`, move"
            f" {database.path.name} and {database.path.name}-wal away, and restore again"
        ) from error


def _swap(live: Path, fresh: Path, kept: Path, say: Callable[[Connection], None], on_progress: Progress) -> None:
    """Copy *fresh* over the live database in one transaction, and take along what was written since *kept* was made."""
    is_locked = False
    busy_steps = 0

    def look(status: int, left: int, total: int) -> None:
        nonlocal is_locked, busy_steps
        if status in db.BUSY_CODES:
            busy_steps += 1
            if busy_steps > MAX_BUSY_STEPS:
                raise DatabaseBusy(f"{live} is locked by another writer; nothing was restored, try again")
        elif not is_locked:
            # The first page is copied, so no one else can write; that what is copied changes begins the copy anew.
            is_locked = True
            _top_up(live, kept)
            _carry_over(live, fresh, say)
        on_progress(total - left, total)

    with closing(db.connect(fresh)) as copy, closing(db.connect(live)) as target:
        # A page at a time: were all of them copied by the first step, it would be too late to look.
        copy.backup(target, pages=1, progress=look)
        target.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _top_up(live: Path, kept: Path) -> None:
    with closing(db.connect(kept)) as connection, db.translate_errors(kept):
        connection.execute("ATTACH ? AS live", (str(live),))
        connection.execute(
            f"INSERT INTO main.event_log ({_LOG_COLUMNS}) SELECT {_LOG_COLUMNS} FROM live.event_log"  # noqa: S608
            " WHERE rowid > coalesce((SELECT max(rowid) FROM main.event_log), -9223372036854775808) ORDER BY rowid"
        )


def _carry_over(live: Path, fresh: Path, say: Callable[[Connection], None]) -> None:
    with closing(db.connect(fresh)) as connection, db.translate_errors(fresh):
        connection.execute("ATTACH ? AS live", (str(live),))
        connection.execute("BEGIN")  # IMMEDIATE would ask for the live database's lock as well, which the restore has
        for table in kept_tables():
            ours, theirs = (_columns(connection, schema, table) for schema in ("main", "live"))
            if not ours or not theirs:
                continue
            columns = ", ".join(f'"{name}"' for name in ours if name in theirs)
            connection.execute(f"DELETE FROM main.{table}")  # noqa: S608 - names are ours
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM live.{table}")  # noqa: S608
        connection.execute(_MOVE_ON)
        say(connection)
        connection.execute("COMMIT")


def kept_tables() -> list[str]:
    """Return the tables that a restore leaves as they are now.

    A token that was revoked since the backup stays revoked. A consumer is told that its history is another one: it
    keeps its old epoch and its protection.
    """
    return [checkpoint.TABLE, *(table for feature in registered() for table in feature.kept_tables)]


def _columns(connection: Connection, schema: str, table: str) -> list[str]:
    rows = connection.execute("SELECT name FROM pragma_table_info(?, ?)", (table, schema))
    return [row[0] for row in rows.fetchall()]


def _read_content(path: Path) -> Content:
    with closing(db.connect(path)) as connection, db.translate_errors(path):
        return _content(connection)


def _say(connection: Connection, source: Path, kept: Path | None, by: str) -> None:
    message = f"Restored {source.name}; all cursors are reset" + (
        f", the previous database is in {kept.name}" if kept else ""
    )
    data = {"message": message, "backup": source.name, "kept": kept.name if kept else None}
    audit.record(connection, "system.restored", by, **data)
