"""The vital figures of one process over the last minutes, for /status."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import DatabaseError
from outfeed.feature import Samples

EVERY_SECS = 10.0
KEPT = 90  # samples: 15 minutes
WIDTH, HEIGHT, MARGIN = 100, 24, 1.5  # units of a drawing, which is stretched to the page's width


class Vitals(NamedTuple):
    """One sample.

    *p99_secs* is None without a delivery. *lag* is the largest one of consumers, webhooks and edges, None if unknown.
    """

    at: float  # on the monotonic clock
    position: int
    p99_secs: float | None
    clients: int
    lag: float | None


class VitalsHistory:
    """The newest KEPT samples. One job takes them; any thread reads them.

    `_lock` guards the samples.
    """

    def __init__(self, sample: Callable[[], Vitals]) -> None:
        self._sample = sample
        self._lock = threading.Lock()
        self._kept: deque[Vitals] = deque(maxlen=KEPT)
        self.started_at = clock.monotonic()

    def take(self) -> None:
        """Take a sample."""
        found = self._sample()
        with self._lock:
            self._kept.append(found)

    def series(self) -> dict[str, list[float | None]]:
        """Return the values of each figure, oldest first.

        `rate` is in events per second, and `p99` in seconds.
        """
        with self._lock:
            kept = list(self._kept)
        return {
            "rate": [_rate(one, next_) for one, next_ in itertools.pairwise(kept)],
            "p99": [each.p99_secs for each in kept],
            "clients": [float(each.clients) for each in kept],
            "lag": [each.lag for each in kept],
        }

    @property
    def uptime_secs(self) -> float:
        """The age of the process's services."""
        return clock.monotonic() - self.started_at


def _rate(one: Vitals, following: Vitals) -> float:
    """Return the events per second between two samples.

    A restore can set the position back.
    """
    return max(0, following.position - one.position) / max(following.at - one.at, 0.001)


def largest_lag(read: Callable[[], Mapping[str, Samples]]) -> float | None:
    """Return the largest value of the metrics whose name ends in `_lag`.

    The result is 0 without such a reader, and None if the database can't be read.
    """
    try:
        found = read()
    except DatabaseError:
        return None
    lags = [value for name, samples in found.items() if name.endswith("_lag") for _, value in samples]
    return max((value for value in lags if value is not None), default=0)


def points(values: list[float | None]) -> str:
    """Return the SVG points of a line through *values*.

    The last value is at the right end.
    Unknown values are left out. The line is empty with fewer than two values.
    """
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    top = max(value for _, value in known) or 1
    step, last = WIDTH / (KEPT - 1), len(values) - 1
    height = HEIGHT - 2 * MARGIN
    return " ".join(
        f"{WIDTH - (last - index) * step:.1f},{HEIGHT - MARGIN - value / top * height:.1f}" for index, value in known
    )


def memory_bytes() -> int:
    """Return the resident memory of the process.

    If the kernel does not report it, it is the highest value so far.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_bytes(database: Path) -> int | None:
    """Return the free space on the database's disk, or None if unknown."""
    try:
        return shutil.disk_usage(database.parent).free
    except OSError:
        return None
