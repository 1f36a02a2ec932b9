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
from collections.abc import Iterator
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.events import Event
from outfeed.log.store import search, timed
from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.search import MAX_ROWID, MIN_ROWID, Index, Span
from outfeed.principal import EventScope, is_of_type
from outfeed.store import instants, rows
from outfeed.store.database import Connection, Database

# After this many rows a page ends early and reports it. So a filter with few matches has a bounded cost.
MAX_SCANNED = 20_000
FIRST_CHUNK, MAX_CHUNK = 64, 2_500
MAX_TIMED = 5000  # events of a time range for which the index on timestamp drives the scan
MAX_TIMED_TEXTS = 50_000  # entries of that index that are read: a timestamp with an offset may stand a day away
UNINDEXED_CHUNK, UNINDEXED_COST = 250, 10
MAX_NAMES = 50  # types or sources for which their index drives the scan
DATA_COST = 5  # of a row whose data is parsed
MICROSECOND_COST = 2  # of a search in the index
_TEXTS = """
    SELECT rowid FROM event_log INDEXED BY event_log_timestamp WHERE timestamp >= ? AND timestamp < ? {times} LIMIT ?
"""
_COUNT_TEXTS = f"SELECT count(*) FROM ({_TEXTS.format(times='')})"  # noqa: S608 - a constant of this module
_RANGE = "rowid BETWEEN ? AND ?"
_MAX_FREQUENCY = 1000  # the count stops here: more frequent conditions are equally unselective
# One step in the index for each value.
_DISTINCT = """
    WITH RECURSIVE found (name) AS (
        SELECT min({column}) FROM event_log INDEXED BY event_log_{column} WHERE {column} >= :low
        UNION ALL
        SELECT (SELECT min({column}) FROM event_log INDEXED BY event_log_{column} WHERE {column} > name)
        FROM found WHERE name IS NOT NULL AND (:high IS NULL OR name < :high)
    )
    SELECT name FROM found WHERE name IS NOT NULL AND (:high IS NULL OR name < :high) LIMIT :limit
"""
# The values of each match that a page and its figures show.
SHOWN = f"rowid, event_type, source, agent_id, {instants.SECOND}"
_NO_NAME = ""  # of no event


# A row that matches: the values of SHOWN, or only its rowid.
Match = tuple[Any, ...]


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
    found = [match[0] for match in itertools.islice(scan, limit + 1)]
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


def list_around(database: Database, filter_: LogFilter, found: tuple[int, Event], count: int) -> FoundPage:
    """Return that event, and up to *count* matches on each side of it."""
    rowid, event = found
    above = list_page(database, filter_, limit=count, cursor=rowid, is_newer=True)
    below = list_page(database, filter_, limit=count, cursor=rowid)
    newer = above.newer if above.events else None
    return FoundPage([*above.events, (rowid, event), *below.events], below.older, newer, below.is_scan_limited)


def place_at(database: Database, moment: str) -> int:
    """Return the cursor of the page that begins at *moment*.

    Its first event is the newest at that time or before it. *moment* is in Outfeed's own form. Timestamps in other
    forms are compared as text.
    """
    with database.connection() as connection:
        row = connection.execute(
            "SELECT rowid FROM event_log WHERE timestamp <= ? ORDER BY timestamp DESC, rowid DESC LIMIT 1", (moment,)
        ).fetchone()
    return row[0] + 1 if row and row[0] < MAX_ROWID else MIN_ROWID


def iterate_events(database: Database, filter_: LogFilter) -> Iterator[Event]:
    """Yield all events that match, newest first, in short reads.

    Events that are written during the iteration are not included.
    """
    matches = iter(LogScan(database, filter_, max_scanned=None))
    while chunk := [match[0] for match in itertools.islice(matches, 500)]:
        with database.connection() as connection:
            events = rows.load(connection, chunk)
        yield from events.values()


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
            events = rows.load(connection, [match[0]] if match else [])
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
        self._expression = filter_.expression() if filter_.has_words else None
        self._cost_of_row = DATA_COST if filter_.data else 1
        self._columns = SHOWN

    def __iter__(self) -> Iterator[Match]:
        return itertools.chain.from_iterable(self.chunks())

    def chunks(self) -> Iterator[list[Match]]:
        """Yield the matches in lists, in the order of the scan."""
        if self._filter.text is None or self._expression is not None:
            self._drivers, self._rowids = self._choose_driving_indexes()
            for span in self._spans():
                yield from self._scan_span(span)
                if self._is_limit_reached:
                    return
        self.is_finished = True

    def skip_values(self) -> None:
        """Yield matches as rowids only, from the next chunk on.

        They cost half as much.
        """
        self._columns = "rowid"

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

    def _scan_span(self, span: Span) -> Iterator[list[Match]]:
        size = self._chunk
        while span.low <= span.high and not self._is_limit_reached:
            found = self._read_chunk(span, size)
            self._spend(found.cost)
            self.position = found.end
            yield found.matches
            span = span._replace(low=found.end + 1) if self._is_upward else span._replace(high=found.end - 1)
            size = min(size * 4, MAX_CHUNK)

    def _spend(self, cost: int) -> None:
        if self._rows_left is not None:
            self._rows_left -= cost

    def _read_chunk(self, span: Span, size: int) -> _Chunk:
        """Scan the next rows of the span."""
        if self._expression is None:
            return self._read_rows(span, size)
        if span.block is not None:
            began = clock.thread_secs()
            found = self._index.find(span, self._expression, size, is_upward=self._is_upward)
            if found is not None:
                # A search without a match may have read long lists of words.
                micros = int((clock.thread_secs() - began) * 1e6)
                cost = 1 + MICROSECOND_COST * micros + len(found) * self._cost_of_row
                return _Chunk(self._matching(found), self._last_scanned(span, found, size), cost)
        candidates = self._read_rows(span, UNINDEXED_CHUNK)
        matching = self._read_texts([match[0] for match in candidates.matches])
        matches = [match for match in candidates.matches if match[0] in matching]
        return _Chunk(matches, candidates.end, candidates.cost * UNINDEXED_COST)

    def _read_rows(self, span: Span, size: int) -> _Chunk:
        """Scan the next rows of the driving index."""
        if self._rowids is not None:
            start, end = bisect_left(self._rowids, span.low), bisect_right(self._rowids, span.high)
            rowids = self._rowids[start:end][:size] if self._is_upward else self._rowids[start:end][::-1][:size]
            return _Chunk(self._matching(rowids), self._last_scanned(span, rowids, size), 1 + len(rowids))
        return self._read_driving_index(span, size)

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
        sql = f"SELECT {self._columns} FROM event_log NOT INDEXED {clauses}"  # noqa: S608 - constant clauses
        with self._database.connection() as connection:
            found = {match[0]: match for match in connection.execute(sql, values).fetchall()}
        return [found[rowid] for rowid in rowids if rowid in found]

    # --- choice of the driving index ----------------------------------------------------------------------------------

    def _choose_driving_indexes(self) -> tuple[list[tuple[str, str]], list[int] | None]:
        """Return the most selective condition, as its column and values.

        It is a list of (column, value) of one column, and empty if all rows must be read. If the times select still
        fewer rows, the second result is the sorted rowids of these instead. If the times lie near each other in the
        log, the full-text index's spans drive the scan.
        """
        filter_ = self._filter
        with self._database.connection() as connection:
            indexed = _indexed(connection)
            choices = [
                [(column, value) for value in given] for column, given in filter_.names().items() if column in indexed
            ]
            if "event_type" in indexed and (types := self._types_to_read(connection)) is not None:
                choices.append([("event_type", name) for name in types])
            if "source" in indexed and (sources := self._sources_to_read(connection)) is not None:
                choices.append([("source", name) for name in sources])
            costs = [min(_MAX_FREQUENCY, sum(_frequency(connection, *each) for each in choice)) for choice in choices]
            rowids = self._rowids_by_time(connection) if "timestamp" in indexed else None
        fewest = min(costs, default=_MAX_FREQUENCY)
        if rowids is not None and (len(rowids) <= fewest or fewest == _MAX_FREQUENCY):
            return [], rowids
        return (choices[costs.index(fewest)] if choices else []), None

    def _types_to_read(self, connection: Connection) -> list[str] | None:
        """Return the types in the log that may match, or None for too many."""
        filter_ = self._filter
        wanted, unwanted = filter_.types or filter_.visible.types, filter_.excluded.types
        if not wanted and not unwanted:
            return None
        found = _types(connection, wanted) if wanted else _distinct(connection, "event_type")
        if found is None:
            return None
        return [name for name in found if not any(is_of_type(name, each) for each in unwanted)] or [_NO_NAME]

    def _sources_to_read(self, connection: Connection) -> list[str] | None:
        """Return the sources that are not excluded, or None for too many."""
        unwanted = self._filter.excluded.sources
        found = _distinct(connection, "source") if unwanted else None
        return None if found is None else [name for name in found if name not in unwanted] or [_NO_NAME]

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

    def _read_driving_index(self, span: Span, size: int) -> _Chunk:
        order, end_of = ("ASC", "max") if self._is_upward else ("DESC", "min")
        parts = [f"INDEXED BY event_log_{column} WHERE {column} = ? AND {_RANGE}" for column, _ in self._drivers]
        parts = parts or [f"NOT INDEXED WHERE {_RANGE}"]
        conditions = "".join(f" AND {clause}" for clause in self._where)
        # Each of several parts is sorted, and SQLite merges them.
        scanned = " UNION ALL ".join(f"SELECT rowid FROM event_log {part}" for part in parts)  # noqa: S608 - constant clauses
        matching = " UNION ALL ".join(f"SELECT {self._columns} FROM event_log {part}{conditions}" for part in parts)  # noqa: S608
        with self._database.connection() as connection:
            end, count = connection.execute(
                f"SELECT {end_of}(rowid), count(*) FROM ({scanned} ORDER BY rowid {order} LIMIT ?)",  # noqa: S608
                (*self._bounds(span), size),
            ).fetchone()
            if count < size:
                end = span.high if self._is_upward else span.low
            span = span._replace(high=end) if self._is_upward else span._replace(low=end)
            bound = self._bounds(span, rows.bound(self._where)[1])
            found = connection.execute(f"{matching} ORDER BY rowid {order}", bound).fetchall() if count else []
        return _Chunk(found, end, 1 + count * self._cost_of_row)

    def _bounds(self, span: Span, wanted: tuple[str | int, ...] = ()) -> tuple[str | int, ...]:
        """Return the values of the driving conditions, each with *wanted*."""
        drivers: list[tuple[str, ...]] = [(value,) for _, value in self._drivers] or [()]
        return tuple(value for driver in drivers for value in (*driver, span.low, span.high, *wanted))


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
        elif (found := _distinct(connection, "event_type", pattern[:-1], pattern[:-2] + "/")) is not None:
            names += found  # "/" follows "."
        else:
            return None
    names = list(dict.fromkeys(names))
    return names if len(names) <= MAX_NAMES else None


def _distinct(connection: Connection, column: str, low: str = "", high: str | None = None) -> list[str] | None:
    """Return the values of an indexed column, or None for too many.

    They are those from *low* to *high*.
    """
    bounds = {"low": low, "high": high, "limit": MAX_NAMES + 1}
    found = [row[0] for row in connection.execute(_DISTINCT.format(column=column), bounds).fetchall()]
    return found if len(found) <= MAX_NAMES and all(isinstance(name, str) for name in found) else None


def _frequency(connection: Connection, column: str, value: str) -> int:
    sql = f"SELECT 1 FROM event_log INDEXED BY event_log_{column} WHERE {column} = ? LIMIT ?"  # noqa: S608 - constant columns
    return len(connection.execute(sql, (value, _MAX_FREQUENCY)).fetchall())
