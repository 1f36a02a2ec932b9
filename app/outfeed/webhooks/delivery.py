"""Delivery: posts a webhook's events after its checkpoint, and moves it."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from outfeed import clock
from outfeed.feed.core import Core
from outfeed.feed.encoding import grouped
from outfeed.feed.source import Source
from outfeed.history import Item
from outfeed.log_message import LogMessage
from outfeed.metrics import Metrics
from outfeed.store.database import Database
from outfeed.store.displays import DisplayCache
from outfeed.webhooks.addresses import Allowlist
from outfeed.webhooks.blocked import PAGE_EVENTS, describe_events, filter_of
from outfeed.webhooks.delivery_log.store import DeliveryLog
from outfeed.webhooks.message import Message
from outfeed.webhooks.store import OnRejection, WebhookLease
from outfeed.webhooks.target import Answer, Target

# How often the checkpoint moves to the head while no event matches.
IDLE_SECS = 15.0
ACKNOWLEDGE_SECS = 0.2
# The pause until the hub has read the database's new epoch.
NEW_EPOCH_WAIT_SECS = 0.1
# The number of rejections in a row after which a webhook with the policy `skip` skips a post.
MAX_REJECTIONS = 5
FIRST_PAUSE_SECS = 0.5
MAX_PAUSE_SECS = 300.0
MAX_RETRY_AFTER_SECS = 3600.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """The parts of the server process that deliveries use."""

    database: Database
    source: Source
    core: Core
    metrics: Metrics
    allowlist: Allowlist
    give_up_after: timedelta
    log: DeliveryLog
    displays: DisplayCache


class Delivery:
    """The posts of one lease.

    `run` belongs to one thread. Any thread may call `cancel`, which ends all waits. An event is posted when the target
    has answered 2xx to the one before: in order, at least once. The checkpoint is written when there is nothing to
    post, and every ACKNOWLEDGE_SECS otherwise, so that webhooks don't double the number of writes. After a crash, the
    events since the checkpoint are posted again under the same ids.
    """

    def __init__(self, lease: WebhookLease, context: DeliveryContext) -> None:
        self.lease = lease
        self._webhook = lease.webhook
        self._context = context
        self._filter = filter_of(lease.webhook)
        self._target = Target(lease.webhook.url, context.allowlist)
        self._woken = threading.Event()
        self._is_cancelled = False
        self._epoch = lease.window.epoch
        self._position = self._acknowledged = lease.claim.seq
        self._acknowledged_at = clock.monotonic()
        self._unrecorded = 0
        self._last_status: int | None = None
        self._batch_end = lease.webhook.batch_end

    def run(self) -> None:
        """Deliver until cancelled or paused.

        Raises Superseded, Overtaken, DatabaseError.
        """
        try:
            self._start_at_checkpoint()
            while not self._is_cancelled:
                if not self._advance():
                    self._idle()
            self._acknowledge()
        finally:
            self._target.close()

    def cancel(self) -> None:
        """End `run` and the post in progress."""
        self._is_cancelled = True
        self._woken.set()
        self._target.cancel()

    def _start_at_checkpoint(self) -> None:
        """Start at the checkpoint.

        If the checkpoint's seq is pruned or of another history, start at the next seq and write a warning.
        """
        verdict = self._context.core.reader.verdict(self.lease.claim)
        self._epoch = verdict.epoch
        if verdict.missing is not None:
            first, last = verdict.missing
            self._skip_to(verdict.after, f"missed {first} to {last}: they were pruned before they were delivered")
        elif verdict.kind == "reset":
            self._batch_end = 0  # this seq of the other history may be above the current head
            self._skip_to(verdict.after, f"continues after {verdict.after}: the database has another history now")

    def _skip_to(self, seq: int, what: str) -> None:
        self.lease.skip_to(self._epoch, seq, what, batch_end=self._batch_end)
        self._position = self._acknowledged = seq

    def _advance(self) -> bool:
        """Deliver the events of one page. Return False if there was no next page."""
        page = self._context.source.read_after(self._position, PAGE_EVENTS)
        page.window.prove(self._epoch, self._position)
        self._context.core.reader.catch_up_to(self._epoch, page.through)
        items = self._filter.matching(page.items)
        while items and not self._is_cancelled:
            group = self._next_group(items)
            self._deliver(group)
            items = items[len(group) :]
        if self._is_cancelled or page.through <= self._position:
            return False
        self._position = page.through
        return True

    def _next_group(self, items: list[Item]) -> list[Item]:
        """Return the events of the next post: one event or a batch.

        A batch stays the same until it is delivered.
        """
        if not self._webhook.batch:
            return items[:1]
        fixed = [item for item in items[: self._webhook.batch] if item.seq <= self._batch_end]
        if fixed:
            return fixed
        group = list(next(grouped(items[: self._webhook.batch])))
        self._batch_end = group[-1].seq
        # The checkpoint moves too, so that a restart reads from the same place.
        self._acknowledge(batch_end=self._batch_end)
        return group

    def _deliver(self, group: list[Item]) -> None:
        """Post the events until the target accepts them.

        Returns early if the delivery is cancelled or if the events are skipped.
        """
        displays = self._context.displays.current().by_type
        if self._webhook.batch:
            message = Message.of_batch(self._epoch, group, displays)
        else:
            message = Message.of_event(self._epoch, group[0], displays)
        attempt = rejections = 0
        while not self._is_cancelled:
            answer = self._post(message, group)
            if answer.is_delivered:
                self._record_success(group, answer)
                return
            rejections = rejections + 1 if answer.is_rejected else 0
            if not self._is_cancelled:
                self._record_failure(group, answer, attempt)
                if rejections >= MAX_REJECTIONS and self._webhook.on_rejection is OnRejection.SKIP:
                    self._skip(group, answer)
                    return
                self._wait(pause_secs(attempt, answer.retry_after_secs))
            attempt += 1

    def _post(self, message: Message, group: list[Item]) -> Answer:
        began = clock.monotonic()
        answer = self._target.post(message.body, message.signed(*self._webhook.secrets))
        if answer.status is not None or not self._is_cancelled:
            self._context.log.add(self._webhook.name, self._epoch, group, message, answer, clock.monotonic() - began)
        return answer

    def _record_success(self, group: list[Item], answer: Answer) -> None:
        self._position = group[-1].seq
        self._unrecorded += len(group)
        self._last_status = answer.status
        if clock.monotonic() - self._acknowledged_at >= ACKNOWLEDGE_SECS:
            self._acknowledge()

    def _acknowledge(self, batch_end: int | None = None) -> None:
        """Write the position to the checkpoint, if it has changed."""
        if self._position == self._acknowledged and batch_end is None:
            return
        self.lease.acknowledge(self._position, events=self._unrecorded, status=self._last_status, batch_end=batch_end)
        self._acknowledged, self._acknowledged_at, self._unrecorded = self._position, clock.monotonic(), 0

    def _record_failure(self, group: list[Item], answer: Answer, attempt: int) -> None:
        self._acknowledge()
        since = datetime.fromisoformat(self.lease.failed(answer.status, str(answer)))
        if attempt == 0:
            log.warning(
                LogMessage(
                    "webhook fails; `outfeed webhook skip` skips the event",
                    name=self._webhook.name, seq=group[0].seq, event=group[0].id, type=group[0].event_type,
                    error=answer,
                )
            )  # fmt: skip
        if answer.is_gone:
            self._pause("the target answered 410 Gone", group)
        elif clock.now() - since >= self._context.give_up_after:
            self._pause(f"it has failed since {clock.isoformat(since)}; last: {answer}", group)

    def _skip(self, group: list[Item], answer: Answer) -> None:
        if self._is_cancelled:  # the webhook has been paused since
            return
        what = f"{describe_events(group)}: {answer}, {MAX_REJECTIONS} times"
        self._is_cancelled = self.lease.skip_rejected(self._epoch, group[-1].seq, what)
        self._position = self._acknowledged = group[-1].seq

    def _pause(self, reason: str, group: list[Item]) -> None:
        name, seq = self._webhook.name, group[0].seq
        self.lease.pause(
            f"{reason}. `outfeed webhook resume {name}` continues at seq {seq}; "
            f"`outfeed webhook skip {name}` skips that event"
        )
        self._is_cancelled = True

    def _idle(self) -> None:
        """Write the checkpoint, then wait for an event that matches."""
        self._acknowledge()
        hub = self._context.core.hub
        if hub.closing.is_set() or hub.epoch != self._epoch:
            self._wait(NEW_EPOCH_WAIT_SECS)
            return
        self._woken.clear()
        if not self._is_cancelled:
            self._context.core.reader.wait(self._filter, self._epoch, self._position, IDLE_SECS, self._woken)

    def _wait(self, secs: float) -> None:
        self._woken.clear()
        if not self._is_cancelled:
            self._woken.wait(secs)


def pause_secs(attempt: int, retry_after_secs: float | None) -> float:
    """Return the pause after a failed attempt, counted from 0.

    It grows exponentially, with full jitter. It is at least as long as the target asked for, up to
    MAX_RETRY_AFTER_SECS.
    """
    ceiling = min(MAX_PAUSE_SECS, FIRST_PAUSE_SECS * 2.0 ** min(attempt, 30))
    jitter = random.uniform(0, ceiling)  # noqa: S311 - spreads the load; needs no secure randomness
    return jitter if retry_after_secs is None else min(retry_after_secs, MAX_RETRY_AFTER_SECS) + min(jitter, 1.0)
