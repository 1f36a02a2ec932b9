"""The dispatcher: a thread for each active webhook, in one server process.

That process holds the lease.
"""

from __future__ import annotations

import logging
import threading

from outfeed import clock
from outfeed.errors import OutfeedError, Overtaken, Superseded
from outfeed.feature import Part
from outfeed.jobs import Job
from outfeed.log_message import LogMessage
from outfeed.store import lease
from outfeed.webhooks import store as webhook
from outfeed.webhooks.delivery import Delivery, DeliveryContext

TICK_SECS = 1.0
LOG_SECS = 1.0
# A cancelled post ends at once. A name look-up can't be cancelled: its thread ends with the process.
STOP_SECS = 2.0
log = logging.getLogger(__name__)


class WebhookWorker:
    """The thread of a webhook.

    It claims its webhook again when a delivery ends, until `stop`.
    """

    def __init__(self, name: str, context: DeliveryContext) -> None:
        self._name = name
        self._context = context
        self._stopping = threading.Event()
        self._delivery: Delivery | None = None
        self._thread = threading.Thread(target=self._run, name=f"outfeed-webhook-{name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs.

        It ends by itself if the webhook is paused or removed.
        """
        return self._thread.is_alive()

    @property
    def delivery(self) -> Delivery | None:
        """Return the current or last delivery; None before the first."""
        return self._delivery

    def stop(self) -> None:
        """Cancel the delivery and stop the thread. `join` waits for its end."""
        self._stopping.set()
        if delivery := self._delivery:
            delivery.cancel()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, at most *timeout* seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                held = webhook.claim(self._context.database, self._name)
                if held is None:
                    return
                self._delivery = Delivery(held, self._context)
                if self._stopping.is_set():
                    self._delivery.cancel()
                self._delivery.run()
            except (Superseded, Overtaken) as change:
                log.info(LogMessage("webhook restarts", name=self._name, reason=change))
            except OutfeedError as error:
                log.warning(LogMessage("webhook failed, trying again", name=self._name, error=error))
                self._stopping.wait(TICK_SECS)
            except Exception as error:
                # The edge of the loop: the worker retries after any error.
                log.exception(LogMessage("webhook failed, trying again", name=self._name))
                self._context.metrics.note_error("webhook", error)
                self._stopping.wait(TICK_SECS)


class Dispatcher(Part):
    """A thread that waits for the lease, then starts and stops workers.

    It compares the workers with the table once a second.
    """

    def __init__(self, context: DeliveryContext) -> None:
        self._context = context
        self.jobs = {"webhook-log": Job(context.log.write, LOG_SECS)}
        self._stopping = threading.Event()
        self._workers: dict[str, WebhookWorker] = {}
        self._thread = threading.Thread(target=self._run, name="outfeed-webhooks", daemon=True)

    def start(self) -> None:
        """Start the thread.

        It delivers once there is a webhook and no other process holds the lease.
        """
        self._thread.start()

    def stop(self) -> None:
        """Cancel all deliveries and their posts, and wait until they have ended."""
        self._stopping.set()
        self._thread.join(2 * STOP_SECS)

    def close(self) -> None:
        """Write the pending rows of the delivery log."""
        self._context.log.write()

    @property
    def _is_stopping(self) -> bool:
        return self._stopping.is_set() or self._context.core.hub.closing.is_set()

    def _run(self) -> None:
        file = lease.lock_file(self._context.database.path, "webhooks")
        while not self._is_stopping:
            try:
                if webhook.versions(self._context.database):
                    with lease.hold(file, wait=False) as is_held:
                        if is_held:
                            self._dispatch()
            except OutfeedError as error:
                log.warning(LogMessage("webhooks failed, trying again", error=error))
            except Exception as error:
                # The edge of the loop: the dispatcher retries after any error.
                log.exception("webhooks failed, trying again")
                self._context.metrics.note_error("webhooks", error)
            self._stopping.wait(TICK_SECS)

    def _dispatch(self) -> None:
        """Run the workers until `stop` or an error."""
        try:
            while not self._is_stopping:
                self._update_workers()
                self._stopping.wait(TICK_SECS)
        finally:
            self._stop_workers()

    def _update_workers(self) -> None:
        """Start missing workers, and cancel the deliveries of changed webhooks.

        Those are webhooks that were edited, paused or removed.
        """
        self._workers = {name: worker for name, worker in self._workers.items() if worker.is_alive}
        # Read before the table, so that a lease is never compared with an older table.
        deliveries = {name: worker.delivery for name, worker in self._workers.items()}
        active = webhook.versions(self._context.database)
        for name, delivery in deliveries.items():
            if delivery is not None and delivery.lease.version != active.get(name):
                delivery.cancel()
        for name in active.keys() - self._workers.keys():
            self._workers[name] = WebhookWorker(name, self._context)

    def _stop_workers(self) -> None:
        """Stop all workers. Call it before the lease is released."""
        for worker in self._workers.values():
            worker.stop()
        deadline = clock.monotonic() + STOP_SECS
        for worker in self._workers.values():
            worker.join(max(0.0, deadline - clock.monotonic()))
        self._workers = {}
