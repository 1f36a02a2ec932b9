"""Files beside the database that must be whole or not there: written under another name, synced, then put in place."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from outfeed.errors import DatabaseError, OutfeedError

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
    give_to_owner_of_folder(path)


def open_lock(path: Path) -> int:
    """Open the file *path*, made if it is missing, and return its descriptor. Raises DatabaseError."""
    is_new = not path.exists()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if is_new:
            give_to_owner_of_folder(path)
        return descriptor
    except OSError as error:
        raise DatabaseError(f"can't make the lock file {path}: {error.strerror}{owner_advice(path)}") from error


def make_folder(folder: Path) -> None:
    """Make *folder* for its owner alone, and those above it, unless it is there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    give_to_owner_of_folder(folder)


def give_to_owner_of_folder(path: Path) -> None:
    """Give what root has made at *path* to the owner of its folder, who could not use it otherwise.

    A root that may not do so, as in some containers, keeps it.
    """
    if os.geteuid() != 0:
        return
    folder = path.parent.stat()
    if folder.st_uid != 0:
        with suppress(OSError):
            os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)


def owner_advice(path: Path) -> str:
    """Return, to be appended to an error, who owns *path* or its folder and the command that changes it.

    Empty if this user owns it.
    """
    found = path if path.exists() else path.parent
    try:
        owner = found.stat().st_uid
    except OSError:
        return ""
    if owner == os.geteuid():
        return ""
    us = _name_of(os.geteuid())
    return (
        f"; {found} belongs to {_name_of(owner)}, and this process runs as {us}: chown {us} {shlex.quote(str(found))}"
    )


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def final_target(target: Path) -> Path:
    """Return the file that *target* names, past links, for a rename onto it. Raises OutfeedError.

    It is a regular file or not there yet, and its folder is there.
    """
    try:
        path = target.resolve()
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise OutfeedError(f"there is no folder {path.parent}; create it first") from None
        return path
    except (OSError, RuntimeError) as error:
        raise OutfeedError(f"can't write {target}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise OutfeedError(f"{target} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise OutfeedError(f"{target} is not a regular file; choose another file")
    return path


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
