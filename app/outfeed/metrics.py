"""Every metric, declared once; and the counts of what any room refuses or catches.

`web/metrics.py` fills them. What a worker counts bears the label `worker`, what is the database's doesn't.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple

PREFIX = "outfeed_"
# Seconds. The feed delivers in about a millisecond; an hour is a database that was away.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 3600.0)


class Metric(NamedTuple):
    """One family. *kind* is counter, gauge or histogram, as Prometheus has them."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


WORKER = {
    "events": Metric("counter", "Events that the worker has read and pushed; types of your own are other.", ("type",)),
    "position": Metric(
        "gauge", "The seq up to which it has pushed; where nobody may be sent anything, a poll interval late."
    ),
    "poll_seconds": Metric("histogram", "How long each poll of the outbox took."),
    "poll_age_seconds": Metric("gauge", "Seconds since the last poll that completed; NaN before the first."),
    "delivery_seconds": Metric(
        "histogram",
        "From the write of an event, or the end of the pause that pace sets, to its hand-over to all live sockets.",
    ),
    "clients": Metric("gauge", "Connected clients.", ("transport", "state")),
    "frames": Metric("counter", "Frames with events, handed to sockets.", ("transport",)),
    "bytes": Metric("counter", "The bytes in them.", ("transport",)),
    "fallbacks": Metric("counter", "Live clients that could not take it, and went on from the outbox."),
    "refusals": Metric("counter", "Requests and connections that were turned away.", ("reason",)),
    "errors": Metric("counter", "Errors of ours that were caught; the log has their tracebacks.", ("where",)),
    "ready": Metric("gauge", "1 where /readyz says 200."),
}
DATABASE = {
    "outbox_head": Metric("gauge", "The newest seq."),
    "outbox_depth": Metric("gauge", "Seqs from the oldest that is kept to the newest."),
    "consumer_lag": Metric(
        "gauge", "Seqs that a consumer has not acknowledged; the 100 furthest behind.", ("consumer",)
    ),
    "webhook_lag": Metric("gauge", "Seqs that a webhook has not taken over.", ("webhook",)),
    "webhook_deliveries": Metric("counter", "Events that a webhook has taken over.", ("webhook",)),
    "webhook_failures": Metric("counter", "Posts in a row that failed, and all before them.", ("webhook",)),
    "database_bytes": Metric("gauge", "Size of the database file."),
    "wal_bytes": Metric("gauge", "Size of the write-ahead log."),
    "chore_success_timestamp_seconds": Metric("gauge", "When a prune or backup last went well.", ("chore",)),
    "chore_failure_timestamp_seconds": Metric("gauge", "When one last failed.", ("chore",)),
    "chore_seconds": Metric("gauge", "How long the last one that went well took.", ("chore",)),
}

_lock = threading.Lock()
_refusals: Counter[str] = Counter()
_errors: Counter[str] = Counter()


def note_refusal(reason: str) -> None:
    """Count one more that was turned away. *reason* is one of few: it becomes a label."""
    with _lock:
        _refusals[reason] += 1


def refusals() -> dict[str, int]:
    """Return how many this process has turned away, by reason."""
    with _lock:
        return dict(_refusals)


def note_error(where: str) -> None:
    """Count an error that nobody foresaw, caught at the edge of a loop or a connection; its traceback is in the log."""
    with _lock:
        _errors[where] += 1


def errors() -> dict[str, int]:
    """Return how many this process has caught, by where."""
    with _lock:
        return dict(_errors)
