"""`outfeed webhook`: the URLs that the server posts events to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO

import click

from outfeed import clock
from outfeed.cli import BY, show
from outfeed.cli.values import checked
from outfeed.config import settings
from outfeed.errors import OutfeedError
from outfeed.history import Item
from outfeed.store import database as db
from outfeed.text import check_short_name, escaped
from outfeed.webhooks import store
from outfeed.webhooks.blocked import describe_events
from outfeed.webhooks.delivery_log import store as delivery_log
from outfeed.webhooks.message import check_secret, new_secret
from outfeed.webhooks.operations import MAX_BATCH, Posted, Webhooks, parsed_types
from outfeed.webhooks.target import check_url

MAX_SHOWN_CHARS = 200  # of an answer's body, in a table


def _url(value: str) -> str:
    check_url(value)
    return value


def _secret(value: TextIO) -> str:
    with value:
        return check_secret(value.read())


_secret_option = click.option(
    "--secret-file", "given", type=click.File(), callback=checked(_secret),
    help="A file with a secret that the target already has.  [default: make a secret and print it once]",
)  # fmt: skip


def _on_rejection_option(**attributes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    help_ = "Retry a post that the target answers with 400, 413, 415 or 422, or skip it after 5 such answers."
    return click.option(
        "--on-rejection", type=click.Choice([each.value for each in store.OnRejection]), help=help_, **attributes
    )


@click.group()
def webhook() -> None:
    """Post events to a URL, signed and in order, with retries.

    A running server applies changes within a second.

    \b
    Example:
      outfeed webhook add ops https://ops.example.com/outfeed --types system.error
    """


@webhook.command()
@click.argument("name", callback=checked(check_short_name))
@click.argument("url", callback=checked(_url))
@click.option(
    "--types",
    callback=checked(parsed_types),
    default="",
    help="Only these types: exact types or task.*, comma-separated.",
)
@_on_rejection_option(default=store.OnRejection.RETRY.value, show_default=True)
@_secret_option
@click.option("--batch", type=click.IntRange(1, MAX_BATCH), help="Post lists of up to this many events.")
def add(name: str, url: str, types: tuple[str, ...], given: str | None, batch: int | None, on_rejection: str) -> None:
    """Post every event from now on to URL, under the name NAME.

    Prints the secret that signs the posts (Standard Webhooks).

    \b
    Example:
      outfeed webhook add ops https://ops.example.com/outfeed --types system.error,task.*
    """
    _warn_of(url)
    secret = given or new_secret()
    wanted = store.OnRejection(on_rejection)
    store.add(db.default(), name, url, types=types, secret=secret, batch=batch or 0, on_rejection=wanted, by=BY)
    if given is None:
        show.line(secret)
    show.say(f"Webhook {name} is active.{'' if given else ' Its secret is not shown again.'}", err=given is None)


def _webhooks() -> Webhooks:
    return Webhooks(db.default(), settings())


def _warn_of(url: str) -> None:
    """Print a warning if the name has no address yet.

    Fails if the server would refuse the target's addresses.
    """
    if problem := _webhooks().warning_of(url):
        show.warn(f"Warning: {problem}")


@webhook.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one webhook a line.")
def list_(is_json: bool) -> None:
    """Show every webhook, its lag, its last error and its blocking event.

    Never shows its secret.

    \b
    Example:
      outfeed webhook list
    """
    found = [(each, _webhooks().blocking(each)) for each in store.list_webhooks(db.default())]
    if is_json:
        show.put(show.as_json_lines(_facts(*each) for each in found))
        return
    columns = ("Name", "State", "Delivered", "Lag", "Types", "URL", "On rejection", "Trouble", "Blocked by")
    show.listing("webhook", columns, [_row(*each) for each in found])
    for each, items in found:
        if items:
            show.say(f"`outfeed webhook skip {each.name}` skips {_described(items)}.", err=True)


def _facts(each: store.Webhook, blocking: list[Item]) -> dict[str, object]:
    hidden = {"secret", "old_secret", "revision", "batch_end"}
    facts = {name: value for name, value in each._asdict().items() if name not in hidden}
    blocked_by = [{"seq": item.seq, "id": item.id, "event_type": item.event_type} for item in blocking]
    return {**facts, "blocked_by": blocked_by}


def _row(each: store.Webhook, blocking: list[Item]) -> tuple[str, ...]:
    trouble = f"{each.last_error}, first {clock.ago(each.failing_since)}" if each.last_error else ""
    types = ",".join(each.types) or "all"
    blocked_by = f"{_described(blocking)}, status {each.last_status or 'none'}" if blocking else ""
    counts = f"{each.delivered:,}", f"{each.lag:,}"
    return each.name, each.state, *counts, types, each.url, each.on_rejection, trouble, blocked_by


def _described(items: list[Item]) -> str:
    return escaped(describe_events(items))


@webhook.command()
@click.argument("name")
def test(name: str) -> None:
    """Post one message of the type `webhook.test` to NAME from this machine.

    \b
    Example:
      outfeed webhook test ops
    """
    _show_answer(name, _webhooks().test(name, BY), "the test")


def _show_answer(name: str, posted: Posted, what: str) -> None:
    """Print the answer to *what*. Raises OutfeedError if it is not 2xx."""
    if not posted.answer.is_delivered:
        raise OutfeedError(f"webhook {name} failed {what}: {posted.answer}")
    show.say(f"Webhook {name} accepted {what}: {posted.answer.status} in {posted.millis} ms.")


@webhook.command()
@click.argument("name")
def pause(name: str) -> None:
    """Pause the webhook NAME. Its events are posted after `resume`.

    \b
    Example:
      outfeed webhook pause ops
    """
    store.pause(db.default(), name, by=BY)
    show.say(f"Webhook {name} is paused.")


@webhook.command()
@click.argument("name")
def resume(name: str) -> None:
    """Resume the webhook NAME at its checkpoint, or retry at once.

    \b
    Example:
      outfeed webhook resume ops
    """
    found = store.resume(db.default(), name, by=BY)
    show.say(f"Webhook {name} resumes after seq {found.seq:,}, {show.count(found.lag, 'event')} behind.")


@webhook.command()
@click.argument("name")
def skip(name: str) -> None:
    """Skip the event that blocks NAME; with --batch, the whole batch.

    Fails if the last post did not fail. An audit event records the skipped events.

    \b
    Example:
      outfeed webhook skip ops
    """
    found, blocking = _webhooks().skip(name, BY)
    show.say(f"Webhook {name} skipped {_described(blocking)}.")
    _print_paused(found)


@webhook.command()
@click.argument("name")
@click.option("--url", callback=checked(_url), help="Post to this URL from now on.")
@click.option("--types", callback=checked(parsed_types), help='Post only these types from now on; "" means all.')
@_on_rejection_option()
def edit(name: str, url: str | None, types: tuple[str, ...] | None, on_rejection: str | None) -> None:
    """Change the URL, the types or the rejection policy of NAME.

    Its secret and its checkpoint stay. A post that waits for a retry is posted at once.

    \b
    Example:
      outfeed webhook edit ops --on-rejection skip
    """
    if url is None and types is None and on_rejection is None:
        raise click.UsageError("nothing to change; pass --url, --types or --on-rejection")
    if url is not None:
        store.find(db.default(), name)
        _warn_of(url)
    wanted = None if on_rejection is None else store.OnRejection(on_rejection)
    found = store.edit(db.default(), name, url=url, types=types, on_rejection=wanted, by=BY)
    show.say(f"Changed webhook {name}.")
    _print_paused(found)


def _print_paused(found: store.Webhook) -> None:
    if found.state == store.WebhookState.PAUSED:
        show.say(f"It is paused. To continue: outfeed webhook resume {found.name}", err=True)


@webhook.command()
@click.argument("name")
@_secret_option
def rotate(name: str, given: str | None) -> None:
    """Give NAME a new secret and print it.

    Posts are also signed with the old secret for a day. A second rotation within that day invalidates the oldest
    secret.

    \b
    Example:
      outfeed webhook rotate ops
    """
    secret = given or new_secret()
    store.rotate(db.default(), name, secret, by=BY)
    if given is None:
        show.line(secret)
    ending = "" if given else " The new secret is not shown again."
    show.say(f"Webhook {name} has a new secret. The old one stays valid for 24 hours.{ending}", err=given is None)


@webhook.command("log")
@click.argument("name")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one post a line, with request and answer.")
def log_(name: str, is_json: bool) -> None:
    """Show the posts to NAME of the last seven days and their answers.

    The oldest comes first. A server logs each post within about a second, and keeps the newest 1,000 of each webhook.
    Secrets are redacted.

    \b
    Example:
      outfeed webhook log ops
    """
    store.find(db.default(), name)
    posts = delivery_log.read(db.default(), name)
    if is_json:
        show.put(show.as_json_lines(post._asdict() for post in posts))
        return
    show.listing(
        "post", ("Post", "Time", "Seq", "Events", "Answer", "Took", "Text"), [_log_row(post) for post in posts]
    )


def _log_row(post: delivery_log.LoggedPost) -> tuple[str, ...]:
    seqs = str(post.first_seq) if post.first_seq == post.last_seq else f"{post.first_seq}-{post.last_seq}"
    answer = str(post.status or post.error)
    text = " ".join(post.answer.split())[:MAX_SHOWN_CHARS]
    return str(post.id), post.posted_at, seqs, f"{post.events:,}", answer, f"{post.millis:,} ms", text


@webhook.command("send-again")
@click.argument("name")
@click.argument("post", type=int)
def send_again(name: str, post: int) -> None:
    """Post the events of the logged post POST to NAME again, now.

    The id of the message stays the same, so that a target can drop a repeated one. `outfeed webhook log` shows the
    number of each post. Other posts keep their order.

    \b
    Example:
      outfeed webhook send-again ops 17
    """
    _show_answer(name, _webhooks().send_again(name, post, BY), f"post {post}")


@webhook.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete the webhook NAME, its secret, its log and its checkpoint.

    \b
    Example:
      outfeed webhook remove ops
    """
    store.remove(db.default(), name, by=BY)
    show.say(f"Removed webhook {name}.")
