"""Commands of the log: log, events, event."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outfeed import clock
from outfeed.cli import show
from outfeed.cli.values import checked, parsed_json, past
from outfeed.errors import InvalidRequest, UnknownName

if TYPE_CHECKING:
    from outfeed.events import Event
    from outfeed.log.store.log_filter import LogFilter

FOLLOW_SECS = 1.0


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
@click.option("-q", "--query", metavar="QUERY", help="Only events that match a query of the log's page.")
@click.option(
    "--since",
    "--from",
    "since",
    callback=checked(past),
    metavar="WHEN",
    help="Only events since then: 15m, 2h, 7d, or an ISO 8601 time, in UTC unless it has a zone.",
)
@click.option("--until", "--to", "until", callback=checked(past), metavar="WHEN", help="Only events before then.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Maximum number of events."
)
@click.option("--follow", "-f", "is_following", is_flag=True, help="Oldest first, and then new events until Ctrl-C.")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one event per line.")
@click.pass_context
def events(context: click.Context, /, limit: int, is_following: bool, is_json: bool, **filters: Any) -> None:
    """Show events from the log, newest first.

    Reads the database, so it needs no token and no server. With --follow and --json, prints one object per line.

    \b
    Example:
      outfeed events --type task.failed --since 15m --text timeout --limit 20
      outfeed events -q 'type:task.* -source:ci data.status:500 since:1h'
    """
    from outfeed.log.store.reading import list_events

    if context.invoked_subcommand is not None:
        return
    try:
        if is_following:
            if filters.pop("until") is not None:
                raise click.UsageError("--follow and --until exclude each other.")
            _follow(_filter(**filters), limit, is_json)
            return
        found = list_events(limit=limit, **filters)
    except InvalidRequest as error:
        raise click.UsageError(str(error).removeprefix("q: ")) from None
    if is_json:
        show.put(show.as_json_lines(event.as_dict() for event in found))
        return
    _print(found, is_json=False)
    show.say(f"Showed {show.count(len(found), 'event')}, newest first." if found else "No events match.")


def _filter(event_type: str | None, since: datetime | None, query: str | None, **more: Any) -> LogFilter:
    from outfeed.log.filters import narrowed
    from outfeed.log.store.log_filter import LogFilter, split_types
    from outfeed.principal import EVERYTHING
    from outfeed.store import database as db

    first = clock.isoformat(since) if since else None
    return narrowed(LogFilter(EVERYTHING, split_types(event_type), since=first, **more), query, db.default())


def _follow(wanted: LogFilter, limit: int, is_json: bool) -> None:
    from outfeed.log.store.follow import LogFollower
    from outfeed.store import database as db

    follower = LogFollower(db.default(), wanted)
    try:
        _print(follower.read_before(limit)[::-1], is_json)
        while True:
            if found := follower.read_new():
                _print(found, is_json)
            else:
                threading.Event().wait(FOLLOW_SECS)
    except KeyboardInterrupt:
        show.say("Stopped.", err=True)


def _print(found: list[Event], is_json: bool) -> None:
    from outfeed.feature import shipped_displays
    from outfeed.store import database as db
    from outfeed.store.displays import DisplayCache

    displays = {} if is_json else DisplayCache(db.default(), shipped_displays()).current().by_type
    for event in found:
        show.put(show.as_json(event.as_dict()) if is_json else show.event_line(event, displays))


@click.command("event")
@click.argument("event_id", metavar="ID")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def event_(event_id: str, is_json: bool) -> None:
    """Show the event ID with all its fields and data.

    \b
    Example:
      outfeed event task-1-created
    """
    from outfeed.log.store.reading import get_event

    found = get_event(event_id)
    if found is None:
        raise UnknownName(f"event {event_id!r:.220} not found; `outfeed events` shows the newest events")
    if is_json:
        show.put(show.as_json(found.as_dict()))
        return
    _print([found], is_json=False)
    for name, value in found.as_dict().items():
        if name != "data" and value is not None:
            show.line(f"{name:<12}{value}")
    show.lines(json.dumps(found.data, indent=2, ensure_ascii=False))


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
