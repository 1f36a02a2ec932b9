"""Who keeps the write-ahead log from being reset: read from the kernel and the `-shm` file, on Linux.

Closing the `-shm` file drops the locks that this process has on it (fcntl(2)): call it only where the database is not
open. The layout is sqlite.org/walformat.html section 2.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

_LOCKS = Path("/proc/locks")
_READ_MARKS_AT = 100
_READ_LOCKS_AT = 123
_READERS = 5
_POSIX_LOCK = re.compile(r"POSIX\s+\S+\s+(?:READ|WRITE)\s+(\d+)\s+\w+:\w+:(\d+)\s+(\d+)\s+(\d+)")


class Reader(NamedTuple):
    """A process inside a read transaction; *frames* of the log were there when it began."""

    pid: int
    frames: int


def oldest(database: Path) -> Reader | None:
    """Return the process whose read transaction stands at the oldest place of the log; None where it can't be told."""
    path = Path(f"{database}-shm")
    try:
        inode = os.stat(path).st_ino
        with path.open("rb") as shm:
            header = shm.read(_READ_MARKS_AT + 4 * _READERS)
        locks = _LOCKS.read_text("ascii")
        marks = struct.unpack_from(f"={_READERS}I", header, _READ_MARKS_AT)
    except (OSError, struct.error):
        return None
    found = [
        Reader(int(pid), marks[place])
        for pid, where, start, end in _POSIX_LOCK.findall(locks)
        if int(where) == inode
        for place in range(_READERS)
        if int(start) <= _READ_LOCKS_AT + place <= int(end)
    ]
    return min(found, key=lambda reader: reader.frames, default=None)
