"""`outfeed token`: credentials of programs."""

from __future__ import annotations

from datetime import datetime

import click

from outfeed import clock
from outfeed import principal as access
from outfeed.access.publish import publish
from outfeed.access.store import account
from outfeed.cli import BY, show
from outfeed.cli.values import checked, duration, separated
from outfeed.config import settings
from outfeed.store import database


def _scopes(value: str) -> tuple[str, ...]:
    return account.check_scopes(separated(value))


def _types(value: str) -> tuple[str, ...]:
    patterns = separated(value)
    if not patterns:
        raise ValueError("Pass at least one type, or omit --types to allow all.")
    return access.check_patterns(patterns)


def _expiry(value: str) -> datetime:
    """Return the time of `90d`, `12h`, `30m`, or an ISO 8601 time with zone."""
    if (lifetime := duration(value)) is not None:
        return clock.now() + lifetime
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"must be like 90d, 12h, 30m or 2030-01-31T00:00Z (got {value!r:.80})")
    if moment <= clock.now():
        raise ValueError(f"{value} is in the past")
    return moment


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
    "--scopes", callback=checked(_scopes), required=True, help="Any of read, write, admin, separated by commas."
)
@click.option("--types", callback=checked(_types), help="Only these events, separated by commas: task.*,bid.submitted")
@click.option(
    "--expires", callback=checked(_expiry), metavar="WHEN", help="Expiry: 90d, 12h, 30m, or an ISO 8601 time."
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
