"""The folder of backups: made by the server, by cron or by hand.

Its backups have names of one form, `<database>-<time>.db`. Other files in the folder are not touched and not shown.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NamedTuple

from outfeed import clock
from outfeed.errors import AlreadyRunning, UnknownName
from outfeed.store import files, lease
from outfeed.store.database import Database
from outfeed.upkeep import backup
from outfeed.upkeep.backup import Content, Progress

JOB = "backup"
MAX_LISTED = 1000
_TIME = "%Y%m%dT%H%M%SZ"


class BackupFile(NamedTuple):
    """A complete backup in the folder."""

    name: str
    made_at: datetime
    bytes: int


class MadeBackup(NamedTuple):
    """A new backup, its content, and the names of removed older ones."""

    path: Path
    content: Content
    removed: list[str]


def make(
    database: Database,
    folder: Path,
    keep: int,
    *,
    by: str,
    wait: bool = False,
    on_progress: Progress = backup.no_progress,
) -> MadeBackup:
    """Back up into *folder*, then remove all but the newest *keep* backups.

    Older ones are removed after the new one is complete and checked, and the new one always stays. Without *wait*, it
    raises AlreadyRunning while another process backs up. Raises the errors of `backup`, and OSError.
    """
    with database.connection():
        pass  # raises if there is no database, before a lock file is created beside it
    with lease.hold(lease.lock_file(database.path, JOB), wait=wait) as is_held:
        if not is_held:
            raise AlreadyRunning("a backup is running; try again when it has ended")
        return make_alone(database, folder, keep, by=by, on_progress=on_progress)


def make_alone(
    database: Database, folder: Path, keep: int, *, by: str, on_progress: Progress = backup.no_progress
) -> MadeBackup:
    """Do what `make` does; the caller holds the lease."""
    stem = database.path.stem
    _remove_incomplete(folder, stem)
    path = folder / f"{stem}-{clock.now().astimezone(UTC).strftime(_TIME)}.db"
    content = backup.backup(database, path, on_progress, by=by)
    return MadeBackup(path, content, _rotate(folder, stem, keep, path))


def is_running(database: Database) -> bool:
    """Return whether any process makes a backup into a folder now."""
    with lease.hold(lease.lock_file(database.path, JOB), wait=False) as is_held:
        return not is_held


def _rotate(folder: Path, stem: str, keep: int, made: Path) -> list[str]:
    """Remove the oldest backups; return their names.

    A backup with a later time than the new one is removed first, because a wrong clock has dated it. Otherwise it would
    take the place of a newer one for years.
    """
    names = (each.name for each in _backups_in(folder, stem) if each.name != made.name)
    others = sorted(names, key=lambda name: (name < made.name, name))
    removed = others[: max(0, len(others) + 1 - keep)]
    for name in removed:
        (folder / name).unlink(missing_ok=True)
    return removed


def _remove_incomplete(folder: Path, stem: str) -> None:
    """Remove copies that a killed process left. The caller holds the lease.

    A copy that can't be removed prevents no backup.
    """
    partial = re.compile(rf"\.{re.escape(stem)}-[0-9]{{8}}T[0-9]{{6}}Z\.db\.[0-9]+\.partial(-wal|-shm|-journal)?")
    with suppress(OSError):
        for name in filter(partial.fullmatch, os.listdir(folder)):
            with suppress(OSError):
                (folder / name).unlink()


def _time_in(name: str, stem: str) -> datetime | None:
    """Return the time in the name of a backup; None for another name."""
    match = re.fullmatch(rf"{re.escape(stem)}-([0-9]{{8}}T[0-9]{{6}}Z)\.db", name)
    try:
        return datetime.strptime(match[1], _TIME).replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def list_backups(database: Database, folder: Path) -> list[BackupFile]:
    """Return the newest MAX_LISTED backups in *folder*, newest first.

    Links and other files are left out. Raises OutfeedError if the folder can't be read.
    """
    with files.translate_os_errors(f"read the folder {folder}"):
        found = sorted(_backups_in(folder, database.path.stem), key=lambda each: each.made_at, reverse=True)
    return found[:MAX_LISTED]


def _backups_in(folder: Path, stem: str) -> Iterator[BackupFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            moment = _time_in(entry.name, stem)
            if moment is not None and entry.is_file(follow_symlinks=False):
                yield BackupFile(entry.name, moment, entry.stat(follow_symlinks=False).st_size)


def open_backup(database: Database, folder: Path, name: str) -> BinaryIO:
    """Open the backup of that name in *folder* for reading.

    Raises UnknownName for any name that `list_backups` does not have: a path, a link, another kind of file. The live
    database under another name is refused as well: closing it would drop this process's locks.
    """
    unknown = UnknownName(f"backup {name!r:.120} not found")
    if _time_in(name, database.path.stem) is None or _is(folder / name, database.path):
        raise unknown
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unknown from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise unknown
    return os.fdopen(descriptor, "rb")


def _is(path: Path, other: Path) -> bool:
    found = files.identity(path)
    return found is not None and found == files.identity(other)


def last_made(found: list[BackupFile], now: datetime) -> datetime | None:
    """Return the time of the newest backup; None if there is none.

    Backups of the future, which a wrong clock has dated, do not count.
    """
    return max((each.made_at for each in found if each.made_at <= now + timedelta(seconds=1)), default=None)
