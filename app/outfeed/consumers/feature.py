"""The feature for durable consumers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from outfeed.feature import AdminFact, AdminGroup, AdminPage, Feature, Process, Samples
from outfeed.metrics import Metric
from outfeed.store import checkpoint

if TYPE_CHECKING:
    from flask import Blueprint

MAX_SAMPLES = 100


class ConsumersFeature(Feature):
    """Named readers with a position in the database."""

    commands: ClassVar[Mapping[str, str]] = {"consumer": "consumers.commands:consumer"}
    metrics: ClassVar[Mapping[str, Metric]] = {
        "consumer_lag": Metric(
            "gauge", "Seqs that a consumer has not acknowledged, for the 100 furthest behind.", ("consumer",)
        )
    }
    admin_pages = (
        AdminPage(
            AdminGroup.DELIVERY,
            "Consumers",
            "consumer_pages.show",
            "Programs with a position in the feed, and their lag.",
        ),
    )
    status_template = "_consumers_status.html"

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.consumers.api import consumers
        from outfeed.consumers.pages import consumer_pages

        return consumers, consumer_pages

    def status(self, process: Process) -> Mapping[str, Any]:
        return {"consumers": checkpoint.list_named(process.database)}

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        found = checkpoint.list_named(process.database)
        lag = max((each.lag for each in found), default=0)
        behind = f", up to {lag:,} behind" if lag else ""
        return {"consumer_pages.show": AdminFact(f"{len(found):,}{behind}")}

    def samples(self, process: Process) -> Mapping[str, Samples]:
        found = sorted(checkpoint.list_checkpoints(process.database), key=lambda each: -each.lag)[:MAX_SAMPLES]
        return {"consumer_lag": [([each.name], each.lag) for each in found]}
