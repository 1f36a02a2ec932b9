"""Backup and restore of a live database, through SQLite's backup API.

A backup is one state of the database. It is checked before it gets its final name. A restore replaces the content of
the live file in one transaction: readers and raw writers stay connected, and the new epoch tells every client that the
history is another one.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import (
    BadBackup,
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseUnreadable,
    SchemaMismatch,
)
from outfeed.feature import registered
from outfeed.log_message import LogMessage
from outfeed.store import (
    adoption,
    audit,
    checkpoint,
    database_file,
    deadline,
    files,
    foreign_schema,
    former_names,
    lease,
    migrate,
)
from outfeed.store import database as db
from outfeed.store.database import Connection, Database
from outfeed.store.rows import COLUMNS
from outfeed.store.sqlite_errors import BUSY_CODES, translate_errors
from outfeed.upkeep import maintenance
from outfeed.upkeep.retention import JOB as PRUNE

STEP_PAGES = 1024
MAX_BUSY_STEPS = 6  # each step has waited for the lock for a whole busy timeout
# The counters move past every value that a server has seen, so that it notices a permission revoked just before.
_ADVANCE_COUNTERS = """
    UPDATE main.outfeed_meta SET value = 1 + max(CAST(value AS INTEGER), coalesce(
        (SELECT CAST(value AS INTEGER) FROM live.outfeed_meta AS theirs WHERE theirs.key = main.outfeed_meta.key), 0))
    WHERE key IN ('rights', 'erasures', 'types')
"""
_SQLITE_MAGIC = b"SQLite format 3\0"

Progress = Callable[[int, int], None]  # pages done, pages in all
log = logging.getLogger(__name__)


class Content(NamedTuple):
    """The content of a copy, which equals one state of the original."""

    epoch: str
    head: int
    events: int
    outbox_rows: int


class Restored(NamedTuple):
    """The restored content, and the path of the previous database.

    *kept* is None if there was no database before.
    """

    content: Content
    kept: Path | None


def no_progress(_: int, __: int) -> None:
    pass


# --- backup -----------------------------------------------------------------------------------------------------------


def backup(database: Database, target: Path, on_progress: Progress = no_progress, *, by: str | None = None) -> Content:
    """Write one consistent state of the live database to *target*, mode 0600.

    Returns the content of the copy. Writers continue. *target* is replaced once the copy is checked and on the disk;
    after an error it is unchanged. A `system.backed_up` event says *by* whom. If it can't be written, as on a full
    disk, the copy is kept all the same. Raises BadBackup, DatabaseError, OutfeedError. The thread's deadline applies:
    after it, QueryCancelled is raised.
    """
    with maintenance.recorded(database, "backup"):
        content = _backup(database, target, on_progress)
    try:
        _record_backup(database, target, content, by)
    except DatabaseError as error:
        log.warning(LogMessage("backup is made, but its event can't be written", file=target.name, error=error))
    return content


def _record_backup(database: Database, target: Path, content: Content, by: str | None) -> None:
    size = target.stat().st_size
    message = f"Backed up {content.events:,} event{'' if content.events == 1 else 's'} to {target.name}"
    data = {"message": message, "backup": target.name, "events": content.events, "bytes": size}
    with database.transaction() as connection:
        audit.record(connection, "system.backed_up", by, **data)


def _backup(database: Database, target: Path, on_progress: Progress) -> Content:
    with files.translate_os_errors(f"write {target}"):
        target = files.final_target(target)
        _check_target(database, target)
        with _temporary_file(target.with_name(f".{target.name}.{os.getpid()}.partial")) as fresh:
            content = _copy(database.path, fresh, on_progress)
            files.sync(fresh)
            fresh.rename(target)
            files.sync(target.parent)
    return content


def copy_database(source: Path, target: Path) -> None:
    """Copy one state of any SQLite database to the new file *target*.

    The source need not be a feed. Raises OSError as well.
    """
    with _temporary_file(target.with_name(f".{target.name}.{os.getpid()}.partial")) as fresh:
        with (
            closing(database_file.connect(source)) as live,
            translate_errors(source),
            closing(database_file.plain(fresh)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            _check_whole(copy, source)
        files.sync(fresh)
        fresh.rename(target)
        files.sync(target.parent)


def _check_target(database: Database, target: Path) -> None:
    if not target.exists():
        return
    own_files = [
        Path(f"{database.path}{suffix}") for suffix in ("", "-wal", "-shm", ".mark", ".secret", ".lock", "-search")
    ]
    if any(path.exists() and path.samefile(target) for path in own_files):
        raise BadBackup(f"{target} belongs to the live database; choose another file")
    # Only a file that is not the live database: closing a file descriptor drops the process's locks on that file.
    with target.open("rb") as file:
        magic = file.read(len(_SQLITE_MAGIC))
    if magic not in (b"", _SQLITE_MAGIC):
        raise BadBackup(f"{target} exists and is not a database; choose another file")


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """Yield an empty private file.

    It is removed at the end, unless it was renamed.
    """
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
    """Copy one state of *source* into *fresh* and check it.

    *fresh* ends as one file, without side files.
    """
    with (
        closing(database_file.connect(source)) as live,
        translate_errors(source),
        deadline.enforced(live),
    ):
        # A read transaction around all steps: without it, each commit of a writer would restart the copy.
        live.execute("BEGIN")
        content = _content(live)
        with closing(database_file.plain(fresh)) as copy, deadline.enforced(copy):
            copy.execute("PRAGMA synchronous = OFF")  # the caller syncs the whole file
            live.backup(copy, pages=STEP_PAGES, progress=lambda _, left, total: on_progress(total - left, total))
            live.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")
            _check_whole(copy, source)
            if _content(copy) != content:
                raise BadBackup(f"the copy of {source} differs from {source}; try again")
    return content


def _check_whole(connection: Connection, source: Path) -> None:
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(3)").fetchall()]
    if problems != ["ok"]:
        raise BadBackup(f"{source} is damaged: {'; '.join(problems)}. For details: outfeed doctor")


def _content(connection: Connection) -> Content:
    (events,) = connection.execute("SELECT count(*) FROM event_log").fetchone()
    (rows,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
    head = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return Content(str(db.meta(connection, "epoch")), head[0] if head else 0, events, rows)


# --- restore ----------------------------------------------------------------------------------------------------------


def inspect(database: Database, source: Path, *, whole_database: bool = False) -> Content:
    """Return the content that a restore of *source* would make live.

    Changes nothing. Raises the errors of `restore`.
    """
    _check_source(database, source)
    with _prepared(database, source) as fresh:
        _check_foreign_tables(database.path, fresh, source, whole_database=whole_database)
        return _read_content(fresh)


def restore(
    database: Database,
    source: Path,
    on_progress: Progress = no_progress,
    *,
    by: str,
    whole_database: bool = False,
) -> Restored:
    """Replace the live database by the backup *source*, under a new epoch.

    The previous database is kept beside it. The replacement is one transaction: writers wait while the pages are copied
    and then continue in the restored database, and each reader sees either the old or the new state. All rows written
    before are in the kept file. Users, permissions, consumers and webhooks stay as they are now. A `system.restored`
    event says *by* whom. Raises BadBackup, SchemaMismatch (a newer version made the backup) and DatabaseError; nothing
    has changed then. A file with triggers of another program on Outfeed's tables is rejected.
    """
    _check_source(database, source)
    with lease.hold(lease.lock_file(database.path, PRUNE), wait=True), _prepared(database, source) as fresh:
        _check_foreign_tables(database.path, fresh, source, whole_database=whole_database)
        content = _read_content(fresh)
        if not database.path.exists():
            with closing(database_file.connect(fresh)) as connection, translate_errors(fresh):
                _record_restore(connection, source, None, by)
            with files.translate_os_errors(f"put {source} in place"):
                _move_into_place(database.path, fresh)
            kept = None
        else:
            kept = database.path.with_name(f"{database.path.name}.before-restore-{clock.now():%Y%m%dT%H%M%S%f}Z")
            _save_previous(database, kept)
            with translate_errors(database.path):
                _replace_live(
                    database.path, fresh, kept, lambda copy: _record_restore(copy, source, kept, by), on_progress
                )
    return Restored(content, kept)


def _check_source(database: Database, source: Path) -> None:
    """Check that *source* exists, and create the database's folder if missing."""
    if not source.is_file():
        raise BadBackup(f"{source} is not a file")
    if database.path.exists() and source.samefile(database.path):
        raise BadBackup(f"{source} is the live database; name a backup")
    with files.translate_os_errors(f"make {database.path.parent}"):
        files.make_folder(database.path.parent)


def _check_foreign_tables(live: Path, fresh: Path, source: Path, *, whole_database: bool) -> None:
    """Reject a restore that would lose or replace another program's tables.

    With *whole_database* it may replace them. Raises BadBackup, SchemaMismatch.
    """
    if not live.exists():
        return
    with closing(database_file.connect(live)) as connection, translate_errors(live):
        if former_names.are_used(connection):
            raise SchemaMismatch(f"{live} was made by an earlier version; run `outfeed upgrade` first, then restore")
        foreign = adoption.foreign_tables(connection)
    with closing(database_file.connect(fresh)) as connection, translate_errors(fresh):
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
    """Yield a checked and upgraded copy of *source* beside the live database.

    The copy has a new epoch.
    """
    fresh_path = database.path.with_name(f"{database.path.name}.{os.getpid()}.restoring")
    with files.translate_os_errors(f"write beside {database.path}"), _temporary_file(fresh_path) as fresh:
        try:
            _copy_backup(source, fresh, database.path)
            migrate.upgrade(fresh)
        except DatabaseDamaged as error:
            raise BadBackup(f"{source} is not a backup of a feed: it is damaged or not a database") from error
        except DatabaseUnreadable as error:
            raise BadBackup(f"{source} is not a backup of a feed: {error}") from error
        with closing(database_file.connect(fresh)) as copy, translate_errors(fresh):
            copy.execute("UPDATE outfeed_meta SET value = ? WHERE key = 'epoch'", (secrets.token_hex(16),))
        if database.path.exists():
            _match_pages(database.path, fresh)
        yield fresh


def _copy_backup(source: Path, fresh: Path, live: Path) -> None:
    """Copy *source* page by page, so that none of its triggers runs.

    Rejects a file with triggers that could run later. Raises BadBackup.
    """
    with (
        closing(database_file.connect(source)) as backup_,
        closing(database_file.plain(fresh)) as copy,
        translate_errors(source),
    ):
        for connection in (backup_, copy):
            connection.execute("PRAGMA trusted_schema = OFF")
        backup_.backup(copy)
        foreign_schema.check(copy, source, live)
        copy.execute("PRAGMA trusted_schema = ON")  # indexes may call JSON functions, which SQLite does not trust
        _check_whole(copy, source)
        if not copy.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'event_log'").fetchone():
            raise BadBackup(f"{source} is a database, but not a backup of a feed: it has no event_log")


def _match_pages(live: Path, fresh: Path) -> None:
    """Give the copy the page size of the live file, which WAL mode requires."""
    with closing(database_file.connect(live)) as connection, translate_errors(live):
        (wanted,) = connection.execute("PRAGMA page_size").fetchone()
    with closing(database_file.connect(fresh)) as copy, translate_errors(fresh):
        if copy.execute("PRAGMA page_size").fetchone() != (wanted,):
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute(f"PRAGMA page_size = {wanted}")
            copy.execute("VACUUM")
            copy.execute("PRAGMA journal_mode = WAL")


def _move_into_place(path: Path, fresh: Path) -> None:
    path = files.final_target(path)
    # SQLite would use the side files of a deleted database as those of the new one.
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    files.sync(fresh)
    fresh.rename(path)
    files.sync(path.parent)


def _save_previous(database: Database, kept: Path) -> None:
    try:
        _backup(database, kept, no_progress)
    except (BadBackup, DatabaseUnreadable) as error:
        raise BadBackup(
            f"{database.path} can't be saved, so it was not replaced: {error}. To discard it, stop `outfeed serve`,"
            f" move {database.path.name} and {database.path.name}-wal away, and restore again"
        ) from error


def _replace_live(
    live: Path, fresh: Path, kept: Path, record: Callable[[Connection], None], on_progress: Progress
) -> None:
    """Copy *fresh* over the live database in one transaction.

    The kept file gets the rows that were written after it was made.
    """
    is_locked = False
    busy_steps = 0

    def on_step(status: int, left: int, total: int) -> None:
        nonlocal is_locked, busy_steps
        if status in BUSY_CODES:
            busy_steps += 1
            if busy_steps > MAX_BUSY_STEPS:
                raise DatabaseBusy(f"{live} is locked by another writer; nothing was restored, try again")
        elif not is_locked:
            # The first page is copied, so no other connection can write. A change of *fresh* restarts the copy.
            is_locked = True
            _copy_late_events(live, kept)
            _copy_kept_tables(live, fresh, record)
        on_progress(total - left, total)

    with closing(database_file.connect(fresh)) as copy, closing(database_file.connect(live)) as target:
        # One page per step: a first step that copied all pages would leave no time for the callback's work.
        copy.backup(target, pages=1, progress=on_step)
        target.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _copy_late_events(live: Path, kept: Path) -> None:
    with closing(database_file.connect(kept)) as connection, translate_errors(kept):
        connection.execute("ATTACH ? AS live", (str(live),))
        connection.execute(
            f"INSERT INTO main.event_log ({COLUMNS}) SELECT {COLUMNS} FROM live.event_log"  # noqa: S608
            " WHERE rowid > coalesce((SELECT max(rowid) FROM main.event_log), -9223372036854775808) ORDER BY rowid"
        )


def _copy_kept_tables(live: Path, fresh: Path, record: Callable[[Connection], None]) -> None:
    with closing(database_file.connect(fresh)) as connection, translate_errors(fresh):
        connection.execute("ATTACH ? AS live", (str(live),))
        connection.execute("BEGIN")  # IMMEDIATE would lock the live database too, and the restore holds that lock
        for table in kept_tables():
            fresh_names, live_names = (_columns(connection, schema, table) for schema in ("main", "live"))
            if not fresh_names or not live_names:
                continue
            columns = ", ".join(f'"{name}"' for name in fresh_names if name in live_names)
            connection.execute(f"DELETE FROM main.{table}")  # noqa: S608 - constant names
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM live.{table}")  # noqa: S608
        connection.execute(_ADVANCE_COUNTERS)
        record(connection)
        connection.execute("COMMIT")


def kept_tables() -> list[str]:
    """Return the tables that a restore leaves as they are now.

    A token that was revoked after the backup stays revoked. A consumer keeps its old epoch and its protection: its next
    connection tells it that the history is another one.
    """
    return [checkpoint.TABLE, *(table for feature in registered() for table in feature.kept_tables)]


def _columns(connection: Connection, schema: str, table: str) -> list[str]:
    rows = connection.execute("SELECT name FROM pragma_table_info(?, ?)", (table, schema))
    return [row[0] for row in rows.fetchall()]


def _read_content(path: Path) -> Content:
    with closing(database_file.connect(path)) as connection, translate_errors(path):
        return _content(connection)


def _record_restore(connection: Connection, source: Path, kept: Path | None, by: str) -> None:
    message = f"Restored {source.name}; all cursors are reset" + (
        f", the previous database is in {kept.name}" if kept else ""
    )
    data = {"message": message, "backup": source.name, "kept": kept.name if kept else None}
    audit.record(connection, "system.restored", by, **data)
