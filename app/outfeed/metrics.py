"""Every metric, declared once, and the objects that count what one application does.

`http/metrics.py` shows them. What a worker counts bears the label `worker`, what is the database's doesn't.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector

from outfeed import clock, config
from outfeed.log_message import LogMessage

LOG_EVERY_SECS = 60.0
log = logging.getLogger(__name__)
PREFIX = "outfeed_"
# Seconds. The feed delivers in about a millisecond; an hour is a database that was away.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 3600.0)


class Metric(NamedTuple):
    """One family. *kind* is counter, gauge or histogram, as Prometheus has them."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


WORKER = {
    "events": Metric(
        "counter",
        "Events that the worker has read and pushed. Types that Outfeed does not know count as other.",
        ("type",),
    ),
    "position": Metric(
        "gauge",
        "Last seq published by this worker. Updated once per poll interval while no client is due. NaN at first.",
    ),
    "poll_seconds": Metric("histogram", "Duration of each poll of the outbox."),
    "poll_age_seconds": Metric("gauge", "Seconds since the last completed poll. NaN before the first."),
    "delivery_seconds": Metric(
        "histogram",
        "Seconds from the write of an event, or from the end of its pace interval, to the write to all live sockets.",
    ),
    "clients": Metric("gauge", "Connected clients.", ("transport", "state")),
    "frames": Metric("counter", "Frames with events written to sockets.", ("transport",)),
    "bytes": Metric("counter", "Bytes of frames with events written to sockets.", ("transport",)),
    "fallbacks": Metric("counter", "Times a live client fell behind and switched to replay."),
    "refusals": Metric("counter", "Rejected requests and connections.", ("reason",)),
    "errors": Metric("counter", "Unexpected errors that were caught. The log has their tracebacks.", ("where",)),
    "ready": Metric("gauge", "1 if /readyz answers 200, else 0."),
}
DATABASE = {
    "outbox_head": Metric("gauge", "Newest seq."),
    "outbox_depth": Metric("gauge", "Number of seqs from the oldest stored one to the newest."),
    "database_bytes": Metric("gauge", "Size of the database file."),
    "wal_bytes": Metric("gauge", "Size of the write-ahead log."),
}


_MADE_BY: dict[str, Any] = {
    "counter": Counter,
    # Live: that of a worker which has died is removed. Workers are shown one by one, so the sum is of one value.
    "gauge": partial(Gauge, multiprocess_mode="livesum"),
    "histogram": partial(Histogram, buckets=BOUNDS),
}


class Metrics:
    """The metrics in `WORKER` of one application, by their names, in a registry of their own; any thread may count.

    With a *folder*, which `shared` sets up, all workers count in files there, and each can show what all have counted.
    """

    events: Counter
    position: Gauge
    poll_seconds: Histogram
    poll_age_seconds: Gauge
    delivery_seconds: Histogram
    clients: Gauge
    frames: Counter
    bytes: Counter
    fallbacks: Counter
    refusals: Counter
    errors: Counter
    ready: Gauge

    def __init__(self, folder: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()  # guards _refused: by reason when it was last logged, and how often it came since
        self._refused: dict[str, tuple[float, int]] = {}
        self._reports: list[Callable[[str, BaseException], None]] = []
        self._folder = folder
        for name, each in WORKER.items():
            setattr(self, name, _MADE_BY[each.kind](PREFIX + name, each.help, each.labels, registry=self.registry))
        for unmeasured in (self.position, self.poll_age_seconds):
            unmeasured.set(math.nan)  # other workers may show it before this one has begun

    @classmethod
    def shared(cls, folder: Path, worker: int) -> Metrics:
        """Return the metrics of *worker*. From now on, each metric of this process is a value in a file in *folder*.

        Counters continue from the values that the last worker of that number left.
        """
        config.set_for_library("PROMETHEUS_MULTIPROC_DIR", str(folder))
        values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
        return cls(folder)

    @property
    def is_shared(self) -> bool:
        """Whether other workers show these too. The gauges must then be set without a request for them."""
        return self._folder is not None

    def note_refusal(self, reason: str, **details: object) -> None:
        """Count a refused request or connection, and log it with *details*: the first of *reason* in each minute.

        *reason* is one of few: it becomes a label.
        """
        self.refusals.labels(reason).inc()
        with self._lock:
            logged_at, count = self._refused.get(reason, (-math.inf, 0))
            is_due = clock.monotonic() - logged_at >= LOG_EVERY_SECS
            self._refused[reason] = (clock.monotonic(), 0) if is_due else (logged_at, count + 1)
        if is_due:
            more = {"unlogged": count} if count else {}
            log.warning(LogMessage("refused", reason=reason, **details, **more))

    def note_error(self, where: str, error: BaseException) -> None:
        """Count an unforeseen error, caught at the edge of a loop or a connection; the log has its traceback."""
        self.errors.labels(where).inc()
        for report in self._reports:
            report(where, error)

    def report_errors_to(self, report: Callable[[str, BaseException], None]) -> None:
        """Call *report* with the place and the error, on the thread that caught it, for each that is noted."""
        self._reports.append(report)

    def by_worker(self) -> Iterator[tuple[str, Iterable[Family]]]:
        """Yield each worker's number and what it has counted."""
        if self._folder is None:
            yield "0", self.registry.collect()
            return
        files = sorted(filter(_is_begun, self._folder.glob("*.db")), key=_worker_of)
        for worker, own in groupby(files, key=_worker_of):
            yield worker, MultiProcessCollector.merge(list(map(str, own)))  # type: ignore[no-untyped-call]


def _worker_of(file: Path) -> str:
    """Return the number at the end of a name like `counter_0.db`."""
    return file.stem.rpartition("_")[2]


def _is_begun(file: Path) -> bool:
    """Return whether *file* holds values: it is empty while its worker starts, and missing once its worker has died."""
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False
