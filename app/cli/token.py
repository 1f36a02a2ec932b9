"""`outfeed token`: what lets programs in."""

from __future__ import annotations

import click

from app.cli import show
from app.store import account, database


def _scopes(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    try:
        return account.check_scopes(scope.strip() for scope in value.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return account.check_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group()
def token() -> None:
    """Make, list and revoke tokens. A running server knows of a change at once.

    \b
    Example:
      outfeed token create ci --scopes read,write
    """


@token.command()
@click.argument("name", callback=_name)
@click.option("--scopes", callback=_scopes, required=True, help="Any of read, write, admin, with commas between.")
def create(name: str, scopes: tuple[str, ...]) -> None:
    """Make a token called NAME and print it, this once.

    \b
    Example:
      OUTFEED_TOKEN=$(outfeed token create dashboard --scopes read)
    """
    click.echo(account.create_token(database.default(), name, scopes))
    click.echo(f"Made token {name} with scopes {','.join(scopes)}. It is not shown again.", err=True)


@token.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one token a line.")
def list_(is_json: bool) -> None:
    """Show every token's name, scopes and age, never the token itself.

    \b
    Example:
      outfeed token list
    """
    tokens = account.list_tokens(database.default())
    if is_json:
        facts = ({"name": one.name, "scopes": one.scopes, "created_at": one.created_at} for one in tokens)
        click.echo(show.as_json_lines(facts))
        return
    if tokens:
        show.table(("Name", "Scopes", "Created"), [(one.name, ",".join(one.scopes), one.created_at) for one in tokens])
    click.echo(f"There {'is' if len(tokens) == 1 else 'are'} {show.count(len(tokens), 'token')}.")


@token.command()
@click.argument("name", callback=_name)
def revoke(name: str) -> None:
    """Make the token called NAME worthless.

    \b
    Example:
      outfeed token revoke ci
    """
    account.revoke_token(database.default(), name)
    click.echo(f"Revoked token {name}.")
