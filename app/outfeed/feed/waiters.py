"""Waiters: long polls and webhooks that wait for a matching event."""

from __future__ import annotations

import threading

from outfeed import clock
from outfeed.errors import Overtaken
from outfeed.feed.cohorts import Cohorts
from outfeed.feed.subscription import Filter
from outfeed.history import Item


class Waiters:
    """The calls that wait, with their filters. `_lock` guards them.

    A waiter is registered before it reads the tail, and the tail is extended before waiters are woken. No event can
    therefore fall between a waiter's read and its wait. *wanted* is set when a waiter begins to wait.
    """

    def __init__(self, cohorts: Cohorts, wanted: threading.Event) -> None:
        self._cohorts = cohorts
        self._wanted = wanted
        self._lock = threading.Lock()
        self._waiting: dict[Filter, dict[threading.Event, bool]] = {}  # the values say whether the waiter is a client
        self._since = 0.0
        self._is_closed = False

    @property
    def count(self) -> int:
        """Number of waiters, clients and others."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    @property
    def polls(self) -> int:
        """Number of waiting clients."""
        with self._lock:
            return sum(sum(waiting.values()) for waiting in self._waiting.values())

    @property
    def since(self) -> float | None:
        """Time since which there has always been a waiter.

        The time is on the monotonic clock. It is None if there is no waiter.
        """
        return self._since if self._waiting else None

    def wait(
        self, filter_: Filter, epoch: str, cursor: int, timeout: float, event: threading.Event | None = None
    ) -> None:
        """Wait until a matching event follows *cursor*.

        Returns also when *epoch* has ended and after *timeout* seconds. A caller that passes an *event* can end the
        wait by setting it, and does not count as a client.
        """
        woken = event or threading.Event()
        with self._lock:
            if not self._waiting:
                self._since = clock.monotonic()
            self._waiting.setdefault(filter_, {})[woken] = event is None
        if not self._has_match(filter_, epoch, cursor):
            self._wanted.set()
            woken.wait(timeout)
        with self._lock:
            waiting = self._waiting.get(filter_, {})
            waiting.pop(woken, None)
            if not waiting:
                self._waiting.pop(filter_, None)

    def _has_match(self, filter_: Filter, epoch: str, cursor: int) -> bool:
        try:
            rest = self._cohorts.tail_after(cursor, epoch)
        except Overtaken:
            return True
        return self._is_closed or rest is None or any(map(filter_.matches, rest))

    def wake(self, items: list[Item]) -> None:
        """Wake the waiters whose filter matches one of *items*."""
        with self._lock:
            for filter_ in [each for each in self._waiting if any(map(each.matches, items))]:
                for woken in self._waiting.pop(filter_):
                    woken.set()

    def wake_all(self) -> None:
        """Wake all waiters."""
        with self._lock:
            for waiting in self._waiting.values():
                for woken in waiting:
                    woken.set()
            self._waiting = {}

    def close(self) -> None:
        """Wake all waiters; later calls of `wait` return at once."""
        self._is_closed = True
        self.wake_all()
