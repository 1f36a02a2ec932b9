"""`outfeed target`: the places that notices of alerts are sent to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO

import click

from outfeed import clock
from outfeed.alerts.targets import managing, store
from outfeed.alerts.targets.kinds import KINDS
from outfeed.cli import BY, show
from outfeed.cli.values import checked
from outfeed.config import settings
from outfeed.errors import OutfeedError
from outfeed.store import database as db
from outfeed.text import check_short_name

MAX_FILE_CHARS = 20_000


def _pair(value: str) -> tuple[str, str]:
    name, equals, text = value.partition("=")
    if not equals:
        raise ValueError("must be NAME=VALUE")
    return name.strip(), text


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    return dict(map(_pair, values))


def _pairs_in(file: TextIO) -> dict[str, str]:
    with file:
        lines = [line.strip() for line in file.read(MAX_FILE_CHARS).splitlines()]
    return dict(_pair(line) for line in lines if line and not line.startswith("#"))


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    given = click.option(
        "--set", "given", multiple=True, metavar="NAME=VALUE", callback=checked(_pairs), help="A setting. Repeatable."
    )
    secret = click.option(
        "--from", "in_file", type=click.File(), callback=checked(_pairs_in),
        help="A file with lines NAME=VALUE, for secrets. `-` reads from standard input.",
    )  # fmt: skip
    return given(secret(command))


@click.group()
def target() -> None:
    """Manage the places that notices of alerts are sent to.

    \b
    Example:
      outfeed target add ops slack --from slack.txt
    """


@target.command()
@click.argument("name", callback=checked(check_short_name))
@click.argument("kind", type=click.Choice(list(KINDS)))
@_settings_options
def add(name: str, kind: str, given: dict[str, str], in_file: dict[str, str] | None) -> None:
    """Add the target NAME of the kind KIND.

    Secrets are stored, and no command shows them again. A webhook without a secret gets a new one, which is printed
    once.

    \b
    Settings (* must be given):
      webhook  url*, secret
      slack    url*
      discord  url*
      teams    url*
      ntfy     url*, token
      email    to*, from*, server*, security, user, password
      apprise  url*

    \b
    Example:
      outfeed target add ops slack --from slack.txt
    """
    made = managing.add(db.default(), settings(), name, kind, {**given, **(in_file or {})}, BY)
    _show_change(made)
    show.say(f"Target {name} is added. To try it: outfeed target test {name}", err=made.secret is not None)


def _show_change(made: managing.Change) -> None:
    if made.warning:
        show.warn(f"Warning: {made.warning}")
    if made.secret:
        show.line(made.secret)


@target.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one target a line.")
def list_(is_json: bool) -> None:
    """Show every target. Never shows its secrets.

    \b
    Example:
      outfeed target list
    """
    found = [_facts(row) for row in store.list_targets(db.default())]
    if is_json:
        show.put(show.as_json_lines(found))
        return
    rows = [
        (each["name"], each["kind"], each["place"], ", ".join(each["rules"]), clock.ago(each["created_at"]))
        for each in found
    ]
    show.listing("target", ("Name", "Kind", "Sends to", "Rules", "Added"), rows)


def _facts(row: store.TargetRow) -> dict[str, Any]:
    kind = KINDS.get(row.target.kind)
    return {
        "name": row.target.name,
        "kind": row.target.kind,
        "place": kind.place(row.target.settings) if kind else "",
        "rules": managing.rules_of(db.default(), row.target.name),
        "created_at": row.created_at,
        "changed_at": row.changed_at,
    }


@target.command()
@click.argument("name")
def test(name: str) -> None:
    """Send a test notice to NAME from this machine.

    \b
    Example:
      outfeed target test ops
    """
    outcome, secs = managing.send_test(db.default(), settings(), name)
    if not outcome.is_delivered:
        raise OutfeedError(f"target {name} failed the test: {outcome.error}")
    show.say(f"Target {name} accepted the test in {secs * 1000:.0f} ms.")


@target.command()
@click.argument("name")
@_settings_options
def edit(name: str, given: dict[str, str], in_file: dict[str, str] | None) -> None:
    """Change settings of NAME. The others stay.

    An empty value removes a setting: `--set token=`.

    \b
    Example:
      outfeed target edit ops --from slack.txt
    """
    changes = {**given, **(in_file or {})}
    if not changes:
        raise click.UsageError("nothing to change; pass --set or --from")
    _show_change(managing.edit(db.default(), settings(), name, changes, BY))
    show.say(f"Changed target {name}.")


@target.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Remove it although rules send to it.")
def remove(name: str, force: bool) -> None:
    """Delete the target NAME and its secrets.

    \b
    Example:
      outfeed target remove ops
    """
    managing.remove(db.default(), name, BY, is_forced=force)
    show.say(f"Removed target {name}.")
