"""Admission: limits of open connections, and of calls a minute."""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple

from outfeed import clock

MINUTE_SECS = 60.0


class Admission:
    """The open connections of one worker: the total, and per address.

    `_lock` guards the counts. A request acquires a slot before the handshake and releases it when it has ended. The
    limit keeps threads free for HTTP when many clients connect at once.
    """

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def acquire(self, address: str) -> str | None:
        """Acquire a slot for *address*, or return the limit that is reached.

        The limit is `server` or `address`.
        """
        with self._lock:
            if self._open.total() >= self._max_connections:
                return "server"
            if self._max_per_address and self._open[address] >= self._max_per_address:
                return "address"
            self._open[address] += 1
            return None

    def release(self, address: str) -> None:
        """Release a slot that `acquire` gave."""
        with self._lock:
            self._open[address] -= 1
            if self._open[address] <= 0:
                del self._open[address]


class AdmissionSlot(NamedTuple):
    """A slot that a request has acquired."""

    admission: Admission
    address: str

    def release(self) -> None:
        """Release the slot. Call this once."""
        self.admission.release(self.address)


class RateLimiter:
    """Counts per client and action, each for one minute.

    `_lock` guards the counts. The minute begins with the first call, on the monotonic clock. The `limits` package is
    not used: it starts a thread for each count, and two calls at once can fail the request (version 5.8,
    `MemoryStorage`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}
        self._purge_at = 0.0

    def count_call(self, action: str, client: str, per_minute: int) -> float:
        """Count one call of *action* by *client*, or return the wait in seconds.

        Returns 0 if the call was counted.
        """
        now = clock.monotonic()
        with self._lock:
            self._purge(now)
            began, count = self._counts.get((action, client), (now, 0))
            if now - began >= MINUTE_SECS:
                began, count = now, 0
            if count >= per_minute:
                return began + MINUTE_SECS - now
            self._counts[action, client] = (began, count + 1)
            return 0.0

    def _purge(self, now: float) -> None:
        if now >= self._purge_at:
            self._purge_at = now + MINUTE_SECS
            self._counts = {key: value for key, value in self._counts.items() if now - value[0] < MINUTE_SECS}
