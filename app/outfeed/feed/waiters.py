"""Waiters: long polls and webhooks that wait for a matching event."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from outfeed import clock
from outfeed.errors import Overtaken
from outfeed.feed.cohorts import Cohorts
from outfeed.feed.subscription import Filter
from outfeed.history import Item


class Waiter(Protocol):
    """Interface of an object that waits, such as `threading.Event`."""

    def set(self) -> None:
        """End the wait. Any thread may call this; the call takes no lock for long."""
        ...


class Waiters:
    """The waiters, with their filters. `_lock` guards them.

    A waiter is registered before it reads the tail, and the tail is extended before waiters are woken. No event can
    therefore fall between a waiter's read and its wait. *wanted* is set when a waiter begins to wait.
    """

    def __init__(self, cohorts: Cohorts, wanted: threading.Event) -> None:
        self._cohorts = cohorts
        self._wanted = wanted
        self._lock = threading.Lock()
        self._waiting: dict[Filter, dict[Waiter, bool]] = {}  # the values say whether the waiter is a client
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
        if self.add(filter_, epoch, cursor, woken, is_client=event is None):
            woken.wait(timeout)
            self.remove(filter_, woken)

    def add(self, filter_: Filter, epoch: str, cursor: int, waiter: Waiter, *, is_client: bool = True) -> bool:
        """Register *waiter* until a matching event follows *cursor*.

        Returns False, and registers nothing, if one already does or if *epoch* has ended.
        """
        with self._lock:
            if not self._waiting:
                self._since = clock.monotonic()
            self._waiting.setdefault(filter_, {})[waiter] = is_client
        if self._has_match(filter_, epoch, cursor):
            self.remove(filter_, waiter)
            return False
        self._wanted.set()
        return True

    def remove(self, filter_: Filter, waiter: Waiter) -> None:
        """Unregister *waiter*, if it was not woken."""
        with self._lock:
            waiting = self._waiting.get(filter_, {})
            waiting.pop(waiter, None)
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
            filters = list(self._waiting)
        # Outside the lock, which the worker's main loop takes.
        matching = [filter_ for filter_ in filters if any(map(filter_.matches, items))]
        with self._lock:
            woken = [self._waiting.pop(filter_, {}) for filter_ in matching]
        _set(woken)

    def wake_all(self) -> None:
        """Wake all waiters."""
        with self._lock:
            woken, self._waiting = list(self._waiting.values()), {}
        _set(woken)

    def close(self) -> None:
        """Wake all waiters; later calls of `wait` return at once."""
        self._is_closed = True
        self.wake_all()


def _set(woken: Iterable[Iterable[Waiter]]) -> None:
    for waiters in woken:
        for waiter in waiters:
            waiter.set()
