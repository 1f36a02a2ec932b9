"""Events of a time: where in the log they are, each once, without a look at all of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from outfeed.log.store.search import Span
from outfeed.store import instants, rows
from outfeed.store.database import Connection

# Of rows whose times the index does not know, so many are read; of more, those that their texts allow.
MAX_READ = 20_000
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM event_log NOT INDEXED WHERE rowid BETWEEN ? AND ? LIMIT ?)"


class TimedPart(NamedTuple):
    """A part of `event_log` as `FROM … WHERE …`, and the values that it binds."""

    clause: str
    values: tuple[str | int, ...]


def parts(connection: Connection, spans: list[Span], since: str | None, until: str | None) -> Iterator[TimedPart]:
    """Yield parts of the log that together have each event between the times once.

    *spans* are those that `Index.spans` gave for the times, before *connection* began to read.
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


def are_few(connection: Connection, spans: list[Span], limit: int) -> bool:
    """Return whether the spans have no more than *limit* rows; those whose times are known count as full."""
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
