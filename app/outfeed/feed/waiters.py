"""Waiters: the long polls and webhooks that wait for an event that matches."""

from __future__ import annotations

import threading

from outfeed import clock
from outfeed.errors import Overtaken
from outfeed.feed.cohorts import Cohorts
from outfeed.feed.subscription import Filter
from outfeed.history import Item


class Waiters:
    """`_lock` guards who waits, and for what.

    A waiter is entered before it looks at the tail, and the tail is extended before waiters are woken: no event comes
    between a look and a wait. *wanted* is set when one begins to wait.
    """

    def __init__(self, cohorts: Cohorts, wanted: threading.Event) -> None:
        self._cohorts = cohorts
        self._wanted = wanted
        self._lock = threading.Lock()
        self._waiting: dict[Filter, dict[threading.Event, bool]] = {}  # the values say which are clients
        self._since = 0.0
        self._is_closed = False

    @property
    def count(self) -> int:
        """How many wait, clients and others."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    @property
    def polls(self) -> int:
        """How many clients wait."""
        with self._lock:
            return sum(sum(waiting.values()) for waiting in self._waiting.values())

    @property
    def since(self) -> float | None:
        """Since when there has always been one that waits, on the monotonic clock; None if none does."""
        return self._since if self._waiting else None

    def wait(
        self, filter_: Filter, epoch: str, cursor: int, timeout: float, event: threading.Event | None = None
    ) -> None:
        """Return when something that matches stands after *cursor*, when the epoch is over, or after *timeout* secs.

        A caller that passes an *event* can end the wait by setting it, and does not count as a client.
        """
        woken = event or threading.Event()
        with self._lock:
            if not self._waiting:
                self._since = clock.monotonic()
            self._waiting.setdefault(filter_, {})[woken] = event is None
        if not self._is_there(filter_, epoch, cursor):
            self._wanted.set()
            woken.wait(timeout)
        with self._lock:
            waiting = self._waiting.get(filter_, {})
            waiting.pop(woken, None)
            if not waiting:
                self._waiting.pop(filter_, None)

    def _is_there(self, filter_: Filter, epoch: str, cursor: int) -> bool:
        try:
            rest = self._cohorts.tail_after(cursor, epoch)
        except Overtaken:
            return True
        return self._is_closed or rest is None or any(map(filter_.matches, rest))

    def wake(self, items: list[Item]) -> None:
        """Wake those for whom one of *items* matches."""
        with self._lock:
            for filter_ in [each for each in self._waiting if any(map(each.matches, items))]:
                for woken in self._waiting.pop(filter_):
                    woken.set()

    def wake_all(self) -> None:
        """Wake all who wait."""
        with self._lock:
            for waiting in self._waiting.values():
                for woken in waiting:
                    woken.set()
            self._waiting = {}

    def close(self) -> None:
        """Wake all, and let none wait from now on."""
        self._is_closed = True
        self.wake_all()
