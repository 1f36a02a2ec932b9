"""`outfeed consumer`: durable consumers and their checkpoints."""

from __future__ import annotations

import click

from outfeed import clock
from outfeed.cli import BY, show
from outfeed.cli.values import checked
from outfeed.history import CONSUMER_NAME
from outfeed.store import checkpoint
from outfeed.store import database as db


def _name(value: str) -> str:
    if not CONSUMER_NAME.fullmatch(value):
        raise ValueError("must have 1 to 64 letters, digits, dots, dashes and underscores")
    return value


def _principal(value: str) -> str:
    kind, _, name = value.partition(":")
    if kind not in ("token", "user") or not name:
        raise ValueError(f"must be token:NAME or user:NAME (got {value!r:.80})")
    return value


@click.group()
def consumer() -> None:
    """Manage durable consumers.

    \b
    Example:
      outfeed consumer add ops-bot --protected --owner token:ops
    """


@consumer.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one consumer per line.")
def list_(is_json: bool) -> None:
    """Show every consumer's owner, checkpoint and lag.

    \b
    Example:
      outfeed consumer list --json
    """
    found = checkpoint.list_checkpoints(db.default())
    if is_json:
        show.put(show.as_json_lines(each._asdict() for each in found))
        return
    columns = ("Name", "Owner", "Acknowledged", "Lag", "Protected", "Last seen")
    show.listing("consumer", columns, [_row(each) for each in found])


def _row(each: checkpoint.Checkpoint) -> tuple[str, ...]:
    numbers = (f"{each.seq:,}", f"{each.lag:,}")
    return each.name, each.owner or "none", *numbers, "yes" if each.is_protected else "no", clock.ago(each.seen_at)


@consumer.command()
@click.argument("name", callback=checked(_name))
@click.option(
    "--protected/--unprotected", "is_protected", default=None,
    help="Keep outbox rows until the consumer has acknowledged them.  [default: unprotected]",
)  # fmt: skip
@click.option(
    "--owner", metavar="PRINCIPAL", callback=checked(_principal),
    help="token:NAME or user:NAME. Without an owner, the first client that claims an unprotected consumer owns it.",
)  # fmt: skip
def add(name: str, is_protected: bool | None, owner: str | None) -> None:
    """Create the consumer NAME at the head, or change its settings.

    The options change the protection and owner of an existing consumer.

    \b
    Example:
      outfeed consumer add ops-bot --protected --owner token:ops
    """
    found = checkpoint.add(db.default(), name, is_protected=is_protected, owner=owner, by=BY)
    show.say(f"Consumer {name} is {'protected; pruning keeps its events' if found.is_protected else 'unprotected'}.")
    if found.owner is not None:
        show.say(f"It belongs to {found.owner}.")
    elif found.is_protected:
        show.say(f"Only operators can use it. Set an owner: `outfeed consumer own {name} token:NAME`.")


@consumer.command()
@click.argument("name", callback=checked(_name))
@click.argument("principal", callback=checked(_principal))
def own(name: str, principal: str) -> None:
    """Set the owner of the consumer NAME to PRINCIPAL.

    PRINCIPAL is token:NAME or user:NAME. Closes the connection of another owner with 4009.

    \b
    Example:
      outfeed consumer own ops-bot token:ops
    """
    checkpoint.change_owner(db.default(), name, principal, by=BY)
    show.say(f"Consumer {name} belongs to {principal}.")


@consumer.command()
@click.argument("name")
@click.option("--to", "seq", type=click.IntRange(min=0), help="The seq to continue after.  [default: the head]")
def reset(name: str, seq: int | None) -> None:
    """Move the checkpoint of NAME.

    Closes its connection with 4009.

    \b
    Example:
      outfeed consumer reset ops-bot --to 0
    """
    position = checkpoint.reset(db.default(), name, seq, by=BY)
    show.say(f"Consumer {name} continues after {position:,}.")


@consumer.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete the consumer NAME.

    Closes its connection with 4009.

    \b
    Example:
      outfeed consumer remove ops-bot
    """
    checkpoint.remove(db.default(), name, by=BY)
    show.say(f"Removed consumer {name}.")
