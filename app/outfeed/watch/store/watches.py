"""The rows of `outfeed_watch`, and their triggers.

Callers hold the transaction.

`create_triggers` makes all triggers of a watch again, as the newest of its table; `present_triggers` and
`Watch.triggers` are the texts that a repair compares.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import InvalidWatch, UnknownName
from outfeed.store import database as db
from outfeed.store import displays as stored_displays
from outfeed.store.database import Connection, Database
from outfeed.store.event_log import log_event
from outfeed.watch import definition as definitions
from outfeed.watch import displays
from outfeed.watch.definition import Definition
from outfeed.watch.store import generate, schema
from outfeed.watch.store.sql import quoted
from outfeed.watch.table import WatchedTable, folded

# A writer whose SQLite refuses this cannot write to a watched table.
WRITER_TEST = "SELECT json_quote(1)"
JOB = "watches"  # the lease on repairs and snapshots
COMMAND, FILE = "command", "file"
ACTIVE, PAUSED, WAITING, REMOVED = "active", "paused", "waiting", "removed"
_COLUMNS = "number, name, type, options, made_by, generator, state, created_at, checked_at, last_key, snapshot"
_numbers = itertools.count()
# Functions and collations of the program: its own connections have them, and compile its triggers.
PROGRAMS_OWN = (
    "no such collation sequence",
    "no such function",
    "unknown function",
    "no such module",
    "unknown tokenizer",
)


@dataclass(frozen=True, slots=True)
class Watch:
    """A row of `outfeed_watch`.

    *secrets* are the words that hide a column, *max_event_bytes* the limit of an event.
    """

    number: int
    definition: Definition
    secrets: tuple[str, ...]
    max_event_bytes: int
    made_by: str
    generator: int
    state: str
    created_at: str
    checked_at: str | None
    last_key: int | None
    snapshot: str | None

    @property
    def table(self) -> str:
        return self.definition.table

    @property
    def type(self) -> str:
        return self.definition.type

    @property
    def options(self) -> str:
        """The text of the column `options`."""
        values = json.loads(self.definition.as_json())
        values |= {"secrets": sorted(self.secrets), "max_event_bytes": self.max_event_bytes}
        return json.dumps(values, ensure_ascii=False, sort_keys=True)

    def triggers(self, table: WatchedTable) -> dict[str, str]:
        """Return the triggers as they must be, name to text, oldest first."""
        return generate.triggers(
            self.number, self.definition, table, secrets=self.secrets, max_event_bytes=self.max_event_bytes
        )

    def row_events(self, table: WatchedTable, existing_type: str | None) -> str:
        """Return the statement that logs rows: `generate.row_events`."""
        return generate.row_events(
            self.number,
            self.definition,
            table,
            secrets=self.secrets,
            max_event_bytes=self.max_event_bytes,
            existing_type=existing_type,
        )


# --- reading ----------------------------------------------------------------------------------------------------------


def list_watches(connection: Connection, *, with_removed: bool = False) -> list[Watch]:
    """Return the watches by number."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM outfeed_watch ORDER BY number").fetchall()
    found = [_watch(*row) for row in rows]
    return [each for each in found if with_removed or each.state != REMOVED]


def find(connection: Connection, table: str) -> Watch:
    """Return the watch of that table. Raises UnknownName."""
    for each in list_watches(connection):
        if folded(each.table) == folded(table):
            return each
    raise UnknownName(f"table {table!r:.220} is not watched")


def _watch(
    number: int, name: str, type_: str, options: str, made_by: str, generator: int, state: str, created_at: str,
    checked_at: str | None, last_key: int | None, snapshot: str | None,
) -> Watch:  # fmt: skip
    values = json.loads(options)
    return Watch(
        number=number,
        definition=definitions.from_json(name, type_, options),
        secrets=tuple(values["secrets"]),
        max_event_bytes=values["max_event_bytes"],
        made_by=made_by,
        generator=generator,
        state=state,
        created_at=created_at,
        checked_at=checked_at,
        last_key=last_key,
        snapshot=snapshot,
    )


def keep_days(connection: Connection) -> dict[str, float]:
    """Return the days that the log keeps events of watches, by type.

    The days of a removed watch count, too.
    """
    found = list_watches(connection, with_removed=True)
    return {type_: each.definition.keep_days for each in found for type_ in each.definition.types}


def present_triggers(connection: Connection, number: int | None = None) -> dict[str, str]:
    """Return the triggers in the file, of watch *number* or of all watches.

    They are texts by name, oldest first.
    """
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid").fetchall()
    owners = {name: generate.watch_of(name) for name, _ in rows}
    return {name: sql for name, sql in rows if owners[name] is not None and number in (None, owners[name])}


@contextmanager
def rehearsal(database: Database) -> Iterator[Connection]:
    """Lend a connection in a write transaction that is rolled back."""
    with database.connection(is_limited=False) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")


# --- writing ----------------------------------------------------------------------------------------------------------


def put(connection: Connection, definition: Definition, *, made_by: str, settings: Settings) -> Watch:
    """Create the watch, or replace that of the same table, with its triggers.

    Returns it as it is now.

    If the table does not exist, the watch waits for it. A paused watch stays paused. Raises InvalidWatch.
    """
    others = [each.definition for each in list_watches(connection) if folded(each.table) != folded(definition.table)]
    definitions.check_together([*others, definition])
    return _store(connection, *planned(connection, definition, made_by=made_by, settings=settings))


def planned(
    connection: Connection, definition: Definition, *, made_by: str, settings: Settings
) -> tuple[Watch, WatchedTable | None]:
    """Return the watch as it would be stored, and its table.

    Its number is 0 if it is new. Raises InvalidWatch.
    """
    table = schema.read(connection, definition.table)
    if table is not None:
        definition = replace(definition, table=table.name)
    before = _before(connection, definition.table)
    secrets = tuple(sorted({*settings.redact_keys, *(before.secrets if before else ())}))
    if table is not None:
        definitions.check_table(definition, table, secrets)
        displays.check_labels(definition, generate.reported_columns(definition, table))
    state = PAUSED if before is not None and before.state == PAUSED else ACTIVE
    watch = Watch(
        number=before.number if before else 0,
        definition=definition,
        secrets=secrets,
        max_event_bytes=settings.max_event_bytes,
        made_by=made_by,
        generator=generate.GENERATOR,
        state=state if table is not None else WAITING,
        created_at=before.created_at if before else clock.isoformat(clock.now()),
        checked_at=before.checked_at if before else None,
        last_key=before.last_key if before else None,
        snapshot=before.snapshot if before else None,
    )
    return watch, table


def _before(connection: Connection, table: str) -> Watch | None:
    """Return the row of that table, be it removed."""
    found = list_watches(connection, with_removed=True)
    return next((each for each in found if folded(each.table) == folded(table)), None)


def _set_displays(connection: Connection, definition: Definition) -> None:
    """Set the displays of the types of a watch; those of a command stay."""
    wanted = displays.of(definition)
    stored_displays.remove(connection, definition.types - wanted.keys(), stored_displays.MadeBy.WATCH)
    stored_displays.put(connection, wanted, stored_displays.MadeBy.WATCH)


def _store(connection: Connection, watch: Watch, table: WatchedTable | None) -> Watch:
    connection.execute(
        "DELETE FROM outfeed_watch WHERE state = ? AND type = ? AND number <> ?", (REMOVED, watch.type, watch.number)
    )
    if watch.number:
        connection.execute(
            "UPDATE outfeed_watch SET name = ?, type = ?, options = ?, made_by = ?, generator = ?, state = ?"
            " WHERE number = ?",
            (watch.table, watch.type, watch.options, watch.made_by, watch.generator, watch.state, watch.number),
        )
    else:
        (number,) = connection.execute(
            "INSERT INTO outfeed_watch (name, type, options, made_by, generator, state, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number",
            (watch.table, watch.type, watch.options, watch.made_by, watch.generator, watch.state, watch.created_at),
        ).fetchone()
        watch = replace(watch, number=number)
    _set_displays(connection, watch.definition)
    if watch.state == ACTIVE and table is not None:
        create_triggers(connection, watch, table)
    else:
        drop_triggers(connection, watch.number)
    return watch


def create_triggers(connection: Connection, watch: Watch, table: WatchedTable) -> None:
    """Create all triggers of *watch* again, as the newest of *table*.

    Notes that they are present.

    Raises InvalidWatch if SQLite can't compile them; then the caller must roll back.
    """
    drop_triggers(connection, watch.number)
    for text in watch.triggers(table).values():
        connection.execute(text)
    _check_compiled(connection, table)
    connection.execute(
        "UPDATE outfeed_watch SET generator = ?, checked_at = ?, last_key = ? WHERE number = ?",
        (generate.GENERATOR, clock.isoformat(clock.now()), last_key(connection, table), watch.number),
    )


def drop_triggers(connection: Connection, number: int) -> None:
    """Drop all triggers of the watch, on any table."""
    for name in present_triggers(connection, number):
        connection.execute(f"DROP TRIGGER {quoted(name)}")


def _check_compiled(connection: Connection, table: WatchedTable) -> None:
    """Compile one statement of each kind, and run none.

    A trigger that can't be compiled would fail the program's writes.
    """
    name, column = quoted(table.name), quoted(_writable(table))
    for statement in (
        f"INSERT INTO {name} DEFAULT VALUES",
        f"UPDATE {name} SET {column} = NULL",
        f"DELETE FROM {name}",
    ):
        try:
            # Never the same text twice: SQLite 3.40 crashes if it compiles a cached EXPLAIN again for another schema.
            connection.execute(f"EXPLAIN {statement} -- {next(_numbers)}").fetchall()
        except db.OperationalError as error:
            if not str(error).startswith(PROGRAMS_OWN):
                raise InvalidWatch(f"{table.name}: SQLite can't compile its triggers: {error}") from error


def _writable(table: WatchedTable) -> str:
    return next((column.name for column in table.columns if not column.generated), table.columns[0].name)


def last_key(connection: Connection, table: WatchedTable) -> int | None:
    if not table.has_integer_key:
        return None
    (last,) = connection.execute(f"SELECT max({quoted(table.primary_key[0])}) FROM {quoted(table.name)}").fetchone()
    return None if last is None else int(last)


def remove(connection: Connection, table: str) -> Watch:
    """Drop the triggers of the watch.

    Its row stays, since its days count for its events. Raises UnknownName.
    """
    watch = find(connection, table)
    drop_triggers(connection, watch.number)
    set_state(connection, watch, REMOVED)
    return watch


def pause(connection: Connection, table: str) -> Watch:
    """Drop the triggers of the watch until `resume`.

    Raises UnknownName, InvalidWatch.
    """
    watch = find(connection, table)
    if watch.state == PAUSED:
        raise InvalidWatch(f"{watch.table}: is paused already")
    drop_triggers(connection, watch.number)
    if watch.state == ACTIVE:
        connection.execute(
            "UPDATE outfeed_watch SET checked_at = ? WHERE number = ?", (clock.isoformat(clock.now()), watch.number)
        )
    set_state(connection, watch, PAUSED)
    return watch


def resume(connection: Connection, table: str) -> Watch:
    """Create the triggers of a paused watch again, and write its `T.gap`.

    Raises UnknownName, InvalidWatch.
    """
    watch = find(connection, table)
    if watch.state != PAUSED:
        raise InvalidWatch(f"{watch.table}: is not paused")
    found = schema.read(connection, watch.table)
    state = WAITING if found is None else ACTIVE
    set_state(connection, watch, state)
    if found is not None:
        create_triggers(connection, watch, found)
        write_gap(connection, watch, since=watch.checked_at)
    return replace(watch, state=state)


def rename(connection: Connection, watch: Watch, table: str) -> Watch:
    """Have the watch follow its table to another name; return it as it is now."""
    connection.execute("UPDATE outfeed_watch SET name = ? WHERE number = ?", (table, watch.number))
    return replace(watch, definition=replace(watch.definition, table=table))


def store_secrets(connection: Connection, watch: Watch) -> None:
    """Store the words that hide columns."""
    connection.execute("UPDATE outfeed_watch SET options = ? WHERE number = ?", (watch.options, watch.number))


def set_state(connection: Connection, watch: Watch, state: str) -> None:
    connection.execute("UPDATE outfeed_watch SET state = ? WHERE number = ?", (state, watch.number))


def write_gap(
    connection: Connection, watch: Watch, *, since: str | None, added: int = 0, uncertain: bool = True
) -> None:
    """Write `T.gap`: changes between *since* and now have no event.

    *added* inserts were caught up with.

    *uncertain*: it is not known whether there were any changes.
    """
    now = clock.isoformat(clock.now())
    data = {"op": "gap", "table": watch.table, "key": None, "from": since, "to": now, "added": added}
    source = watch.definition.source or watch.table[:200]
    log_event(f"{watch.type}.{definitions.GAP}", source, data={**data, "uncertain": uncertain}, connection=connection)


# --- a whole file -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """The tables whose watch `apply` added, changed and removed."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def apply(connection: Connection, wanted: Sequence[Definition], settings: Settings) -> Applied:
    """Make the watches of a file those of the database.

    Writes nothing if they are so already.

    Removes only watches that an earlier call made, and takes over one that `watch add` made. Raises InvalidWatch before
    anything is written, but for triggers that SQLite can't compile: the caller rolls back.
    """
    current = list_watches(connection)
    names = {folded(each.table) for each in wanted}
    gone = [each for each in current if each.made_by == FILE and folded(each.table) not in names]
    kept = [each.definition for each in current if each not in gone and folded(each.table) not in names]
    definitions.check_together([*kept, *wanted])
    plans = [planned(connection, each, made_by=FILE, settings=settings) for each in wanted]
    todo = [(watch, table) for watch, table in plans if not _is_there(connection, watch, table)]
    for each in gone:
        remove(connection, each.table)
    # Types may move from one watch to another.
    connection.executemany(
        "UPDATE outfeed_watch SET type = '~' || number WHERE number = ?",
        [(watch.number,) for watch, _ in todo if watch.number],
    )
    for watch, table in todo:
        _store(connection, watch, table)
    before = {folded(each.table) for each in current}
    return Applied(
        added=tuple(watch.table for watch, _ in todo if folded(watch.table) not in before),
        changed=tuple(watch.table for watch, _ in todo if folded(watch.table) in before),
        removed=tuple(each.table for each in gone),
    )


def _is_there(connection: Connection, watch: Watch, table: WatchedTable | None) -> bool:
    """Return whether the database has *watch* just so, with its triggers."""
    before = _before(connection, watch.table)
    if before is None or (before.table, before.type, before.options, before.made_by, before.state) != (
        watch.table, watch.type, watch.options, watch.made_by, watch.state
    ):  # fmt: skip
        return False
    expected = watch.triggers(table) if table is not None and watch.state == ACTIVE else {}
    return present_triggers(connection, watch.number) == expected
