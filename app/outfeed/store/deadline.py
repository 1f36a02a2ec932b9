"""Deadlines: the end of a thread's reads.

A read ends at a given time, or when its client has left. SQLite calls the deadline between two steps of a query, so
neither a scan nor a search can outlast it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from outfeed import clock

STEPS = 20_000  # steps of SQLite's virtual machine between two checks, about a millisecond
_of_thread = threading.local()


class _Deadline(NamedTuple):
    """The end on the monotonic clock, and whether the client still waits."""

    at: float
    is_wanted: Callable[[], bool]

    def is_over(self) -> bool:
        return clock.monotonic() >= self.at or not self.is_wanted()


@contextmanager
def limited(secs: float, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Limit this thread's reads in the block to *secs* in total.

    A read beyond that raises QueryCancelled.
    """
    with _set(_Deadline(clock.monotonic() + secs, is_wanted)):
        yield


@contextmanager
def unlimited() -> Iterator[None]:
    """Lift the limit for this thread's reads in the block.

    A surrounding `limited` has no effect on them.
    """
    with _set(None):
        yield


@contextmanager
def _set(deadline: _Deadline | None) -> Iterator[None]:
    before = getattr(_of_thread, "deadline", None)
    _of_thread.deadline = deadline
    try:
        yield
    finally:
        _of_thread.deadline = before


@contextmanager
def enforced(connection: sqlite3.Connection) -> Iterator[None]:
    """Interrupt *connection* in the block at this thread's deadline."""
    deadline: _Deadline | None = getattr(_of_thread, "deadline", None)
    if deadline is None:
        yield
        return
    connection.set_progress_handler(deadline.is_over, STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
