"""/metrics, for Prometheus: what all workers count, and what the database says of itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from outfeed.errors import DatabaseError, Forbidden
from outfeed.metrics import BOUNDS, DATABASE, PREFIX, WORKER
from outfeed.store import checkpoint, chores, outbox, webhook
from outfeed.web import auth
from outfeed.web.services import Services, services
from outfeed.web.slots import Counts

if TYPE_CHECKING:
    from outfeed.metrics import Metric as Declared

MAX_CONSUMERS = 100
metrics = Blueprint("metrics", __name__)
_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


@metrics.get("/metrics")
def show() -> Response:
    """Return every metric, as Prometheus reads them; not to a token that sees some types only."""
    if auth.principal().types:
        raise Forbidden("/metrics counts all types; this token sees some")
    registry = CollectorRegistry()
    registry.register(Everything(services()))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


class Everything(Collector):
    """What is shown to one request."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> list[Metric]:
        return []  # or the registry would collect once more

    def collect(self) -> Iterator[Metric]:
        place = self._services.place
        workers = {place.slot: self._services.counts(), **dict(place.others())}
        for name, declared in WORKER.items():
            family = _family(name, declared, ("worker", *declared.labels))
            for slot, counts in sorted(workers.items()):
                for labels, value in counts.get(name, []):
                    _add(family, declared, [str(slot), *labels], value)
            yield family
        try:
            counts = of_database(self._services)
        except DatabaseError:
            counts = {}  # `outfeed_ready` says so
        for name, declared in DATABASE.items():
            family = _family(name, declared, declared.labels)
            for labels, value in counts.get(name, []):
                _add(family, declared, labels, value)
            yield family


def _family(name: str, declared: Declared, labels: tuple[str, ...]) -> Any:
    return _FAMILIES[declared.kind](PREFIX + name, declared.help, labels=labels)


def _add(family: Any, declared: Declared, labels: list[str], value: Any) -> None:
    if declared.kind != "histogram":
        family.add_metric(labels, math.nan if value is None else value)
        return
    counts, total = value
    below, buckets = 0, []
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
        below += count
        buckets.append((bound, below))
    family.add_metric(labels, buckets, total)


def of_database(services: Services) -> Counts:
    """Return what the database says of itself; nothing here counts rows. Raises DatabaseError."""
    database = services.database
    window = services.outbox.window()
    consumers = sorted(checkpoint.list_checkpoints(database), key=lambda each: -each.lag)[:MAX_CONSUMERS]
    webhooks = webhook.list_webhooks(database)
    done = chores.known(database)
    return {
        "outbox_head": [([], window.last_seq)],
        "outbox_depth": [([], window.last_seq - window.first_seq + 1)],
        "consumer_lag": [([each.name], each.lag) for each in consumers],
        "webhook_lag": [([each.name], each.lag) for each in webhooks],
        "webhook_deliveries": [([each.name], each.delivered) for each in webhooks],
        "webhook_failures": [([each.name], each.failures) for each in webhooks],
        "database_bytes": [([], outbox.file_bytes(database.path))],
        "wal_bytes": [([], outbox.file_bytes(database.path, "-wal"))],
        "chore_success_timestamp_seconds": [([name], each.succeeded_at) for name, each in done.items()],
        "chore_failure_timestamp_seconds": [([name], each.failed_at) for name, each in done.items()],
        "chore_seconds": [([name], each.seconds) for name, each in done.items()],
    }
