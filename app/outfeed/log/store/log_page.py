"""Pages of the log: events that match a filter, newest first.

A page reads a limited number of rows. One index drives the scan: the full-text index, or the index of the most
selective condition. Each lists its rowids in order, so SQLite neither sorts nor scans. The other conditions are checked
in the rows.
"""

from __future__ import annotations

import functools
import itertools
import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from outfeed.events import Event
from outfeed.log.store import search, timed
from outfeed.log.store.search import MAX_ROWID, MIN_ROWID, Index, Span
from outfeed.principal import EventScope, is_audit
from outfeed.redaction import redact
from outfeed.store import instants, rows
from outfeed.store.database import Connection, Database

# After this many rows a page ends early and reports it. So a filter with few matches has a bounded cost.
MAX_SCANNED = 20_000
MAX_COUNTED = 10_000
FIRST_CHUNK, MAX_CHUNK = 64, 2_500
MAX_TIMED = 5000  # events of a time range for which the index on timestamp drives the scan
MAX_TIMED_TEXTS = 50_000  # entries of that index that are read: a timestamp with an offset may stand a day away
UNINDEXED_CHUNK, UNINDEXED_COST = 250, 10
MAX_TYPES = 50  # types of a prefix for which the index on types drives the scan
_TEXTS = """
    SELECT rowid FROM event_log INDEXED BY event_log_timestamp WHERE timestamp >= ? AND timestamp < ? {times} LIMIT ?
"""
_COUNT_TEXTS = f"SELECT count(*) FROM ({_TEXTS.format(times='')})"  # noqa: S608 - a constant of this module
_RANGE = "rowid BETWEEN ? AND ?"
_MAX_FREQUENCY = 1000  # the count stops here: more frequent conditions are equally unselective
_DISTINCT = """
    WITH RECURSIVE found (type) AS (
        SELECT min(event_type) FROM event_log WHERE event_type >= :low AND event_type < :high
        UNION ALL
        SELECT (SELECT min(event_type) FROM event_log WHERE event_type > type AND event_type < :high)
        FROM found WHERE type IS NOT NULL
    )
    SELECT type FROM found WHERE type IS NOT NULL LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Conditions on events of the log, all of which must hold.

    *types* are exact types, or prefixes like `task.*`. Empty *types* means all. *since* (inclusive) and *until*
    (exclusive) are timestamps in Outfeed's own form. *text* is words to search for.
    """

    visible: EventScope
    types: tuple[str, ...] = ()
    source: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    since: str | None = None
    until: str | None = None
    text: str | None = None

    def where(self) -> rows.Where:
        """Return all conditions except the text."""
        filters = {"source = ?": self.source, "task_id = ?": self.task_id, "agent_id = ?": self.agent_id}
        given: rows.Where = {clause: (value,) for clause, value in filters.items() if value is not None}
        times = instants.within(self.since, self.until)
        return given | times | rows.of_types(self.types) | rows.seen(self.visible)

    @property
    def is_timed(self) -> bool:
        """Whether the filter has a time."""
        return self.since is not None or self.until is not None

    def expression(self) -> str | None:
        """Return the text in FTS5's syntax, narrowed by the other fields.

        Returns None if the text contains no word.
        """
        found = search.expression(self.text or "")
        if found is None:
            return None
        for values in ([self.source], [self.task_id], [self.agent_id], [one.removesuffix(".*") for one in self.types]):
            given = [value for value in values if value]
            if given and search.can_narrow(given):
                found = search.narrow(found, given)
        return found


class Match(NamedTuple):
    """A row that matches."""

    rowid: int
    event_type: str


class _Chunk(NamedTuple):
    """The matches in the next rows, the last of these rows, and the cost."""

    matches: list[Match]
    end: int
    cost: int


class FoundPage(NamedTuple):
    """Rows with their events, newest first, and the cursors around them.

    *older* and *newer* are the cursors of the neighbouring pages, or None if there are none. *is_scan_limited* means
    that the page ended at the limit of scanned rows, before it was full and before the log ended.
    """

    events: list[tuple[int, Event]]
    older: int | None
    newer: int | None
    is_scan_limited: bool = False


class Counts(NamedTuple):
    """Numbers of matching events by type, the most frequent first.

    *is_complete* means that no more events match. Otherwise the count stopped at its limit.
    """

    by_type: dict[str, int]
    is_complete: bool

    @property
    def total(self) -> int:
        """The total of all types."""
        return sum(self.by_type.values())

    @property
    def audit(self) -> int:
        """The number of audit events, which the live list and chart exclude."""
        return sum(count for event_type, count in self.by_type.items() if is_audit(event_type))


class Neighbours(NamedTuple):
    """The events before and after one event."""

    before: Event | None
    after: Event | None


def list_page(
    database: Database, filter_: LogFilter, *, limit: int, cursor: int | None = None, is_newer: bool = False
) -> FoundPage:
    """Return up to *limit* events older than *cursor*, newest first.

    With *is_newer* the events are the oldest of those that are newer than *cursor*.
    """
    scan = LogScan(database, filter_, cursor, is_upward=is_newer)
    found = [match.rowid for match in itertools.islice(scan, limit + 1)]
    has_more = len(found) > limit
    is_scan_limited = not has_more and not scan.is_finished
    found = found[:limit]
    onward = found[-1] if has_more else scan.position if is_scan_limited else None
    backward = None if cursor is None else found[0] if found else cursor
    if is_newer:
        found.reverse()
        onward, backward = backward, onward
    with database.connection() as connection:
        events = rows.load(connection, found)
    return FoundPage(list(events.items()), onward, backward, is_scan_limited)


def iterate_events(database: Database, filter_: LogFilter) -> Iterator[Event]:
    """Yield all events that match, newest first, in short reads.

    Events that are written during the iteration are not included.
    """
    matches = iter(LogScan(database, filter_, max_scanned=None))
    while chunk := [match.rowid for match in itertools.islice(matches, 500)]:
        with database.connection() as connection:
            events = rows.load(connection, chunk)
        yield from events.values()


def count(database: Database, filter_: LogFilter) -> Counts:
    """Count the newest events that match, up to MAX_COUNTED."""
    scan = LogScan(database, filter_, chunk=MAX_CHUNK)
    found = Counter(match.event_type for match in itertools.islice(scan, MAX_COUNTED))
    return Counts(redact(dict(found.most_common())), scan.is_finished and found.total() < MAX_COUNTED)


def find(database: Database, visible: EventScope, event_id: str) -> tuple[int, Event] | None:
    """Return the rowid and the event with that id, of any size.

    Returns None if there is none, or if *visible* excludes it.
    """
    try:
        with database.connection() as connection:
            row = connection.execute(
                f"SELECT {rows.COLUMNS}, rowid FROM event_log WHERE id = ?",  # noqa: S608 - constant columns
                (event_id,),
            ).fetchone()
    except UnicodeEncodeError:  # a lone surrogate, which no id contains
        return None
    if row is None or not visible.covers(str(row[1])):
        return None
    return row[7], rows.event_of(row[:7])


def neighbours(database: Database, filter_: LogFilter, rowid: int) -> Neighbours:
    """Return the nearest matching events before and after that row.

    Both searches stop at the limit of scanned rows.
    """
    found = []
    for is_upward in (False, True):
        match = next(iter(LogScan(database, filter_, rowid, is_upward=is_upward)), None)
        with database.connection() as connection:
            events = rows.load(connection, [match.rowid] if match else [])
        found.append(next(iter(events.values()), None))
    return Neighbours(*found)


class LogScan:
    """A scan of the rows from *cursor* on, down or up, for matches.

    All rows up to *position* have been scanned. *is_finished* means that no rows are left. The scan ends early after
    *max_scanned* rows.
    """

    def __init__(
        self,
        database: Database,
        filter_: LogFilter,
        cursor: int | None = None,
        *,
        is_upward: bool = False,
        max_scanned: int | None = MAX_SCANNED,
        chunk: int = FIRST_CHUNK,
    ) -> None:
        self.position = cursor
        self.is_finished = False
        self._database = database
        self._filter = filter_
        self._is_upward = is_upward
        self._rows_left = max_scanned
        self._chunk = chunk
        self._index = Index(database)
        self._where = filter_.where()
        self._expression = filter_.expression() if filter_.text is not None else None

    def __iter__(self) -> Iterator[Match]:
        if self._filter.text is None or self._expression is not None:
            self._drivers, self._rowids = self._choose_driving_indexes()
            for span in self._spans():
                yield from self._scan_span(span)
                if self._is_limit_reached:
                    return
        self.is_finished = True

    @property
    def _is_limit_reached(self) -> bool:
        return self._rows_left is not None and self._rows_left <= 0

    def _spans(self) -> Iterator[Span]:
        """Yield the spans to scan, in the order of the scan."""
        low, high = MIN_ROWID, MAX_ROWID
        if self.position is not None:
            low, high = (self.position + 1, MAX_ROWID) if self._is_upward else (MIN_ROWID, self.position - 1)
        is_by_index = self._expression or (self._filter.is_timed and self._rowids is None)
        spans = self._indexed_spans if is_by_index else [Span(low, high)]
        for span in reversed(spans) if self._is_upward else spans:
            if span.high >= low and span.low <= high:
                yield span._replace(low=max(low, span.low), high=min(high, span.high))

    @functools.cached_property
    def _indexed_spans(self) -> list[Span]:
        return self._index.spans(self._filter.since, self._filter.until)

    def _scan_span(self, span: Span) -> Iterator[Match]:
        size = self._chunk
        while span.low <= span.high and not self._is_limit_reached:
            found = self._read_chunk(span, size)
            self._spend(found.cost)
            yield from found.matches
            self.position = found.end
            span = span._replace(low=found.end + 1) if self._is_upward else span._replace(high=found.end - 1)
            size = min(size * 4, MAX_CHUNK)

    def _spend(self, cost: int) -> None:
        if self._rows_left is not None:
            self._rows_left -= cost

    def _read_chunk(self, span: Span, size: int) -> _Chunk:
        """Scan the next rows of the span."""
        if self._expression is None:
            candidates = self._driving_index(span, size)
            return _Chunk(
                [row[0] for row in candidates if row[1]],
                self._last_scanned(span, [row[0].rowid for row in candidates], size),
                len(candidates),
            )
        if span.block is not None:
            found = self._index.find(span, self._expression, size, is_upward=self._is_upward)
            if found is not None:
                return _Chunk(self._matching(found), self._last_scanned(span, found, size), len(found) + 1)
        candidates = self._driving_index(span, UNINDEXED_CHUNK)
        matching = self._read_texts([match.rowid for match, is_match in candidates if is_match])
        end = self._last_scanned(span, [match.rowid for match, _ in candidates], UNINDEXED_CHUNK)
        return _Chunk(
            [match for match, _ in candidates if match.rowid in matching], end, len(candidates) * UNINDEXED_COST
        )

    def _last_scanned(self, span: Span, rowids: list[int], size: int) -> int:
        """Return the last row that has been scanned."""
        if len(rowids) == size:
            return rowids[-1]
        return span.high if self._is_upward else span.low

    def _read_texts(self, rowids: list[int]) -> set[int]:
        """Return those rowids whose text matches, without the index."""
        assert self._expression is not None
        with self._database.connection() as connection:
            events = rows.load(connection, rowids)
        texts = [(rowid, search.text_of(event)) for rowid, event in events.items()]
        return search.matching_rowids(self._expression, texts) if texts else set()

    def _matching(self, rowids: list[int]) -> list[Match]:
        """Return those rows that meet the conditions, in the same order."""
        if not rowids:
            return []
        clauses, values = rows.bound(
            {"rowid IN (SELECT value FROM json_each(?))": (json.dumps(rowids),), **self._where}
        )
        sql = f"SELECT rowid, event_type FROM event_log NOT INDEXED {clauses}"  # noqa: S608 - constant clauses
        with self._database.connection() as connection:
            types = dict(connection.execute(sql, values).fetchall())
        return [_match(rowid, types[rowid]) for rowid in rowids if rowid in types]

    # --- choice of the driving index ----------------------------------------------------------------------------------

    def _choose_driving_indexes(self) -> tuple[list[tuple[str, str]], list[int] | None]:
        """Return the most selective condition, as its column and values.

        It is a list of (column, value) of one column, and empty if all rows must be read. If the times select still
        fewer rows, the second result is the sorted rowids of these instead. If the times lie near each other in the
        log, the full-text index's spans drive the scan.
        """
        filter_ = self._filter
        fields = [("task_id", filter_.task_id), ("agent_id", filter_.agent_id), ("source", filter_.source)]
        types = filter_.types or filter_.visible.types
        with self._database.connection() as connection:
            indexed = _indexed(connection)
            choices = [[(column, value)] for column, value in fields if value is not None and column in indexed]
            if types and "event_type" in indexed and (named := _types(connection, types)) is not None:
                choices.append([("event_type", name) for name in named or types[:1]])
            costs = [min(_MAX_FREQUENCY, sum(_frequency(connection, *each) for each in choice)) for choice in choices]
            rowids = self._rowids_by_time(connection) if "timestamp" in indexed else None
        fewest = min(costs, default=_MAX_FREQUENCY)
        if rowids is not None and (len(rowids) <= fewest or fewest == _MAX_FREQUENCY):
            return [], rowids
        return (choices[costs.index(fewest)] if choices else []), None

    def _rowids_by_time(self, connection: Connection) -> list[int] | None:
        """Return the sorted rowids with matching times.

        Returns None if there are too many, or if they lie near each other in the log.
        """
        filter_ = self._filter
        if not filter_.is_timed or self._are_too_many(connection):
            return None
        if timed.has_few_rows(connection, self._indexed_spans, MAX_SCANNED):
            return None
        times, values = rows.bound(instants.within(filter_.since, filter_.until))
        select = _TEXTS.format(times=times.replace("WHERE", "AND", 1))
        found, left = list[int](), MAX_TIMED_TEXTS
        for low, high in instants.text_ranges(filter_.since, filter_.until):
            left -= connection.execute(_COUNT_TEXTS, (low, high, left + 1)).fetchone()[0]
            if left < 0:
                return None
            found += [row[0] for row in connection.execute(select, (low, high, *values, MAX_TIMED + 1)).fetchall()]
        return sorted(found) if len(found) <= MAX_TIMED else None

    def _are_too_many(self, connection: Connection) -> bool:
        """Return whether timestamps in Outfeed's own form alone are too many."""
        own = (*instants.bounds(self._filter.since, self._filter.until), MAX_TIMED + 1)
        return bool(connection.execute(_COUNT_TEXTS, own).fetchone()[0] > MAX_TIMED)

    def _driving_index(self, span: Span, limit: int) -> list[tuple[Match, bool]]:
        """Return the next rows of the driving index.

        Each has whether it meets the other conditions.
        """
        if self._rowids is not None:
            return self._time_index(span, limit)
        clauses, values = " AND ".join(self._where) or "1", rows.bound(self._where)[1]
        select = f"SELECT rowid, event_type, {clauses} FROM event_log"  # noqa: S608 - constant clauses
        parts = [
            f"{select} INDEXED BY event_log_{column} WHERE {column} = ? AND {_RANGE}" for column, _ in self._drivers
        ]
        parts = parts or [f"{select} NOT INDEXED WHERE {_RANGE}"]
        bounds = [[value, span.low, span.high] for _, value in self._drivers] or [[span.low, span.high]]
        # Each of several parts is sorted, and SQLite merges them.
        sql = f"{' UNION ALL '.join(parts)} ORDER BY rowid {'ASC' if self._is_upward else 'DESC'} LIMIT ?"
        bound = [value for each in bounds for value in (*values, *each)]
        with self._database.connection() as connection:
            found = connection.execute(sql, (*bound, limit)).fetchall()
        return [(_match(rowid, type_), bool(is_match)) for rowid, type_, is_match in found]

    def _time_index(self, span: Span, limit: int) -> list[tuple[Match, bool]]:
        assert self._rowids is not None
        start, end = bisect_left(self._rowids, span.low), bisect_right(self._rowids, span.high)
        rowids = self._rowids[start:end][:limit] if self._is_upward else self._rowids[start:end][::-1][:limit]
        matching = {match.rowid: match for match in self._matching(rowids)}
        return [(matching.get(rowid) or Match(rowid, ""), rowid in matching) for rowid in rowids]


def _match(rowid: int, event_type: object) -> Match:
    return Match(rowid, str(rows.readable(event_type)))


def _indexed(connection: Connection) -> set[str]:
    """Return the columns whose index exists.

    Tools that rebuild a table may drop its indexes.
    """
    sql = "SELECT substr(name, 11) FROM sqlite_master WHERE type = 'index' AND tbl_name = 'event_log'"
    return {row[0] for row in connection.execute(sql).fetchall()}


def _types(connection: Connection, patterns: tuple[str, ...]) -> list[str] | None:
    """Return the types in the log that *patterns* name, or None for too many."""
    names: list[str] = []
    for pattern in patterns:
        if not pattern.endswith(".*"):
            names.append(pattern)
            continue
        bounds = {"low": pattern[:-1], "high": pattern[:-2] + "/", "limit": MAX_TYPES + 1}  # "/" follows "."
        names += [row[0] for row in connection.execute(_DISTINCT, bounds).fetchall()]
    names = list(dict.fromkeys(names))
    return names if len(names) <= MAX_TYPES else None


def _frequency(connection: Connection, column: str, value: str) -> int:
    sql = f"SELECT 1 FROM event_log INDEXED BY event_log_{column} WHERE {column} = ? LIMIT ?"  # noqa: S608 - constant columns
    return len(connection.execute(sql, (value, _MAX_FREQUENCY)).fetchall())
