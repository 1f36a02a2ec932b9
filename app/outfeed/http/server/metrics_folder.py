"""The folder with the metrics of all workers of one server.

Each worker writes its own there and can show all of them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

PREFIX = "outfeed-metrics-"


class MetricsFolder:
    """A private folder, locked by master and workers until the last ends.

    The folder is in memory if the system has `/dev/shm`: a process that writes to a mapped file on a full disk is
    killed.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or _parent()
        remove_abandoned(parent)
        self._lock = -1
        self.path = parent
        while self._lock < 0 or not self.path.exists():  # another server may remove it before it is locked
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            self._lock = _lock(self.path, fcntl.LOCK_EX)

    def forget(self, worker: int) -> None:
        """Remove the gauges of *worker*, which has ended.

        Its counters stay, and its successor continues them.
        """
        mark_process_dead(worker, str(self.path))  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        """Remove the folder. Call this after the last worker has ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in *parent* that this user's killed servers left."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # a running server holds the lock, or the folder is another user's
            lock = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.getuid():
                shutil.rmtree(path)
            os.close(lock)


def _lock(path: Path, how: int) -> int:
    """Return the descriptor that holds the lock on *path*. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _parent() -> Path:
    memory = Path("/dev/shm")  # noqa: S108 - the folder made there is private
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
