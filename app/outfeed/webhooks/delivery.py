"""Delivery: what one claim of a webhook does. It reads after the checkpoint, posts, and moves the checkpoint."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from outfeed import clock
from outfeed.access import Visible
from outfeed.feed.encoding import grouped
from outfeed.feed.hub import Hub
from outfeed.feed.source import Source
from outfeed.feed.subscription import Filter, decide_for
from outfeed.history import Item
from outfeed.log_message import LogMessage
from outfeed.metrics import Metrics
from outfeed.store.database import Database
from outfeed.store.webhook import Ledger
from outfeed.webhooks.addresses import Allowlist
from outfeed.webhooks.message import Message
from outfeed.webhooks.target import Answer, Target

PAGE_EVENTS = 1000
# While nothing matches, the checkpoint follows the head this often.
IDLE_SECS = 15.0
ACKNOWLEDGE_SECS = 0.2
# Until the hub has read what the database says already.
SETTLE_SECS = 0.1
FIRST_PAUSE_SECS = 0.5
MAX_PAUSE_SECS = 300.0
MAX_RETRY_AFTER_SECS = 3600.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What deliveries need of the process they run in."""

    database: Database
    source: Source
    hub: Hub
    metrics: Metrics
    allowlist: Allowlist
    give_up_after: timedelta


class Delivery:
    """`run` belongs to one thread; `call_off` may be called by any, and ends whatever it waits for.

    The next event is posted when the target has answered 2xx to the one before: in order, at least once. What may have
    arrived before a crash comes again under the same id: the checkpoint is written when there is nothing to post, and
    every ACKNOWLEDGE_SECS while there is, so that webhooks don't double what the writers write.
    """

    def __init__(self, ledger: Ledger, surroundings: Surroundings) -> None:
        self.ledger = ledger
        self._webhook = ledger.webhook
        self._surroundings = surroundings
        self._filter = Filter(Visible(), types=ledger.webhook.types)  # the audit's events stay in the house
        self._target = Target(ledger.webhook.url, surroundings.allowlist)
        self._woken = threading.Event()
        self._is_off = False
        self._epoch = ledger.window.epoch
        self._position = self._acknowledged = ledger.claim.seq
        self._acknowledged_at = clock.monotonic()
        self._unwritten = 0
        self._last_status: int | None = None
        self._batch_end = ledger.webhook.batch_end

    def run(self) -> None:
        """Deliver until called off, or paused. Raises Superseded, Overtaken, DatabaseError."""
        try:
            self._settle()
            while not self._is_off:
                if not self._advance():
                    self._idle()
            self._acknowledge()
        finally:
            self._target.close()

    def call_off(self) -> None:
        """End `run`, and the post that is at work."""
        self._is_off = True
        self._woken.set()
        self._target.cut()

    def _settle(self) -> None:
        """Begin where the checkpoint stands; where that is gone, at the next place, and say so."""
        verdict = decide_for(self.ledger.claim, self.ledger.window)
        if verdict.missing is not None:
            first, last = verdict.missing
            self._skip_to(verdict.after, f"missed {first} to {last}: they were pruned before they were delivered")
        elif verdict.kind == "reset":
            self._batch_end = 0  # of the other history, and perhaps beyond the head of this one
            self._skip_to(verdict.after, f"goes on after {verdict.after}: the database has another history now")

    def _skip_to(self, seq: int, what: str) -> None:
        self.ledger.skip_to(self._epoch, seq, what, batch_end=self._batch_end)
        self._position = self._acknowledged = seq

    def _advance(self) -> bool:
        """Deliver what one page holds; False where nothing followed."""
        page = self._surroundings.source.read_after(self._position, PAGE_EVENTS)
        page.window.prove(self._epoch, self._position)
        self._surroundings.hub.vouch(page.through)
        items = self._filter.matching(page.items)
        while items and not self._is_off:
            group = self._next_group(items)
            self._deliver(group)
            items = items[len(group) :]
        if self._is_off or page.through <= self._position:
            return False
        self._position = page.through
        return True

    def _next_group(self, items: list[Item]) -> list[Item]:
        """Return what goes in the next post: one event, or a batch that stays the same until it is delivered."""
        if not self._webhook.batch:
            return items[:1]
        fixed = [item for item in items[: self._webhook.batch] if item.seq <= self._batch_end]
        if fixed:
            return fixed
        group = list(next(grouped(items[: self._webhook.batch])))
        self._batch_end = group[-1].seq
        # The checkpoint moves along, so that a restart reads from the same place.
        self._acknowledge(batch_end=self._batch_end)
        return group

    def _deliver(self, group: list[Item]) -> None:
        """Post until the target takes it. Returns early where the delivery is called off."""
        if self._webhook.batch:
            message = Message.of_batch(self._epoch, group)
        else:
            message = Message.of_event(self._epoch, group[0])
        attempt = 0
        while not self._is_off:
            answer = self._target.post(message.body, message.signed(self._webhook.secret))
            if answer.is_delivered:
                self._note_success(group, answer)
                return
            if not self._is_off:
                self._note_failure(answer, attempt)
                self._rest(pause_secs(attempt, answer.retry_after_secs))
            attempt += 1

    def _note_success(self, group: list[Item], answer: Answer) -> None:
        self._position = group[-1].seq
        self._unwritten += len(group)
        self._last_status = answer.status
        if clock.monotonic() - self._acknowledged_at >= ACKNOWLEDGE_SECS:
            self._acknowledge()

    def _acknowledge(self, batch_end: int | None = None) -> None:
        """Write how far it is, where that is news."""
        if self._position == self._acknowledged and batch_end is None:
            return
        self.ledger.acknowledge(self._position, events=self._unwritten, status=self._last_status, batch_end=batch_end)
        self._acknowledged, self._acknowledged_at, self._unwritten = self._position, clock.monotonic(), 0

    def _note_failure(self, answer: Answer, attempt: int) -> None:
        self._acknowledge()
        since = datetime.fromisoformat(self.ledger.failed(answer.status, str(answer)))
        if attempt == 0:
            log.warning(LogMessage("webhook fails", name=self._webhook.name, error=answer))
        if answer.is_gone:
            self._pause("the target answered 410 Gone")
        elif clock.now() - since >= self._surroundings.give_up_after:
            self._pause(f"it has failed since {clock.isoformat(since)}; last: {answer}")

    def _pause(self, reason: str) -> None:
        self.ledger.pause(f"{reason}. `outfeed webhook resume {self._webhook.name}` goes on where it stopped")
        self._is_off = True

    def _idle(self) -> None:
        """Let the checkpoint follow, then wait for something that matches."""
        self._acknowledge()
        hub = self._surroundings.hub
        if hub.closing.is_set() or hub.epoch != self._epoch:
            self._rest(SETTLE_SECS)
            return
        self._woken.clear()
        if not self._is_off:
            hub.wait_for(self._filter, self._epoch, self._position, IDLE_SECS, self._woken)

    def _rest(self, secs: float) -> None:
        self._woken.clear()
        if not self._is_off:
            self._woken.wait(secs)


def pause_secs(attempt: int, retry_after_secs: float | None) -> float:
    """Return how long to wait after a failed attempt, the first being 0: exponential with full jitter.

    Never sooner than the target asked for, as long as that is within MAX_RETRY_AFTER_SECS.
    """
    ceiling = min(MAX_PAUSE_SECS, FIRST_PAUSE_SECS * 2.0 ** min(attempt, 30))
    jitter = random.uniform(0, ceiling)  # noqa: S311 - spreads load, keeps no secret
    return jitter if retry_after_secs is None else min(retry_after_secs, MAX_RETRY_AFTER_SECS) + min(jitter, 1.0)
