"""SQLite's errors, translated to Outfeed's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outfeed.errors import (
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnreadable,
    QueryCancelled,
    SchemaMismatch,
)
from outfeed.store import files

BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# The beginnings of SQLite's messages that quote a damaged name. If the name is not UTF-8, sqlite3 can't decode them.
_DAMAGED_NAMES = (b"malformed database schema", b"vtable constructor failed")


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Translate SQLite's errors in the block to Outfeed's, with *path*.

    IntegrityError is not translated, because the caller knows its rows. A message that sqlite3 can't decode is
    translated like the error that it belongs to.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            raise QueryCancelled("this query took too long and was cancelled; narrow your filters") from error
        raise _explain(error, path) from error
    except UnicodeDecodeError as error:
        if not error.object.startswith(_DAMAGED_NAMES):
            raise
        raise damaged(path, "its schema has a name that is not UTF-8") from error


def _explain(error: sqlite3.Error, path: Path) -> DatabaseError:
    code = getattr(error, "sqlite_errorcode", 0)
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseBusy(f"{path} is locked by another writer; nothing was written, try again")
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_READONLY:
            return DatabaseReadOnly(
                f"{path} is read-only: check the mode of the file and its folder, and the mount options"
            )
        case sqlite3.SQLITE_CORRUPT:
            return damaged(path, str(error))
        case sqlite3.SQLITE_NOTADB:
            return DatabaseDamaged(
                f"{path} is not a database of SQLite: check OUTFEED_DATABASE. If it was a database, it is damaged; "
                f"{_remedy(path)}"
            )
        case sqlite3.SQLITE_IOERR if code == sqlite3.SQLITE_IOERR_SHMSIZE:
            return _full(path)
        case sqlite3.SQLITE_CANTOPEN if files.is_on_read_only_filesystem(path):
            return DatabaseReadOnly(
                f"{path} is read-only, because its filesystem is: SQLite makes files beside a database in WAL mode to "
                "read it. Copy it to another folder, or mount the filesystem for writing"
            )
        case sqlite3.SQLITE_CANTOPEN:
            advice = f"check its permissions and the limit of open files (ulimit -n){files.owner_advice(path)}"
            return DatabaseUnreadable(f"{path}: {error}: {advice}")
    if "no such table" in str(error) or "no such column" in str(error):
        return SchemaMismatch(f"{path} is not an upgraded Outfeed database ({error}); run `outfeed upgrade`")
    return DatabaseUnreadable(f"{path}: {error}")


def _full(path: Path) -> DatabaseFull:
    return DatabaseFull(f"no space left to write {path}; nothing was written, free some space and try again")


def damaged(path: Path, what: str) -> DatabaseDamaged:
    """Return the error of a damaged file, with what to do."""
    return DatabaseDamaged(f"{path} is damaged ({what}); {_remedy(path)}")


def _remedy(path: Path) -> str:
    return f"move it, {path.name}-wal and {path.name}-shm away, and `outfeed restore FILE`"
