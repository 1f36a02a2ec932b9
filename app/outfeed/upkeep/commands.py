"""Commands for maintenance: prune, backup, restore, doctor."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outfeed.cli import BY, show
from outfeed.cli.values import checked, parsed_json
from outfeed.config import settings
from outfeed.config.values import MAX_DAYS
from outfeed.errors import UnknownName
from outfeed.text import escaped

if TYPE_CHECKING:
    from outfeed.feature import Finding

YES = click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
_FILE = click.Path(dir_okay=False, path_type=Path)


def _key(value: str) -> dict[str, Any]:
    key = parsed_json(value)
    if not isinstance(key, dict) or not key:
        raise ValueError('must be a JSON object, like {"id": 7}')
    return key


@click.command()
@click.option("--older-than-days", type=click.IntRange(0, MAX_DAYS), help="Delete events older than this.")
@click.option("--id", "event_id", help="Delete this one event from the log and the outbox.")
@click.option("--table", help="Delete the events of one row of this watched table.")
@click.option("--key", callback=checked(_key), metavar="JSON", help="The row's key, as its events have it.")
@click.option(
    "--archive",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the deleted events to gzipped files in this folder.",
)
@click.option("--dry-run", is_flag=True, help="Show the number of events, but don't delete them.")
@YES
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def prune(
    older_than_days: int | None,
    event_id: str | None,
    table: str | None,
    key: dict[str, Any] | None,
    archive: Path | None,
    dry_run: bool,
    yes: bool,
    is_json: bool,
) -> None:
    """Delete old events, one event, or the events of one row.

    Asks for confirmation on a terminal. Runs in small batches and is safe to interrupt. Waits for another prune to end.
    Keeps outbox rows that clients can still resume from, or that a protected consumer has not acknowledged.

    \b
    Example:
      outfeed prune --older-than-days 30 --archive /var/backups/outfeed
      outfeed prune --id 0192f0c1-7e57-7a11-8b0c-5ec2e7a1d00d
      outfeed prune --table customers --key '{"id": 7}'
    """
    if [older_than_days, event_id, table].count(None) != 2:
        raise click.UsageError("Pass one of --older-than-days, --id and --table.")
    if (table is None) != (key is None):
        raise click.UsageError("--table and --key need each other.")
    if archive is not None and older_than_days is None:
        raise click.UsageError("--archive needs --older-than-days.")
    if not dry_run:
        what = _what_to_delete(older_than_days, event_id, table)
        show.confirm(f"Delete {what} from {settings().database}?", is_confirmed=yes)
    if older_than_days is not None:
        _prune_old(older_than_days, archive, dry_run, is_json)
    elif event_id is not None:
        _erase(event_id, dry_run, is_json)
    elif table is not None and key is not None:
        _erase_row(table, key, dry_run, is_json)


def _what_to_delete(older_than_days: int | None, event_id: str | None, table: str | None) -> str:
    if older_than_days is not None:
        return f"the events older than {show.count(older_than_days, 'day')}"
    return f"the event {event_id}" if event_id is not None else f"the events of one row of {table}"


def _prune_old(older_than_days: int, archive: Path | None, dry_run: bool, is_json: bool) -> None:
    from outfeed.store import database
    from outfeed.upkeep import retention
    from outfeed.upkeep.policy import Policy

    policy = Policy.older_than(older_than_days, settings())
    if dry_run:
        done = retention.plan(database.default(), policy)
    else:
        with _bar("Pruning", is_json, lambda: retention.plan(database.default(), policy).events) as bar:
            done = retention.prune(
                database.default(),
                policy,
                by=BY,
                archive=archive,
                on_progress=bar.update,
                on_wait=_report_waiting,
            )
    if is_json:
        facts = {"matched": done.events, "deleted": 0 if dry_run else done.events, "older_than_days": older_than_days}
        more = {"outbox_rows": done.outbox_rows, "archives": list(map(str, done.archives)), "dry_run": dry_run}
        show.put(show.as_json({**facts, **more, "freed_bytes": done.freed_bytes}))
        return
    what = retention.sentence(done, policy)
    if done.archives:
        what += f"; the events are in {show.count(len(done.archives), 'file')} in {archive}"
    show.say(f"Would prune {what.removeprefix('Pruned ')}; nothing was deleted." if dry_run else f"{what}.")


def _erase(event_id: str, dry_run: bool, is_json: bool) -> None:
    from outfeed.store import database
    from outfeed.upkeep import erasure

    is_found = erasure.erase(database.default(), event_id, dry_run=dry_run, by=BY)
    if is_json:
        facts = {"matched": int(is_found), "deleted": int(is_found and not dry_run)}
        show.put(show.as_json({**facts, "id": event_id, "dry_run": dry_run}))
    elif is_found:
        what = f"event {event_id} from the log and the outbox"
        show.say(f"Would prune {what}; nothing was deleted." if dry_run else f"Pruned {what}.")
    if not is_found:
        raise UnknownName(f"event {event_id!r:.220} not found")


def _erase_row(table: str, key: dict[str, Any], dry_run: bool, is_json: bool) -> None:
    from outfeed.store import database
    from outfeed.upkeep import erasure

    count = erasure.erase_row(database.default(), table, key, dry_run=dry_run, by=BY)
    if is_json:
        facts = {"matched": count, "deleted": 0 if dry_run else count}
        show.put(show.as_json({**facts, "table": table, "key": key, "dry_run": dry_run}))
    elif count:
        what = f"{show.count(count, 'event')} of the row from the log and the outbox"
        show.say(f"Would prune {what}; nothing was deleted." if dry_run else f"Pruned {what}.")
    if not count:
        raise UnknownName(f"no event of table {table!r:.80} has the key {show.as_json(key):.200}")


def _report_waiting() -> None:
    show.say("Waiting for another prune to end.", err=True)


def _bar(label: str, is_json: bool, length: Callable[[], int] = lambda: 0) -> Any:
    """Return a progress bar, shown if stderr is a terminal.

    *length* is called only if it is shown.
    """
    if is_json or not sys.stderr.isatty():
        return click.progressbar(length=0, file=io.StringIO())
    return click.progressbar(length=length(), label=label, file=sys.stderr)


def _show(bar: Any) -> Callable[[int, int], None]:
    """Return a function that shows the number of finished pages in *bar*."""

    def show(done: int, total: int) -> None:
        bar.length = total
        bar.update(done - bar.pos)

    return show


@click.command()
@click.argument("file", type=_FILE)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def backup(file: Path, is_json: bool) -> None:
    """Write a checked copy of the live database to FILE, mode 0600.

    Writers continue. FILE is replaced when the copy is complete and on the disk. After an error it is unchanged.

    \b
    Example:
      outfeed backup /var/backups/outfeed/today.db
    """
    from outfeed.store import database
    from outfeed.upkeep import backup as store

    with _bar("Copying", is_json) as bar:
        content = store.backup(database.default(), file, _show(bar), by=BY)
    if is_json:
        show.put(show.as_json({"file": str(file), "bytes": file.stat().st_size, **content._asdict()}))
        return
    show.say(f"Backed up {show.count(content.events, 'event')} to {file}, and verified the copy.")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--dry-run", is_flag=True, help="Check FILE and show its content. Change nothing.")
@click.option("--whole-database", is_flag=True, help="Replace another program's tables in the database as well.")
@YES
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def restore(file: Path, dry_run: bool, whole_database: bool, yes: bool, is_json: bool) -> None:
    """Put the backup FILE into the live database.

    Asks for confirmation on a terminal.

    The server may run: connected clients receive a `reset`. The previous database is kept beside the restored one.
    Users, tokens, sessions, consumers and webhooks stay as they are now. If the database holds tables of another
    program, pass --whole-database, which replaces their rows as well.

    \b
    Example:
      outfeed restore /var/backups/outfeed/today.db
    """
    from outfeed.store import database, foreign_schema
    from outfeed.upkeep import backup as store

    if dry_run:
        content, kept = store.inspect(database.default(), file, whole_database=whole_database), None
    else:
        show.confirm(f"Replace the content of {settings().database} by {file}?", is_confirmed=yes)
        with _bar("Restoring", is_json) as bar:
            content, kept = store.restore(database.default(), file, _show(bar), by=BY, whole_database=whole_database)
    if is_json:
        facts = {"file": str(file), "kept": str(kept) if kept else None, "dry_run": dry_run}
        show.put(show.as_json({**facts, **content._asdict()}))
        return
    what = f"{file}, with {show.count(content.events, 'event')}"
    beside = f" The previous database is in {kept}." if kept else ""
    show.say(f"Would restore {what}; nothing was changed." if dry_run else f"Restored {what}.{beside}")
    if foreign := foreign_schema.in_file(file):
        show.line(f"It contains SQL of another program: {', '.join(foreign)}.")


@click.command()
@click.option("--fix", is_flag=True, help="Apply all safe fixes.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", "is_quiet", is_flag=True, help="Print only problems (for cron).")
@click.pass_context
def doctor(context: click.Context, /, fix: bool, is_json: bool, is_quiet: bool) -> None:
    """Find problems that can lose events or stop the feed.

    Explains each finding and how to fix it. Exits with 1 if there is a problem. Notes don't count as problems.

    \b
    Example:
      outfeed doctor --fix
    """
    rules, found = _run_checks()
    fixed = [one.what for _, one in found if one.fix is not None] if fix else []
    if fixed:
        for _, one in found:
            if one.fix is not None:
                one.fix()
        rules, found = _run_checks()
    problems = sum(one.level == "problem" for _, one in found)
    if is_json:
        facts = [_facts(rule, one) for rule, one in found]
        show.put(show.as_json({"ok": not problems, "findings": facts, "fixed": fixed, "rules": rules}))
    elif problems or fixed or not is_quiet:
        for what in fixed:
            show.say(f"Fixed: {what}.")
        for rule, one in found:
            _print(rule, one)
        end = f"found {show.count(problems, 'problem')}" if problems else "found no problems"
        show.say(f"Ran {show.count(len(rules), 'check')} and {end}.")
    context.exit(1 if problems else 0)


def _run_checks() -> tuple[list[str], list[tuple[str, Finding]]]:
    """Return the names of the checked rules, and each finding with its rule."""
    from outfeed.store import database
    from outfeed.upkeep import doctor as store

    found = store.run_checks(database.default(), settings())
    return list(found), [(rule, one) for rule, findings in found.items() for one in findings]


def _facts(rule: str, one: Finding) -> dict[str, Any]:
    facts = show.fields(one, ("level", "what", "why", "fix_command"))
    return {"rule": rule, **facts, "fixable": one.fix is not None}


def _print(rule: str, one: Finding) -> None:
    colour = "red" if one.level == "problem" else "yellow"
    show.put(f"{click.style(one.level, fg=colour, bold=True)}  {click.style(rule, bold=True)}: {escaped(one.what)}")
    show.line(f"    Why: {one.why}")
    show.line(f"    Fix: {one.fix_command}")
