"""`outfeed consumer`: durable consumers, and how far each has acknowledged."""

from __future__ import annotations

import click

from outfeed.cli import show
from outfeed.history import CONSUMER_NAME
from outfeed.store import checkpoint
from outfeed.store import database as db


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not CONSUMER_NAME.fullmatch(value):
        raise click.BadParameter("a name has up to 64 letters, digits, dots, dashes and underscores")
    return value


@click.group()
def consumer() -> None:
    """List, add, reset and remove durable consumers.

    \b
    Example:
      outfeed consumer add ops-bot --protected
    """


@consumer.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one consumer a line.")
def list_(is_json: bool) -> None:
    """Show every consumer's checkpoint and lag.

    \b
    Example:
      outfeed consumer list --json
    """
    found = checkpoint.list_checkpoints(db.default())
    if is_json:
        click.echo(show.as_json_lines(each._asdict() for each in found))
        return
    if found:
        show.table(("Name", "Acknowledged", "Lag", "Protected", "Last seen"), map(_row, found))
    click.echo(f"There {'is' if len(found) == 1 else 'are'} {show.count(len(found), 'consumer')}.")


def _row(each: checkpoint.Checkpoint) -> tuple[str, ...]:
    return each.name, f"{each.seq:,}", f"{each.lag:,}", "yes" if each.is_protected else "no", each.seen_at


@consumer.command()
@click.argument("name", callback=_name)
@click.option(
    "--protected/--unprotected", "is_protected", default=None,
    help="Whether pruning of the outbox waits for it; a new one is unprotected.",
)  # fmt: skip
def add(name: str, is_protected: bool | None) -> None:
    """Make the consumer NAME at the head of the feed, or change its protection.

    \b
    Example:
      outfeed consumer add ops-bot --protected
    """
    is_protected = checkpoint.add(db.default(), name, is_protected=is_protected)
    click.echo(f"Consumer {name} is {'protected: pruning waits for it' if is_protected else 'unprotected'}.")


@consumer.command()
@click.argument("name")
@click.option("--to", "seq", type=click.IntRange(min=0), help="The seq to go on after.  [default: the head]")
def reset(name: str, seq: int | None) -> None:
    """Put the checkpoint of NAME elsewhere; its connection is closed with 4009.

    \b
    Example:
      outfeed consumer reset ops-bot --to 0
    """
    where = checkpoint.reset(db.default(), name, seq)
    click.echo(f"Consumer {name} goes on after {where:,}.")


@consumer.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget the consumer NAME; its connection is closed with 4009.

    \b
    Example:
      outfeed consumer remove ops-bot
    """
    checkpoint.remove(db.default(), name)
    click.echo(f"Consumer {name} is gone.")
