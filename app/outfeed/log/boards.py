"""Renderings of the board, shared by viewers with the same permissions.

1,000 viewers with the same permissions cost one rendering per change.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from outfeed import clock
from outfeed.log.store.activity import HOUR, Activity, ActivityLog, Range
from outfeed.store.database import Connection, Database
from outfeed.store.outbox import read_window

# While events flow, a rendering is replaced at this age at the earliest, and rendering takes a tenth of the time at
# most. A page asks every second, so it shows an event within that second and this age: tests/journeys/test_board.py.
MIN_AGE_SECS = 0.25
RENDERING_SHARE = 10
MAX_AGE_SECS = 1.0  # heartbeats write no event, and relative times go out of date
MAX_KEPT = 32
# A request costs 1 ms of CPU (measured 2026-11-30): half a core, if all viewers send one at this rate.
REQUESTS_PER_SECOND = 500


class Scope(NamedTuple):
    """Parameters of a rendering.

    An empty *types* covers all types. The chart draws *shown* kinds, or all if there are none. *is_root* chooses its
    square-root scale.
    """

    types: tuple[str, ...]
    shown: frozenset[str]
    host_url: str
    is_root: bool = False


class BoardContent(NamedTuple):
    """Data of a board, read in one transaction."""

    connection: Connection
    activity: Activity


class _Stamp(NamedTuple):
    """Identity of a rendering: the database state and the newest bar."""

    epoch: str
    seq: int
    bar: datetime


@dataclass(frozen=True, slots=True)
class Rendering:
    """A board as bytes.

    Viewers spread their requests for the next rendering over *spread_secs*. *made_at* is monotonic.
    """

    html: bytes
    gzipped: bytes
    etag: str
    stamp: _Stamp
    made_at: float
    cost_secs: float
    spread_secs: float


class Boards:
    """The newest rendering of each scope, with a chart of *range*.

    The rendering thread holds `_lock`. The lock guards the kept renderings.
    """

    def __init__(
        self,
        database: Database,
        render: Callable[[Scope, BoardContent], str],
        count_viewers: Callable[[], int],
        range_: Range = HOUR,
    ) -> None:
        self._database = database
        self.render = render
        self._count_viewers = count_viewers
        self._range = range_
        self._activity = ActivityLog(range_)
        self._lock = threading.Lock()
        self._kept: dict[Scope, Rendering] = {}

    def current(self, scope: Scope) -> Rendering:
        """Return an up-to-date board."""
        with self._lock:
            kept = self._kept.get(scope)
            return kept if kept and self._is_current(kept) else self._make(scope)

    def recent(self, scope: Scope) -> Rendering | None:
        """Return the newest board without waiting for another thread.

        The board may be some moments old. Returns None if no board is kept and another thread is rendering. The first
        rendering after a start takes up to a second if the last hour has some 100,000 events.
        """
        kept = self._kept.get(scope)
        if (kept and self._is_young(kept)) or not self._lock.acquire(blocking=False):
            return kept
        try:
            return kept if kept and self._is_current(kept) else self._make(scope)
        finally:
            self._lock.release()

    def _is_current(self, kept: Rendering) -> bool:
        if _age(kept) >= MAX_AGE_SECS:
            return False
        with self._database.connection() as connection:
            window = read_window(connection)
        return kept.stamp == _Stamp(window.epoch, window.last_seq, self._bar())

    def _make(self, scope: Scope) -> Rendering:
        began, bar = clock.monotonic(), self._bar()
        with self._database.snapshot() as connection:
            activity = self._activity.read(connection)
            html = self.render(scope, BoardContent(connection, activity)).encode("utf-8", "replace")
        made_at = clock.monotonic()
        made = Rendering(
            html=html,
            gzipped=gzip.compress(html, 5, mtime=0),
            etag=hashlib.sha256(html).hexdigest()[:16],
            stamp=_Stamp(activity.epoch, activity.seq, bar),
            made_at=made_at,
            cost_secs=made_at - began,
            spread_secs=self._count_viewers() / REQUESTS_PER_SECOND,
        )
        self._kept.pop(scope, None)
        self._kept[scope] = made  # the newest is the last
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return made

    def _is_young(self, kept: Rendering) -> bool:
        is_fresh = _age(kept) < max(MIN_AGE_SECS, RENDERING_SHARE * kept.cost_secs)
        return is_fresh and kept.stamp.bar == self._bar()

    def _bar(self) -> datetime:
        return self._range.floor(clock.now())


def _age(kept: Rendering) -> float:
    return clock.monotonic() - kept.made_at
