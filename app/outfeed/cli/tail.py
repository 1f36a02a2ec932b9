"""`outfeed tail`: follows a server's feed and prints each event once."""

from __future__ import annotations

import json

import click

from outfeed import clock
from outfeed.cli import show
from outfeed.cli.addresses import feed_address
from outfeed.client import Client, Cursor, FeedEvent, Gap, Reset
from outfeed.client.feed import Feed
from outfeed.config.remote import remote
from outfeed.display import Display
from outfeed.errors import Refused, Unreachable
from outfeed.text import separated


@click.command()
@click.option("--url", callback=feed_address, help="The server.  [default: OUTFEED_URL, else OUTFEED_BIND]")
@click.option("--after", type=click.IntRange(0), help="Start after this seq. 0 means all stored events.")
@click.option("--epoch", help="The epoch that --after belongs to.  [default: the server's]")
@click.option(
    "--last",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="Start with the last N events if --after is not given.",
)
@click.option("--types", help="Only these types, separated by commas: task.*,system.error")
@click.option("--source", help="Only this source.")
@click.option("--task-id", help="Only this task.")
@click.option("--agent-id", help="Only this agent.")
@click.option("--text", help="Only events that contain this text, in upper or lower case.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object per line.")
def tail(
    url: str | None,
    after: int | None,
    epoch: str | None,
    last: int,
    types: str | None,
    text: str | None,
    is_json: bool,
    **filters: str | None,
) -> None:
    """Follow the feed of a server and print each event once.

    Reconnects after any restart until interrupted. Sends OUTFEED_TOKEN, which needs the scope read. Prints gaps, resets
    and lost connections on stderr. A line has the time, the type, the end of the task's or agent's id, the sentence
    and the source.

    \b
    Example:
      OUTFEED_TOKEN=outfeed_… outfeed tail --types 'task.*,system.error' --json
    """
    if epoch and after is None:
        raise click.UsageError("--epoch needs --after.")
    client = Client(*remote(url))
    feed = client.follow(
        after=after,
        epoch=epoch,
        last=last if after is None else 0,
        types=separated(types or ""),
        **filters,
        on_missing=_warn,
        on_connection=lambda text: show.say(text, dim=True, err=True),
    )
    write = _write_json if is_json else _Lines(_Displays(client, feed)).write
    with client, feed:
        try:
            for event in feed:
                if text is None or text.casefold() in _text_of(event):
                    write(event)
        except KeyboardInterrupt:
            _print_position(feed.cursor)


def _write_json(event: FeedEvent) -> None:
    show.put(show.as_json(event.as_dict()))


def _text_of(event: FeedEvent) -> str:
    return json.dumps(list(event.as_dict().values()), ensure_ascii=False).casefold()


class _Lines:
    """The lines of events, with a line for each new day."""

    def __init__(self, displays: _Displays) -> None:
        self._displays = displays
        self._day = show.local_time(clock.timestamp())[:10]

    def write(self, event: FeedEvent) -> None:
        day = show.local_time(event.timestamp)[:10]
        if day != self._day and clock.parsed(event.timestamp) is not None:
            self._day = day
            show.line(day, dim=True)
        show.put(show.event_line(event, self._displays.current(), has_date=False))


class _Displays:
    """The displays of the server, renewed when it says that one changed."""

    def __init__(self, client: Client, feed: Feed) -> None:
        self._client = client
        self._feed = feed
        self._asked_at: int | None = None
        self._found: dict[str, Display] = {}

    def current(self) -> dict[str, Display]:
        """Return the displays of now, or the last ones if no answer comes."""
        if self._feed.types != self._asked_at:
            self._asked_at = self._feed.types
            try:
                self._found = self._client.displays()
            except (Unreachable, Refused) as error:
                show.say(f"Displays not loaded: {error}", dim=True, err=True)
        return self._found


def _warn(missing: Gap | Reset) -> None:
    kind = "GAP" if isinstance(missing, Gap) else "RESET"
    show.warn(f"{kind}: {missing}", fg="yellow", bold=True)


def _print_position(cursor: Cursor) -> None:
    if cursor.seq is None:
        show.say("Stopped before the feed started.", err=True)
    else:
        command = f"outfeed tail --after {cursor.seq}" + (f" --epoch {cursor.epoch}" if cursor.epoch else "")
        show.say(f"Stopped at seq {cursor.seq}. To continue: {command}", err=True)
