"""Events of a period: finds each once, without a scan of the whole log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from outfeed.log.store.search import Span
from outfeed.store import instants, rows
from outfeed.store.database import Connection

# The limit of rows without indexed times that are read. Of a larger span, the timestamps' index selects the rows.
MAX_READ = 20_000
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM event_log NOT INDEXED WHERE rowid BETWEEN ? AND ? LIMIT ?)"


class TimedPart(NamedTuple):
    """A part of `event_log` as `FROM … WHERE …`, with its values."""

    clause: str
    values: tuple[str | int, ...]


def parts(connection: Connection, spans: list[Span], since: str | None, until: str | None) -> Iterator[TimedPart]:
    """Yield clauses that select each event of a period exactly once.

    The period is from *since* to *until*. *spans* is the result of `Index.spans` for the same period. The
    caller gets it before *connection* begins to read.
    """
    times, values = rows.bound(instants.within(since, until))
    times = times.replace("WHERE", "AND", 1)
    for span in spans:
        if span.is_timed or not _has_index(connection) or _size(connection, span, MAX_READ + 1) <= MAX_READ:
            clause = f"FROM event_log NOT INDEXED WHERE rowid BETWEEN ? AND ? {times}"
            yield TimedPart(clause, (span.low, span.high, *values))
            continue
        for low, high in instants.text_ranges(since, until):
            clause = (
                "FROM event_log INDEXED BY event_log_timestamp"
                f" WHERE timestamp >= ? AND timestamp < ? AND rowid BETWEEN ? AND ? {times}"
            )
            yield TimedPart(clause, (low, high, span.low, span.high, *values))


def has_few_rows(connection: Connection, spans: list[Span], limit: int) -> bool:
    """Return whether the spans have at most *limit* rows.

    A span with indexed times counts as full.
    """
    for span in spans:
        limit -= span.high - span.low + 1 if span.is_timed else _size(connection, span, limit + 1)
        if limit < 0:
            return False
    return True


def _size(connection: Connection, span: Span, limit: int) -> int:
    return int(connection.execute(_COUNT, (span.low, span.high, limit)).fetchone()[0])


def _has_index(connection: Connection) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'event_log_timestamp'"
    return connection.execute(sql).fetchone() is not None
