"""The commit notifier: notices a commit, whoever made it, and calls back at once.

It is a hurry, not a guarantee: the scheduler polls every second without it. On Linux it sleeps until the `-wal` file
is written; elsewhere it asks SQLite's `data_version`. It runs on monotonic time, so that no clock step stops it.
"""

from __future__ import annotations

import logging
import math
import os
import select
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import OutfeedError
from outfeed.log_message import LogMessage
from outfeed.process import sleep_precisely
from outfeed.store import database as db

if sys.platform == "linux":
    import inotify_simple

TICK_SECS = 1.0
LAST_RECHECK_SECS = 0.02
RECHECK_FOR_SECS = 1.0
POLL_SECS = 0.005
_NOTICE_BYTES = 64 * 1024
_POLL_GRAIN_SECS = 0.001  # poll(2) rounds up to this
log = logging.getLogger(__name__)


class Pace(NamedTuple):
    """How long the pauses between two looks are: *first* seconds, or that share of the time since the last notice."""

    first: float
    share: float


# Under synchronous=FULL the write to the WAL is seen before its commit is visible: the fsync lies between.
# Asked again and again, and late by a small share of what the fsync took; a new notice begins it anew.
AWAITED = Pace(0.00002, 1 / 16)
# A commit became visible in the moment of a notice, which was of this commit, or of the next one. Seldom enough that a
# notice ends the pause, however soon it comes.
IN_DOUBT = Pace(_POLL_GRAIN_SECS, 1 / 4)


class _Recheck:
    """When to look again for a commit whose notice came before it is visible."""

    def __init__(self) -> None:
        self._noticed_at = self._until = 0.0
        self._pace = AWAITED

    def begin(self) -> None:
        """Look for a commit that was noticed now."""
        self._noticed_at = clock.monotonic()
        self._until = self._noticed_at + RECHECK_FOR_SECS
        self._pace = AWAITED

    def is_on(self, now: float) -> bool:
        return now < self._until

    def pause(self, now: float) -> float:
        """Return the seconds until the next look, if it is on; else infinity."""
        if not self.is_on(now):
            return math.inf
        return min(max(self._pace.first, (now - self._noticed_at) * self._pace.share), LAST_RECHECK_SECS)

    def found(self, is_noticed: bool) -> None:
        """Take in that a commit has become visible, in the moment of a notice or some time after it."""
        if is_noticed:
            self._pace = IN_DOUBT
        else:
            # One writes at a time: all that was noticed is visible now, and the next write has its own notice.
            self._until = 0.0


class CommitNotifier:
    """A thread that calls *on_commit* after commits, at times in vain, and *on_tick* about every second.

    Both run on its thread, must not block and must not raise. *on_commit* returns for how many seconds it wants no
    call: the commit notifier looks at nothing so long, unless it is woken, by `wake` or *woken*, and then calls again.
    """

    def __init__(
        self,
        path: Path,
        on_commit: Callable[[], float],
        on_tick: Callable[[], None],
        woken: threading.Event | None = None,
    ) -> None:
        self._path = path
        self._on_commit = on_commit
        self._on_tick = on_tick
        self.stopping = threading.Event()
        self._woken = woken or threading.Event()
        self._rests_until = 0.0
        self._notices: _Notices | None = None
        self._thread = threading.Thread(target=self._run, name="outfeed-commit-notifier", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def wake(self) -> None:
        """End a rest: a call is of use again, for what was committed meanwhile as well."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self.stopping.set()
        self.wake()
        if notices := self._notices:
            notices.interrupt()
        self._thread.join()

    def _run(self) -> None:
        sleep_precisely()
        while not self.stopping.is_set():
            try:
                with _Versions(self._path) as versions, _Notices(self._path) as notices:
                    self._notices = notices
                    self.watch(versions, notices)
            except (OSError, sqlite3.Error, OutfeedError) as error:
                # The file may be missing, locked or replaced just now; the scheduler's poll goes on meanwhile.
                log.warning(LogMessage("commits can't be watched, trying again", path=self._path, error=error))
                self.stopping.wait(TICK_SECS)

    def watch(self, versions: _Versions, notices: _Notices) -> None:
        """Wait for commits until the files that are watched are no longer the ones at the path."""
        self._call()  # for what was committed before the watch was set
        next_tick = 0.0
        recheck = _Recheck()
        while not self.stopping.is_set():
            now = clock.monotonic()
            if now >= next_tick:
                next_tick = now + TICK_SECS
                self._on_tick()
                if not (versions.are_current() and notices.are_current()):
                    return
            is_rested = self._rests_until > 0
            if is_rested and self._must_rest_on(next_tick):
                continue
            is_rechecking = recheck.is_on(now)
            is_noticed = notices.wait(0.0 if is_rested else min(next_tick - now, recheck.pause(now)))
            is_ahead = is_noticed and notices.precede_commits
            if is_ahead:
                recheck.begin()
            if is_ahead and not (is_rechecking or is_rested):
                # After a quiet time, not even a look: a commit that needs no fsync is visible, and where one is under
                # way there is time for a call in vain, after which the next takes half the time.
                self._call()
                continue
            has_moved = (is_noticed or is_rechecking) and versions.moved()
            if has_moved:
                recheck.found(is_noticed)
            if has_moved or is_rested:
                self._call()

    def _must_rest_on(self, until: float) -> bool:
        """Rest until *until* at the latest; True where the rest is not over then."""
        timeout = min(self._rests_until, until) - clock.monotonic()
        return not self._woken.wait(timeout) and clock.monotonic() < self._rests_until

    def _call(self) -> None:
        self._woken.clear()
        rest = self._on_commit()
        self._rests_until = clock.monotonic() + rest if rest else 0.0


class _Versions:
    """`PRAGMA data_version` on a connection of its own: it moves with every commit of any other connection.

    The connection never writes and stays in autocommit: inside a read transaction the value freezes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = db.connect(path)
        # The first read makes the -wal file, which is watched next.
        self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._file = _inode(path)
        self._seen = self._read()

    def __enter__(self) -> _Versions:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def moved(self) -> bool:
        """Return whether anything was committed since the last time this was True."""
        before, self._seen = self._seen, self._read()
        return self._seen != before

    def are_current(self) -> bool:
        return _inode(self._path) == self._file

    def _read(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


class _Clockwork:
    """Notices by the clock, where the system has none of its own."""

    precede_commits = False

    def __init__(self, _: Path) -> None:
        pass

    def __enter__(self) -> _Clockwork:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float) -> bool:
        time.sleep(min(POLL_SECS, max(timeout, 0)))
        return True

    def interrupt(self) -> None:
        pass

    def are_current(self) -> bool:
        return True


if sys.platform == "linux":

    class _Inotify:
        """Notices of writes to the `-wal` file."""

        precede_commits = True

        def __init__(self, path: Path) -> None:
            self._wal = Path(f"{path}-wal")
            self._inotify = inotify_simple.INotify()
            try:
                self._watch = self._inotify.add_watch(self._wal, inotify_simple.flags.MODIFY)
            except OSError:
                self._inotify.close()
                raise
            self._poller = select.poll()
            self._poller.register(self._inotify.fileno(), select.POLLIN)
            self._file = _inode(self._wal)

        def __enter__(self) -> _Inotify:
            return self

        def __exit__(self, *_: object) -> None:
            self._inotify.close()

        def wait(self, timeout: float) -> bool:
            """Return whether the file was written within *timeout* seconds; takes all notices that wait, unread."""
            if timeout < _POLL_GRAIN_SECS:
                time.sleep(max(0.0, timeout))
                timeout = 0
            if not self._poller.poll(timeout * 1000):
                return False
            os.read(self._inotify.fileno(), _NOTICE_BYTES)
            return True

        def interrupt(self) -> None:
            """End a `wait` of another thread: to give a watch up is a notice, too."""
            try:
                self._inotify.rm_watch(self._watch)
            except (OSError, ValueError):
                pass  # it ended by itself

        def are_current(self) -> bool:
            return _inode(self._wal) == self._file

    _Notices = _Inotify
else:
    _Notices = _Clockwork


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
