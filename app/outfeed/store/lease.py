"""Leases: the right to run a job that must run once among processes.

A lease is flock(2) on a file of its own, never on the database: closing another descriptor of the database file would
drop SQLite's locks (sqlite.org/howtocorrupt.html, section 2.2). The kernel frees it when its holder dies, in any way.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outfeed.errors import DatabaseError
from outfeed.store import files

_NOTE_BYTES = 512


def lock_file(database: Path, job: str | None = None) -> Path:
    """Return the file that stands for *job* on *database*: `<database>.<job>.lock`; without a job `<database>.lock`.

    Links are followed, so that two names of one database share their leases.
    """
    database = database.resolve()
    return database.with_name(f"{database.name}.{job}.lock" if job else f"{database.name}.lock")


@contextmanager
def hold(file: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lease on *file* during the block, and yield whether it is held: always after *wait*.

    Each call is a holder of its own, also in one process. The file stays, mode 0600, unless its holder removes it:
    a process that waited for the removed file opens the new one. Raises DatabaseError when it can't be made.
    """
    descriptor, is_held = _open_and_lock(file, wait=wait)
    try:
        yield is_held
    finally:
        # Closing is not enough where a child was forked meanwhile: its copy of the descriptor shares the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _open_and_lock(file: Path, *, wait: bool) -> tuple[int, bool]:
    while True:
        descriptor = files.open_lock(file)
        is_held = _lock(descriptor, wait=wait)
        if not is_held or _is_at(file, descriptor):
            return descriptor, is_held
        os.close(descriptor)


def _is_at(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def share(file: Path, note: str) -> None:
    """Hold the lease on *file*, with others that share it, until this process and all that it forks have ended.

    Nothing gives it up earlier: a child that did so would give it up for its parent. Raises DatabaseError.
    """
    descriptor = files.open_lock(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.pwrite(descriptor, note.ljust(_NOTE_BYTES).encode(), 0)
    except OSError as error:
        raise DatabaseError(f"can't write the lock file {file}: {error.strerror}") from error


def sharer(file: Path) -> str | None:
    """Return what the last to share the lease on *file* has noted; None where nobody holds it any more."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatabaseError(f"can't read the lock file {file}: {error.strerror}") from error
    try:
        if _lock(descriptor, wait=False):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            return None
        return os.pread(descriptor, _NOTE_BYTES, 0).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)
