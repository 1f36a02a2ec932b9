"""Commands on the database as a whole: upgrade, release, status."""

from __future__ import annotations

from contextlib import closing

import click

from outfeed.cli import show
from outfeed.config import settings


@click.command()
@click.option("--adopt", is_flag=True, help="Add Outfeed's tables to the database of another program.")
@click.pass_context
def upgrade(context: click.Context, /, adopt: bool) -> None:
    """Create the database, or upgrade its schema to this version.

    Saves a copy of an existing database beside it first. Fails while a server uses the database. If the database
    contains tables of another program, prints a plan and exits with 1. Pass --adopt to carry out the plan.

    \b
    Example:
      OUTFEED_DATABASE=/var/lib/outfeed/outfeed.db outfeed upgrade
    """
    from outfeed.errors import AdoptionNeeded
    from outfeed.feature import registered
    from outfeed.store import adoption, database
    from outfeed.upkeep import upgrade as upgrades

    path = settings().database
    try:
        names, kept = upgrades.upgrade(path, adopt=adopt)
    except AdoptionNeeded:
        for line in adoption.plan(path):
            show.say(line)
        show.say("Nothing was changed. To adopt the database: outfeed upgrade --adopt")
        context.exit(1)
    with closing(database.at(path)) as upgraded:
        for feature in registered():
            feature.repair(upgraded, settings())
    for name in names:
        show.say(name)
    if kept:
        show.say(f"The database before the upgrade: {kept}")
    show.say(f"Applied {show.count(len(names), 'migration')} to {path}." if names else f"{path} is up to date.")


@click.command()
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
def release(yes: bool) -> None:
    """Remove Outfeed from the database of another program.

    Removes Outfeed's tables, indexes and triggers, and the files beside the database, and restores the journal mode.
    Keeps an event_log that existed before the adoption. Saves a copy of the database beside it. Stop the server and
    the program first.

    \b
    Example:
      outfeed release --yes
    """
    from outfeed.upkeep import release as store

    path = settings().database
    planned = store.plan(path)
    show.say(f"Tables to remove from {path}: {', '.join(planned.tables)}.")
    show.say(f"event_log {'stays' if planned.keeps_log else 'is removed with all events'}.")
    if not yes:
        click.confirm("Release the database?", abort=True)
    done = store.release(path)
    show.say(f"The database before the release: {done.kept}")
    show.say(f"Removed {show.count(len(done.tables), 'table')} from {path}; its journal mode is {done.journal_mode}.")


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def status(is_json: bool) -> None:
    """Show the head and epoch of the feed, and the number of rows.

    \b
    Example:
      outfeed status --json
    """
    from outfeed.store import database, outbox

    facts = {"database": str(settings().database), **outbox.status(database.default())}
    if is_json:
        show.put(show.as_json(facts))
        return
    for name, value in facts.items():
        show.say(f"{name:<10}{value:,}" if isinstance(value, int) else f"{name:<10}{value}")
    show.say(f"The feed is at seq {facts['head']:,}.")
