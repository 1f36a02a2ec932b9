"""Commands on the log: log, events, prune."""

from __future__ import annotations

import json
from typing import Any

import click

from app.cli import BY, show
from app.errors import UnknownName


def _json(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    try:
        return None if value is None else json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}") from error


@click.command()
@click.argument("event_type", metavar="TYPE")
@click.option("--source", required=True, help="What the event comes from.")
@click.option("--task-id", help="The task it belongs to.")
@click.option("--agent-id", help="The agent it belongs to.")
@click.option("--data", metavar="JSON", callback=_json, help="Anything else, as JSON.")
@click.option("--id", "event_id", help="The event's own id: writing the same again changes nothing.")
def log(event_type: str, event_id: str | None, **fields: Any) -> None:
    """Write one event of TYPE, such as task.created.

    \b
    Example:
      outfeed log task.created --source coordinator --task-id task-1 --data '{"description": "Write the docs"}'
    """
    from app.store.event_log import log_event

    event = log_event(event_type, id=event_id, **fields)
    click.echo(f"Logged {event.event_type} as {event.id}.")


@click.command()
@click.option("--type", "event_type", help="Only this type.")
@click.option("--source", help="Only this source.")
@click.option("--task-id", help="Only this task.")
@click.option("--agent-id", help="Only this agent.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most.")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one event a line.")
def events(is_json: bool, **filters: Any) -> None:
    """Show events from the log, newest first.

    \b
    Example:
      outfeed events --type task.failed --limit 20
    """
    from app.store.event_log import list_events

    found = list_events(**filters)
    if is_json:
        click.echo(show.as_json_lines(event.as_dict() for event in found))
        return
    for event in found:
        click.echo(show.event_line(event))
    click.echo(f"Showed {show.count(len(found), 'event')}, newest first." if found else "No event matches.")


@click.command()
@click.option("--older-than-days", type=click.IntRange(0, 36_500), help="Age in days.")
@click.option("--id", "event_id", help="This one event, out of the log and the outbox.")
@click.option("--dry-run", is_flag=True, help="Count only; delete nothing.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def prune(older_than_days: int | None, event_id: str | None, dry_run: bool, is_json: bool) -> None:
    """Delete old events from the log, or one event from everywhere.

    In small steps that no writer notices; stopped half-way, what is gone is gone and the rest stays.

    \b
    Example:
      outfeed prune --older-than-days 30 --dry-run
      outfeed prune --id 0192f0c1-7e57-7a11-8b0c-5ec2e7a1d00d
    """
    if (older_than_days is None) == (event_id is None):
        raise click.UsageError("say --older-than-days or --id")
    if event_id is not None:
        _erase(event_id, dry_run, is_json)
        return
    from app.store import database, retention

    assert older_than_days is not None
    matched = retention.prune(database.default(), older_than_days, dry_run=dry_run, by=BY)
    if is_json:
        facts = {"matched": matched, "deleted": 0 if dry_run else matched}
        click.echo(show.as_json({**facts, "older_than_days": older_than_days, "dry_run": dry_run}))
        return
    what = f"{show.count(matched, 'event')} older than {show.count(older_than_days, 'day')}"
    click.echo(f"Would prune {what}; nothing was deleted." if dry_run else f"Pruned {what}.")


def _erase(event_id: str, dry_run: bool, is_json: bool) -> None:
    from app.store import database, retention

    is_found = retention.erase(database.default(), event_id, dry_run=dry_run, by=BY)
    if is_json:
        facts = {"matched": int(is_found), "deleted": int(is_found and not dry_run)}
        click.echo(show.as_json({**facts, "id": event_id, "dry_run": dry_run}))
    elif is_found:
        what = f"event {event_id} from the log and the outbox"
        click.echo(f"Would prune {what}; nothing was deleted." if dry_run else f"Pruned {what}.")
    if not is_found and not dry_run:
        raise UnknownName(f"there is no event with the id {event_id!r:.220}")
