"""`outfeed type`: the displays of event types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

import click

from outfeed.cli import BY, show
from outfeed.cli.values import checked
from outfeed.display import MAX_ICON_CHARS, MAX_LABEL_CHARS, Display, Level
from outfeed.store import database as db
from outfeed.store.displays import Displays, MadeBy
from outfeed.types import display_file, operations


@click.group("type")
def type_() -> None:
    """Set how events of a type read: icon, label and level.

    Open pages show a change within one heartbeat.

    \b
    Example:
      outfeed type set payment.received --icon ⚡ --label 'Received {amount_sats} sats: {memo}'
    """


@type_.command("set")
@click.argument("name")
@click.option("--icon", help=f"Up to {MAX_ICON_CHARS} characters.  [default: that of the level]")
@click.option("--label", help=f"Text with places such as {{amount}}, up to {MAX_LABEL_CHARS} characters.")
@click.option("--level", type=click.Choice([each.value for each in Level]), help="[default: info]")
def set_(name: str, **given: str | None) -> None:
    """Set the display of the type NAME.

    It replaces an earlier display, also one of a watch.

    \b
    Example:
      outfeed type set payment.failed --label 'Payment of {amount_sats} sats failed: {memo|reason}' --level error
    """
    fields = {field: value for field, value in given.items() if value is not None}
    if not fields:
        raise click.UsageError("Give at least one of --icon, --label and --level.")
    display = Display.checked(name, **fields)
    operations.set_display(db.default(), name, display, BY)
    show.say(f"Set the display of {name}.")


@type_.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one display per line.")
def list_(is_json: bool) -> None:
    """Show the displays that were set.

    \b
    Example:
      outfeed type list --json
    """
    found = operations.read(db.default())
    if is_json:
        show.put(show.as_json_lines(_fields(name, found) for name in found.by_type))
        return
    rows = [tuple(_fields(name, found).values()) for name in found.by_type]
    show.listing("display", ("Type", "Icon", "Label", "Level", "Made by"), rows)


def _fields(name: str, found: Displays) -> dict[str, str]:
    display = found.by_type[name]
    fields = {"icon": "", "label": "", **display.as_dict()}
    return {"name": name, **fields, "made_by": found.made_by[name].value}


@type_.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove the display of the type NAME.

    Its events read like those of a type without a display.

    \b
    Example:
      outfeed type remove payment.received
    """
    operations.remove(db.default(), name, BY)
    show.say(f"Removed the display of {name}.")


@type_.command()
@click.argument("file", type=click.File("w", encoding="utf-8"), default="-")
def export(file: TextIO) -> None:
    """Write displays to FILE, or to stdout, as TOML.

    Displays of watches are not included.

    \b
    Example:
      outfeed type export types.toml
    """
    found = operations.read(db.default())
    own = {name: each for name, each in found.by_type.items() if found.made_by[name] is MadeBy.COMMAND}
    file.write(display_file.written(own))
    show.say(f"Exported {show.count(len(own), 'display')}.", err=True)


def _content(file: TextIO) -> Mapping[str, Display]:
    with file:
        return display_file.parsed(file.read())


@type_.command("import")
@click.argument("file", type=click.File(encoding="utf-8"), callback=checked(_content))
@click.option("--dry-run", is_flag=True, help="Only say which displays would change.")
def import_(file: Mapping[str, Display], dry_run: bool) -> None:
    """Set the displays of the TOML file FILE, all or none.

    Displays of other types stay.

    \b
    Example:
      outfeed type import types.toml --dry-run
    """
    changed = operations.import_displays(db.default(), file, BY, dry_run=dry_run)
    for name in changed:
        show.line(f"{'would set' if dry_run else 'set'} {name}")
    verb = "Would import" if dry_run else "Imported"
    show.say(f"{verb} {show.count(len(file), 'display')}, {len(changed):,} changed.")
