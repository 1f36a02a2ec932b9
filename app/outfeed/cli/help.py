"""`outfeed help`."""

from __future__ import annotations

import difflib
import sys

import click

from outfeed import manual
from outfeed.cli import show

PIPE_COLUMNS = 100


@click.command(name="help")
@click.argument("topic", required=False)
def help_(topic: str | None) -> None:
    """Show a page of the documentation, or list its topics.

    The same pages are at /docs of a running server. Options of a command: `outfeed COMMAND --help`.

    \b
    Example:
      outfeed help tutorial
    """
    if topic is None:
        show.table(("topic", "page"), ((name, manual.title(name)) for name in manual.topics()))
        show.say("Read one with: outfeed help TOPIC", err=True)
        return
    if topic not in manual.topics():
        close = difflib.get_close_matches(topic, manual.topics(), n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise click.UsageError(f"no topic {topic!r}.{hint} `outfeed help` lists all topics.")
    _print_page(topic)


def _print_page(topic: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    console.print(Markdown(manual.read(topic), hyperlinks=False))
