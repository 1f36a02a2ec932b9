"""Admission: limits of open connections, and of calls a minute."""

from __future__ import annotations

import threading
from collections import Counter

from outfeed import clock

MINUTE_SECS = 60.0


class Admission:
    """The open connections of one worker: the total, and per address.

    `_lock` guards the counts. A request takes a place before the handshake and returns it when it has ended. The limit
    keeps threads free for HTTP when many clients connect at once.
    """

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def take(self, address: str) -> str | None:
        """Take a place for *address*, or return the limit that is reached.

        The limit is `server` or `address`.
        """
        with self._lock:
            if self._open.total() >= self._max_connections:
                return "server"
            if self._max_per_address and self._open[address] >= self._max_per_address:
                return "address"
            self._open[address] += 1
            return None

    def give_back(self, address: str) -> None:
        """Free a place that `take` gave."""
        with self._lock:
            self._open[address] -= 1
            if self._open[address] <= 0:
                del self._open[address]


class Rates:
    """Counts per client and action, each for one minute.

    `_lock` guards the counts. The minute begins with the first call, on the monotonic clock. The `limits` package is
    not used: it starts a thread for each count, and two calls at once can fail the request (version 5.8,
    `MemoryStorage`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}
        self._tidy_at = 0.0

    def take(self, what: str, whose: str, per_minute: int) -> float:
        """Count one call, or return the seconds until one is allowed.

        The call is *what* by the client *whose*. Returns 0 if it was counted.
        """
        now = clock.monotonic()
        with self._lock:
            self._tidy(now)
            began, count = self._counts.get((what, whose), (now, 0))
            if now - began >= MINUTE_SECS:
                began, count = now, 0
            if count >= per_minute:
                return began + MINUTE_SECS - now
            self._counts[what, whose] = (began, count + 1)
            return 0.0

    def _tidy(self, now: float) -> None:
        if now >= self._tidy_at:
            self._tidy_at = now + MINUTE_SECS
            self._counts = {key: value for key, value in self._counts.items() if now - value[0] < MINUTE_SECS}
