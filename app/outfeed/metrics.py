"""Metrics: every metric, declared once, and the objects that count.

`http/metrics.py` shows them. The metrics of a worker have the label `worker`, those of the database have not.
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

from outfeed import clock
from outfeed.config.environment import set_for_library
from outfeed.log_message import LogMessage

LOG_EVERY_SECS = 60.0
log = logging.getLogger(__name__)
PREFIX = "outfeed_"
# Seconds. The feed delivers in about a millisecond. An hour is the time of a database that was unavailable.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 3600.0)


class Metric(NamedTuple):
    """One metric family. *kind* is counter, gauge or histogram."""

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
    "disk_free_bytes": Metric("gauge", "Free space of the filesystem that holds the database. NaN if unknown."),
}


_MADE_BY: dict[str, Any] = {
    "counter": Counter,
    # Live: the value of a worker that has ended is removed. Workers are shown one by one, so the sum is of one value.
    "gauge": partial(Gauge, multiprocess_mode="livesum"),
    "histogram": partial(Histogram, buckets=BOUNDS),
}


class Metrics:
    """The metrics in `WORKER` of one application, by their names.

    They are in a registry of their own, and any thread may count. With a *folder*, which `shared` sets up, all workers
    count in files there, and each worker can show what all workers have counted.
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

    def __init__(self, folder: Path | None = None, worker: int = 0) -> None:
        self.worker = worker
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()  # guards _refused
        # For each reason the time of its last log line, and the count since then.
        self._refused: dict[str, tuple[float, int]] = {}
        self._reports: list[Callable[[str, BaseException], None]] = []
        self._folder = folder
        for name, each in WORKER.items():
            setattr(self, name, _MADE_BY[each.kind](PREFIX + name, each.help, each.labels, registry=self.registry))
        for unmeasured in (self.position, self.poll_age_seconds):
            unmeasured.set(math.nan)  # other workers may show the value before this one has set it

    @classmethod
    def shared(cls, folder: Path, worker: int) -> Metrics:
        """Return the metrics of *worker*, counted in files in *folder*.

        From now on, each metric of this process is a value in such a file. Counters continue from the values that the
        last worker of that number left.
        """
        set_for_library("PROMETHEUS_MULTIPROC_DIR", str(folder))
        values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
        return cls(folder, worker)

    @property
    def is_shared(self) -> bool:
        """Whether other workers show these metrics too.

        If so, the gauges must be set without a request for them.
        """
        return self._folder is not None

    def note_refusal(self, reason: str, **details: object) -> None:
        """Count a refused request or connection, and log it.

        *details* are fields of the log line. The first refusal of each *reason* in a minute is logged. *reason* becomes
        a label, so it must be one of a few values.
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
        """Count an unexpected error, and report it.

        It was caught at the edge of a loop or a connection, named *where*. The log has its traceback.
        """
        self.errors.labels(where).inc()
        for report in self._reports:
            report(where, error)

    def report_errors_to(self, report: Callable[[str, BaseException], None]) -> None:
        """Call *report* with the place and the error of each noted error.

        The thread that caught the error calls it.
        """
        self._reports.append(report)

    def by_worker(self) -> Iterator[tuple[str, Iterable[Family]]]:
        """Yield each worker's number and the metrics that it has counted."""
        if self._folder is None:
            yield "0", self.registry.collect()
            return
        files = sorted(filter(_has_values, self._folder.glob("*.db")), key=_worker_of)
        for worker, own in groupby(files, key=_worker_of):
            yield worker, MultiProcessCollector.merge(list(map(str, own)))  # type: ignore[no-untyped-call]


def _worker_of(file: Path) -> str:
    """Return the number at the end of a name like `counter_0.db`."""
    return file.stem.rpartition("_")[2]


def _has_values(file: Path) -> bool:
    """Return whether *file* holds values.

    It is empty while its worker starts, and missing after its worker has ended.
    """
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False
