"""`outfeed token`: credentials of programs."""

from __future__ import annotations

from datetime import datetime

import click

from outfeed import clock
from outfeed.access import fields
from outfeed.access.publish import publish
from outfeed.access.store import account
from outfeed.cli import BY, show
from outfeed.cli.values import checked
from outfeed.config import settings
from outfeed.store import database


@click.group()
def token() -> None:
    """Create, list and revoke tokens. Changes take effect immediately.

    \b
    Example:
      outfeed token create ci --scopes read,write
    """


@token.command()
@click.argument("name", callback=checked(account.check_name))
@click.option(
    "--scopes", callback=checked(fields.scopes), required=True, help="Any of read, write, admin, separated by commas."
)
@click.option(
    "--types", callback=checked(fields.types), help="Only these events, separated by commas: task.*,bid.submitted"
)
@click.option(
    "--expires", callback=checked(fields.expiry), metavar="WHEN", help="Expiry: 90d, 12h, 30m, or an ISO 8601 time."
)
def create(name: str, scopes: tuple[str, ...], types: tuple[str, ...] | None, expires: datetime | None) -> None:
    """Create the token NAME and print it once.

    \b
    Example:
      OUTFEED_TOKEN=$(outfeed token create dashboard --scopes read --types 'task.*' --expires 90d)
    """
    secret = account.create_token(database.default(), name, scopes, types=types or (), expires_at=expires, by=BY)
    show.line(secret)
    show.say(f"Created token {name} with scopes {','.join(scopes)}. It is not shown again.", err=True)
    publish(database.default(), settings())


@token.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one token per line.")
def list_(is_json: bool) -> None:
    """List tokens with their scopes, limits and last use, without secrets.

    \b
    Example:
      outfeed token list
    """
    tokens = account.list_tokens(database.default())
    if is_json:
        names = ("name", "scopes", "types", "created_at", "expires_at", "last_used_at")
        show.put(show.as_json_lines(show.fields(one, names) for one in tokens))
        return
    columns = ("Name", "Scopes", "Types", "Created", "Expires", "Last used")
    show.listing("token", columns, [_row(one) for one in tokens])


def _row(one: account.Token) -> tuple[str, ...]:
    limits = (",".join(one.scopes), ",".join(one.types) or "all")
    return one.name, *limits, *map(clock.ago, (one.created_at, one.expires_at, one.last_used_at))


@token.command()
@click.argument("name", callback=checked(account.check_name))
def revoke(name: str) -> None:
    """Revoke the token NAME.

    \b
    Example:
      outfeed token revoke ci
    """
    account.revoke_token(database.default(), name, by=BY)
    show.say(f"Revoked token {name}.")
    publish(database.default(), settings())


@token.command()
@click.argument("name", callback=checked(account.check_name))
def rotate(name: str) -> None:
    """Give the token NAME a new secret and print it once.

    Its scopes, types and expiry stay. The old secret is invalid at once, and connections that use it end.

    \b
    Example:
      outfeed token rotate ci
    """
    secret = account.rotate_token(database.default(), name, by=BY)
    show.line(secret)
    show.say(f"Token {name} has a new secret. It is not shown again. The old one is invalid.", err=True)
    publish(database.default(), settings())
