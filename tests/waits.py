"""Waits of tests: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECS = 15.0


def wait_until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE_SECS) -> Any:
    """Return the first true answer of *condition*.

    Fails with the text *what* after *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.01)
    return answer


def shortest(attempt: Callable[[], float], enough: float) -> float:
    """Return the fewest seconds that *attempt* reports, of three times.

    An attempt under *enough* is the last. Use it for durations that the product promises: a busy machine may delay one
    attempt, but not each.
    """
    took: list[float] = []
    while len(took) < 3 and min(took, default=enough) >= enough:
        took.append(attempt())
    return min(took)
