"""The clocks: the only module that reads the time.

Wall time is for people and rows. Intervals are measured on `monotonic`, which no clock change affects.
"""

from __future__ import annotations

import functools
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

# Stricter than fromisoformat, which accepts some counts of milliseconds as dates. RFC 3339 allows lower-case letters.
_ISO_8601 = re.compile(r"\d{4}-(\d\d-\d\d|W\d\d(-\d)?)([T ].+)?|\d{8}T.+", re.ASCII | re.IGNORECASE)
READINGS, READING_SECS = 10, 0.05
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


class _Monotonic:
    # Kept as a class attribute: freezegun patches module attributes, and a frozen monotonic clock would stop the feed
    # in tests that step the wall clock (tests/journeys/test_clock.py).
    read = staticmethod(time.monotonic)


def monotonic() -> float:
    """Return seconds on a clock that only goes forward.

    Values of two processes cannot be compared.
    """
    return _Monotonic.read()


def offset() -> float:
    """Return the seconds that the wall clock is ahead of `monotonic`.

    Setting the wall clock changes the result.
    """
    return now().timestamp() - monotonic()


class _Boot:
    # A class attribute, as in `_Monotonic`. On Linux CLOCK_MONOTONIC stops while the machine is suspended; elsewhere it
    # does not.
    read = staticmethod(functools.partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))


class Reading(NamedTuple):
    """Two clocks at one moment, in seconds.

    *wall* is the time since 1970, which a clock step changes. *boot* only goes forward, also while the machine is
    suspended. Values of *boot* can be compared if they have the same *boot_id*, also among processes.
    """

    wall: float
    boot: float
    boot_id: str


def reading() -> Reading:
    """Return both clocks, read at nearly the same time."""
    for _ in range(READINGS):  # a thread may be interrupted between two clocks
        before, wall, after = _Boot.read(), now().timestamp(), _Boot.read()
        if after - before < READING_SECS:
            break
    return Reading(wall, after, _boot_id())


@functools.cache
def _boot_id() -> str:
    """Return the id of the machine's start, or of this process if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return secrets.token_hex(16)


def now() -> datetime:
    """Return the wall time as an aware datetime in UTC."""
    return datetime.now(UTC)


def isoformat(moment: datetime) -> str:
    """Return an aware *moment* as ISO 8601 text.

    The text is in UTC with milliseconds and `Z`: `2024-01-15T10:30:00.000Z`.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Moment(NamedTuple):
    """A wall time as milliseconds, for ids, and as text, for rows."""

    milliseconds: int
    text: str


def moment() -> Moment:
    """Return the wall time as a Moment."""
    now_ = now()
    return Moment(int(now_.timestamp() * 1000), isoformat(now_))


def timestamp() -> str:
    """Return the wall time as `isoformat` writes it."""
    return isoformat(now())


def thread_secs() -> float:
    """Return the CPU time of this thread in seconds.

    Other work on the machine does not change it.
    """
    return time.thread_time()


def parsed(value: object) -> datetime | None:
    """Return the time that ISO 8601 text names, in UTC, or None.

    Text without a zone is in UTC. The result is None if *value* names no time.
    """
    if not isinstance(value, str) or not _ISO_8601.fullmatch(value):
        return None
    try:
        moment = datetime.fromisoformat(value.upper())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def ago(moment: datetime | str | None) -> str:
    """Return the distance of *moment* from now, in the largest unit.

    Like `3 min ago` or `in 2 d`. None, and text that names no time, is `never`.
    """
    if isinstance(moment, str):
        moment = parsed(moment)
    if moment is None:
        return "never"
    secs = int((now() - moment).total_seconds())
    distance = next((f"{abs(secs) // size} {unit}" for size, unit in _UNITS if abs(secs) >= size), f"{abs(secs)} s")
    return f"in {distance}" if secs < 0 else f"{distance} ago"
