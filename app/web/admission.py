"""Admission: how many connections may be open at once."""

from __future__ import annotations

import threading
from collections import Counter


class Admission:
    """The open connections of one worker, in all and of each address. `_lock` guards the counts.

    A place is taken before the handshake and given back when the request has ended, so that however many come at
    once, threads are left for HTTP.
    """

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def take(self, address: str) -> str | None:
        """Take a place for *address*, or return whose limit is reached: `server` or `address`."""
        with self._lock:
            if self._open.total() >= self._max_connections:
                return "server"
            if self._max_per_address and self._open[address] >= self._max_per_address:
                return "address"
            self._open[address] += 1
            return None

    def give_back(self, address: str) -> None:
        """Free a place that was taken."""
        with self._lock:
            self._open[address] -= 1
            if self._open[address] <= 0:
                del self._open[address]
