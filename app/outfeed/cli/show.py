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
TYPE_COLUMNS, ID_COLUMNS, ICON_COLUMNS = 20, 9, 2
# It asks for an emoji of two columns, and terminals disagree on whether they obey.
_EMOJI_SELECTOR = "\ufe0f"

_COLOURS = {Level.WARNING: "yellow", Level.ERROR: "red"}


def event_line(event: Event, displays: Mapping[str, Display], *, has_date: bool = True) -> str:
    """Return an event as a line with columns.

    They are the local time, the type, the end of the task's or agent's id, the icon, the sentence and the source. Names
    in the sentence are bold, and warnings and errors are coloured.
    """
    look = look_of(event, displays)
    sentence = "".join(_styled(part) for part in look.parts if part.role != "type").strip()
    if colour := _COLOURS.get(look.level):
        sentence = click.style(click.unstyle(sentence), fg=colour, bold=True)
    time = local_time(event.timestamp) if has_date else local_time(event.timestamp)[11:]
    kind = padded(escaped(str(event.event_type)), TYPE_COLUMNS)
    one_id = padded(_short(event.task_id or event.agent_id), ID_COLUMNS)
    icon = padded(escaped(look.icon or NO_ICON).replace(_EMOJI_SELECTOR, ""), ICON_COLUMNS)
    source = escaped(str(event.source))
    time, one_id, source = (click.style(text, dim=True) for text in (time, one_id, source))
    return f"{time}  {click.style(kind, fg='cyan')}  {one_id}  {icon} {sentence}  {source}"


def _styled(part: Fragment) -> str:
    return click.style(escaped(part.text), bold=part.role == "name" or None)


def _short(one_id: object) -> str:
    """Return the end of an id that is longer than its column."""
    text = escaped(str(one_id or ""))
    return text if len(text) <= ID_COLUMNS else f"…{text[1 - ID_COLUMNS :]}"


def padded(text: str, columns: int) -> str:
    """Return *text* with spaces, so that a terminal shows *columns*.

    A wide character takes two columns. A longer text is returned unchanged.
    """
    from rich.cells import cell_len

    return text + " " * (columns - cell_len(text))


def local_time(timestamp: object) -> str:
    """Return a timestamp in local time, with 19 characters.

    A raw writer's timestamp that can't be read is returned unchanged, cut to 19 characters.
    """
    try:
        if (moment := clock.parsed(timestamp)) is not None:
            return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        pass  # in the first or last hours of the calendar, in another time zone
    return escaped(str(timestamp))[:19].ljust(19)


def confirm(question: str, *, is_confirmed: bool) -> None:
    """Ask *question* if stdin is a terminal and *is_confirmed* is not set.

    A script has no terminal and is never asked. Raises Abort for any answer but yes.
    """
    if not is_confirmed and sys.stdin.isatty():
        click.confirm(escaped(question), abort=True, err=True)


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """Print a sentence on one line, unless --quiet is given.

    Names and paths in it cannot steer a terminal.
    """
    if not _is_quiet():
        line(text, err=err, **style)


def warn(text: str, **style: Any) -> None:
    """Print a warning on stderr, also with --quiet."""
    line(text, err=True, **style)


def line(text: str, *, err: bool = False, **style: Any) -> None:
    """Print data on one line, with control characters escaped."""
    click.secho(escaped(text), err=err, **style)


def lines(text: str) -> None:
    """Print data that may have several lines, such as SQL."""
    for each in text.split("\n"):
        line(each)


def put(text: str) -> None:
    """Print *text* as it is: JSON, or text that is escaped already."""
    click.echo(text)


def box(rows: Sequence[str]) -> None:
    """Print *rows* in a box; on one line if stdout is not a terminal."""
    shown = [escaped(row) for row in rows]
    if not sys.stdout.isatty():
        put(" ".join(shown))
        return
    from rich import box as boxes
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    width = max(map(len, shown)) + 4  # a link on two lines could not be copied
    Console(highlight=False, width=width).print(Panel(Text("\n".join(shown)), box=boxes.ROUNDED), soft_wrap=True)


def _is_quiet() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("is_quiet"))


def as_json(value: Any) -> str:
    """Return *value* as JSON on one line, in ASCII.

    ASCII passes through every terminal and pipe.
    """
    return json.dumps(value)


def fields(found: object, names: Iterable[str]) -> dict[str, Any]:
    """Return the attributes *names* of *found*, for JSON."""
    return {name: getattr(found, name) for name in names}


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


def listing(noun: str, columns: Sequence[str], rows: Sequence[Sequence[str]], plural: str = "") -> None:
    """Print the rows as a table, then the number of *noun*s.

    Without rows it prints only the number.
    """
    if rows:
        table(columns, rows)
    say(f"There {'is' if len(rows) == 1 else 'are'} {count(len(rows), noun, plural)}.")


def count(number: int, noun: str, plural: str = "") -> str:
    """Return `1 event`, `1,200 events`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
