"""The webhooks feature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from outfeed.feature import AdminFact, AdminGroup, AdminPage, Feature, Process, Samples
from outfeed.metrics import Metric
from outfeed.webhooks import store

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.principal import Principal
    from outfeed.store.database import Connection
    from outfeed.webhooks.dispatcher import Dispatcher


class WebhooksFeature(Feature):
    """Events that the server posts to URLs."""

    commands: ClassVar[Mapping[str, str]] = {"webhook": "webhooks.commands:webhook"}
    kept_tables = ("outfeed_webhook", "outfeed_webhook_log")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "webhook_lag": Metric("gauge", "Seqs that a webhook's target has not accepted.", ("webhook",)),
        "webhook_deliveries": Metric("counter", "Events that a webhook's target has accepted.", ("webhook",)),
        "webhook_failures": Metric("counter", "Failed posts of a webhook.", ("webhook",)),
    }
    admin_pages = (
        AdminPage(
            AdminGroup.DELIVERY,
            "Webhooks",
            "webhook_pages.show",
            "URLs that the server posts events to, and deliveries.",
        ),
    )
    status_template = "_webhooks_status.html"
    event_template = "_deliveries_of_event.html"

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.webhooks.pages import webhook_pages

        return (webhook_pages,)

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        found = store.list_webhooks(process.database)
        stuck = sum(bool(each.failing_since) or each.state == store.WebhookState.PAUSED for each in found)
        fact = AdminFact(f"{stuck:,} of {len(found):,} stuck", True) if stuck else AdminFact(f"{len(found):,}")
        return {"webhook_pages.show": fact}

    def part(self, process: Process) -> Dispatcher:
        from outfeed.webhooks.addresses import Allowlist
        from outfeed.webhooks.delivery import DeliveryContext
        from outfeed.webhooks.delivery_log.store import DeliveryLog
        from outfeed.webhooks.dispatcher import Dispatcher

        settings = process.settings
        context = DeliveryContext(
            process.database,
            process.outbox,
            process.core,
            process.metrics,
            Allowlist.parse(settings.webhook_allow),
            give_up_after=timedelta(hours=settings.webhook_give_up_hours),
            log=DeliveryLog(process.database),
            displays=process.displays,
        )
        return Dispatcher(context)

    def erase(self, connection: Connection, event_id: str) -> None:
        from outfeed.webhooks.delivery_log import store as delivery_log

        store.restart_deliveries(connection)
        delivery_log.erase(connection, event_id)

    def holds(self, connection: Connection, event_id: str) -> bool:
        from outfeed.webhooks.delivery_log import store as delivery_log

        return delivery_log.holds(connection, event_id)

    def status(self, process: Process) -> Mapping[str, Any]:
        from outfeed.webhooks.blocked import blocking_items, describe_events

        found = store.list_webhooks(process.database)
        blocked = {each.name: blocking_items(process.outbox, each) for each in found}
        return {
            "webhooks": found,
            "blocked": {name: describe_events(items) for name, items in blocked.items() if items},
        }

    def about_event(self, process: Process, event_id: str, principal: Principal) -> Mapping[str, Any]:
        from outfeed.webhooks.delivery_log import store as delivery_log

        if not principal.is_operator:
            return {}
        found = delivery_log.posts_with(process.database, event_id)
        return {"deliveries": found} if found or store.list_webhooks(process.database) else {}

    def samples(self, process: Process) -> Mapping[str, Samples]:
        found = store.list_webhooks(process.database)
        return {
            "webhook_lag": [([each.name], each.lag) for each in found],
            "webhook_deliveries": [([each.name], each.delivered) for each in found],
            "webhook_failures": [([each.name], each.failures) for each in found],
        }
