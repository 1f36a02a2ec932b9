"""Pace: when the next frame may go."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from outfeed import clock

# Between frames, as a share of 1/rate: jitter on the way must not make eleven of ten within a second.
SLACK = 1.1

# The slowest pace that is kept, in frames a second. A moment beyond what a clock can count would stop the pacer.
MIN_RATE = 0.01


def next_due(due: float, now: float, rate: float) -> float:
    """Return when the frame after one may go that was due at *due* and went at *now*; *rate* frames a second at most.

    Moments lie on a grid that all of one rate share, so that cohorts which began apart beat together and can merge.
    After a quiet time the first frame goes off the beat, at once; what follows waits for the grid.
    """
    interval = SLACK / rate
    was_on_beat = now - due < interval
    # What a late frame takes from the distance to the next must be less than a second's slack.
    earliest = max(due + interval, now + interval - min(interval / 2, SLACK - 1)) if was_on_beat else now + interval
    return math.ceil(earliest / interval - 1e-6) * interval


def due_at(rate: float, due: float, now: float) -> float:
    """Return *due*, which another rate set, as *rate* has it: no later than an interval from now."""
    return min(due, now + SLACK / rate) if rate else 0.0


class Pacer:
    """When the next paced cohort is due, and a thread that waits for that moment. `_changed` guards it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: float | None = None
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self, on_due: Callable[[], None]) -> None:
        """Start a thread that calls *on_due* whenever a planned moment has come."""
        self._thread = threading.Thread(target=self._run, args=(on_due,), name="outfeed-pacer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def plan(self, due: float) -> None:
        """Plan a call at *due*, on the monotonic clock, or earlier if one is planned already."""
        with self._changed:
            if self._due is None or due < self._due:
                self._due = due
                self._changed.notify()

    def take_due(self) -> bool:
        """Return whether the planned moment has come, once."""
        with self._changed:
            return self._take_due()

    def _take_due(self) -> bool:
        if self._due is None or self._due > clock.monotonic():
            return False
        self._due = None
        return True

    def _run(self, on_due: Callable[[], None]) -> None:
        while self._wait():
            on_due()

    def _wait(self) -> bool:
        """Return True when a moment has come, False when the thread is to end."""
        with self._changed:
            while not self._is_stopping:
                if self._take_due():
                    return True
                self._changed.wait(None if self._due is None else self._due - clock.monotonic())
            return False
