"""Output of results: events as lines, tables, JSON and counts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from outfeed import clock
from outfeed.display import Display, Fragment, Level, look_of
from outfeed.events import Event
from outfeed.text import escaped

NO_ICON = "•"
WIDE = 10_000  # columns if stdout is not a terminal


_COLOURS = {Level.WARNING: "yellow", Level.ERROR: "red"}
_TYPE_COLOURS = {"type": "cyan"}


def event_line(event: Event, displays: Mapping[str, Display]) -> str:
    """Return an event as a line: local time, icon, sentence and source.

    Names in the sentence are bold, and warnings and errors are coloured.
    """
    look = look_of(event, displays)
    sentence = "".join(map(_styled, look.parts))
    if colour := _COLOURS.get(look.level):
        sentence = click.style(click.unstyle(sentence), fg=colour, bold=True)
    time, source = (click.style(text, dim=True) for text in (_local_time(event.timestamp), escaped(str(event.source))))
    return f"{time}  {escaped(look.icon or NO_ICON)} {sentence}  {source}"


def _styled(part: Fragment) -> str:
    return click.style(escaped(part.text), bold=part.role == "name" or None, fg=_TYPE_COLOURS.get(part.role))


def _local_time(timestamp: object) -> str:
    """Return a timestamp in local time.

    A raw writer's timestamp that can't be read is returned unchanged, cut to 19 characters.
    """
    try:
        if (moment := clock.parsed(timestamp)) is not None:
            return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        pass  # in the first or last hours of the calendar, in another time zone
    return escaped(str(timestamp))[:19].ljust(19)


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """Print a sentence on one line.

    Names and paths in it cannot steer a terminal.
    """
    click.secho(escaped(text), err=err, **style)


def say_lines(text: str) -> None:
    """Print *text*, which may have several lines, such as SQL."""
    for line in text.split("\n"):
        say(line)


def put(lines: str) -> None:
    """Print *lines* as they are: JSON, or text that is escaped already."""
    click.echo(lines)


def as_json(value: Any) -> str:
    """Return *value* as JSON on one line, in ASCII.

    ASCII passes through every terminal and pipe.
    """
    return json.dumps(value)


def as_json_lines(values: Iterable[Any]) -> str:
    """Return a JSON array with one value a line."""
    return "[" + ",\n ".join(as_json(value) for value in values) + "]"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, cut to the width of a terminal.

    In a pipe it is not cut.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(escaped(cell)) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDE).print(drawn)


def listing(noun: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the rows as a table, then the number of *noun*s.

    Without rows it prints only the number.
    """
    if rows:
        table(columns, rows)
    say(f"There {'is' if len(rows) == 1 else 'are'} {count(len(rows), noun)}.")


def count(number: int, noun: str) -> str:
    """Return `1 event`, `1,200 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
