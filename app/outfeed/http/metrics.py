"""/metrics in Prometheus' format: counts of all workers and the database."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outfeed.errors import Forbidden, SourceError
from outfeed.feature import registered
from outfeed.http import identity
from outfeed.http.permission import requires
from outfeed.http.services import Serving, serving
from outfeed.metrics import DATABASE, PREFIX, WORKER
from outfeed.metrics import Metric as DeclaredMetric
from outfeed.principal import READ

metrics = Blueprint("metrics", __name__)
_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


@metrics.get("/metrics")
@requires(READ)
def show() -> Response:
    """Return every metric in the format of Prometheus.

    A token that is limited to types gets 403.
    """
    if identity.principal().types:
        raise Forbidden("/metrics counts all types; this token sees some")
    registry = CollectorRegistry()
    registry.register(MetricsCollector(serving()))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


class MetricsCollector(Collector):
    """The metrics of one scrape."""

    def __init__(self, found: Serving) -> None:
        self._serving = found

    def describe(self) -> list[Metric]:
        return []  # otherwise the registry collects twice

    def collect(self) -> Iterator[Metric]:
        yield from of_workers(self._serving)
        try:
            counts = self._serving.samples()
        except SourceError:
            counts = {}  # `outfeed_ready` reports the failure
        for name, declared in declared_metrics().items():
            family = _FAMILIES[declared.kind](PREFIX + name, declared.help, labels=declared.labels)
            for labels, value in counts.get(name, []):
                family.add_metric(labels, math.nan if value is None else value)
            yield family


def declared_metrics() -> dict[str, DeclaredMetric]:
    """Return the metrics computed from the database, by name.

    The core declares some of them, and each feature its own.
    """
    found = dict(DATABASE)
    for feature in registered():
        found |= feature.metrics
    return found


def of_workers(process: Serving) -> Iterable[Metric]:
    """Return each worker's metrics, with its number as a label.

    The gauges of the other workers are up to a second old.
    """
    process.measure()
    families = {PREFIX + name: Metric(PREFIX + name, each.help, each.kind) for name, each in WORKER.items()}
    for worker, found in process.metrics.by_worker():
        for family in found:
            families[family.name].samples += [
                sample._replace(labels={"worker": worker, **sample.labels})
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
    return families.values()
