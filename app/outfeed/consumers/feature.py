"""The feature for durable consumers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from outfeed.feature import Feature, Process, Samples
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
    status_template = "_consumers_status.html"

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.consumers.api import consumers

        return (consumers,)

    def status(self, process: Process) -> Mapping[str, Any]:
        found = checkpoint.list_checkpoints(process.database)
        return {"consumers": [each for each in found if ":" not in each.name]}

    def samples(self, process: Process) -> Mapping[str, Samples]:
        found = sorted(checkpoint.list_checkpoints(process.database), key=lambda each: -each.lag)[:MAX_SAMPLES]
        return {"consumer_lag": [([each.name], each.lag) for each in found]}
