"""`outfeed user`: people who sign in."""

from __future__ import annotations

import sys

import click

from outfeed import clock
from outfeed.access.publish import publish
from outfeed.access.store import account
from outfeed.access.store import user as users
from outfeed.cli import BY, show
from outfeed.cli.links import sign_in_link
from outfeed.cli.values import checked
from outfeed.config import settings
from outfeed.principal import ROLES
from outfeed.store import database

_ROLE = click.Choice(list(ROLES))
_NAME = checked(account.check_name)


@click.group()
def user() -> None:
    """Manage users. Changes take effect immediately.

    A viewer can read, a producer can also write, an operator can do everything.

    \b
    Example:
      outfeed user add ann --role viewer
    """


@user.command()
@click.argument("name", callback=_NAME)
@click.option("--role", type=_ROLE, required=True, help="Role of the user.")
@click.option("--password-stdin", is_flag=True, help="Read a password from stdin instead of printing a link.")
def add(name: str, role: str, password_stdin: bool) -> None:
    """Create the user NAME and print a sign-in link.

    The link works once, within a day.

    \b
    Example:
      outfeed user add ann --role viewer
    """
    if password_stdin:
        hashed = _hash(_read_password())
        users.add(database.default(), name, role, by=BY)
        users.set_password(database.default(), name, hashed, by=BY)
        show.say(f"Added {name} as {role}.")
        return
    show.line(sign_in_link(users.invite(database.default(), name, role, by=BY)))
    show.say(f"Added {name} as {role}. The link works once, within a day.", err=True)


@user.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one user per line.")
def list_(is_json: bool) -> None:
    """Show every user's name, role, state and age.

    \b
    Example:
      outfeed user list
    """
    found = users.list_all(database.default())
    if is_json:
        names = ("name", "role", "has_password", "is_disabled", "created_at")
        show.put(show.as_json_lines(show.fields(one, names) for one in found))
        return
    rows = [(one.name, one.role, _state(one), clock.ago(one.created_at)) for one in found]
    show.listing("user", ("Name", "Role", "State", "Created"), rows)


def _state(one: users.User) -> str:
    return "disabled" if one.is_disabled else "active" if one.has_password else "no password yet"


@user.command("set-password")
@click.argument("name", callback=_NAME)
def set_password(name: str) -> None:
    """Set the password of the user NAME and end the user's sessions.

    Prompts on a terminal. Otherwise reads one line from stdin.

    \b
    Example:
      outfeed user set-password ann
    """
    is_terminal = sys.stdin.isatty()
    password = click.prompt("Password", hide_input=True, confirmation_prompt=True) if is_terminal else _read_password()
    users.set_password(database.default(), name, _hash(password), by=BY)
    show.say(f"Set the password of {name} and ended all sessions.")
    publish(database.default(), settings())


def _read_password() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _hash(password: str) -> str:
    from outfeed.access import passwords

    try:
        return passwords.hash_of(password)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@user.command("set-role")
@click.argument("name", callback=_NAME)
@click.argument("role", type=_ROLE)
def set_role(name: str, role: str) -> None:
    """Make the user NAME a viewer, producer or operator.

    \b
    Example:
      outfeed user set-role ann operator
    """
    users.set_role(database.default(), name, role, by=BY)
    show.say(f"Made {name} {role}.")
    publish(database.default(), settings())


@user.command()
@click.argument("name", callback=_NAME)
@click.option("--undo", is_flag=True, help="Enable the user again.")
def disable(name: str, undo: bool) -> None:
    """Disable the user NAME and end all sessions.

    \b
    Example:
      outfeed user disable ann
    """
    users.set_disabled(database.default(), name, not undo, by=BY)
    show.say(f"{'Enabled' if undo else 'Disabled'} {name}.")
    publish(database.default(), settings())


@user.command()
@click.argument("name", callback=_NAME)
def link(name: str) -> None:
    """Print a new sign-in link for the user NAME.

    The link works once, within a day. A password and sessions stay valid.

    \b
    Example:
      outfeed user link ann
    """
    show.line(sign_in_link(users.create_link(database.default(), name, by=BY)))
    show.say(f"The link signs {name} in once, within a day.", err=True)


@user.command("sign-out")
@click.argument("name", callback=_NAME)
def sign_out(name: str) -> None:
    """End all sessions and sign-in links of the user NAME.

    \b
    Example:
      outfeed user sign-out ann
    """
    count = users.end_sessions(database.default(), name, by=BY)
    show.say(f"Ended {show.count(count, 'session')} of {name}.")
    publish(database.default(), settings())
