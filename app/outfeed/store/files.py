"""Files beside the database that must be whole or not there: written under another name, synced, then put in place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outfeed.errors import OutfeedError

# They lack locks or shared memory: sqlite.org/wal.html section 1, howtocorrupt.html section 2.
_REMOTE_FILESYSTEMS = re.compile(r"nfs\d?|cifs|smb\w*|9p|virtiofs|afs|ceph|glusterfs|lustre|fuse\..*")
_MOUNTS = Path("/proc/self/mountinfo")


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn the system's errors in the block into an OutfeedError that says what was being done."""
    try:
        yield
    except OSError as error:
        raise OutfeedError(f"can't {doing}: {error.strerror or error}") from error


def make_private(path: Path) -> None:
    """Make the empty file *path*, which only its owner may read. Raises OSError where there is one."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def make_folder(folder: Path) -> None:
    """Make *folder* for its owner alone, and those above it, unless it is there."""
    # `mkdir(parents=True)` gives the mode to the last one only.
    for each in (*reversed(folder.parents), folder):
        each.mkdir(mode=0o700, exist_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Never the database itself: closing drops SQLite's locks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def filesystem_of(path: Path) -> str | None:
    """Return the type of the filesystem that *path* (absolute, without links) lies on; None where it can't be told."""
    try:
        lines = _MOUNTS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    best, kind = -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), after.split()[0]
    return kind


def is_remote(filesystem: str) -> bool:
    """Return whether a *filesystem* of that type lacks what SQLite's write-ahead log needs."""
    return _REMOTE_FILESYSTEMS.fullmatch(filesystem) is not None
