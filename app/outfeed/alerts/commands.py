"""`outfeed alert`: rules that tell people when something happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from outfeed import clock
from outfeed.alerts import trial
from outfeed.alerts.rule import AlertRule, Condition, seconds, span, split_names
from outfeed.alerts.store import notices, rules
from outfeed.alerts.store.rules import Alert
from outfeed.alerts.targets import store as targets
from outfeed.cli import BY, show
from outfeed.cli.values import checked
from outfeed.store import database as db

MAX_NOTICES = 20
_DAYS = click.option(
    "--days", type=click.IntRange(1, trial.MAX_DAYS), default=trial.DEFAULT_DAYS, show_default=True,
    help="How far to look back.",
)  # fmt: skip
_DRY_RUN = click.option(
    "--dry-run", is_flag=True, help=f"Change nothing. Try the rule on the last {trial.DEFAULT_DAYS} days."
)


def _seconds(field: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    return checked(lambda value: seconds(field, value))


def _rule_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `add` and `edit` share."""
    options = (
        click.option("--more-than", type=int, metavar="N", help="With --in: raise at more than N events."),
        click.option("--in", "window", callback=_seconds("in"), metavar="SPAN", help="The window of --more-than: 5m."),
        click.option("--nothing-for", callback=_seconds("nothing-for"), metavar="SPAN", help="Raise without an event."),
        click.option("--pause", callback=_seconds("pause"), metavar="SPAN", help="Least time between alerts: 15m."),
        click.option("--to", "targets", callback=checked(split_names), metavar="NAMES", help="Targets, with commas."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _condition(more_than: int | None, window: int | None, nothing_for: int | None) -> dict[str, Any]:
    """Return the fields of the condition that the options describe."""
    if nothing_for is not None and (more_than is not None or window is not None):
        raise click.UsageError("--nothing-for excludes --more-than and --in.")
    if (more_than is None) != (window is None):
        raise click.UsageError("--more-than and --in need each other.")
    if nothing_for is not None:
        return {"condition": Condition.ABSENCE, "threshold": 0, "window_secs": nothing_for}
    if more_than is not None:
        return {"condition": Condition.COUNT, "threshold": more_than, "window_secs": window}
    return {}


def _check_targets(rule: AlertRule) -> None:
    unknown = targets.unknown(db.default(), rule.targets)
    if unknown:
        raise click.BadParameter(f"there is no target {unknown[0]!r:.80}; see `outfeed target list`", param_hint="--to")


@click.group()
def alert() -> None:
    """Raise an alert when events come, or come no more.

    A running server applies changes within a second.

    \b
    Example:
      outfeed alert add errors type:system.error --more-than 10 --in 5m --to ops
    """


@alert.command()
@click.argument("name")
@click.argument("query", default="")
@_rule_options
@_DRY_RUN
def add(
    name: str, query: str, more_than: int | None, window: int | None, nothing_for: int | None, pause: int | None,
    targets: tuple[str, ...] | None, dry_run: bool,
) -> None:  # fmt: skip
    """Raise the alert NAME when an event matches QUERY.

    QUERY is in the query language of the log, without text and times. Without it every event matches. With --more-than
    and --in, the alert needs more than N events in the span. With --nothing-for, it is raised when none has come.

    \b
    Example:
      outfeed alert add errors type:system.error --to ops
      outfeed alert add slow 'type:request.* data.status:504' --more-than 20 --in 10m
      outfeed alert add backup type:backup.done --nothing-for 25h
    """
    fields = _condition(more_than, window, nothing_for) | ({} if pause is None else {"pause_secs": pause})
    rule = AlertRule(name, query, targets=targets or (), **fields).checked()
    _check_targets(rule)
    if dry_run:
        show.say(str(trial.run(db.default(), rule)))
        return
    rules.add(db.default(), rule, BY)
    show.say(f"Alert {name} is active: {rule.when}.")
    if not rule.targets:
        show.say("It has no target. Its events appear in the log only.", err=True)


@alert.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one alert a line.")
def list_(is_json: bool) -> None:
    """Show every alert, its condition, state and targets.

    \b
    Example:
      outfeed alert list
    """
    found = rules.list_alerts(db.default())
    if is_json:
        show.put(show.as_json_lines(each.as_dict() for each in found))
        return
    columns = ("Name", "State", "Raised", "Last", "When", "Query", "Pause", "Targets")
    show.listing("alert", columns, [_row(each) for each in found])


def _row(each: Alert) -> tuple[str, ...]:
    rule = each.rule
    state = "paused" if each.is_paused else each.state.value
    numbers = f"{each.raises:,}", clock.ago(each.raised_at)
    return rule.name, state, *numbers, rule.when, rule.query, span(rule.pause_secs), ", ".join(rule.targets)


@alert.command("show")
@click.argument("name")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON object.")
def show_(name: str, is_json: bool) -> None:
    """Show the alert NAME and its newest notices.

    \b
    Example:
      outfeed alert show errors
    """
    found = rules.find(db.default(), name)
    sent = notices.list_notices(db.default(), name, MAX_NOTICES)
    if is_json:
        show.put(show.as_json({**found.as_dict(), "notices": [each._asdict() for each in sent]}))
        return
    show.listing("alert", ("Name", "State", "Raised", "Last", "When", "Query", "Pause", "Targets"), [_row(found)])
    columns = ("Notice", "At", "Target", "State", "Failed attempts", "Last error")
    show.listing("notice", columns, [_notice_row(each) for each in sent])


def _notice_row(each: notices.QueuedNotice) -> tuple[str, ...]:
    at = show.local_time(each.occurred_at)
    return each.title, at, each.target, each.state, f"{each.attempts:,}", each.last_error or ""


@alert.command()
@click.argument("name")
@click.option("--query", help="The new query.")
@click.option("--any", "is_any", is_flag=True, help="Raise at any matching event.")
@_rule_options
@_DRY_RUN
def edit(
    name: str, query: str | None, is_any: bool, more_than: int | None, window: int | None, nothing_for: int | None,
    pause: int | None, targets: tuple[str, ...] | None, dry_run: bool,
) -> None:  # fmt: skip
    """Change the alert NAME.

    A new query or condition begins the alert again, in the state ok.

    \b
    Example:
      outfeed alert edit errors --more-than 50 --in 5m
    """
    given: dict[str, Any] = {"query": query, "pause_secs": pause, "targets": targets}
    fields = {field: value for field, value in given.items() if value is not None}
    fields |= _condition(more_than, window, nothing_for)
    if is_any:
        if "condition" in fields:
            raise click.UsageError("--any excludes --more-than, --in and --nothing-for.")
        fields |= {"condition": Condition.ANY, "threshold": 0, "window_secs": 0}
    if not fields:
        raise click.UsageError("Give at least one option.")
    rule = dataclasses.replace(rules.find(db.default(), name).rule, **fields).checked()
    if targets is not None:
        _check_targets(rule)
    if dry_run:
        show.say(str(trial.run(db.default(), rule)))
        return
    rules.edit(db.default(), rule, BY)
    show.say(f"Alert {name} is changed: {rule.when}.")


@alert.command("try")
@click.argument("name")
@_DAYS
def try_(name: str, days: int) -> None:
    """Try the alert NAME on the events of the past.

    Changes nothing. The trial stops after some seconds and says how far it has looked back.

    \b
    Example:
      outfeed alert try errors --days 7
    """
    found = trial.run(db.default(), rules.find(db.default(), name).rule, days)
    for moment in found.times:
        show.line(show.local_time(clock.isoformat(moment)))
    show.say(str(found))


@alert.command()
@click.argument("name")
def pause(name: str) -> None:
    """Stop watching for the alert NAME.

    \b
    Example:
      outfeed alert pause errors
    """
    rules.pause(db.default(), name, BY)
    show.say(f"Alert {name} is paused.")


@alert.command()
@click.argument("name")
def resume(name: str) -> None:
    """Watch for the alert NAME again, from now on.

    \b
    Example:
      outfeed alert resume errors
    """
    rules.resume(db.default(), name, BY)
    show.say(f"Alert {name} is active.")


@alert.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete the alert NAME and its waiting notices.

    \b
    Example:
      outfeed alert remove errors
    """
    rules.remove(db.default(), name, BY)
    show.say(f"Removed alert {name}.")
