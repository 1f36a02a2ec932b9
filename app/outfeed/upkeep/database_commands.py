"""Commands on the database as a whole: upgrade, release, status."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from outfeed import clock
from outfeed.cli import show
from outfeed.config import settings

READY_SECS = 2.0


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
            show.line(line)
        show.say("Nothing was changed. To adopt the database: outfeed upgrade --adopt")
        context.exit(1)
    with closing(database.at(path)) as upgraded:
        for feature in registered():
            feature.repair(upgraded, settings())
    for name in names:
        show.line(name)
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
    show.line(f"Tables to remove from {path}: {', '.join(planned.tables)}.")
    show.line(f"event_log {'stays' if planned.keeps_log else 'is removed with all events'}.")
    if not yes:
        click.confirm("Release the database?", abort=True)
    done = store.release(path)
    show.say(f"The database before the release: {done.kept}")
    show.say(f"Removed {show.count(len(done.tables), 'table')} from {path}; its journal mode is {done.journal_mode}.")


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def status(is_json: bool) -> None:
    """Show the position of the feed, and whether a server runs.

    Of a running server: its version, its address, the number of its clients, and why it is not ready. The last error
    is the newest one that a server caught. Exits with 0 also if no server runs.

    \b
    Example:
      outfeed status --json
    """
    from outfeed.store import database, outbox, own_errors

    facts = {"database": str(settings().database), **outbox.status(database.default())}
    server, error = _running_server(), own_errors.last(database.default())
    if is_json:
        last_error = {"timestamp": error[0], "message": error[1]} if error else None
        show.put(show.as_json({**facts, "server": server, "last_error": last_error}))
        return
    for name, value in facts.items():
        show.line(f"{name:<12}{value:,}" if isinstance(value, int) else f"{name:<12}{value}")
    show.line(f"{'server':<12}{_server_line(server)}")
    show.line(f"{'last error':<12}{f'{clock.ago(error[0])}: {error[1]}' if error else 'none'}")
    show.say(f"The feed is at seq {facts['head']:,}.")


def _running_server() -> dict[str, Any] | None:
    from outfeed.store import serving

    found = serving.serving(settings().database)
    if found is None:
        return None
    clients = serving.clients(settings().database)
    return {"version": found.version, "url": found.url, "clients": clients, "problems": _problems_of(found.url)}


def _problems_of(url: str) -> list[str]:
    """Return why the server at *url* is not ready, in its own words."""
    import httpx

    try:
        found = httpx.get(f"{url}/readyz", timeout=READY_SECS, trust_env=False).json()["problems"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        return [f"no answer from /readyz ({error or type(error).__name__})"]
    return list(map(str, found))


def _server_line(server: dict[str, Any] | None) -> str:
    if server is None:
        return "not running; start it with `outfeed serve`"
    state = f"not ready: {'; '.join(server['problems'])}" if server["problems"] else "ready"
    at = f" at {server['url']}" if server["url"] else ""
    return f"outfeed {server['version']}{at}, {show.count(server['clients'], 'client')}, {state}"
