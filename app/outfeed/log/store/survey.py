"""Surveys: the number of matches, their values and their times.

A survey looks at a limited number of the newest matches, so that its cost is bounded in a log of any size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from outfeed import clock
from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.log_page import FoundPage, LogScan, Match
from outfeed.principal import is_audit
from outfeed.redaction import redact
from outfeed.store import rows
from outfeed.store.database import Database

MAX_COUNTED = 10_000
MAX_LOOKED_AT = 4_000  # of the values and times. The rest is only counted
MAX_BARS = 60
# The widths of bars, in seconds: from a second to a year.
WIDTHS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    1_209_600, 2_592_000, 7_776_000, 31_536_000,
)  # fmt: skip
FACETS = ("event_type", "source", "agent_id")


@dataclass(frozen=True, slots=True)
class Bar:
    """The number of matches from *start* to *end* (exclusive), in UTC.

    *failed* of them are errors.
    """

    start: datetime
    end: datetime
    count: int
    failed: int


@dataclass(frozen=True, slots=True)
class Survey:
    """The newest matches in figures.

    *rowids* are in descending order. *facets* are the numbers of events by value for each of FACETS, the most frequent
    first. *bars* are in the order of time. *is_complete* means that no more events match. Otherwise the count ended at
    its limit. Facets and bars are of the newest *looked_at* matches, which are not older than *oldest*.
    """

    rowids: tuple[int, ...]
    facets: dict[str, dict[str, int]]
    bars: list[Bar]
    is_complete: bool
    looked_at: int
    oldest: datetime | None

    @property
    def total(self) -> int:
        """The number of matches."""
        return len(self.rowids)

    @property
    def audit(self) -> int:
        """The number of audit events, which the live list and chart exclude."""
        return sum(count for event_type, count in self.facets["event_type"].items() if is_audit(event_type))

    def place_of(self, rowid: int) -> int | None:
        """Return the number of matches that are newer than *rowid*.

        The result is None if the survey ended above it.
        """
        place = bisect_left(self.rowids, -rowid, key=lambda each: -each)
        return place if place < self.total or self.is_complete else None


def take(
    database: Database, filter_: LogFilter, is_failure: Callable[[str], bool] = lambda _: False
) -> tuple[Survey, LogScan]:
    """Return the survey of the newest events that match, and its scan.

    *is_failure* tells whether events of a type count as errors.
    """
    scan, matches, rowids = LogScan(database, filter_), list[Match](), list[int]()
    for chunk in scan.chunks():
        if len(matches) < MAX_LOOKED_AT:
            matches += chunk
        rowids += [match[0] for match in chunk]
        if len(matches) >= MAX_LOOKED_AT:
            scan.skip_values()
        if len(rowids) > MAX_COUNTED:
            break
    is_complete = scan.is_finished and len(rowids) <= MAX_COUNTED
    matches = matches[:MAX_LOOKED_AT]
    _, *columns, seconds = zip(*matches, strict=True) if matches else ((), (), (), (), ())
    facets = {name: _counted(column) for name, column in zip(FACETS, columns, strict=True)}
    failures = {name for name in set(columns[0]) if is_failure(str(rows.readable(name)))}
    times = sorted(filter(None, seconds))
    failed = sorted(match[-1] for match in matches if match[1] in failures and match[-1]) if failures else []
    bars = bars_of(times, failed, _moment(filter_.since), _moment(filter_.until))
    oldest = _moment(times[0]) if times else None
    return Survey(tuple(rowids[:MAX_COUNTED]), facets, bars, is_complete, len(matches), oldest), scan


def first_page(database: Database, found: Survey, scan: LogScan, limit: int) -> FoundPage:
    """Return the newest *limit* events of a survey, without another scan."""
    shown, has_more = found.rowids[:limit], found.total > limit
    is_scan_limited = not has_more and not scan.is_finished
    with database.connection() as connection:
        events = rows.load(connection, shown)
    onward = shown[-1] if has_more else scan.position if is_scan_limited else None
    return FoundPage(list(events.items()), onward, None, is_scan_limited)


def bars_of(times: list[str], failed: list[str], since: datetime | None, until: datetime | None) -> list[Bar]:
    """Return the bars of *times*.

    These are sorted texts in UTC like `2026-01-31T12:30:15`. *failed* are those of errors. The bars cover
    the period from *since* to *until*, or the times if a bound is missing.
    """
    first, last = since or _moment(next(iter(times), None)), until or _moment(next(reversed(times), None))
    if first is None or last is None or first > last:
        return []
    width = next((secs for secs in WIDTHS if (last - first).total_seconds() < secs * (MAX_BARS - 1)), WIDTHS[-1])
    edges = [_floor(first, width)]
    while edges[-1] <= last and len(edges) <= MAX_BARS * 4:
        edges.append(edges[-1] + timedelta(seconds=width))
    counts, errors = _between(edges, times), _between(edges, failed)
    return [Bar(*each) for each in zip(edges, edges[1:], counts, errors, strict=False)]


def _between(edges: list[datetime], times: list[str]) -> list[int]:
    """Return the number of sorted *times* between each two edges."""
    places = [bisect_left(times, edge.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")) for edge in edges]
    return [after - before for before, after in pairwise(places)]


def _floor(moment: datetime, width: int) -> datetime:
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if width >= 86_400:
        return midnight
    return midnight + timedelta(seconds=(moment - midnight).total_seconds() // width * width)


def _moment(text: str | None) -> datetime | None:
    return clock.parsed(text) if text else None


def _counted(values: Iterable[Any]) -> dict[str, int]:
    """Return the number of each value, the most frequent first, redacted."""
    found = Counter(values)
    found.pop(None, None)
    return redact({str(rows.readable(value)): count for value, count in found.most_common()})
