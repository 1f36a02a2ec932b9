"""Pace: the times at which a client's frames may be sent."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from outfeed import clock

# Factor on the interval 1/rate between frames. It keeps network jitter from delivering eleven frames of a rate of ten
# within one second.
SLACK = 1.1

# The slowest supported pace, in frames a second. A time beyond the range of the clock would stop the pacer.
MIN_RATE = 0.01


def next_due(due: float, now: float, rate: float) -> float:
    """Return when the next frame may be sent, at most *rate* a second.

    The frame before it was due at *due* and was sent at *now*.

    The times lie on a grid that all clients of one rate share, so that cohorts which started at different times send
    together and can merge. After a quiet time the first frame is sent at once, off the grid, and the next one waits for
    the grid.
    """
    interval = SLACK / rate
    was_on_grid = now - due < interval
    # The interval after a late frame is shortened by less than one second's slack.
    earliest = max(due + interval, now + interval - min(interval / 2, SLACK - 1)) if was_on_grid else now + interval
    return math.ceil(earliest / interval - 1e-6) * interval


def due_at(rate: float, due: float, now: float) -> float:
    """Return *due*, set under another rate, adapted to *rate*.

    The result is at most one interval after *now*. It is 0 without a rate.
    """
    return min(due, now + SLACK / rate) if rate else 0.0


class Pacer:
    """When the next paced cohort is due, and a thread that waits for it.

    `_changed` guards the state.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: float | None = None
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self, on_due: Callable[[], None]) -> None:
        """Start a thread that calls *on_due* at each planned time."""
        self._thread = threading.Thread(target=self._run, args=(on_due,), name="outfeed-pacer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def plan(self, due: float) -> None:
        """Plan a call at *due*, on the monotonic clock.

        If an earlier call is planned, that one stays.
        """
        with self._changed:
            if self._due is None or due < self._due:
                self._due = due
                self._changed.notify()

    def take_due(self) -> bool:
        """Return whether the planned time has come, and clear it if so."""
        with self._changed:
            if self._due is None or self._due > clock.monotonic():
                return False
            self._due = None
            return True

    def _run(self, on_due: Callable[[], None]) -> None:
        while self._wait():
            on_due()

    def _wait(self) -> bool:
        """Return True when a planned time has come.

        Returns False when the thread is to end.
        """
        with self._changed:
            while not self._is_stopping:
                if self.take_due():
                    return True
                self._changed.wait(None if self._due is None else self._due - clock.monotonic())
            return False
