"""Sender: takes notices from the queue and gives them to their targets.

A target gets its notices one after the other, the oldest first. A slow or failing target delays no other.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

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


class _Rest(NamedTuple):
    """The state of a target that no thread sends to.

    Its notices are due again at *due* of the monotonic clock. The target has *accepted* a notice that the database
    still has as waiting, or None.
    """

    due: float = -math.inf
    accepted: QueuedNotice | None = None


class NoticeSender:
    """Sends the waiting notices of one database.

    One process does so at a time. If it ends while it sends, the next one sends that notice of each target again, with
    the same event id. If a delivery can't be recorded, as on a full disk, it is recorded later and not sent again.

    One thread calls `run` and `close`, and only that thread uses the attributes. The threads of the pool send.
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
        self._running: dict[str, Future[_Rest]] = {}
        self._resting: dict[str, _Rest] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Begin to send to each target for which notices wait and are due.

        Raises DatabaseError.
        """
        for name in [name for name, future in self._running.items() if future.done()]:
            self._resting[name] = self._running.pop(name).result()
        waiting, now = notices.waiting_targets(self._database), clock.monotonic()
        self._resting = {name: rest for name, rest in self._resting.items() if name in waiting}
        for name in waiting:
            rest = self._resting.get(name, _Rest())
            if name not in self._running and rest.due <= now:
                self._running[name] = self._pool.submit(self._send_all, name, rest.accepted)

    def close(self) -> None:
        """End the sends in progress, and wait for their threads."""
        self._stopping.set()
        self._targets.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _send_all(self, target: str, accepted: QueuedNotice | None) -> _Rest:
        """Send the notices of a target until none is left or one fails.

        The delivery of *accepted* is recorded first.
        """
        try:
            if accepted is not None:
                notices.note_delivered(self._database, accepted)
                accepted = None
            while not self._stopping.is_set() and (notice := notices.next_waiting(self._database, target)) is not None:
                outcome = self._send(notice)
                accepted = notice if outcome.is_delivered else None
                pause = self._record(notice, outcome)
                accepted = None
                if pause is not None:
                    return _Rest(clock.monotonic() + pause)
        except OutfeedError as error:
            log.warning(LogMessage("a notice failed, trying again", target=target, error=error))
        except Exception as error:
            # The edge of the thread: the next run tries again.
            log.exception(LogMessage("a notice failed, trying again", target=target))
            self._on_error(error)
        else:
            return _Rest()
        return _Rest(clock.monotonic() + FIRST_PAUSE_SECS, accepted)

    def _send(self, notice: QueuedNotice) -> Outcome:
        found = self._targets.find(notice.target)
        if found is None:
            return Outcome(is_delivered=False, error="the target was removed", is_final=True)
        return self._targets.send(found, self._make_notice(notice))

    def _record(self, notice: QueuedNotice, outcome: Outcome) -> float | None:
        """Write the outcome; return the pause, None if the next one may follow."""
        if outcome.is_delivered:
            notices.note_delivered(self._database, notice)
            return None
        if self._stopping.is_set():  # it may have been cancelled
            return 0.0
        error = outcome.error or "unknown error"
        notices.note_failure(self._database, notice, error, is_final=outcome.is_final)
        if notice.attempts == 0 or outcome.is_final:
            log.warning(LogMessage("a notice failed", target=notice.target, rule=notice.rule, error=error))
        return None if outcome.is_final else pause_secs(notice.attempts, outcome.retry_after_secs)


def pause_secs(attempts: int, retry_after_secs: float | None) -> float:
    """Return the pause before the next attempt, after *attempts* and one more.

    It doubles, up to MAX_PAUSE_SECS. It is at least as long as the target asked for, up to the same limit.
    """
    own = min(MAX_PAUSE_SECS, FIRST_PAUSE_SECS * 2.0 ** min(attempts, 30))
    return own if retry_after_secs is None else max(own, min(retry_after_secs, MAX_PAUSE_SECS))
