"""Commit notifier: notices a commit of any process and calls back.

It makes the feed faster and guarantees nothing: the scheduler polls every second without it. On Linux the thread sleeps
until the `-wal` file is written. On other systems it reads SQLite's `data_version`. It uses monotonic time, so that no
clock change stops it.
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
from outfeed.store import database_file, files

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
    """The pauses between two checks.

    A pause lasts *first* seconds, or *share* of the time since the last notice if that is longer.
    """

    first: float
    share: float


# With synchronous=FULL the write to the WAL is noticed before its commit is visible, because the fsync comes between.
# The checks are repeated, and the commit is found late by a small share of the time of the fsync. A new notice restarts
# the checks.
AWAITED = Pace(0.00002, 1 / 16)
# A commit became visible together with a notice, which was for this commit or for the next one. The checks are rare
# enough that a notice ends the pause, however soon it comes.
IN_DOUBT = Pace(_POLL_GRAIN_SECS, 1 / 4)


class _Recheck:
    """The times of the checks for a commit that is not visible yet.

    Its notice came before it is visible.
    """

    def __init__(self) -> None:
        self._noticed_at = self._until = 0.0
        self._pace = AWAITED

    def begin(self) -> None:
        """Start checks for a commit that was noticed now."""
        self._noticed_at = clock.monotonic()
        self._until = self._noticed_at + RECHECK_FOR_SECS
        self._pace = AWAITED

    def is_active(self, now: float) -> bool:
        return now < self._until

    def pause(self, now: float) -> float:
        """Return the seconds until the next check.

        Returns infinity if no commit is expected.
        """
        if not self.is_active(now):
            return math.inf
        return min(max(self._pace.first, (now - self._noticed_at) * self._pace.share), LAST_RECHECK_SECS)

    def found(self, is_noticed: bool) -> None:
        """Record that a commit is visible.

        *is_noticed* says whether it became visible together with a notice or some time later.
        """
        if is_noticed:
            self._pace = IN_DOUBT
        else:
            # SQLite has one writer: every noticed commit is visible now, and the next write has its own notice.
            self._until = 0.0


class CommitNotifier:
    """A thread that calls *on_commit* after commits.

    It may call without a new commit. It calls *on_tick* about every second. Both callbacks run on its thread, must not
    block and must not raise. *on_commit* returns the seconds for which it wants no call. The thread checks nothing for
    that time. If `wake` or *woken* ends the rest early, the thread calls again.
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
        self._notices: Notices | None = None
        self._thread = threading.Thread(target=self._run, name="outfeed-commit-notifier", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """End a rest and call *on_commit*, also for commits during the rest."""
        self._woken.set()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self.stopping.set()
        self.wake()
        if notices := self._notices:
            notices.interrupt()
        self._thread.join()

    def _run(self) -> None:
        sleep_precisely()
        while not self.stopping.is_set():
            try:
                with _Versions(self._path) as versions, Notices(self._path) as notices:
                    self._notices = notices
                    self.watch(versions, notices)
            except (OSError, sqlite3.Error, OutfeedError) as error:
                # The file may be missing, locked or replaced at the moment. The scheduler's poll continues.
                log.warning(LogMessage("can't watch commits, trying again", path=self._path, error=error))
                self.stopping.wait(TICK_SECS)

    def watch(self, versions: _Versions, notices: Notices) -> None:
        """Watch for commits until the watched files are replaced."""
        self._call()  # for commits from before the watch was set
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
            if is_rested and self._is_still_resting(next_tick):
                continue
            is_rechecking = recheck.is_active(now)
            is_noticed = notices.wait(0.0 if is_rested else min(next_tick - now, recheck.pause(now)))
            is_ahead = is_noticed and notices.precede_commits
            if is_ahead:
                recheck.begin()
            if is_ahead and not (is_rechecking or is_rested):
                # After a quiet time the call comes without a check: a commit that needs no fsync is already visible. If
                # a commit is still under way, there is time for a call that finds nothing, after which the next call
                # takes half the time.
                self._call()
                continue
            has_moved = (is_noticed or is_rechecking) and versions.moved()
            if has_moved:
                recheck.found(is_noticed)
            if has_moved or is_rested:
                self._call()

    def _is_still_resting(self, until: float) -> bool:
        """Rest until *until* at the latest; return True if the rest goes on."""
        timeout = min(self._rests_until, until) - clock.monotonic()
        return not self._woken.wait(timeout) and clock.monotonic() < self._rests_until

    def _call(self) -> None:
        self._woken.clear()
        rest = self._on_commit()
        self._rests_until = clock.monotonic() + rest if rest else 0.0


class _Versions:
    """`PRAGMA data_version`, which changes with every other commit.

    It changes with every commit of any other connection. The connection never writes and stays in autocommit, because
    the value does not change inside a read transaction.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = database_file.connect(path)
        # The first read creates the -wal file, which is watched next.
        self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._file = files.identity(path)
        self._seen = self._read()

    def __enter__(self) -> _Versions:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def moved(self) -> bool:
        """Return whether anything was committed since this was last True."""
        before, self._seen = self._seen, self._read()
        return self._seen != before

    def are_current(self) -> bool:
        return files.identity(self._path) == self._file

    def _read(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


class IntervalNotices:
    """Notices at fixed intervals, for systems without inotify."""

    precede_commits = False

    def __init__(self, _: Path) -> None:
        pass

    def __enter__(self) -> IntervalNotices:
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
            self._file = files.identity(self._wal)

        def __enter__(self) -> _Inotify:
            return self

        def __exit__(self, *_: object) -> None:
            self._inotify.close()

        def wait(self, timeout: float) -> bool:
            """Return whether the file was written within *timeout* seconds.

            All queued notices are discarded.
            """
            if timeout < _POLL_GRAIN_SECS:
                time.sleep(max(0.0, timeout))
                timeout = 0
            if not self._poller.poll(timeout * 1000):
                return False
            os.read(self._inotify.fileno(), _NOTICE_BYTES)
            return True

        def interrupt(self) -> None:
            """End a `wait` of another thread.

            Removing the watch creates a notice.
            """
            try:
                self._inotify.rm_watch(self._watch)
            except (OSError, ValueError):
                pass  # the watch has already ended

        def are_current(self) -> bool:
            return files.identity(self._wal) == self._file

    Notices = _Inotify
else:
    Notices = IntervalNotices
