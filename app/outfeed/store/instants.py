"""Instants in SQL: rows of `event_log` by the time they name.

A raw writer may have stored a timestamp in any form. `clock.parsed` alone decides which time a text names. Texts in
Outfeed's own form are compared as they are, because their text order is their time order. All other texts are parsed.
Bounds are timestamps in Outfeed's own form.
"""

from __future__ import annotations

import functools
import sqlite3
from datetime import UTC, datetime, timedelta

from outfeed import clock
from outfeed.store.rows import Where

_FUNCTION = "outfeed_utc"
IS_OWN_FORM = "timestamp GLOB '????-??-??T????????.???Z'"
# Read as bytes: a text that is not UTF-8 would make the call fail.
_PARSED = f"CASE typeof(timestamp) WHEN 'text' THEN {_FUNCTION}(CAST(timestamp AS BLOB)) END"
# date() is NULL for a text that names no time. With a modifier it is 2 March for 30 February.
_IS_DATE = "date(timestamp, '+0 days') IS substr(timestamp, 1, 10)"
_WITHIN = f"""CASE
    WHEN NOT ({IS_OWN_FORM}) THEN coalesce({_PARSED} BETWEEN ? AND ?, 0)
    WHEN timestamp BETWEEN ? AND ? THEN {_IS_DATE}
    ELSE 0
END"""
# Whether a timestamp names a time.
IS_READABLE = f"CASE WHEN {IS_OWN_FORM} THEN {_IS_DATE} ELSE {_PARSED} IS NOT NULL END"
# The instant of a timestamp in UTC, `2026-01-31T12:30:20.123Z` or without `Z`. NULL if the text names no time.
INSTANT = f"CASE WHEN {IS_OWN_FORM} THEN timestamp ELSE {_PARSED} END"
# The second of it, `2026-01-31T12:30:15`.
SECOND = f"substr({INSTANT}, 1, 19)"
LATEST = "9999-12-31T23:59:59.999999"
# An offset from UTC in ISO 8601 is less than a day.
_MAX_OFFSET = timedelta(days=1)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC) + _MAX_OFFSET, datetime.max.replace(tzinfo=UTC) - 2 * _MAX_OFFSET


def register(connection: sqlite3.Connection) -> None:
    """Add the function that parses timestamps to *connection*."""
    connection.create_function(_FUNCTION, 1, _utc, deterministic=True)


def utc(value: object) -> str | None:
    """Return the instant that *value* names, or None.

    The text is in UTC, to the microsecond and without `Z`, so that its text order is its time order.
    """
    moment = clock.parsed(value)
    return None if moment is None else moment.isoformat(timespec="microseconds")[:26]


def sql(text: str) -> str:
    """Return the SQL for `utc` of the SQL expression *text*."""
    return f"CASE typeof({text}) WHEN 'text' THEN {_FUNCTION}(CAST({text} AS BLOB)) END"


def bounds(since: str | None, until: str | None) -> tuple[str, str]:
    """Return the bounds as texts for a comparison with `utc`.

    An instant is within if it is at or after the first and before the second. No instant equals a bound, which is a
    shorter text, so BETWEEN excludes *until*, too.
    """
    return (since or "").removesuffix("Z"), (until or LATEST).removesuffix("Z")


def within(since: str | None, until: str | None) -> Where:
    """Return the condition that a row's instant is within the bounds.

    The instant is at or after *since* and before *until*. Without bounds there is no condition.
    """
    low, high = bounds(since, until)
    return {_WITHIN: (low, high, low, high)} if since or until else {}


def text_ranges(since: str | None, until: str | None) -> list[tuple[str, str]]:
    """Return the ranges of texts that can name an instant in the bounds.

    The end of each range is exclusive.
    """
    first = max(_FIRST, clock.parsed(since) or _FIRST) - _MAX_OFFSET
    last = min(_LAST, clock.parsed(until) or _LAST) + 2 * _MAX_OFFSET
    low, high = f"{first:%Y-%m-%d}".rjust(10, "0"), f"{last:%Y-%m-%d}".rjust(10, "0")
    years = first.isocalendar().year, last.isocalendar().year
    return [
        (low, high),  # 2026-01-31
        (low.replace("-", ""), high.replace("-", "")),  # 20260131T
        (f"{years[0]:04}-W", f"{years[1]:04}-X"),  # 2026-W05
    ]


@functools.lru_cache(16_384)  # a page that is requested again has the same texts
def _utc(raw: bytes) -> str | None:
    try:
        return utc(raw.decode())
    except UnicodeDecodeError:
        return None
