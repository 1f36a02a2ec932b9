"""Commands on the database as a whole: upgrade, status."""

from __future__ import annotations

import click

from outfeed.cli import show
from outfeed.config import settings


@click.command()
def upgrade() -> None:
    """Make the database, or bring it to this version's schema.

    What was there is copied beside it first. Refused while a server runs that doesn't know the new schema.

    \b
    Example:
      OUTFEED_DATABASE=/var/lib/outfeed/outfeed.db outfeed upgrade
    """
    from outfeed.store import upgrade as upgrades

    path = settings().database
    names, kept = upgrades.upgrade(path)
    for name in names:
        click.echo(name)
    if kept:
        click.echo(f"As it was before it is kept in {kept}.")
    click.echo(f"Applied {show.count(len(names), 'migration')} to {path}." if names else f"{path} is up to date.")


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def status(is_json: bool) -> None:
    """Show the feed's head and epoch, and how many rows there are.

    \b
    Example:
      outfeed status --json
    """
    from outfeed.store import database, outbox

    facts = {"database": str(settings().database), **outbox.status(database.default())}
    if is_json:
        click.echo(show.as_json(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name:<10}{value:,}" if isinstance(value, int) else f"{name:<10}{value}")
    click.echo(f"The feed stands at seq {facts['head']:,}.")
