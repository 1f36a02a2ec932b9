"""Pace: when the next frame may go."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from outfeed import clock

# Between frames, as a share of 1/rate: jitter on the way must not make eleven of ten within a second.
SLACK = 1.1

# The slowest pace that is kept, in frames a second; what a clock can't count to would stop the one that waits for it.
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
    """A thread that calls *on_due* when what was planned is due, and sleeps else. `_changed` guards the plan."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        self._on_due = on_due
        self._changed = threading.Condition()
        self._due: float | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="outfeed-pacer", daemon=True)

    def start(self) -> None:
        """Begin to keep the plan."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def plan(self, due: float) -> None:
        """Have *on_due* called at *due*, on the monotonic clock, or earlier if that is planned already."""
        with self._changed:
            if self._due is None or due < self._due:
                self._due = due
                self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            self._on_due()

    def _wait(self) -> bool:
        with self._changed:
            while not self._is_stopping:
                left = None if self._due is None else self._due - clock.monotonic()
                if left is not None and left <= 0:
                    self._due = None
                    return True
                self._changed.wait(left)
            return False
