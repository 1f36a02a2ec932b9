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
        self._waiting: dict[Filter, list[threading.Event]] = {}
        self._since: float | None = None
        self._polls = 0
        self._is_closed = False

    @property
    def polls(self) -> int:
        """How many clients wait."""
        return self._polls

    @property
    def count(self) -> int:
        """How many wait, clients and others."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    @property
    def since(self) -> float | None:
        """When the first of those who wait began, on the monotonic clock; None if none waits."""
        return self._since

    def wait(
        self, filter_: Filter, epoch: str, cursor: int, timeout: float, event: threading.Event | None = None
    ) -> None:
        """Return when something that matches stands after *cursor*, when the epoch is over, or after *timeout* secs.

        A caller that passes an *event* can end the wait by setting it, and does not count as a client.
        """
        woken = event or threading.Event()
        self._enter(filter_, woken, is_client=event is None)
        try:
            if not self._is_there(filter_, epoch, cursor):
                self._wanted.set()
                woken.wait(timeout)
        finally:
            self._leave(filter_, woken, is_client=event is None)

    def _enter(self, filter_: Filter, woken: threading.Event, *, is_client: bool) -> None:
        with self._lock:
            if self._since is None:
                self._since = clock.monotonic()
            self._waiting.setdefault(filter_, []).append(woken)
            self._polls += is_client

    def _is_there(self, filter_: Filter, epoch: str, cursor: int) -> bool:
        try:
            rest = self._cohorts.tail_after(cursor, epoch)
        except Overtaken:
            return True
        return self._is_closed or rest is None or any(map(filter_.matches, rest))

    def _leave(self, filter_: Filter, woken: threading.Event, *, is_client: bool) -> None:
        with self._lock:
            self._polls -= is_client
            waiting = self._waiting.get(filter_, [])
            if woken in waiting:
                waiting.remove(woken)
            if not waiting:
                self._waiting.pop(filter_, None)
            self._note_empty()

    def wake(self, items: list[Item]) -> None:
        """Wake those for whom one of *items* matches."""
        with self._lock:
            for filter_ in [each for each in self._waiting if any(map(each.matches, items))]:
                self._wake(filter_)

    def wake_all(self) -> None:
        """Wake all who wait."""
        with self._lock:
            for filter_ in list(self._waiting):
                self._wake(filter_)

    def _wake(self, filter_: Filter) -> None:
        for woken in self._waiting.pop(filter_):
            woken.set()
        self._note_empty()

    def _note_empty(self) -> None:
        if not self._waiting:
            self._since = None

    def close(self) -> None:
        """Wake all, and let none wait from now on."""
        self._is_closed = True
        self.wake_all()
