"""`outfeed watch`: tables of the program whose changes become events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from outfeed.cli import show
from outfeed.cli.values import checked
from outfeed.config import settings
from outfeed.errors import InvalidWatch
from outfeed.store import database as db
from outfeed.store import lease, serving
from outfeed.text import separated
from outfeed.watch import definition as definitions
from outfeed.watch.definition import Definition
from outfeed.watch.store import generate, schema, watches
from outfeed.watch.store import snapshot as snapshots
from outfeed.watch.store.sql import quoted
from outfeed.watch.store.watches import Watch
from outfeed.watch.table import WatchedTable

_columns = checked(separated)


def _test(value: str) -> dict[str, list[str]]:
    """Return `{"status": ["a", "b"]}` for `status=a,b`."""
    column, equals, values = value.partition("=")
    if not column or not equals or not separated(values):
        raise ValueError(f"must be COLUMN=VALUE,VALUE (got {value!r:.80})")
    return {column.strip(): separated(values)}


@click.group()
def watch() -> None:
    """Make each change of a table of the same database an event.

    Triggers write the events in the program's own transaction. The program is not changed.

    \b
    Example:
      outfeed watch add orders
    """


@watch.command()
@click.argument("table")
@click.option("--as", "as_", metavar="TYPE", help="First part of the event types.  [default: the table's name]")
@click.option("--columns", callback=_columns, metavar="A,B", help="Report only these columns.")
@click.option("--except", "except_", callback=_columns, metavar="A,B", help="Report all columns but these.")
@click.option("--show", callback=_columns, metavar="A,B", help="Show these columns though their names look secret.")
@click.option("--no-key", is_flag=True, help="Accept events that do not name their row.")
@click.option("--source", metavar="TEXT", help="Source of the events.  [default: the table's name]")
@click.option("--source-column", metavar="COLUMN", help="Column that holds the source of the event.")
@click.option("--task-id", metavar="COLUMN", help="Column that holds the task of the event.")
@click.option("--agent-id", metavar="COLUMN", help="Column that holds the agent of the event.")
@click.option("--only-changes", callback=_columns, metavar="A,B", help="Report updates only if one of these changes.")
@click.option("--states", callback=checked(_test), metavar="COLUMN=V,V", help="Give each of these values its own type.")
@click.option(
    "--where", callback=checked(_test), metavar="COLUMN=V,V", help="Report only rows with one of these values."
)
@click.option("--message", metavar="LABEL", help="Sentence of the events, like 'Order {id} is {status}'.")
@click.option(
    "--keep-days", type=float, metavar="N", help="Days that the log keeps the events. 0: forever.  [default: 30]"
)
@click.option("--from-start", is_flag=True, help="Report the rows that exist already, too.")
@click.option("--dry-run", is_flag=True, help="Print the triggers. Change nothing.")
def add(table: str, source: str | None, source_column: str | None, dry_run: bool, **options: Any) -> None:
    """Watch TABLE, or replace its watch.

    \b
    Example:
      outfeed watch add orders
      outfeed watch add orders --only-changes status --states status=paid,refunded
    """
    if source is not None and source_column is not None:
        raise click.UsageError("Pass either --source or --source-column.")
    definition = _definition(table, {"column": source_column} if source_column else source, options)
    if dry_run:
        with watches.rehearsal(db.default()) as connection:
            _print_triggers(*_add(connection, definition))
        return
    with db.default().transaction() as connection:
        made, found = _add(connection, definition)
        if definition.from_start:
            snapshots.begin(connection, made, found)
    _tell(made, found)
    if definition.from_start:
        _run_snapshot()


def _definition(table: str, source: Any, options: dict[str, Any]) -> Definition:
    values = {"table": table, "source": source} | {name.rstrip("_"): value for name, value in options.items()}
    return definitions.from_values({name: value for name, value in values.items() if value not in (None, False)})


def _add(connection: Any, definition: Definition) -> tuple[Watch, WatchedTable]:
    table = schema.required(connection, definition.table)
    for each in watches.list_watches(connection):
        if each.made_by == watches.FILE and each.table == table.name:
            raise InvalidWatch(f"{table.name}: a file defines its watch. Change the file and run `outfeed watch apply`")
    return watches.put(connection, definition, made_by=watches.COMMAND, settings=settings()), table


def _print_triggers(made: Watch, table: WatchedTable) -> None:
    for text in made.triggers(table).values():
        show.lines(f"{text};\n")
    show.say("Nothing was changed.", err=True)


def _tell(made: Watch, table: WatchedTable) -> None:
    for line in _facts(made, table):
        show.line(line)


def _facts(made: Watch, table: WatchedTable) -> list[str]:
    definition = made.definition
    hidden = generate.hidden_columns(definition, table, made.secrets)
    shown = [name for name in table.names if definition.shows(name)]
    days = f"{definition.keep_days:g} days" if definition.keep_days else "forever"
    facts = [
        f"Watching {table.name}. Types: {', '.join(sorted(definition.types))}.",
        f"Key: {_key(definition, table)}.",
        f"Hidden columns: {', '.join(hidden)}." if hidden else "Hidden columns: none.",
    ]
    if shown:
        facts.append(f"Shown by --show: {', '.join(shown)}.")
    if table.uncovered:
        facts.append(
            f"Not covered: rows that REPLACE removes through {', '.join(table.uncovered)}, an index on an expression."
        )
    return [
        *facts,
        f"The log keeps the events: {days}.",
        "Each reported change costs the program one row in event_log, about 50 µs and 1.1 KB.",
        "The program needs a busy timeout, 5 seconds are good, since Outfeed writes to the same file.",
        f"Run in the program's own connection: {watches.WRITER_TEST}. If it fails, so will each write to this table.",
        "Every viewer with access to these types sees the shown columns.",
        "A token sees only some types if it was made with `outfeed token create --types`.",
    ]


def _key(definition: Definition, table: WatchedTable) -> str:
    if definition.no_key:
        return "none"
    if table.primary_key:
        return ", ".join(table.primary_key)
    return "none" if table.rowid is None else "rowid, which VACUUM can change"


@watch.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one watch per line.")
def list_(is_json: bool) -> None:
    """Show the watches.

    \b
    Example:
      outfeed watch list
    """
    with db.default().snapshot() as connection:
        found = watches.list_watches(connection)
    if is_json:
        show.put(show.as_json_lines(map(_as_dict, found)))
        return
    columns = ("Table", "Type", "State", "Made by", "Keep days", "Types")
    show.listing("watched table", columns, [_row(each) for each in found])


def _as_dict(each: Watch) -> dict[str, Any]:
    facts = show.fields(each, ("table", "type", "state", "made_by", "created_at", "checked_at"))
    return {**facts, "keep_days": each.definition.keep_days, "types": sorted(each.definition.types)}


def _row(each: Watch) -> tuple[str, ...]:
    days = f"{each.definition.keep_days:g}" if each.definition.keep_days else "forever"
    return each.table, each.type, each.state, each.made_by, days, ", ".join(sorted(each.definition.types))


@watch.command()
@click.argument("table")
def sql(table: str) -> None:
    """Print the triggers of the watch of TABLE.

    \b
    Example:
      outfeed watch sql orders
    """
    with db.default().snapshot() as connection:
        found = watches.find(connection, table)
        texts = watches.present_triggers(connection, found.number)
    for text in texts.values():
        show.lines(f"{text};\n")


@watch.command()
@click.argument("table")
def snapshot(table: str) -> None:
    """Report every row of TABLE again, as it is now.

    A program that mirrors the table recovers from a gap or a reset with these events. A running server writes them,
    and this command ends at once. Without a server, the command writes them itself.

    \b
    Example:
      outfeed watch snapshot orders
    """
    with db.default().transaction() as connection:
        found = watches.find(connection, table)
        if found.state != watches.ACTIVE:
            raise InvalidWatch(f"{found.table}: its watch is {found.state}, so its rows can't be reported")
        snapshots.begin(connection, found, schema.required(connection, found.table))
    _run_snapshot()


def _run_snapshot() -> None:
    database = db.default()
    if serving.serving(database.path) is not None:
        show.say("The running server reports the rows.")
        return
    with lease.hold(lease.lock_file(database.path, watches.JOB), wait=True):
        snapshots.run(database)
    show.say("Reported the rows.")


@watch.command()
@click.argument("table")
def pause(table: str) -> None:
    """Drop the triggers of the watch of TABLE.

    Changes until `resume` have no event.

    \b
    Example:
      outfeed watch pause orders
    """
    with db.default().transaction() as connection:
        found = watches.pause(connection, table)
    show.say(f"Paused the watch of {found.table}. Changes have no event until `outfeed watch resume`.")


@watch.command()
@click.argument("table")
def resume(table: str) -> None:
    """Create the triggers of the watch of TABLE again, and report the gap.

    \b
    Example:
      outfeed watch resume orders
    """
    with db.default().transaction() as connection:
        found = watches.resume(connection, table)
    show.say(f"Resumed the watch of {found.table}. The event {found.type}.gap marks the time without events.")


@watch.command()
@click.argument("table", required=False)
@click.option("--all", "is_all", is_flag=True, help="Remove every watch.")
def remove(table: str | None, is_all: bool) -> None:
    """Stop watching TABLE. Its events stay.

    \b
    Example:
      outfeed watch remove orders
      outfeed watch remove --all
    """
    if (table is None) != is_all:
        raise click.UsageError("Pass either TABLE or --all.")
    with db.default().transaction() as connection:
        names = [each.table for each in watches.list_watches(connection)] if table is None else [table]
        removed = [watches.remove(connection, name) for name in names]
    if table is None:
        show.say(f"Stopped watching {show.count(len(removed), 'table')}. Their events stay in the log.")
    else:
        show.say(f"Stopped watching {removed[0].table}. Its events stay in the log.")


@watch.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the triggers of changed watches. Change nothing.")
def apply(file: Path, dry_run: bool) -> None:
    """Make the watches of the TOML file FILE those of the database.

    Adds, changes and removes watches in one transaction. Watches that `watch add` made stay, unless FILE names their
    table. A table that does not exist yet is watched once it does.

    \b
    Example:
      outfeed watch apply watches.toml
    """
    try:
        wanted = definitions.from_toml(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidWatch(f"{file}: can't be read as UTF-8 text: {error}") from error
    if dry_run:
        with watches.rehearsal(db.default()) as connection:
            before = watches.present_triggers(connection)
            watches.apply(connection, wanted, settings())
            _print_changes(before, watches.present_triggers(connection))
        return
    with db.default().transaction() as connection:
        done = watches.apply(connection, wanted, settings())
    _tell_applied(done)


def _print_changes(before: dict[str, str], after: dict[str, str]) -> None:
    for name, text in before.items():
        if after.get(name) != text:
            show.lines(f"DROP TRIGGER {quoted(name)};\n")
    for name, text in after.items():
        if before.get(name) != text:
            show.lines(f"{text};\n")
    show.say("Nothing was changed.", err=True)


def _tell_applied(done: watches.Applied) -> None:
    for verb, names in (("Added", done.added), ("Changed", done.changed), ("Removed", done.removed)):
        for name in names:
            show.say(f"{verb} the watch of {name}.")
    show.say(
        "The database has the watches of the file." if done else "The database already had the watches of the file."
    )
