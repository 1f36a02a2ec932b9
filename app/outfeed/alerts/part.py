"""The part of alerts in each serving process.

One process at a time evaluates the rules and sends the notices. It holds the lease.
"""

from __future__ import annotations

import logging
import threading

from outfeed.alerts.evaluation import Evaluator
from outfeed.alerts.notice_text import notice_of
from outfeed.alerts.sender import NoticeSender
from outfeed.alerts.store import evaluation, rules
from outfeed.alerts.store.notices import QueuedNotice
from outfeed.alerts.targets import Notice, StoredTargets, Targets
from outfeed.errors import InvalidRequest, OutfeedError, Overtaken, Superseded
from outfeed.feature import Part, Process
from outfeed.log_message import LogMessage
from outfeed.store import lease

# A page a second costs a hundredth of what a page a commit does, and is soon enough for people.
TICK_SECS = 1.0
STOP_SECS = 5.0
log = logging.getLogger(__name__)


class AlertsPart(Part):
    """The thread that evaluates, and the sender that it calls.

    The thread owns both.
    """

    def __init__(self, process: Process, targets: Targets | None = None) -> None:
        self._process = process
        self._database = process.database
        self._targets = targets
        self._stopping = threading.Event()
        self._started_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="outfeed-alerts", daemon=True)

    def start(self) -> None:
        """Start the thread. It works once no other process holds the lease."""
        self._thread.start()

    def stop(self) -> None:
        """End the evaluation and the sends in progress."""
        self._stopping.set()
        self._thread.join(STOP_SECS)

    def _run(self) -> None:
        file = lease.lock_file(self._database.path, "alerts")
        while not self._stopping.is_set():
            try:
                if rules.exist(self._database):
                    with lease.hold(file, wait=False) as is_held:
                        if is_held:
                            self._work()
            except OutfeedError as error:
                log.warning(LogMessage("alerts failed, trying again", error=error))
            except Exception as error:
                # The edge of the loop: the thread tries again after any error.
                log.exception("alerts failed, trying again")
                self._process.metrics.note_error("alerts", error)
            self._stopping.wait(TICK_SECS)

    def _work(self) -> None:
        """Evaluate and send until `stop` or an error."""
        targets = self._targets or StoredTargets(self._database, self._process.settings)
        sender = NoticeSender(
            self._database, targets, self._make_notice, lambda error: self._process.metrics.note_error("notices", error)
        )
        try:
            while not self._stopping.is_set():
                self._evaluate(sender)
        finally:
            sender.close()

    def _evaluate(self, sender: NoticeSender) -> None:
        """Evaluate with the present rules, until one of them changes."""
        held = evaluation.claim(self._database)
        if held is None:  # notices of rules that are paused now may still wait
            sender.run()
            self._stopping.wait(TICK_SECS)
            return
        evaluator = Evaluator(
            self._database, self._process.outbox, held,
            publish=self._process.core.reader.catch_up_to, started_at=self._started_at,
        )  # fmt: skip
        self._started_at = evaluator.started_at
        try:
            evaluator.begin()
            while not self._stopping.is_set() and evaluation.is_current(self._database, held):
                has_more = evaluator.step()
                sender.run()
                if not has_more:
                    self._stopping.wait(TICK_SECS)
            if self._stopping.is_set():
                evaluator.close()
        except (Superseded, Overtaken, InvalidRequest) as change:
            log.info(LogMessage("alerts restart", reason=change))
            self._stopping.wait(TICK_SECS)

    def _make_notice(self, queued: QueuedNotice) -> Notice:
        url = self._process.settings.public_url
        return notice_of(queued, self._database, self._process.displays.current(), url)
