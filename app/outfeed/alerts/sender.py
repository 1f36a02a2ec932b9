"""Sender: takes notices from the queue and gives them to their targets.

A target gets its notices one after the other, the oldest first. A slow or failing target delays no other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from outfeed import clock
from outfeed.alerts.store import notices
from outfeed.alerts.store.notices import QueuedNotice
from outfeed.alerts.targets import Notice, Outcome, Targets
from outfeed.errors import OutfeedError
from outfeed.log_message import LogMessage
from outfeed.store.database import Database

THREADS = 8
FIRST_PAUSE_SECS, MAX_PAUSE_SECS = 10.0, 3600.0
log = logging.getLogger(__name__)


class NoticeSender:
    """Sends the waiting notices of one database.

    One process does so at a time. If it ends while it sends, the next one sends that notice of each target again, with
    the same event id. One thread calls `run`, `close` and the threads of the pool send.
    """

    def __init__(
        self,
        database: Database,
        targets: Targets,
        make_notice: Callable[[QueuedNotice], Notice],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._database = database
        self._targets = targets
        self._make_notice = make_notice
        self._on_error = on_error
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="outfeed-alert-notices")
        self._running: dict[str, Future[None]] = {}
        self._due: dict[str, float] = {}  # on the monotonic clock, after a failure
        self._stopping = threading.Event()

    def run(self) -> None:
        """Begin to send to each target for which notices wait and are due.

        Raises DatabaseError.
        """
        self._running = {name: future for name, future in self._running.items() if not future.done()}
        waiting, now = notices.waiting_targets(self._database), clock.monotonic()
        self._due = {name: at for name, at in self._due.items() if name in waiting}
        for name in waiting:
            if name not in self._running and self._due.get(name, now) <= now:
                self._running[name] = self._pool.submit(self._send_all, name)

    def close(self) -> None:
        """End the sends in progress, and wait for their threads."""
        self._stopping.set()
        self._targets.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _send_all(self, target: str) -> None:
        """Send the notices of a target until none is left or one fails."""
        try:
            while not self._stopping.is_set():
                notice = notices.next_waiting(self._database, target)
                if notice is None or not self._send(notice):
                    return
        except OutfeedError as error:
            log.warning(LogMessage("a notice failed, trying again", target=target, error=error))
        except Exception as error:
            # The edge of the thread: the next run tries again.
            log.exception(LogMessage("a notice failed, trying again", target=target))
            self._on_error(error)
            self._due[target] = clock.monotonic() + FIRST_PAUSE_SECS

    def _send(self, notice: QueuedNotice) -> bool:
        """Send one notice; return whether the next one may follow at once."""
        found = self._targets.find(notice.target)
        if found is None:
            outcome = Outcome(is_delivered=False, error="the target was removed", is_final=True)
        else:
            outcome = self._targets.send(found, self._make_notice(notice))
        if outcome.is_delivered:
            notices.note_delivered(self._database, notice)
            self._due.pop(notice.target, None)
            return True
        if self._stopping.is_set():  # it may have been cancelled
            return False
        error = outcome.error or "unknown error"
        notices.note_failure(self._database, notice, error, is_final=outcome.is_final)
        if notice.attempts == 0 or outcome.is_final:
            log.warning(LogMessage("a notice failed", target=notice.target, rule=notice.rule, error=error))
        if outcome.is_final:
            return True
        self._due[notice.target] = clock.monotonic() + pause_secs(notice.attempts, outcome.retry_after_secs)
        return False


def pause_secs(attempts: int, retry_after_secs: float | None) -> float:
    """Return the pause before the next attempt, after *attempts* and one more.

    It doubles, up to MAX_PAUSE_SECS. It is at least as long as the target asked for, up to the same limit.
    """
    own = min(MAX_PAUSE_SECS, FIRST_PAUSE_SECS * 2.0 ** min(attempts, 30))
    return own if retry_after_secs is None else max(own, min(retry_after_secs, MAX_PAUSE_SECS))
