"""Leases: the right to run a job that must run once among processes.

A lease is flock(2) on a file of its own, never on the database: closing another descriptor of the database file would
drop SQLite's locks (sqlite.org/howtocorrupt.html, section 2.2). The kernel releases a lease when its holder ends, even
by a signal.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from outfeed.errors import DatabaseError
from outfeed.store import files

_NOTE_BYTES = 512
_NUMBER_BYTES = 8


def lock_file(database: Path, job: str | None = None) -> Path:
    """Return the lock file of *job* on *database*.

    It is `<database>.<job>.lock`, or `<database>.lock` without a job. Links are followed, so that two names of one
    database share their leases.
    """
    database = database.resolve()
    return database.with_name(f"{database.name}.{job}.lock" if job else f"{database.name}.lock")


@contextmanager
def hold(file: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lease on *file* during the block; yield whether it is held.

    With *wait*, the lease is always held. Each call is a holder of its own, even in one process. The file stays, mode
    0600, unless its holder removes it. A process that waited for a removed file opens the new one. Raises DatabaseError
    if the file can't be created.
    """
    descriptor, is_held = _open_and_lock(file, wait=wait)
    try:
        yield is_held
    finally:
        # Closing is not enough if a child was forked during the block: its copy of the descriptor shares the lock.
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


def hold_shared(file: Path, note: str) -> None:
    """Hold the lease on *file*, shared, until this process has ended.

    It is held until all processes that this one forks have ended, too. No process releases it earlier: a child that did
    so would release it for its parent. Raises DatabaseError.
    """
    descriptor = files.open_lock(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.pwrite(descriptor, note.ljust(_NOTE_BYTES).encode(), 0)
        os.ftruncate(descriptor, _NOTE_BYTES)
    except OSError as error:
        raise DatabaseError(f"can't write the lock file {file}: {error.strerror}") from error


def shared_note(file: Path) -> str | None:
    """Return the note of the last process that shared the lease.

    Returns None if no process holds it. Raises DatabaseError.
    """
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


def write_number(file: Path, index: int, number: int) -> None:
    """Write the *number* of one process behind the note.

    It is not written to the disk at once, since only running processes need it. Without the file nothing is written.
    """
    with suppress(OSError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, number.to_bytes(_NUMBER_BYTES, "big"), _NOTE_BYTES + index * _NUMBER_BYTES)
        finally:
            os.close(descriptor)


def numbers(file: Path) -> list[int]:
    """Return the numbers that `write_number` wrote, by index."""
    try:
        found = file.read_bytes()[_NOTE_BYTES:]
    except OSError:
        return []
    parts = (found[start : start + _NUMBER_BYTES] for start in range(0, len(found), _NUMBER_BYTES))
    return [int.from_bytes(part, "big") for part in parts]
