"""The dispatcher: one courier for each active webhook, in the one process among all workers that holds the lease."""

from __future__ import annotations

import logging
import threading

from outfeed import clock
from outfeed.errors import OutfeedError, Overtaken, Superseded
from outfeed.log_message import LogMessage
from outfeed.store import lease, webhook
from outfeed.webhooks.delivery import Delivery, Surroundings

TICK_SECS = 1.0
# A post that is cut ends at once; a look-up of a name can't be cut, and its thread ends with the process.
STOP_SECS = 2.0
log = logging.getLogger(__name__)


class Courier:
    """A webhook's thread. It asks for its webhook again whenever its delivery is called off."""

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        self._name = name
        self._surroundings = surroundings
        self._stopping = threading.Event()
        self._delivery: Delivery | None = None
        self._thread = threading.Thread(target=self._run, name=f"outfeed-webhook-{name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it delivers; it ends by itself when the webhook is paused or removed."""
        return self._thread.is_alive()

    @property
    def delivery(self) -> Delivery | None:
        """What it is doing, or did last; None before it knows."""
        return self._delivery

    def stop(self) -> None:
        """End it; `join` waits for that."""
        self._stopping.set()
        if delivery := self._delivery:
            delivery.call_off()

    def join(self, timeout: float) -> None:
        """Return when it has ended, or after *timeout* seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                ledger = webhook.claim(self._surroundings.database, self._name)
                if ledger is None:
                    return
                self._delivery = Delivery(ledger, self._surroundings)
                if not self._stopping.is_set():
                    self._delivery.run()
            except (Superseded, Overtaken) as change:
                log.info(LogMessage("webhook begins anew", name=self._name, reason=change))
            except OutfeedError as error:
                log.warning(LogMessage("webhook waits", name=self._name, error=error))
                self._stopping.wait(TICK_SECS)
            except Exception:
                # The edge of the loop: what goes wrong with one webhook must not end it for good.
                log.exception(LogMessage("webhook failed, trying again", name=self._name))
                self._surroundings.metrics.note_error("webhook")
                self._stopping.wait(TICK_SECS)


class Dispatcher:
    """A thread that holds the lease where it can, and keeps the couriers in step with the table, each second."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._stopping = threading.Event()
        self._couriers: dict[str, Courier] = {}
        self._thread = threading.Thread(target=self._run, name="outfeed-webhooks", daemon=True)

    def start(self) -> None:
        """Begin to deliver, as soon as there is a webhook and no other process does."""
        self._thread.start()

    def stop(self) -> None:
        """End all deliveries, and the posts that are at work; returns when they have ended."""
        self._stopping.set()
        self._thread.join(2 * STOP_SECS)

    @property
    def _is_over(self) -> bool:
        return self._stopping.is_set() or self._surroundings.hub.closing.is_set()

    def _run(self) -> None:
        file = lease.lock_file(self._surroundings.database.path, "webhooks")
        while not self._is_over:
            try:
                if webhook.versions(self._surroundings.database):
                    with lease.hold(file, wait=False) as is_held:
                        if is_held:
                            self._dispatch()
            except OutfeedError as error:
                log.warning(LogMessage("webhooks wait", error=error))
            except Exception:
                # The edge of the loop: it must be there when what went wrong is mended.
                log.exception("webhooks failed, trying again")
                self._surroundings.metrics.note_error("webhooks")
            self._stopping.wait(TICK_SECS)

    def _dispatch(self) -> None:
        """Keep the couriers until told to stop, or until something fails."""
        try:
            while not self._is_over:
                self._obey()
                self._stopping.wait(TICK_SECS)
        finally:
            self._dismiss()

    def _obey(self) -> None:
        """Start couriers that are missing; have those begin anew whose webhook was changed, paused or removed."""
        self._couriers = {name: courier for name, courier in self._couriers.items() if courier.is_alive}
        # Taken before the table is read: what it says is then no older than the claim it is compared with.
        deliveries = {name: courier.delivery for name, courier in self._couriers.items()}
        active = webhook.versions(self._surroundings.database)
        for name, delivery in deliveries.items():
            if delivery is not None and delivery.ledger.version != active.get(name):
                delivery.call_off()
        for name in active.keys() - self._couriers.keys():
            self._couriers[name] = Courier(name, self._surroundings)

    def _dismiss(self) -> None:
        """End the couriers before the lease is given up."""
        for courier in self._couriers.values():
            courier.stop()
        deadline = clock.monotonic() + STOP_SECS
        for courier in self._couriers.values():
            courier.join(max(0.0, deadline - clock.monotonic()))
        self._couriers = {}
