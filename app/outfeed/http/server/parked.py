"""Parked: requests that wait without a thread."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from outfeed.http.admission import AdmissionSlot

C = TypeVar("C")
# Entries of the heap beyond two for each request. Then those of resumed requests are dropped.
_SPARE_ENTRIES = 64


class ParkedRequest:
    """A request that waits without a thread, as a waiter of the core.

    The worker serves the request again when `set` was called, and at *deadline* at the latest. It does so no earlier
    than *not_before*. Both times are on the monotonic clock. The view then continues with *state*. The request keeps
    *slot* while it waits.
    """

    def __init__(
        self,
        state: Any,
        slot: AdmissionSlot,
        *,
        not_before: float,
        deadline: float,
        on_woken: Callable[[ParkedRequest], None],
    ) -> None:
        self.state = state
        self.slot = slot
        self.not_before = min(not_before, deadline)
        self.deadline = deadline
        self.unregister: Callable[[], None] = lambda: None  # from what it waits for
        self.is_woken = False
        self._on_woken = on_woken

    def set(self) -> None:
        """Have the worker serve the request again. Any thread may call this."""
        self.is_woken = True
        self._on_woken(self)


class ParkedConnections(Generic[C]):
    """The connections with a parked request, each with a time.

    Only the main loop's thread uses it. The heap has an entry for each `put`. An entry with another time than its
    request is out of date.
    """

    def __init__(self) -> None:
        self._all: dict[ParkedRequest, tuple[C, float]] = {}
        self._heap: list[tuple[float, int, ParkedRequest]] = []
        self._numbers = itertools.count()  # equal times are compared by them

    def __len__(self) -> int:
        return len(self._all)

    @property
    def times(self) -> int:
        """Number of kept times, also of those that are out of date."""
        return len(self._heap)

    def __contains__(self, parked: ParkedRequest | None) -> bool:
        return parked in self._all

    def put(self, parked: ParkedRequest, connection: C, at: float) -> None:
        """Add *parked*, or change its time to *at*."""
        self._all[parked] = connection, at
        heapq.heappush(self._heap, (at, next(self._numbers), parked))
        if len(self._heap) > 2 * len(self._all) + _SPARE_ENTRIES:
            self._heap = [(at, next(self._numbers), parked) for parked, (_, at) in self._all.items()]
            heapq.heapify(self._heap)

    def get(self, parked: ParkedRequest) -> C | None:
        """Return the connection of *parked*, or None if it is not parked."""
        connection, _ = self._all.get(parked, (None, 0.0))
        return connection

    def remove(self, parked: ParkedRequest) -> None:
        """Remove *parked*."""
        del self._all[parked]

    def next_time(self) -> float:
        """Return the earliest time, or infinity."""
        while self._heap and self._is_outdated(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def overdue(self, now: float) -> list[C]:
        """Return the connections whose time has come."""
        if self.next_time() > now:
            return []
        return [connection for connection, at in self._all.values() if at <= now]

    def _is_outdated(self, entry: tuple[float, int, ParkedRequest]) -> bool:
        at, _, parked = entry
        return parked not in self._all or self._all[parked][1] != at
