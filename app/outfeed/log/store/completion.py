"""Completion: the values of a column that begin with a text."""

from __future__ import annotations

import itertools

from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.log_page import LogScan
from outfeed.principal import EVERYTHING, EventScope
from outfeed.redaction import redact
from outfeed.store.database import Connection, Database

MAX_VALUES = 10
MAX_READ = 200  # values of the column, of which a principal may see few
MAX_SCANNED = 200  # events of a value that are read to find one that the principal may see
COLUMNS = ("event_type", "source", "task_id", "agent_id")
_LAST = "\U0010ffff"
# One step in the index for each value.
_VALUES = """
    WITH RECURSIVE found (name) AS (
        SELECT min({column}) FROM event_log WHERE {column} >= :low AND {column} IS NOT NULL
        UNION ALL
        SELECT (SELECT min({column}) FROM event_log WHERE {column} > name)
        FROM found WHERE name IS NOT NULL AND name < :high
    )
    SELECT name FROM found WHERE name IS NOT NULL AND name < :high LIMIT :limit
"""


def complete(database: Database, visible: EventScope, column: str, prefix: str) -> list[str]:
    """Return values of *column* that begin with *prefix*, in order.

    There are MAX_VALUES at most. Each is of an event in *visible*.
    """
    with database.connection() as connection:
        found = _values(connection, column, prefix)
    shown = (
        value
        for value in found
        if redact(value) == value and (visible == EVERYTHING or _is_visible(database, visible, column, value))
    )
    return list(itertools.islice(shown, MAX_VALUES))


def _values(connection: Connection, column: str, prefix: str) -> list[str]:
    assert column in COLUMNS
    bounds = {"low": prefix, "high": prefix + _LAST, "limit": MAX_READ}
    found = connection.execute(_VALUES.format(column=column), bounds).fetchall()
    return [row[0] for row in found if isinstance(row[0], str)]


def _is_visible(database: Database, visible: EventScope, column: str, value: str) -> bool:
    if column == "event_type":
        return visible.covers(value)
    names = {"source": LogFilter(visible, source=value), "task_id": LogFilter(visible, task_id=value)}
    filter_ = names.get(column) or LogFilter(visible, agent_id=value)
    return next(iter(LogScan(database, filter_, max_scanned=MAX_SCANNED)), None) is not None
