"""The table of displays, with one row for each event type that has one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from outfeed.display import Display, Level
from outfeed.errors import InvalidDisplay
from outfeed.store.database import Connection, Database

MAX_DISPLAYS = 1000


class MadeBy(StrEnum):
    """The origin of a display. A command's wins over a watch's."""

    COMMAND = "command"
    WATCH = "watch"


class Displays(NamedTuple):
    """All displays by type, after the change *version* of *epoch*.

    *made_by* is the origin of those in the database.
    """

    epoch: str
    version: int
    by_type: Mapping[str, Display]
    made_by: Mapping[str, MadeBy]


def read(connection: Connection) -> Displays:
    """Return all displays. Call it in a transaction, for one state."""
    rows = connection.execute("SELECT name, icon, label, level, made_by FROM outfeed_type ORDER BY name").fetchall()
    by_type = {name: Display(icon, label, Level(level)) for name, icon, label, level, _ in rows}
    return Displays(*_version(connection), by_type, {row[0]: MadeBy(row[4]) for row in rows})


def _version(connection: Connection) -> tuple[str, int]:
    values = dict(connection.execute("SELECT key, value FROM outfeed_meta WHERE key IN ('epoch', 'types')").fetchall())
    return str(values["epoch"]), int(values["types"])


def put(connection: Connection, displays: Mapping[str, Display], made_by: MadeBy) -> None:
    """Set *displays*, by type, in the caller's transaction.

    Equal ones change nothing, and those of a watch do not replace those of a command. Raises InvalidDisplay if more
    than MAX_DISPLAYS types would have one.
    """
    connection.executemany(
        "INSERT INTO outfeed_type (name, icon, label, level, made_by) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE"
        " SET icon = excluded.icon, label = excluded.label, level = excluded.level, made_by = excluded.made_by"
        " WHERE (made_by = 'watch' OR excluded.made_by = 'command')"
        " AND (icon, label, level, made_by) IS NOT (excluded.icon, excluded.label, excluded.level, excluded.made_by)",
        [
            (name, each.icon, each.label, (each.level or Level.INFO).value, made_by.value)
            for name, each in displays.items()
        ],
    )
    (count,) = connection.execute("SELECT count(*) FROM outfeed_type").fetchone()
    if count > MAX_DISPLAYS:
        raise InvalidDisplay(f"at most {MAX_DISPLAYS:,} types may have a display; these would be {count:,}")


def remove(connection: Connection, names: Iterable[str], made_by: MadeBy | None = None) -> int:
    """Remove the displays of the types *names*; return how many existed.

    The caller has begun the transaction. With *made_by*, only those of that origin are removed.
    """
    done = connection.executemany(
        "DELETE FROM outfeed_type WHERE name = :name AND (:made_by IS NULL OR made_by = :made_by)",
        [{"name": name, "made_by": made_by} for name in names],
    )
    return done.rowcount


class CurrentDisplays(Protocol):
    """The displays of a serving process. Any thread may call it."""

    def current(self) -> Displays:
        """Return the displays as they are now. Raises SourceError."""
        ...


class DisplayCache:
    """The displays of one database, read again after each change.

    Those in the database replace *shipped* ones. Any thread may call it. `_lock` guards `_displays`.
    """

    def __init__(self, database: Database, shipped: Mapping[str, Display] = MappingProxyType({})) -> None:
        self._database = database
        self._shipped = shipped
        self._lock = threading.Lock()
        self._displays: Displays | None = None

    def version(self) -> int:
        """Return the number of the last change. Raises DatabaseError."""
        with self._database.connection() as connection:
            return _version(connection)[1]

    def current(self) -> Displays:
        """Return the displays as they are now. Raises DatabaseError.

        Costs one SELECT while nothing changes.
        """
        with self._database.connection() as connection:
            version = _version(connection)
        with self._lock:
            found = self._displays
        if found is not None and (found.epoch, found.version) == version:
            return found
        with self._database.snapshot() as connection:
            found = read(connection)
        found = found._replace(by_type={**self._shipped, **found.by_type})
        with self._lock:
            self._displays = found
        return found
