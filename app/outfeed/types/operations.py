"""Operations on displays, which the commands and the pages share.

Each change writes an audit event with the principal *by* that requested it.
"""

from __future__ import annotations

from collections.abc import Mapping

from outfeed.display import Display
from outfeed.errors import UnknownName
from outfeed.store import audit, displays
from outfeed.store.database import Database
from outfeed.store.displays import Displays, MadeBy

MAX_NAMED = 20  # types in the event of an import


def read(database: Database) -> Displays:
    """Return the displays that were set. Raises DatabaseError."""
    with database.snapshot() as connection:
        return displays.read(connection)


def set_display(database: Database, name: str, display: Display, by: str) -> None:
    """Set the display of the type *name*, also in place of one of a watch.

    Raises InvalidDisplay if too many types have one.
    """
    with database.transaction() as connection:
        displays.put(connection, {name: display}, MadeBy.COMMAND)
        audit.record(connection, "access.display_set", by, name=name, **display.as_dict())


def remove(database: Database, name: str, by: str) -> None:
    """Remove the display of the type *name*. Raises UnknownName."""
    with database.transaction() as connection:
        if not displays.remove(connection, [name]):
            raise UnknownName(f"the type {name!r:.80} has no display")
        audit.record(connection, "access.display_removed", by, name=name)


def import_displays(database: Database, given: Mapping[str, Display], by: str, *, dry_run: bool = False) -> list[str]:
    """Set all of *given*, or none; return the names of those that change.

    With *dry_run* nothing changes. Raises InvalidDisplay if too many types would have one.
    """
    with database.transaction() as connection:
        before = displays.read(connection)
        changed = [name for name, each in given.items() if _differs(name, each, before)]
        if changed and not dry_run:
            displays.put(connection, given, MadeBy.COMMAND)
            audit.record(connection, "access.displays_imported", by, count=len(changed), types=changed[:MAX_NAMED])
    return changed


def _differs(name: str, display: Display, before: Displays) -> bool:
    return before.by_type.get(name) != display or before.made_by[name] is not MadeBy.COMMAND
