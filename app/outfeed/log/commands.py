"""Commands of the log: log, events."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from outfeed import clock
from outfeed.cli import show
from outfeed.cli.values import checked, parsed_json


def _moment(value: str) -> datetime:
    moment = clock.parsed(value)
    if moment is None:
        raise ValueError(f"must be a time like 2026-01-31T12:00:00Z (got {value!r:.80})")
    return moment


@click.command()
@click.argument("event_type", metavar="TYPE")
@click.option("--source", required=True, help="Component that writes the event.")
@click.option("--task-id", help="Task of the event.")
@click.option("--agent-id", help="Agent of the event.")
@click.option("--data", metavar="JSON", callback=checked(parsed_json), help="Data of the event, as JSON.")
@click.option(
    "--id", "event_id", help="Id of the event. An event with an existing id and the same content is not written twice."
)
def log(event_type: str, event_id: str | None, **fields: Any) -> None:
    """Write one event of TYPE, such as task.created.

    \b
    Example:
      outfeed log task.created --source coordinator --task-id task-1 --data '{"description": "Write the docs"}'
    """
    from outfeed.store.event_log import log_event

    event = log_event(event_type, id=event_id, **fields)
    show.say(f"Logged {event.event_type} as {event.id}.")


@click.group(invoke_without_command=True)
@click.option("--type", "event_type", help="Only these types, comma-separated. task.* matches all task types.")
@click.option("--source", help="Only this source.")
@click.option("--task-id", help="Only this task.")
@click.option("--agent-id", help="Only this agent.")
@click.option("--text", help='Only with these words; "a phrase"; wor*; one OR other; -excluded.')
@click.option(
    "--from",
    "since",
    callback=checked(_moment),
    metavar="TIME",
    help="Only events since this time. UTC unless it has a zone.",
)
@click.option("--to", "until", callback=checked(_moment), metavar="TIME", help="Only events before this time.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Maximum number of events."
)
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one event per line.")
@click.pass_context
def events(context: click.Context, /, is_json: bool, **filters: Any) -> None:
    """Show events from the log, newest first.

    \b
    Example:
      outfeed events --type task.failed --text timeout --limit 20
    """
    from outfeed.log.store.reading import list_events
    from outfeed.store import database as db
    from outfeed.store.displays import DisplayCache

    if context.invoked_subcommand is not None:
        return
    found = list_events(**filters)
    displays = DisplayCache(db.default()).current().by_type
    if is_json:
        show.put(show.as_json_lines(event.as_dict() for event in found))
        return
    for event in found:
        show.put(show.event_line(event, displays))
    show.say(f"Showed {show.count(len(found), 'event')}, newest first." if found else "No events match.")


@events.command("import")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--into", required=True, type=click.Path(dir_okay=False, path_type=Path), help="New database file.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def import_(files: tuple[Path, ...], into: Path, is_json: bool) -> None:
    """Import archives of `prune --archive` into a new database.

    The events are added to its log, not to its feed. Duplicates are imported once.

    \b
    Example:
      outfeed events import /var/backups/outfeed/*.ndjson.gz --into old.db
    """
    from outfeed.upkeep import archive

    count = archive.import_archives(files, into)
    if is_json:
        show.put(show.as_json({"events": count, "files": len(files), "database": str(into)}))
        return
    show.say(f"Imported {show.count(count, 'event')} from {show.count(len(files), 'archive')} into {into}.")
