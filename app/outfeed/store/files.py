"""Files beside the database, written atomically.

Such a file is complete or missing: it is written under another name, synced, and then renamed into place.
"""

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

# These lack locks or shared memory: sqlite.org/wal.html section 1, howtocorrupt.html section 2.
_REMOTE_FILESYSTEMS = re.compile(r"nfs\d?|cifs|smb\w*|9p|virtiofs|afs|ceph|glusterfs|lustre|fuse\..*")
_MOUNTS = Path("/proc/self/mountinfo")


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of the file; None if it is missing."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def translate_os_errors(doing: str) -> Iterator[None]:
    """Translate OSError in the block to an OutfeedError.

    Its text is "can't *doing*" and the reason.
    """
    try:
        yield
    except OSError as error:
        raise OutfeedError(f"can't {doing}: {error.strerror or error}") from error


def make_private(path: Path) -> None:
    """Create the empty file *path*, readable by its owner only.

    Raises OSError if the file exists.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    give_to_owner_of_folder(path)


def open_lock(path: Path) -> int:
    """Open the file *path*, created if missing; return its descriptor.

    Raises DatabaseError.
    """
    is_new = not path.exists()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if is_new:
            give_to_owner_of_folder(path)
        return descriptor
    except OSError as error:
        raise DatabaseError(f"can't make the lock file {path}: {error.strerror}{owner_advice(path)}") from error


def make_folder(folder: Path) -> None:
    """Create *folder* and its parents, accessible by their owner only.

    Existing folders stay as they are.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    give_to_owner_of_folder(folder)


def give_to_owner_of_folder(path: Path) -> None:
    """Give a file that root created to the owner of its folder.

    Otherwise that owner could not use it. If root may not change the owner, as in some containers, the file stays
    root's.
    """
    if os.geteuid() != 0:
        return
    folder = path.parent.stat()
    if folder.st_uid != 0:
        with suppress(OSError):
            os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)


def is_on_read_only_filesystem(path: Path) -> bool:
    """Return whether the filesystem of *path* is mounted read-only."""
    try:
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def owner_advice(path: Path) -> str:
    """Return who owns *path* or its folder, and how to change that.

    The text is made to be appended to an error. It is empty if this user is the owner.
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
    """Return the file that *target* names, for a rename onto it.

    Links are followed. The file is a regular file or does not exist, and its folder exists. Raises OutfeedError.
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
    """Sync a file, or the names in a folder, to disk.

    Never use it for the database itself, because closing the descriptor drops SQLite's locks.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def filesystem_of(path: Path) -> str | None:
    """Return the type of the filesystem of *path*, or None if unknown.

    *path* is absolute and without links.
    """
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
    """Return whether *filesystem* lacks what SQLite's WAL needs."""
    return _REMOTE_FILESYSTEMS.fullmatch(filesystem) is not None
